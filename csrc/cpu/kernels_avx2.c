/* The float kernels for processors with AVX2, FMA and F16C. */
#if defined(__x86_64__)
#include "cpu/attention_kernel.h"
#include "cpu/linear_kernel.h"
#include "cpu/quantize_kernel.h"
#include "cpu/rows_kernel.h"

const pxr_kernels pxr_kernels_avx2 = {
    .linear = linear,
    .attention = attention,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .rope = rope,
    .silu_mul = silu_mul,
    .widen = widen,
    .dequantize = dequantize,
    .quantize = quantize,
    .exp_minus = exp_minus,
    .distances = distances,
};
#endif
