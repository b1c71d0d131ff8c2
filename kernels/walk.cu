/* Planning walks over strided tensors; see walk.cuh. */
#include "walk.cuh"

/* The stride with which `tensor` is walked along dim `dim` of a shape of `rank` dims. */
static int64_t walked_stride(const pxr_tensor *tensor, int dim, int rank)
{
    const int own = dim - (rank - tensor->rank);
    return own < 0 || tensor->size[own] == 1 ? 0 : tensor->stride[own];
}

void pxr_gpu_walk_plan(pxr_gpu_walk *walk, int operands, const pxr_tensor *const *tensors)
{
    const pxr_tensor *shape = tensors[0];
    *walk = {};
    walk->count = pxr_tensor_count(shape);
    for (int k = 0; k < operands; k++) {
        walk->operand[k].data = static_cast<char *>(tensors[k]->data);
        walk->operand[k].type = tensors[k]->dtype;
    }
    for (int dim = 0; dim < shape->rank; dim++) {
        if (shape->size[dim] == 1) continue;
        int64_t stride[PXR_GPU_WALK_OPERANDS];
        bool merges = walk->rank > 0; /* with the dim before it */
        for (int k = 0; k < operands; k++) {
            stride[k] = walked_stride(tensors[k], dim, shape->rank);
            merges = merges && walk->operand[k].stride[walk->rank - 1] == stride[k] * shape->size[dim];
        }
        if (!merges) walk->size[walk->rank++] = 1;
        walk->size[walk->rank - 1] *= shape->size[dim];
        for (int k = 0; k < operands; k++) walk->operand[k].stride[walk->rank - 1] = stride[k];
    }
}

pxr_tensor pxr_gpu_lanes(const pxr_tensor *tensor, int dim)
{
    pxr_tensor lanes = *tensor;
    lanes.rank--;
    for (int i = dim; i < lanes.rank; i++) {
        lanes.size[i] = tensor->size[i + 1];
        lanes.stride[i] = tensor->stride[i + 1];
    }
    return lanes;
}
