/* Elements named by indices: gather, index_select, index_add, nonzero. Semantics: ops/ops.h. Messages count indices from
 * 1, as the user does. */
#include "cpu/cpu.h"
#include "cpu/elements.h"
#include "cpu/walk.h"

#include <stdatomic.h>

static int64_t load_index(const char *data)
{
    int64_t index;
    memcpy(&index, data, sizeof index);
    return index;
}

/* ---- out of range ------------------------------------------------------------------------------------------------ */

struct search {
    int64_t limit; /* indices are 0 .. limit-1 */
    int64_t seen, place, value;
    bool found;
};

static void search_row(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    struct search *search = context;
    for (int64_t i = 0; i < count && !search->found; i++, search->seen++) {
        const int64_t index = load_index(data[0] + i * stride[0]);
        if (index >= 0 && index < search->limit) continue;
        search->found = true;
        search->place = search->seen;
        search->value = index;
    }
}

/* The error about the first index that is out of range, PXR_OK when there is none. */
static pxr_status check_indices(const char *op, const pxr_tensor *index, int dim, int64_t limit, pxr_error *error)
{
    struct search search = {.limit = limit};
    pxr_walk walk;
    pxr_walk_plan(&walk, 1, &index);
    pxr_walk_range(&walk, 0, walk.count, search_row, &search);
    if (!search.found) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_ARGUMENT,
                    "%s: index %lld (element %lld of the indices) is out of range for dim %d "
                    "of size %lld",
                    op, (long long)search.value + 1, (long long)search.place + 1, dim + 1, (long long)limit);
}

/* ---- gather and index_select ------------------------------------------------------------------------------------- */

struct gathering {
    size_t size;           /* bytes of an element */
    int64_t limit, stride; /* of the indexed dim: elements, bytes between them */
    atomic_bool out_of_range;
};

/* data: the output, the indices, and x at index 0 of the dim. */
static void gather_row(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    struct gathering *op = context;
    if (stride[1] == 0) { /* one index for the whole row */
        const int64_t index = load_index(data[1]);
        if (index >= 0 && index < op->limit)
            pxr_move_elements(op->size, data[0], stride[0], data[2] + index * op->stride, stride[2], count);
        else
            atomic_store_explicit(&op->out_of_range, true, memory_order_relaxed);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        const int64_t index = load_index(data[1] + i * stride[1]);
        if (index >= 0 && index < op->limit)
            pxr_move_element(op->size, data[0] + i * stride[0], data[2] + i * stride[2] + index * op->stride);
        else
            atomic_store_explicit(&op->out_of_range, true, memory_order_relaxed);
    }
}

/* Both ops: `index` has the shape of `out`. */
static bool gather(const pxr_tensor *out, const pxr_tensor *x, const pxr_tensor *index, int dim)
{
    struct gathering op = {.size = pxr_dtype_size(x->dtype), .limit = x->size[dim]};
    op.stride = x->stride[dim] * (int64_t)op.size;
    pxr_tensor base = *x; /* x in the shape of out, standing still along the dim */
    for (int i = 0; i < out->rank; i++) base.size[i] = out->size[i];
    base.stride[dim] = 0;
    pxr_walk walk;
    pxr_walk_plan(&walk, 3, (const pxr_tensor *const[]){out, index, &base});
    pxr_walk_run(&walk, 1, gather_row, &op);
    return !atomic_load(&op.out_of_range);
}

pxr_status pxr_cpu_gather(pxr_device *device, const pxr_gather_args *args, pxr_error *error)
{
    (void)device;
    if (gather(args->out, args->x, args->index, args->dim)) return PXR_OK;
    return check_indices("gather", args->index, args->dim, args->x->size[args->dim], error);
}

pxr_status pxr_cpu_index_select(pxr_device *device, const pxr_index_select_args *args, pxr_error *error)
{
    (void)device;
    pxr_tensor index = *args->out; /* the indices expanded to the shape of out */
    index.dtype = PXR_I64;
    index.data = args->index->data;
    for (int i = 0; i < index.rank; i++) index.stride[i] = i == args->dim ? args->index->stride[0] : 0;
    if (gather(args->out, args->x, &index, args->dim)) return PXR_OK;
    return check_indices("index_select", args->index, args->dim, args->x->size[args->dim], error);
}

/* ---- index_add --------------------------------------------------------------------------------------------------- */

struct adding {
    pxr_dtype dtype;
    const pxr_tensor *index;
    int64_t out_stride, source_stride; /* bytes along the dim */
};

static void add_block(pxr_dtype dtype, int64_t n, char *to, int64_t to_stride, const char *from, int64_t from_stride)
{
    if (pxr_dtype_is_float(dtype)) {
        float a_block[PXR_BLOCK], b_block[PXR_BLOCK], y[PXR_BLOCK];
        const float *a = pxr_load_floats(dtype, to, to_stride, n, a_block);
        const float *b = pxr_load_floats(dtype, from, from_stride, n, b_block);
        for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
        pxr_store_floats(dtype, to, to_stride, n, y);
    } else {
        int64_t a_block[PXR_BLOCK], b_block[PXR_BLOCK], y[PXR_BLOCK];
        const int64_t *a = pxr_load_integers(dtype, to, to_stride, n, a_block);
        const int64_t *b = pxr_load_integers(dtype, from, from_stride, n, b_block);
        for (int64_t i = 0; i < n; i++) y[i] = (int64_t)((uint64_t)a[i] + (uint64_t)b[i]);
        pxr_store_integers(dtype, to, to_stride, n, y);
    }
}

/* `count` lanes: data[0] of the output, data[1] of the source. Each lane adds in the order of the indices. */
static void add_lanes(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    const struct adding *op = context;
    for (int64_t i = 0; i < op->index->size[0]; i++) {
        const int64_t row = load_index((const char *)op->index->data + i * op->index->stride[0] * 8);
        char *to = data[0] + row * op->out_stride;
        const char *from = data[1] + i * op->source_stride;
        for (int64_t at = 0; at < count; at += PXR_BLOCK)
            add_block(op->dtype, count - at < PXR_BLOCK ? count - at : PXR_BLOCK, to + at * stride[0], stride[0],
                      from + at * stride[1], stride[1]);
    }
}

pxr_status pxr_cpu_index_add(pxr_device *device, const pxr_index_add_args *args, pxr_error *error)
{
    (void)device;
    const int dim = args->dim;
    const pxr_status status = check_indices("index_add", args->index, dim, args->out->size[dim], error);
    if (status != PXR_OK) return status;
    const int64_t bytes = (int64_t)pxr_dtype_size(args->out->dtype);
    const pxr_tensor out = pxr_walk_lanes(args->out, dim), source = pxr_walk_lanes(args->source, dim);
    struct adding op = {args->out->dtype, args->index, args->out->stride[dim] * bytes,
                        args->source->stride[dim] * bytes};
    pxr_walk walk;
    pxr_walk_plan(&walk, 2, (const pxr_tensor *const[]){&out, &source});
    pxr_walk_run(&walk, args->index->size[0], add_lanes, &op);
    return PXR_OK;
}

/* ---- nonzero ----------------------------------------------------------------------------------------------------- */

struct finding {
    const pxr_nonzero_args *args;
    int64_t place; /* of the next element, in row-major order */
    int64_t count; /* found so far */
};

static void store_place(const struct finding *op, int64_t place)
{
    const pxr_tensor *x = op->args->x, *out = op->args->out;
    for (int dim = x->rank - 1; dim >= 0; dim--) {
        const int64_t index = dim == 0 ? place : place % x->size[dim];
        memcpy((char *)out->data + (op->count * out->stride[0] + dim * out->stride[1]) * 8, &index, sizeof index);
        if (dim > 0) place /= x->size[dim];
    }
}

static void find_row(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    struct finding *op = context;
    const pxr_dtype dtype = op->args->x->dtype;
    for (int64_t at = 0, n; at < count; at += n) {
        float floats[PXR_BLOCK];
        int64_t integers[PXR_BLOCK];
        n = count - at < PXR_BLOCK ? count - at : PXR_BLOCK;
        const char *from = data[0] + at * stride[0];
        const bool is_float = pxr_dtype_is_float(dtype);
        const float *f = is_float ? pxr_load_floats(dtype, from, stride[0], n, floats) : NULL;
        const int64_t *k = is_float ? NULL : pxr_load_integers(dtype, from, stride[0], n, integers);
        for (int64_t i = 0; i < n; i++, op->place++) {
            if (is_float ? f[i] == 0.0f : k[i] == 0) continue;
            if (op->args->out && op->count < op->args->out->size[0]) store_place(op, op->place);
            op->count++;
        }
    }
}

pxr_status pxr_cpu_nonzero(pxr_device *device, const pxr_nonzero_args *args, pxr_error *error)
{
    (void)device;
    struct finding op = {.args = args};
    pxr_walk walk;
    pxr_walk_plan(&walk, 1, &args->x);
    pxr_walk_range(&walk, 0, walk.count, find_row, &op);
    *args->count = op.count;
    if (!args->out || args->out->size[0] == op.count) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_ARGUMENT, "nonzero: out has %lld rows, x has %lld elements that are not zero",
                    (long long)args->out->size[0], (long long)op.count);
}
