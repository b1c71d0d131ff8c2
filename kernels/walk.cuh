/* Walking several strided tensors together, element by element: a thread takes some of the elements,
 * numbered in row-major order.
 *
 * Elements are computed in one of two types, float32 for the float types and int64 for the integer types, as on the
 * CPU (csrc/cpu/elements.h), and converted where they are loaded and stored.
 */
#ifndef PXR_KERNELS_WALK_CUH
#define PXR_KERNELS_WALK_CUH

#include "device.h"
#include "numeric.cuh"

enum {
    PXR_GPU_WALK_OPERANDS = 4,
    PXR_GPU_WALK_THREADS = 256,
    PXR_GPU_WALK_EACH = 4 /* elements of a thread, a block apart */
};

struct pxr_gpu_operand {
    char *data;
    pxr_dtype type;
    int64_t stride[PXR_MAX_RANK]; /* elements; 0 where it is broadcast */
};

struct pxr_gpu_walk {
    int rank; /* dims that lie densely in all operands are one */
    int64_t count;
    int64_t size[PXR_MAX_RANK];
    pxr_gpu_operand operand[PXR_GPU_WALK_OPERANDS];
};

/** Plans a walk over the shape of tensors[0]; the others have that shape or broadcast to it. walk.cu */
void pxr_gpu_walk_plan(pxr_gpu_walk *walk, int operands, const pxr_tensor *const *tensors);

/** The view of `tensor` (borrowed) without dim `dim`: where its lanes along that dim begin. */
pxr_tensor pxr_gpu_lanes(const pxr_tensor *tensor, int dim);

static inline unsigned pxr_gpu_walk_blocks(const pxr_gpu_walk *walk)
{
    return pxr_gpu_grid(pxr_gpu_blocks(walk->count, PXR_GPU_WALK_THREADS * PXR_GPU_WALK_EACH));
}

/* The numbers of this thread's elements: first, first + PXR_GPU_WALK_THREADS, ... below the end. */
GPU_DEV int64_t walk_first()
{
    return (int64_t)blockIdx.x * PXR_GPU_WALK_THREADS * PXR_GPU_WALK_EACH + threadIdx.x;
}

GPU_DEV int64_t walk_end(const pxr_gpu_walk &walk)
{
    const int64_t end = ((int64_t)blockIdx.x + 1) * PXR_GPU_WALK_THREADS * PXR_GPU_WALK_EACH;
    return end < walk.count ? end : walk.count;
}

#define PXR_GPU_WALK(walk, index)                                                                                      \
    for (int64_t index = walk_first(), end_ = walk_end(walk); index < end_; index += PXR_GPU_WALK_THREADS)

/* Where the first N operands' elements number `index` lie, in elements from `data`. */
template <int N> GPU_DEV void walk_offsets(const pxr_gpu_walk &walk, int64_t index, int64_t (&offset)[N])
{
    for (int k = 0; k < N; k++) offset[k] = 0;
    for (int dim = walk.rank - 1; dim >= 0; dim--) {
        const int64_t at = dim == 0 ? index : index % walk.size[dim];
        for (int k = 0; k < N; k++) offset[k] += at * walk.operand[k].stride[dim];
        index /= walk.size[dim];
    }
}

GPU_DEV bool is_float_type(pxr_dtype type)
{
    return type == PXR_F32 || type == PXR_F16 || type == PXR_BF16;
}

GPU_DEV int64_t load_integer(const void *data, pxr_dtype type, int64_t index)
{
    switch (type) {
    case PXR_I64:
        return static_cast<const int64_t *>(data)[index];
    case PXR_I32:
        return static_cast<const int32_t *>(data)[index];
    case PXR_I8:
        return static_cast<const int8_t *>(data)[index];
    default:
        return static_cast<const uint8_t *>(data)[index];
    }
}

/* The low bits, or the nearest float32 rounded to the narrower float. */
GPU_DEV void store_integer(void *data, pxr_dtype type, int64_t index, int64_t value)
{
    switch (type) {
    case PXR_F32:
        static_cast<float *>(data)[index] = (float)value;
        break;
    case PXR_F16:
        static_cast<__half *>(data)[index] = __float2half_rn((float)value);
        break;
    case PXR_BF16:
        static_cast<__nv_bfloat16 *>(data)[index] = __float2bfloat16_rn((float)value);
        break;
    case PXR_I64:
        static_cast<int64_t *>(data)[index] = value;
        break;
    case PXR_I32:
        static_cast<int32_t *>(data)[index] = (int32_t)(uint32_t)(uint64_t)value;
        break;
    default:
        static_cast<uint8_t *>(data)[index] = (uint8_t)(uint64_t)value;
    }
}

/* Towards zero, clamped to low .. high; NaN gives 0. */
GPU_DEV int64_t saturate(float value, int64_t low, int64_t high)
{
    if (value != value) return 0;
    if (value <= (float)low) return low;
    if (value >= (float)high) return high;
    return (int64_t)value;
}

/* Rounded to nearest even, or truncated and saturated. */
GPU_DEV void store_float(void *data, pxr_dtype type, int64_t index, float value)
{
    switch (type) {
    case PXR_F32:
        static_cast<float *>(data)[index] = value;
        break;
    case PXR_F16:
        static_cast<__half *>(data)[index] = __float2half_rn(value);
        break;
    case PXR_BF16:
        static_cast<__nv_bfloat16 *>(data)[index] = __float2bfloat16_rn(value);
        break;
    case PXR_I64:
        static_cast<int64_t *>(data)[index] = saturate(value, INT64_MIN, INT64_MAX);
        break;
    case PXR_I32:
        static_cast<int32_t *>(data)[index] = (int32_t)saturate(value, INT32_MIN, INT32_MAX);
        break;
    case PXR_I8:
        static_cast<int8_t *>(data)[index] = (int8_t)saturate(value, INT8_MIN, INT8_MAX);
        break;
    default:
        static_cast<uint8_t *>(data)[index] = (uint8_t)saturate(value, 0, UINT8_MAX);
    }
}

/* An element as it is, between operands of one type. */
GPU_DEV void move_element(void *to, int64_t to_index, const void *from, int64_t from_index, pxr_dtype type)
{
    switch (type) {
    case PXR_I64:
        static_cast<uint64_t *>(to)[to_index] = static_cast<const uint64_t *>(from)[from_index];
        break;
    case PXR_F32:
    case PXR_I32:
        static_cast<uint32_t *>(to)[to_index] = static_cast<const uint32_t *>(from)[from_index];
        break;
    case PXR_F16:
    case PXR_BF16:
        static_cast<uint16_t *>(to)[to_index] = static_cast<const uint16_t *>(from)[from_index];
        break;
    default:
        static_cast<uint8_t *>(to)[to_index] = static_cast<const uint8_t *>(from)[from_index];
    }
}

#endif
