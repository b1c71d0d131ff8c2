/* Small device functions that several families of ops share: elements of any type, sums over a block, activations. */
#ifndef PXR_KERNELS_NUMERIC_CUH
#define PXR_KERNELS_NUMERIC_CUH

#include "gpu.h"

#include "ops/ops.h"

/* ---- elements -------------------------------------------------------------------------------------------------- */

GPU_DEV float widen(float value)
{
    return value;
}

GPU_DEV float widen(__nv_bfloat16 value)
{
    return __bfloat162float(value);
}

GPU_DEV float widen(__half value)
{
    return __half2float(value);
}

/* Element `index` of a vector of any float type. */
GPU_DEV float load_float(const void *data, pxr_dtype dtype, int64_t index)
{
    if (dtype == PXR_BF16) return widen(static_cast<const __nv_bfloat16 *>(data)[index]);
    if (dtype == PXR_F16) return widen(static_cast<const __half *>(data)[index]);
    return static_cast<const float *>(data)[index];
}

/* Activations are float32 or bfloat16, what is kept of them float16, too; rounded to nearest even. */
GPU_DEV void store_activation(void *data, pxr_dtype type, int64_t index, float value)
{
    if (type == PXR_BF16)
        static_cast<__nv_bfloat16 *>(data)[index] = __float2bfloat16_rn(value);
    else if (type == PXR_F16)
        static_cast<__half *>(data)[index] = __float2half_rn(value);
    else
        static_cast<float *>(data)[index] = value;
}

/* ---- over a block ---------------------------------------------------------------------------------------------- */
/* Blocks of whole warps, at most 32 of them. Sums have one order for one block size. `partial` is [32] in shared
 * memory; it may be used again as soon as the call returns. */

GPU_DEV float warp_sum(float value)
{
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
    return value;
}

GPU_DEV float warp_max(float value)
{
    for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, offset));
    return value;
}

/* The sums over the warp of N values (a power of two up to 32) at once: lane l gets that of value l * N / 32, in the
 * order of warp_sum. */
template <int N> GPU_DEV float warp_sums(float (&value)[N])
{
    const int lane = (int)threadIdx.x % 32;
    int offset = 16;
#pragma unroll
    for (int count = N; count > 1; count /= 2, offset /= 2) {
        const bool upper = lane & offset;
#pragma unroll
        for (int i = 0; i < count / 2; i++) {
            const float kept = upper ? value[i + count / 2] : value[i];
            const float given = upper ? value[i] : value[i + count / 2];
            value[i] = kept + __shfl_xor_sync(~0u, given, offset);
        }
    }
    for (; offset > 0; offset /= 2) value[0] += __shfl_xor_sync(~0u, value[0], offset);
    return value[0];
}

GPU_DEV float block_sum(float value, float *partial)
{
    const int warps = (int)blockDim.x / 32, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    value = warp_sum(value);
    if (lane == 0) partial[warp] = value;
    __syncthreads();
    value = warp_sum(lane < warps ? partial[lane] : 0.0f);
    __syncthreads();
    return value;
}

GPU_DEV float block_max(float value, float *partial)
{
    const int warps = (int)blockDim.x / 32, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    value = warp_max(value);
    if (lane == 0) partial[warp] = value;
    __syncthreads();
    value = warp_max(lane < warps ? partial[lane] : -INFINITY);
    __syncthreads();
    return value;
}

/* ---- functions ------------------------------------------------------------------------------------------------- */

GPU_DEV float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

GPU_DEV float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}

GPU_DEV float gelu_erf(float x)
{
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
}

GPU_DEV float activate(float x, pxr_activation activation)
{
    if (activation == PXR_ACTIVATION_GELU_TANH) return gelu_tanh(x);
    if (activation == PXR_ACTIVATION_GELU_ERF) return gelu_erf(x);
    return x;
}

#endif
