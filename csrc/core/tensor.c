/* Strided views over reference-counted storage; see tensor.h. */
#include "core/tensor.h"

#include "core/memory.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct pxr_storage {
    _Atomic int64_t holders;
    pxr_device *device;
    void *data;
    size_t bytes;
    void (*release)(void *context); /* of wrapped bytes; NULL with `wrapped`: nobody needs to know */
    void *context;
    bool wrapped;
};

static _Atomic size_t device_bytes; /* of storages that are not in host memory */

/* ---- storage --------------------------------------------------------------------------------------------------- */

/* Bytes of a dense tensor; also fills the dense strides. */
static pxr_status plan(pxr_tensor *tensor, pxr_dtype dtype, int rank, const int64_t *size, size_t *bytes,
                       pxr_error *error)
{
    if (rank < 0 || rank > PXR_MAX_RANK)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "a tensor has at most %d dims, not %d", PXR_MAX_RANK, rank);
    *tensor = (pxr_tensor){.dtype = dtype, .rank = rank};
    int64_t total = (int64_t)pxr_dtype_size(dtype);
    bool overflow = false, empty = false;
    for (int dim = rank - 1; dim >= 0; dim--) {
        if (size[dim] < 0)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "size %lld of dim %d is negative", (long long)size[dim],
                            dim + 1);
        tensor->size[dim] = size[dim];
        tensor->stride[dim] = total / (int64_t)pxr_dtype_size(dtype);
        if (size[dim] == 0)
            empty = true;
        else
            overflow |= __builtin_mul_overflow(total, size[dim], &total);
    }
    if (overflow) return pxr_fail(error, PXR_ERROR_ARGUMENT, "a tensor's size overflows 63 bits");
    *bytes = empty ? 0 : (size_t)total;
    return PXR_OK;
}

pxr_status pxr_tensor_new(pxr_tensor *tensor, pxr_device *device, pxr_dtype dtype, int rank, const int64_t *size,
                          pxr_error *error)
{
    pxr_tensor made;
    size_t bytes;
    *tensor = (pxr_tensor){0};
    if (plan(&made, dtype, rank, size, &bytes, error) != PXR_OK) return PXR_ERROR_ARGUMENT;
    pxr_storage *storage = pxr_calloc(1, sizeof *storage);
    if (!storage) return pxr_fail_memory(error, sizeof *storage, "a tensor");
    const pxr_status status = device->allocate(device, bytes, &storage->data, error);
    if (status != PXR_OK) {
        pxr_free(storage);
        return status;
    }
    if (!device->is_host) atomic_fetch_add_explicit(&device_bytes, bytes, memory_order_relaxed);
    storage->holders = 1;
    storage->device = device;
    storage->bytes = bytes;
    made.data = storage->data;
    made.storage = storage;
    *tensor = made;
    return PXR_OK;
}

pxr_status pxr_tensor_wrap(pxr_tensor *tensor, pxr_device *device, pxr_dtype dtype, int rank, const int64_t *size,
                           void *data, void (*release)(void *context), void *context, pxr_error *error)
{
    pxr_tensor made;
    size_t bytes;
    *tensor = (pxr_tensor){0};
    if (plan(&made, dtype, rank, size, &bytes, error) != PXR_OK) return PXR_ERROR_ARGUMENT;
    pxr_storage *storage = pxr_calloc(1, sizeof *storage);
    if (!storage) return pxr_fail_memory(error, sizeof *storage, "a tensor");
    storage->holders = 1;
    storage->device = device;
    storage->data = data;
    storage->bytes = bytes;
    storage->release = release;
    storage->context = context;
    storage->wrapped = true;
    made.data = data;
    made.storage = storage;
    *tensor = made;
    return PXR_OK;
}

void pxr_tensor_retain(const pxr_tensor *tensor)
{
    if (tensor->storage) atomic_fetch_add_explicit(&tensor->storage->holders, 1, memory_order_relaxed);
}

void pxr_tensor_release(pxr_tensor *tensor)
{
    pxr_storage *storage = tensor->storage;
    *tensor = (pxr_tensor){0};
    if (!storage || atomic_fetch_sub_explicit(&storage->holders, 1, memory_order_acq_rel) != 1) return;
    if (!storage->wrapped) {
        if (!storage->device->is_host) atomic_fetch_sub_explicit(&device_bytes, storage->bytes, memory_order_relaxed);
        storage->device->release(storage->device, storage->data, storage->bytes);
    } else if (storage->release) {
        storage->release(storage->context);
    }
    pxr_free(storage);
}

pxr_device *pxr_tensor_device(const pxr_tensor *tensor)
{
    return tensor->storage ? tensor->storage->device : NULL;
}

size_t pxr_tensor_storage_bytes(const pxr_tensor *tensor)
{
    return tensor->storage ? tensor->storage->bytes : 0;
}

bool pxr_tensor_wraps(const pxr_tensor *tensor, void (*release)(void *context))
{
    return tensor->storage && tensor->storage->wrapped && tensor->storage->release == release;
}

size_t pxr_tensor_device_bytes(void)
{
    return atomic_load_explicit(&device_bytes, memory_order_relaxed);
}

int64_t pxr_tensor_holders(const pxr_tensor *tensor)
{
    return tensor->storage ? atomic_load_explicit(&tensor->storage->holders, memory_order_relaxed) : 0;
}

/* ---- shape ----------------------------------------------------------------------------------------------------- */

int64_t pxr_tensor_count(const pxr_tensor *tensor)
{
    int64_t count = 1;
    for (int dim = 0; dim < tensor->rank; dim++) count *= tensor->size[dim];
    return count;
}

bool pxr_tensor_is_contiguous(const pxr_tensor *tensor)
{
    int64_t expected = 1;
    if (pxr_tensor_count(tensor) == 0) return true;
    for (int dim = tensor->rank - 1; dim >= 0; dim--) {
        if (tensor->size[dim] != 1 && tensor->stride[dim] != expected) return false;
        expected *= tensor->size[dim];
    }
    return true;
}

bool pxr_tensor_rows_are_dense(const pxr_tensor *tensor)
{
    return tensor->rank == 0 || tensor->size[tensor->rank - 1] <= 1 || tensor->stride[tensor->rank - 1] == 1;
}

bool pxr_tensor_same_shape(const pxr_tensor *a, const pxr_tensor *b)
{
    if (a->rank != b->rank) return false;
    for (int dim = 0; dim < a->rank; dim++)
        if (a->size[dim] != b->size[dim]) return false;
    return true;
}

const char *pxr_tensor_shape_text(const pxr_tensor *tensor, char *text)
{
    int used = snprintf(text, PXR_SHAPE_TEXT, "[");
    for (int dim = 0; dim < tensor->rank; dim++)
        used += snprintf(text + used, PXR_SHAPE_TEXT - (size_t)used, dim ? "x%lld" : "%lld",
                         (long long)tensor->size[dim]);
    snprintf(text + used, PXR_SHAPE_TEXT - (size_t)used, "]");
    return text;
}

/* ---- views ----------------------------------------------------------------------------------------------------- */

static pxr_status check_dim(const pxr_tensor *tensor, int dim, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (dim >= 0 && dim < tensor->rank) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_ARGUMENT, "dim %d is out of range for a tensor %s", dim + 1,
                    pxr_tensor_shape_text(tensor, shape));
}

static void advance(pxr_tensor *tensor, int64_t elements)
{
    if (tensor->data) tensor->data = (char *)tensor->data + elements * (int64_t)pxr_dtype_size(tensor->dtype);
}

void pxr_tensor_alias(pxr_tensor *out, const pxr_tensor *tensor)
{
    pxr_tensor_retain(tensor);
    *out = *tensor;
}

pxr_status pxr_tensor_narrow(pxr_tensor *out, const pxr_tensor *tensor, int dim, int64_t start, int64_t length,
                             pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (check_dim(tensor, dim, error) != PXR_OK) return PXR_ERROR_ARGUMENT;
    if (start < 0 || length < 0 || start > tensor->size[dim] || length > tensor->size[dim] - start)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "elements %lld to %lld of dim %d are outside a tensor %s",
                        (long long)start + 1, (long long)(start + length), dim + 1,
                        pxr_tensor_shape_text(tensor, shape));
    pxr_tensor_alias(out, tensor);
    out->size[dim] = length;
    if (length > 0) advance(out, start * tensor->stride[dim]);
    return PXR_OK;
}

pxr_status pxr_tensor_slice(pxr_tensor *out, const pxr_tensor *tensor, int dim, int64_t start, int64_t end,
                            int64_t step, pxr_error *error)
{
    if (step <= 0) return pxr_fail(error, PXR_ERROR_ARGUMENT, "step %lld is not positive", (long long)step);
    if (pxr_tensor_narrow(out, tensor, dim, start, end < start ? 0 : end - start, error) != PXR_OK)
        return PXR_ERROR_ARGUMENT;
    out->size[dim] = (out->size[dim] + step - 1) / step;
    out->stride[dim] *= step;
    return PXR_OK;
}

pxr_status pxr_tensor_select(pxr_tensor *out, const pxr_tensor *tensor, int dim, int64_t index, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (check_dim(tensor, dim, error) != PXR_OK) return PXR_ERROR_ARGUMENT;
    if (index < 0 || index >= tensor->size[dim])
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "index %lld of dim %d is outside a tensor %s", (long long)index + 1,
                        dim + 1, pxr_tensor_shape_text(tensor, shape));
    pxr_tensor_alias(out, tensor);
    advance(out, index * tensor->stride[dim]);
    out->rank--;
    for (int i = dim; i < out->rank; i++) {
        out->size[i] = tensor->size[i + 1];
        out->stride[i] = tensor->stride[i + 1];
    }
    return PXR_OK;
}

pxr_status pxr_tensor_transpose(pxr_tensor *out, const pxr_tensor *tensor, int a, int b, pxr_error *error)
{
    if (check_dim(tensor, a, error) != PXR_OK || check_dim(tensor, b, error) != PXR_OK) return PXR_ERROR_ARGUMENT;
    pxr_tensor_alias(out, tensor);
    out->size[a] = tensor->size[b];
    out->stride[a] = tensor->stride[b];
    out->size[b] = tensor->size[a];
    out->stride[b] = tensor->stride[a];
    return PXR_OK;
}

pxr_status pxr_tensor_permute(pxr_tensor *out, const pxr_tensor *tensor, const int *order, pxr_error *error)
{
    unsigned seen = 0;
    for (int dim = 0; dim < tensor->rank; dim++) {
        if (check_dim(tensor, order[dim], error) != PXR_OK) return PXR_ERROR_ARGUMENT;
        if (seen & (1u << order[dim]))
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "dim %d appears twice in a permutation", order[dim] + 1);
        seen |= 1u << order[dim];
    }
    pxr_tensor_alias(out, tensor);
    for (int dim = 0; dim < tensor->rank; dim++) {
        out->size[dim] = tensor->size[order[dim]];
        out->stride[dim] = tensor->stride[order[dim]];
    }
    return PXR_OK;
}

/* Replaces an inferred size and checks the element count. */
static pxr_status resolve_sizes(const pxr_tensor *tensor, int rank, const int64_t *size, int64_t *resolved,
                                pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    const int64_t count = pxr_tensor_count(tensor);
    int64_t known = 1;
    int inferred = -1;
    bool fits = rank >= 0 && rank <= PXR_MAX_RANK;
    for (int dim = 0; fits && dim < rank; dim++) {
        resolved[dim] = size[dim];
        if (size[dim] == -1 && inferred < 0)
            inferred = dim;
        else
            fits = size[dim] >= 0 && !__builtin_mul_overflow(known, size[dim], &known);
    }
    if (fits && inferred >= 0) {
        fits = known > 0 && count % known == 0;
        if (fits) resolved[inferred] = count / known;
    } else if (fits) {
        fits = known == count;
    }
    if (fits) return PXR_OK;
    pxr_tensor wanted = {.rank = rank < 0 ? 0 : rank > PXR_MAX_RANK ? PXR_MAX_RANK : rank};
    for (int dim = 0; dim < wanted.rank; dim++) wanted.size[dim] = size[dim];
    char other[PXR_SHAPE_TEXT];
    return pxr_fail(error, PXR_ERROR_ARGUMENT, "a tensor %s cannot be viewed as %s",
                    pxr_tensor_shape_text(tensor, shape), pxr_tensor_shape_text(&wanted, other));
}

pxr_status pxr_tensor_view(pxr_tensor *out, const pxr_tensor *tensor, int rank, const int64_t *size, pxr_error *error)
{
    int64_t resolved[PXR_MAX_RANK] = {0};
    if (resolve_sizes(tensor, rank, size, resolved, error) != PXR_OK) return PXR_ERROR_ARGUMENT;

    pxr_tensor made = *tensor;
    made.rank = rank;
    /* Old dims are merged into runs that lie densely; each run must be a product of new dims. */
    int old = tensor->rank - 1, new_dim = rank - 1;
    int64_t run = 1, run_stride = 1, covered = 1;
    bool possible = true, open = false;
    for (; new_dim >= 0 && possible; new_dim--) {
        made.size[new_dim] = resolved[new_dim];
        if (resolved[new_dim] == 1 || pxr_tensor_count(tensor) == 0) {
            made.stride[new_dim] = open ? covered * run_stride : 1;
            continue;
        }
        if (!open || covered == run) { /* the next run begins */
            while (old >= 0 && tensor->size[old] == 1) old--;
            run = tensor->size[old];
            run_stride = tensor->stride[old];
            for (old--; old >= 0; old--) {
                if (tensor->size[old] == 1) continue;
                if (tensor->stride[old] != run * run_stride) break;
                run *= tensor->size[old];
            }
            covered = 1;
            open = true;
        }
        made.stride[new_dim] = covered * run_stride;
        covered *= resolved[new_dim];
        possible = run % covered == 0;
    }
    if (!possible) {
        char shape[PXR_SHAPE_TEXT];
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "a view of a strided tensor %s in that shape needs a copy: call contiguous() first",
                        pxr_tensor_shape_text(tensor, shape));
    }
    pxr_tensor_retain(tensor);
    *out = made;
    return PXR_OK;
}

/* Views may repeat elements, but their number must fit: dense readers trust it. */
static pxr_status check_count(const pxr_tensor *tensor, pxr_error *error)
{
    int64_t count = (int64_t)pxr_dtype_size(tensor->dtype);
    bool has_none = false;
    for (int dim = 0; dim < tensor->rank; dim++) has_none |= tensor->size[dim] == 0;
    for (int dim = 0; dim < tensor->rank && !has_none; dim++)
        if (__builtin_mul_overflow(count, tensor->size[dim], &count)) {
            char shape[PXR_SHAPE_TEXT];
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "a tensor %s has more elements than can be counted",
                            pxr_tensor_shape_text(tensor, shape));
        }
    return PXR_OK;
}

pxr_status pxr_tensor_expand(pxr_tensor *out, const pxr_tensor *tensor, int rank, const int64_t *size, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (rank < tensor->rank || rank > PXR_MAX_RANK)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "a tensor %s cannot be expanded to %d dims",
                        pxr_tensor_shape_text(tensor, shape), rank);
    pxr_tensor made = *tensor;
    made.rank = rank;
    for (int dim = 0; dim < rank; dim++) {
        const int from = dim - (rank - tensor->rank);
        const int64_t old = from < 0 ? 1 : tensor->size[from];
        const int64_t wanted = size[dim] == -1 && from >= 0 ? old : size[dim];
        if (wanted < 0 || (wanted != old && old != 1))
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "dim %d of a tensor %s cannot be expanded to %lld", dim + 1,
                            pxr_tensor_shape_text(tensor, shape), (long long)size[dim]);
        made.size[dim] = wanted;
        made.stride[dim] = wanted == old && from >= 0 ? tensor->stride[from] : 0;
    }
    const pxr_status status = check_count(&made, error);
    if (status != PXR_OK) return status;
    pxr_tensor_retain(tensor);
    *out = made;
    return PXR_OK;
}

pxr_status pxr_tensor_unfold(pxr_tensor *out, const pxr_tensor *tensor, int dim, int64_t window, int64_t step,
                             pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (check_dim(tensor, dim, error) != PXR_OK) return PXR_ERROR_ARGUMENT;
    if (window < 1 || window > tensor->size[dim] || step < 1)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "dim %d of a tensor %s has no windows of %lld, %lld apart", dim + 1,
                        pxr_tensor_shape_text(tensor, shape), (long long)window, (long long)step);
    if (tensor->rank == PXR_MAX_RANK)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "windows of a tensor %s would have more than %d dims",
                        pxr_tensor_shape_text(tensor, shape), PXR_MAX_RANK);
    pxr_tensor made = *tensor;
    made.size[dim] = (tensor->size[dim] - window) / step + 1;
    made.stride[dim] = made.size[dim] > 1 ? tensor->stride[dim] * step : tensor->stride[dim];
    made.size[made.rank] = window;
    made.stride[made.rank++] = tensor->stride[dim];
    const pxr_status status = check_count(&made, error);
    if (status != PXR_OK) return status;
    pxr_tensor_retain(tensor);
    *out = made;
    return PXR_OK;
}

pxr_status pxr_tensor_unsqueeze(pxr_tensor *out, const pxr_tensor *tensor, int dim, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (dim < 0 || dim > tensor->rank || tensor->rank == PXR_MAX_RANK)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "no dim can be put at %d in a tensor %s", dim + 1,
                        pxr_tensor_shape_text(tensor, shape));
    pxr_tensor_alias(out, tensor);
    for (int i = out->rank; i > dim; i--) {
        out->size[i] = tensor->size[i - 1];
        out->stride[i] = tensor->stride[i - 1];
    }
    out->size[dim] = 1;
    out->stride[dim] = dim < tensor->rank ? tensor->size[dim] * tensor->stride[dim] : 1;
    out->rank++;
    return PXR_OK;
}

pxr_status pxr_tensor_squeeze(pxr_tensor *out, const pxr_tensor *tensor, int dim, pxr_error *error)
{
    if (dim >= 0) {
        char shape[PXR_SHAPE_TEXT];
        if (check_dim(tensor, dim, error) != PXR_OK) return PXR_ERROR_ARGUMENT;
        if (tensor->size[dim] != 1)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "dim %d of a tensor %s is not of size 1", dim + 1,
                            pxr_tensor_shape_text(tensor, shape));
        return pxr_tensor_select(out, tensor, dim, 0, error);
    }
    pxr_tensor_alias(out, tensor);
    out->rank = 0;
    for (int i = 0; i < tensor->rank; i++) {
        if (tensor->size[i] == 1) continue;
        out->size[out->rank] = tensor->size[i];
        out->stride[out->rank++] = tensor->stride[i];
    }
    return PXR_OK;
}
