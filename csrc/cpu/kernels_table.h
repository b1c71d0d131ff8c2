/* The table of an instruction set's kernels, PXR_KERNELS; included by kernels_*.c, each of which is compiled for its
 * set. */
#include "cpu/attention_kernel.h"
#if defined(PXR_HAS_TILES)
#include "cpu/linear_amx_kernel.h"
#endif
#include "cpu/linear_int8_kernel.h"
#include "cpu/linear_kernel.h"
#include "cpu/quantize_kernel.h"
#include "cpu/rows_kernel.h"

const pxr_kernels PXR_KERNELS = {
#if defined(PXR_HAS_TILES)
    .has_tiles = true,
    .linear = linear_amx,
    .linear_int8 = linear_int8_amx,
#else
    .linear = linear,
    .linear_int8 = linear_int8,
#endif
    .attention = attention,
    .attention_span = attention_span,
    .attention_merge = attention_merge,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .rope = rope,
    .silu_mul = silu_mul,
    .widen = widen,
    .dequantize = dequantize,
    .quantize = quantize,
    .round_x = round_x,
    .quantize_x = quantize_x,
    .exp_minus = exp_minus,
    .distances = distances,
};
