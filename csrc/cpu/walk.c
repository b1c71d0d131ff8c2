/* Walking strided tensors; see walk.h. */
#include "cpu/walk.h"

#include "core/threads.h"

void pxr_walk_plan(pxr_walk *walk, int operands, const pxr_tensor *const *tensors)
{
    const pxr_tensor *shape = tensors[0];
    *walk = (pxr_walk){.operands = operands, .count = pxr_tensor_count(shape)};
    for (int k = 0; k < operands; k++) walk->data[k] = tensors[k]->data;
    for (int dim = 0; dim < shape->rank; dim++) {
        if (shape->size[dim] == 1) continue;
        int64_t stride[PXR_WALK_OPERANDS];
        bool merges = walk->rank > 0;
        for (int k = 0; k < operands; k++) {
            const int own = dim - (shape->rank - tensors[k]->rank);
            const bool broadcast = own < 0 || tensors[k]->size[own] == 1;
            stride[k] = broadcast ? 0 : tensors[k]->stride[own] * (int64_t)pxr_dtype_size(tensors[k]->dtype);
            merges = merges && walk->stride[k][walk->rank - 1] == stride[k] * shape->size[dim];
        }
        if (!merges) walk->size[walk->rank++] = 1;
        walk->size[walk->rank - 1] *= shape->size[dim];
        for (int k = 0; k < operands; k++) walk->stride[k][walk->rank - 1] = stride[k];
    }
    if (walk->rank == 0) walk->size[walk->rank++] = 1;
}

void pxr_walk_range(const pxr_walk *walk, int64_t begin, int64_t end, pxr_row_function row, void *context)
{
    if (begin >= end) return;
    const int inner = walk->rank - 1;
    int64_t index[PXR_MAX_RANK], stride[PXR_WALK_OPERANDS];
    for (int64_t dim = inner, rest = begin; dim >= 0; dim--) {
        index[dim] = rest % walk->size[dim];
        rest /= walk->size[dim];
    }
    for (int k = 0; k < walk->operands; k++) stride[k] = walk->stride[k][inner];
    for (int64_t at = begin; at < end;) {
        char *data[PXR_WALK_OPERANDS];
        for (int k = 0; k < walk->operands; k++) {
            data[k] = walk->data[k];
            for (int dim = 0; dim <= inner; dim++) data[k] += index[dim] * walk->stride[k][dim];
        }
        int64_t length = walk->size[inner] - index[inner];
        if (length > end - at) length = end - at;
        row(context, length, data, stride);
        at += length;
        index[inner] = 0;
        for (int dim = inner - 1; dim >= 0 && ++index[dim] == walk->size[dim]; dim--) index[dim] = 0;
    }
}

struct run {
    const pxr_walk *walk;
    pxr_row_function row;
    void *context;
};

static void run_range(void *context, int64_t begin, int64_t end)
{
    const struct run *run = context;
    pxr_walk_range(run->walk, begin, end, run->row, run->context);
}

void pxr_walk_run(const pxr_walk *walk, int64_t cost, pxr_row_function row, void *context)
{
    struct run run = {walk, row, context};
    pxr_parallel_for(walk->count, cost > 1 ? PXR_WALK_GRAIN / cost : PXR_WALK_GRAIN, run_range, &run);
}

pxr_tensor pxr_walk_lanes(const pxr_tensor *tensor, int dim)
{
    pxr_tensor lanes = *tensor;
    lanes.rank--;
    for (int i = dim; i < lanes.rank; i++) {
        lanes.size[i] = tensor->size[i + 1];
        lanes.stride[i] = tensor->stride[i + 1];
    }
    return lanes;
}
