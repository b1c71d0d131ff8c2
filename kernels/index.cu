/* Elements named by indices: gather and index_select. Semantics: ops/ops.h. Both wait for the device, to tell which
 * index is out of range. */
#include "walk.cuh"

struct gathering {
    pxr_gpu_walk walk;     /* the output, the indices, and x at index 0 of the dim */
    int64_t limit, stride; /* of the indexed dim: elements, elements between them */
    int64_t inner, listed; /* index_select: elements behind the dim, indices; gather: listed is 0 */
    long long *wrong;      /* the first place of the indices that is out of range */
};

__global__ void __launch_bounds__(PXR_GPU_WALK_THREADS) gather_elements(gathering op)
{
    PXR_GPU_WALK(op.walk, index)
    {
        int64_t at[3];
        walk_offsets(op.walk, index, at);
        const int64_t which = reinterpret_cast<const int64_t *>(op.walk.operand[1].data)[at[1]];
        if (which >= 0 && which < op.limit) {
            move_element(op.walk.operand[0].data, at[0], op.walk.operand[2].data, at[2] + which * op.stride,
                         op.walk.operand[0].type);
        } else {
            const int64_t place = op.listed ? index / op.inner % op.listed : index;
            atomicMin(op.wrong, (long long)place);
        }
    }
}

/* The element number `place` of the indices, in row-major order. */
static pxr_status read_index(pxr_device *device, const pxr_tensor *indices, int64_t place, int64_t *index,
                             pxr_error *error)
{
    int64_t offset = 0;
    for (int dim = indices->rank - 1; dim >= 0; dim--) {
        offset += place % indices->size[dim] * indices->stride[dim];
        place /= indices->size[dim];
    }
    return pxr_gpu_download(device, index, static_cast<const int64_t *>(indices->data) + offset, sizeof *index, error);
}

/* `index` has the shape of `out`; `indices` are what the caller gave. */
static pxr_status gather(pxr_device *device, const char *name, const pxr_tensor *out, const pxr_tensor *x,
                         const pxr_tensor *index, const pxr_tensor *indices, int dim, pxr_error *error)
{
    pxr_tensor base = *x; /* x in the shape of out, standing still along the dim */
    for (int i = 0; i < out->rank; i++) base.size[i] = out->size[i];
    base.stride[dim] = 0;
    gathering op = {};
    const pxr_tensor *const operands[] = {out, index, &base};
    pxr_gpu_walk_plan(&op.walk, 3, operands);
    if (op.walk.count == 0) return PXR_OK;
    op.limit = x->size[dim];
    op.stride = x->stride[dim];
    op.inner = 1;
    for (int i = dim + 1; i < out->rank; i++) op.inner *= out->size[i];
    op.listed = indices == index ? 0 : indices->size[0];
    pxr_status status = pxr_gpu_watch(device, &op.wrong, error);
    if (status != PXR_OK) return status;
    status = pxr_gpu_launched(device, name,
                              GPU_LAUNCH(gather_elements, pxr_gpu_walk_blocks(&op.walk), PXR_GPU_WALK_THREADS, 0,
                                         pxr_gpu_of(device)->stream, op),
                              error);
    int64_t place = PXR_GPU_FINE, which = 0;
    if (status == PXR_OK) status = pxr_gpu_first_wrong(device, op.wrong, &place, error);
    if (status != PXR_OK || place == PXR_GPU_FINE) return status;
    status = read_index(device, indices, place, &which, error);
    if (status != PXR_OK) return status;
    return pxr_fail(error, PXR_ERROR_ARGUMENT,
                    "%s: index %lld (element %lld of the indices) is out of range for dim %d of size %lld", name,
                    (long long)which + 1, (long long)place + 1, dim + 1, (long long)op.limit);
}

pxr_status pxr_gpu_gather(pxr_device *device, const pxr_gather_args *args, pxr_error *error)
{
    return gather(device, "gather", args->out, args->x, args->index, args->index, args->dim, error);
}

pxr_status pxr_gpu_index_select(pxr_device *device, const pxr_index_select_args *args, pxr_error *error)
{
    pxr_tensor index = *args->out; /* the indices expanded to the shape of out */
    index.dtype = PXR_I64;
    index.data = args->index->data;
    for (int i = 0; i < index.rank; i++) index.stride[i] = i == args->dim ? args->index->stride[0] : 0;
    return gather(device, "index_select", args->out, args->x, &index, args->index, args->dim, error);
}
