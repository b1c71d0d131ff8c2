/* Moving and making elements: copy, fill, sequence, where. Semantics: ops/ops.h. */
#include "cpu/cpu.h"
#include "cpu/elements.h"
#include "cpu/walk.h"

#include <math.h>

/* ---- copy ------------------------------------------------------------------------------------------------------- */

struct conversion {
    pxr_dtype to, from;
};

static void move_row(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    const struct conversion *types = context;
    pxr_move_elements(pxr_dtype_size(types->to), data[0], stride[0], data[1], stride[1], count);
}

static void convert_row(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    const struct conversion *types = context;
    for (int64_t at = 0, n; at < count; at += n) {
        n = count - at < PXR_BLOCK ? count - at : PXR_BLOCK;
        char *to = data[0] + at * stride[0];
        const char *from = data[1] + at * stride[1];
        if (pxr_dtype_is_float(types->from)) {
            float block[PXR_BLOCK];
            pxr_store_floats(types->to, to, stride[0], n, pxr_load_floats(types->from, from, stride[1], n, block));
        } else {
            int64_t block[PXR_BLOCK];
            pxr_store_integers(types->to, to, stride[0], n, pxr_load_integers(types->from, from, stride[1], n, block));
        }
    }
}

pxr_status pxr_cpu_copy(pxr_device *device, const pxr_copy_args *args, pxr_error *error)
{
    (void)device;
    pxr_device *source = pxr_tensor_device(args->x);
    if (!source->is_host) {
        const size_t bytes = (size_t)pxr_tensor_count(args->x) * pxr_dtype_size(args->x->dtype);
        return source->download(source, args->out->data, args->x->data, bytes, error);
    }
    pxr_walk walk;
    struct conversion types = {args->out->dtype, args->x->dtype};
    pxr_walk_plan(&walk, 2, (const pxr_tensor *const[]){args->out, args->x});
    pxr_walk_run(&walk, 1, types.to == types.from ? move_row : convert_row, &types);
    return PXR_OK;
}

/* ---- fill ------------------------------------------------------------------------------------------------------- */

struct element {
    char bytes[8];
    size_t size;
};

static void fill_row(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    const struct element *value = context;
    pxr_move_elements(value->size, data[0], stride[0], value->bytes, 0, count);
}

pxr_status pxr_cpu_fill(pxr_device *device, const pxr_fill_args *args, pxr_error *error)
{
    (void)device;
    (void)error;
    const pxr_dtype dtype = args->out->dtype;
    struct element value = {.size = pxr_dtype_size(dtype)};
    const float number = (float)args->value;
    if (pxr_dtype_is_float(dtype))
        pxr_store_floats(dtype, value.bytes, 0, 1, &number);
    else
        pxr_store_integers(dtype, value.bytes, 0, 1, &args->integer);
    pxr_walk walk;
    pxr_walk_plan(&walk, 1, &args->out);
    pxr_walk_run(&walk, 1, fill_row, &value);
    return PXR_OK;
}

/* ---- sequence --------------------------------------------------------------------------------------------------- */

pxr_status pxr_cpu_sequence(pxr_device *device, const pxr_sequence_args *args, pxr_error *error)
{
    (void)device;
    (void)error;
    const pxr_tensor *out = args->out;
    const int64_t stride = out->stride[0] * (int64_t)pxr_dtype_size(out->dtype);
    const bool is_float = pxr_dtype_is_float(out->dtype);
    const uint64_t start = is_float ? 0 : (uint64_t)(int64_t)args->start;
    const uint64_t step = is_float ? 0 : (uint64_t)(int64_t)args->step;
    for (int64_t i = 0; i < out->size[0]; i++) {
        char *to = (char *)out->data + i * stride;
        if (is_float) {
            const float value = (float)(args->start + (double)i * args->step);
            pxr_store_floats(out->dtype, to, stride, 1, &value);
        } else {
            const int64_t value = (int64_t)(start + (uint64_t)i * step);
            pxr_store_integers(out->dtype, to, stride, 1, &value);
        }
    }
    return PXR_OK;
}

/* ---- where ------------------------------------------------------------------------------------------------------ */

static void where_row(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    const size_t size = *(const size_t *)context;
    for (int64_t i = 0; i < count; i++) {
        const int choice = data[1][i * stride[1]] ? 2 : 3;
        pxr_move_element(size, data[0] + i * stride[0], data[choice] + i * stride[choice]);
    }
}

pxr_status pxr_cpu_where(pxr_device *device, const pxr_where_args *args, pxr_error *error)
{
    (void)device;
    (void)error;
    pxr_walk walk;
    size_t size = pxr_dtype_size(args->out->dtype);
    pxr_walk_plan(&walk, 4, (const pxr_tensor *const[]){args->out, args->condition, args->a, args->b});
    pxr_walk_run(&walk, 1, where_row, &size);
    return PXR_OK;
}
