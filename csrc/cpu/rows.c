/* The fused ops that treat rows one by one: layer_norm, rms_norm, rope, rope_store, silu_mul, embedding. */
#include "cpu/elements.h"
#include "cpu/kernels.h"

#include "core/threads.h"

enum { GRAIN = 16384 /* elements that are worth waking a thread for */ };

static int64_t grain_of(int64_t row_elements)
{
    return row_elements >= GRAIN ? 1 : GRAIN / (row_elements > 0 ? row_elements : 1);
}

static float *row_of(const pxr_tensor *tensor, int64_t row)
{
    return (float *)tensor->data + row * tensor->stride[0];
}

static pxr_any_row any_row(const pxr_tensor *tensor)
{
    return (pxr_any_row){.data = tensor->data, .dtype = tensor->dtype};
}

static void layer_norm_rows(void *context, int64_t begin, int64_t end)
{
    const pxr_layer_norm_args *args = context;
    const pxr_kernels *kernels = pxr_cpu_kernels();
    for (int64_t row = begin; row < end; row++)
        kernels->layer_norm(row_of(args->out, row), row_of(args->x, row), any_row(args->weight), any_row(args->bias),
                            args->x->size[1], args->epsilon);
}

pxr_status pxr_cpu_layer_norm(pxr_device *device, const pxr_layer_norm_args *args, pxr_error *error)
{
    (void)device, (void)error;
    pxr_parallel_for(args->x->size[0], grain_of(args->x->size[1]), layer_norm_rows, (void *)args);
    return PXR_OK;
}

static void rms_norm_rows(void *context, int64_t begin, int64_t end)
{
    const pxr_rms_norm_args *args = context;
    const pxr_kernels *kernels = pxr_cpu_kernels();
    for (int64_t row = begin; row < end; row++)
        kernels->rms_norm(row_of(args->out, row), row_of(args->x, row), any_row(args->weight), args->x->size[1],
                          args->epsilon);
}

pxr_status pxr_cpu_rms_norm(pxr_device *device, const pxr_rms_norm_args *args, pxr_error *error)
{
    (void)device, (void)error;
    pxr_parallel_for(args->x->size[0], grain_of(args->x->size[1]), rms_norm_rows, (void *)args);
    return PXR_OK;
}

static void turn_heads(const pxr_kernels *kernels, const pxr_tensor *x, int64_t row, const float *cos, const float *sin)
{
    for (int64_t head = 0; head < x->size[1]; head++)
        kernels->rope(row_of(x, row) + head * x->stride[1], cos, sin, x->size[2] / 2);
}

static void rope_rows(void *context, int64_t begin, int64_t end)
{
    const pxr_rope_args *args = context;
    for (int64_t row = begin; row < end; row++)
        turn_heads(pxr_cpu_kernels(), args->out, row, row_of(args->cos, row), row_of(args->sin, row));
}

pxr_status pxr_cpu_rope(pxr_device *device, const pxr_rope_args *args, pxr_error *error)
{
    (void)device, (void)error;
    pxr_parallel_for(args->out->size[0], grain_of(args->out->size[1] * args->out->size[2]), rope_rows, (void *)args);
    return PXR_OK;
}

/* Row `row` of x [n,heads,head_dim] becomes position `place` of the past [batch,m,heads,head_dim]. */
static void store_row(const pxr_tensor *past, int64_t place, const pxr_tensor *x, int64_t row)
{
    const int64_t size = (int64_t)pxr_dtype_size(past->dtype), m = past->size[1], head_dim = x->size[2];
    char *to = (char *)past->data + (place / m * past->stride[0] + place % m * past->stride[1]) * size;
    for (int64_t head = 0; head < x->size[1]; head++)
        for (int64_t at = 0, n; at < head_dim; at += n) {
            n = head_dim - at < PXR_BLOCK ? head_dim - at : PXR_BLOCK;
            pxr_store_floats(past->dtype, to + (head * past->stride[2] + at) * size, size, n,
                             row_of(x, row) + head * x->stride[1] + at);
        }
}

static void rope_store_rows(void *context, int64_t begin, int64_t end)
{
    const pxr_rope_store_args *args = context;
    const pxr_kernels *kernels = pxr_cpu_kernels();
    const int64_t *places = pxr_tensor_data(args->places);
    for (int64_t row = begin; row < end; row++) {
        const float *cos = row_of(args->cos, row), *sin = row_of(args->sin, row);
        turn_heads(kernels, args->q, row, cos, sin);
        turn_heads(kernels, args->k, row, cos, sin);
        store_row(args->keys, places[row], args->k, row);
        store_row(args->values, places[row], args->v, row);
    }
}

pxr_status pxr_cpu_rope_store(pxr_device *device, const pxr_rope_store_args *args, pxr_error *error)
{
    (void)device;
    const int64_t *places = pxr_tensor_data(args->places), rows = args->q->size[0];
    const int64_t positions = args->keys->size[0] * args->keys->size[1];
    for (int64_t i = 0; i < rows; i++)
        if (places[i] < 0 || places[i] >= positions)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "rope_store: place %lld of row %lld is not in 0 .. %lld",
                            (long long)places[i], (long long)i, (long long)positions - 1);
    const int64_t width = (args->q->size[1] + 2 * args->k->size[1]) * args->q->size[2];
    pxr_parallel_for(rows, grain_of(width), rope_store_rows, (void *)args);
    return PXR_OK;
}

static void silu_mul_rows(void *context, int64_t begin, int64_t end)
{
    const pxr_silu_mul_args *args = context;
    const pxr_kernels *kernels = pxr_cpu_kernels();
    for (int64_t row = begin; row < end; row++)
        kernels->silu_mul(row_of(args->out, row), row_of(args->gate, row), row_of(args->up, row), args->out->size[1]);
}

pxr_status pxr_cpu_silu_mul(pxr_device *device, const pxr_silu_mul_args *args, pxr_error *error)
{
    (void)device, (void)error;
    pxr_parallel_for(args->out->size[0], grain_of(args->out->size[1]), silu_mul_rows, (void *)args);
    return PXR_OK;
}

static void embedding_rows(void *context, int64_t begin, int64_t end)
{
    const pxr_embedding_args *args = context;
    const pxr_tensor *table = args->table;
    const pxr_kernels *kernels = pxr_cpu_kernels();
    const int64_t *ids = pxr_tensor_data(args->ids), stride = table->stride[0] * (int64_t)pxr_dtype_size(table->dtype);
    const int64_t width = args->out->size[1];
    const pxr_scales scales = pxr_cpu_scales_of(args->scales, width);
    for (int64_t row = begin; row < end; row++) {
        const char *from = (const char *)table->data + ids[row] * stride;
        if (scales.data)
            kernels->dequantize(row_of(args->out, row), from, table->dtype, scales.data + ids[row] * scales.stride,
                                scales.group_shift, width);
        else
            kernels->widen(row_of(args->out, row), (pxr_any_row){.data = from, .dtype = table->dtype}, width);
    }
}

pxr_status pxr_cpu_embedding(pxr_device *device, const pxr_embedding_args *args, pxr_error *error)
{
    (void)device;
    const int64_t *ids = pxr_tensor_data(args->ids);
    for (int64_t i = 0; i < args->ids->size[0]; i++)
        if (ids[i] < 0 || ids[i] >= args->table->size[0])
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "embedding: id %lld at place %lld is not in 0 .. %lld",
                            (long long)ids[i], (long long)i, (long long)args->table->size[0] - 1);
    pxr_parallel_for(args->ids->size[0], grain_of(args->out->size[1]), embedding_rows, (void *)args);
    return PXR_OK;
}
