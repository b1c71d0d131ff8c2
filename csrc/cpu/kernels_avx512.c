/* The float kernels for processors with AVX-512 (F, BW, VL, DQ). */
#if defined(__x86_64__)
#include "cpu/attention_kernel.h"
#include "cpu/linear_kernel.h"
#include "cpu/quantize_kernel.h"
#include "cpu/rows_kernel.h"

const pxr_kernels pxr_kernels_avx512 = {
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
