/* Kernels of single rows: norms, rotary positions, SwiGLU, widening, softmax's exponentials, distances. Sums over a row
 * are 16 partial sums in order and v16_sum's tree. Included by kernels_*.c only. */
#ifndef PXR_CPU_ROWS_KERNEL_H
#define PXR_CPU_ROWS_KERNEL_H

#include "cpu/kernels.h"
#include "cpu/v16_math.h"

PXR_INLINE v16 load_any(pxr_any_row row, int64_t index, int64_t left)
{
    return v16_load_some_as(row.data + index * (row.dtype == PXR_F32 ? 4 : 2), row.dtype, left);
}

static void layer_norm(float *out, const float *x, pxr_any_row weight, pxr_any_row bias, int64_t count, float epsilon)
{
    v16 sum = v16_set(0.0f), squares = v16_set(0.0f);
    for (int64_t i = 0; i < count; i += LANES) sum = v16_add(sum, v16_load_some(x + i, count - i));
    const v16 mean = v16_set(v16_sum(sum) / (float)count);
    for (int64_t i = 0; i < count; i += LANES) {
        const v16 away = v16_keep(v16_sub(v16_load_some(x + i, count - i), mean), count - i < LANES ? count - i : LANES,
                                  v16_set(0.0f));
        squares = v16_fma(away, away, squares);
    }
    const v16 scale = v16_set(1.0f / sqrtf(v16_sum(squares) / (float)count + epsilon));
    for (int64_t i = 0; i < count; i += LANES) {
        const v16 unit = v16_mul(v16_sub(v16_load_some(x + i, count - i), mean), scale);
        v16_store_some(out + i, v16_fma(unit, load_any(weight, i, count - i), load_any(bias, i, count - i)), count - i);
    }
}

static void rms_norm(float *out, const float *x, pxr_any_row weight, int64_t count, float epsilon)
{
    v16 squares = v16_set(0.0f);
    for (int64_t i = 0; i < count; i += LANES) {
        const v16 a = v16_load_some(x + i, count - i);
        squares = v16_fma(a, a, squares);
    }
    const v16 scale = v16_set(1.0f / sqrtf(v16_sum(squares) / (float)count + epsilon));
    for (int64_t i = 0; i < count; i += LANES) {
        const v16 unit = v16_mul(v16_load_some(x + i, count - i), scale);
        v16_store_some(out + i, v16_mul(unit, load_any(weight, i, count - i)), count - i);
    }
}

static void rope(float *row, const float *cos, const float *sin, int64_t half)
{
    for (int64_t i = 0; i < half; i += LANES) {
        const int64_t left = half - i;
        const v16 a = v16_load_some(row + i, left), b = v16_load_some(row + half + i, left);
        const v16 c = v16_load_some(cos + i, left), s = v16_load_some(sin + i, left);
        v16_store_some(row + i, v16_sub(v16_mul(a, c), v16_mul(b, s)), left);
        v16_store_some(row + half + i, v16_add(v16_mul(b, c), v16_mul(a, s)), left);
    }
}

static void silu_mul(float *out, const float *gate, const float *up, int64_t count)
{
    for (int64_t i = 0; i < count; i += LANES) {
        const v16 g = v16_load_some(gate + i, count - i);
        const v16 y = v16_mul(v16_mul(g, v16_sigmoid(g)), v16_load_some(up + i, count - i));
        v16_store_some(out + i, y, count - i);
    }
}

static void widen(float *out, pxr_any_row row, int64_t count)
{
    for (int64_t i = 0; i < count; i += LANES) v16_store_some(out + i, load_any(row, i, count - i), count - i);
}

static void round_x(uint16_t *out, const float *x, int64_t count, int64_t padded)
{
    for (int64_t i = 0; i < padded; i += LANES)
        v16_store_bf16(out + i, i < count ? v16_load_some(x + i, count - i) : v16_set(0.0f));
}

static float exp_minus(float *out, const float *x, int64_t count, float largest)
{
    const v16 shift = v16_set(largest), zero = v16_set(0.0f);
    v16 sum = zero;
    for (int64_t i = 0; i < count; i += LANES) {
        const v16 e = v16_exp(v16_sub(v16_load_some(x + i, count - i), shift));
        sum = v16_add(sum, v16_keep(e, count - i < LANES ? count - i : LANES, zero));
        v16_store_some(out + i, e, count - i);
    }
    return v16_sum(sum);
}

static void distances(float *out, const float *row, const float *rows, int64_t row_count, int64_t row_stride,
                      int64_t count)
{
    enum { TOGETHER = 4 };
    for (int64_t r = 0; r < row_count; r += TOGETHER) {
        const int64_t left = row_count - r < TOGETHER ? row_count - r : TOGETHER;
        v16 sums[TOGETHER];
        for (int j = 0; j < TOGETHER; j++) sums[j] = v16_set(0.0f);
        for (int64_t i = 0; i < count; i += LANES) {
            const v16 a = v16_load_some(row + i, count - i);
#pragma GCC unroll 4
            for (int j = 0; j < TOGETHER; j++) {
                const float *other = rows + (r + (j < left ? j : left - 1)) * row_stride;
                const v16 away = v16_sub(a, v16_load_some(other + i, count - i));
                sums[j] = v16_fma(away, away, sums[j]);
            }
        }
        for (int j = 0; j < left; j++) out[r + j] = v16_sum(sums[j]);
    }
}

#endif
