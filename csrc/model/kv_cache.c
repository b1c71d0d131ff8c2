/* Keys and values of a decoder's past; see kv_cache.h. */
#include "model/kv_cache.h"

#include "core/memory.h"
#include "ops/ops.h"

static pxr_status allocate(pxr_kv_cache *cache, int64_t capacity, pxr_error *error)
{
    const int64_t size[5] = {cache->layers, cache->rows, capacity, cache->kv_heads, cache->head_dim};
    const pxr_status status = pxr_tensor_new(&cache->keys, cache->device, cache->dtype, 5, size, error);
    if (status != PXR_OK) return status;
    cache->capacity = capacity;
    return pxr_tensor_new(&cache->values, cache->device, cache->dtype, 5, size, error);
}

pxr_status pxr_kv_cache_new(pxr_kv_cache **cache, pxr_device *device, pxr_dtype dtype, int64_t layers, int64_t rows,
                            int64_t capacity, int64_t kv_heads, int64_t head_dim, pxr_error *error)
{
    *cache = NULL;
    if (layers < 0 || rows < 1 || capacity < 1 || kv_heads < 1 || head_dim < 1)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "KV cache: %lld rows of %lld positions cannot be made",
                        (long long)rows, (long long)capacity);
    if (dtype != PXR_F32 && dtype != PXR_F16 && dtype != PXR_BF16)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "KV cache: float32, float16 or bfloat16 expected, found %s",
                        pxr_dtype_name(dtype));
    pxr_kv_cache *made = pxr_calloc(1, sizeof *made);
    if (!made) return pxr_fail_memory(error, sizeof *made, "a KV cache");
    *made = (pxr_kv_cache){.device = device,
                           .dtype = device->compute == PXR_COMPUTE_BF16 && !device->is_host ? PXR_BF16 : dtype,
                           .layers = layers,
                           .rows = rows,
                           .kv_heads = kv_heads,
                           .head_dim = head_dim};
    made->length = pxr_calloc((size_t)rows, sizeof *made->length);
    const pxr_status status = made->length ? allocate(made, capacity, error)
                                           : pxr_fail_memory(error, (size_t)rows * sizeof *made->length, "a KV cache");
    if (status != PXR_OK) {
        pxr_kv_cache_free(made);
        return pxr_error_prefix(error, "KV cache of %lld rows of %lld positions", (long long)rows, (long long)capacity);
    }
    *cache = made;
    return PXR_OK;
}

void pxr_kv_cache_free(pxr_kv_cache *cache)
{
    if (!cache) return;
    pxr_tensor_release(&cache->keys);
    pxr_tensor_release(&cache->values);
    pxr_free(cache->length);
    pxr_free(cache);
}

pxr_tensor pxr_kv_cache_layer(const pxr_tensor *keys_or_values, int64_t layer)
{
    pxr_tensor view = *keys_or_values;
    view.data = (char *)view.data + layer * view.stride[0] * (int64_t)pxr_dtype_size(view.dtype);
    view.rank = 4;
    for (int dim = 0; dim < 4; dim++) {
        view.size[dim] = keys_or_values->size[dim + 1];
        view.stride[dim] = keys_or_values->stride[dim + 1];
    }
    return view;
}

/* The first `length` positions of a row in all layers, borrowed: [layers,length,kv_heads,head_dim]. */
static pxr_tensor timeline(const pxr_tensor *keys_or_values, int64_t row, int64_t length)
{
    pxr_tensor view = *keys_or_values;
    view.data = (char *)view.data + row * view.stride[1] * (int64_t)pxr_dtype_size(view.dtype);
    view.rank = 4;
    for (int dim = 1; dim < 4; dim++) {
        view.size[dim] = keys_or_values->size[dim + 1];
        view.stride[dim] = keys_or_values->stride[dim + 1];
    }
    view.size[1] = length;
    return view;
}

static pxr_status copy_row(pxr_kv_cache *to, int64_t to_row, const pxr_kv_cache *from, int64_t from_row, int64_t length,
                           pxr_error *error)
{
    const pxr_tensor *targets[2] = {&to->keys, &to->values}, *sources[2] = {&from->keys, &from->values};
    for (int i = 0; i < 2; i++) {
        const pxr_tensor out = timeline(targets[i], to_row, length), x = timeline(sources[i], from_row, length);
        const pxr_status status = pxr_copy(&(pxr_copy_args){.out = &out, .x = &x}, error);
        if (status != PXR_OK) return status;
    }
    return PXR_OK;
}

pxr_status pxr_kv_cache_reserve(pxr_kv_cache *cache, int64_t capacity, pxr_error *error)
{
    if (capacity <= cache->capacity) return PXR_OK;
    pxr_kv_cache grown = *cache;
    grown.keys = grown.values = (pxr_tensor){0};
    pxr_status status = allocate(&grown, capacity, error);
    for (int64_t row = 0; status == PXR_OK && row < cache->rows; row++)
        status = copy_row(&grown, row, cache, row, cache->length[row], error);
    if (status != PXR_OK) {
        pxr_tensor_release(&grown.keys);
        pxr_tensor_release(&grown.values);
        return status;
    }
    pxr_tensor_release(&cache->keys);
    pxr_tensor_release(&cache->values);
    *cache = grown;
    return PXR_OK;
}

pxr_status pxr_kv_cache_copy(pxr_kv_cache *to, int64_t to_row, const pxr_kv_cache *from, int64_t from_row,
                             int64_t length, pxr_error *error)
{
    if (to->layers != from->layers || to->kv_heads != from->kv_heads || to->head_dim != from->head_dim)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "KV cache: the two caches belong to different decoders");
    if (to_row < 0 || to_row >= to->rows || from_row < 0 || from_row >= from->rows || length < 0 ||
        length > from->length[from_row])
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "KV cache: row or length out of range");
    pxr_status status = pxr_kv_cache_reserve(to, length, error);
    if (status == PXR_OK) status = copy_row(to, to_row, from, from_row, length, error);
    if (status == PXR_OK) to->length[to_row] = length;
    return status;
}
