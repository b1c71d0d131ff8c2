/* Functions of sixteen lanes: exp, erf and the activations built on them. Included by kernels_*.c only. */
#ifndef PXR_CPU_V16_MATH_H
#define PXR_CPU_V16_MATH_H

#include "cpu/v16.h"
#include "ops/ops.h"

/* exp, within 1.1 ulp, with infinities, zeros, subnormals and NaN as they should be. x = n ln 2 + r with |r| <= ln 2 / 2;
 * the polynomial is that of Cephes' expf. */
PXR_INLINE v16 v16_exp(v16 x)
{
    const v16 shifter = v16_set(0x1.8p23f);                    /* adding it rounds to an integer, to nearest even */
    x = v16_min(v16_set(89.0f), v16_max(v16_set(-104.0f), x)); /* beyond: infinity and zero all the same */
    const v16 shifted = v16_fma(x, v16_set(0x1.715476p0f), shifter), n = v16_sub(shifted, shifter);
    v16 r = v16_fma(n, v16_set(-0x1.62e400p-1f), x); /* ln 2 in two parts: the first times n is exact */
    r = v16_fma(n, v16_set(-0x1.7f7d1cp-20f), r);
    v16 p = v16_set(1.9875691500e-4f);
    p = v16_fma(p, r, v16_set(1.3981999507e-3f));
    p = v16_fma(p, r, v16_set(8.3334519073e-3f));
    p = v16_fma(p, r, v16_set(4.1665795894e-2f));
    p = v16_fma(p, r, v16_set(1.6666665459e-1f));
    p = v16_fma(p, r, v16_set(5.0000001201e-1f));
    p = v16_add(v16_fma(p, v16_mul(r, r), r), v16_set(1.0f));
    return v16_scale_by_shifted(p, shifted);
}

/* erf, within 1.5 ulp: x P(x^2) near zero, 1 - exp(Q(|x|)) further out (N. Juffa's minimax polynomials). */
PXR_INLINE v16 v16_erf(v16 x)
{
    const v16 t = v16_abs(x), s = v16_mul(x, x);
    v16 far = v16_fma(v16_set(-1.72853470e-5f), t, v16_set(3.83197126e-4f));
    far = v16_fma(far, s, v16_fma(v16_set(-3.88396438e-3f), t, v16_set(2.42546219e-2f)));
    far = v16_fma(far, t, v16_set(-1.06777877e-1f));
    far = v16_fma(far, t, v16_set(-6.34846687e-1f));
    far = v16_fma(far, t, v16_set(-1.28717512e-1f));
    far = v16_fma(far, t, v16_sub(v16_set(0.0f), t));
    far = v16_copy_sign(v16_sub(v16_set(1.0f), v16_exp(far)), x);
    v16 near = v16_set(-5.96761703e-4f);
    near = v16_fma(near, s, v16_set(4.99119423e-3f));
    near = v16_fma(near, s, v16_set(-2.67681349e-2f));
    near = v16_fma(near, s, v16_set(1.12819925e-1f));
    near = v16_fma(near, s, v16_set(-3.76125336e-1f));
    near = v16_fma(near, s, v16_set(1.28379166e-1f));
    near = v16_fma(near, x, x);
    return v16_if_greater(t, v16_set(0.927734375f), far, near);
}

/* 1 / (1 + exp(-x)) */
PXR_INLINE v16 v16_sigmoid(v16 x)
{
    const v16 one = v16_set(1.0f);
    return v16_div(one, v16_add(one, v16_exp(v16_sub(v16_set(0.0f), x))));
}

PXR_INLINE v16 v16_activate(v16 x, pxr_activation activation)
{
    if (activation == PXR_ACTIVATION_GELU_TANH) { /* (1 + tanh u) / 2 is the sigmoid of 2u */
        const v16 cube = v16_mul(v16_mul(v16_mul(x, x), x), v16_set(0.044715f));
        return v16_mul(x, v16_sigmoid(v16_mul(v16_add(x, cube), v16_set(1.5957691216057308f))));
    }
    if (activation == PXR_ACTIVATION_GELU_ERF) {
        const v16 e = v16_erf(v16_mul(x, v16_set(0.70710678118654752f)));
        return v16_mul(v16_mul(x, v16_set(0.5f)), v16_add(v16_set(1.0f), e));
    }
    return x;
}

/* ---- rounding --------------------------------------------------------------------------------------------------- */

/* To the nearest integer, even on ties; |a| < 2^22. Its low byte is that integer's. */
PXR_INLINE v16 v16_shifted(v16 a)
{
    return v16_add(a, v16_set(0x1.8p23f));
}

PXR_INLINE v16 v16_round(v16 a)
{
    return v16_sub(v16_shifted(a), v16_set(0x1.8p23f));
}

PXR_INLINE v16 v16_clamp(v16 a, float low, float high)
{
    return v16_max(v16_set(low), v16_min(v16_set(high), a));
}

/* To what bfloat16 has, ties to even; NaN stays NaN. */
#if defined(__AVX512F__)

PXR_INLINE v16 v16_round_bf16(v16 a)
{
    const __m512i bits = _mm512_castps_si512(a), high = _mm512_srli_epi32(bits, 16);
    const __m512i half = _mm512_add_epi32(_mm512_set1_epi32(0x7fff), _mm512_and_si512(high, _mm512_set1_epi32(1)));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __m512i rounded = _mm512_mask_mov_epi32(_mm512_add_epi32(bits, half), is_nan, quiet);
    return _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(-0x10000)));
}

#elif defined(__AVX2__)

PXR_INLINE __m256 v8_round_bf16(__m256 a)
{
    const __m256i bits = _mm256_castps_si256(a), high = _mm256_srli_epi32(bits, 16);
    const __m256i half = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), _mm256_and_si256(high, _mm256_set1_epi32(1)));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i rounded = _mm256_blendv_epi8(_mm256_add_epi32(bits, half), quiet, is_nan);
    return _mm256_castsi256_ps(_mm256_and_si256(rounded, _mm256_set1_epi32(-0x10000)));
}

PXR_INLINE v16 v16_round_bf16(v16 a)
{
    return PXR_V16(v8_round_bf16(a.low), v8_round_bf16(a.high));
}

#else

PXR_INLINE v16 v16_round_bf16(v16 a)
{
    PXR_EACH_LANE(pxr_bf16_to_f32(pxr_f32_to_bf16(a.lane[i])));
}

#endif

PXR_INLINE void v16_store_bf16(uint16_t *to, v16 a)
{
#if defined(__AVX512F__)
    const __m512i bits = _mm512_castps_si512(v16_round_bf16(a));
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
#elif defined(__AVX2__)
    const v16 rounded = v16_round_bf16(a);
    const __m256i low = _mm256_srli_epi32(_mm256_castps_si256(rounded.low), 16);
    const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(rounded.high), 16);
    _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8));
#else
    float wide[LANES];
    v16_store(wide, a);
    for (int i = 0; i < LANES; i++) to[i] = pxr_f32_to_bf16(wide[i]);
#endif
}

/* Sixteen numbers of -128 .. 127 to the nearest integers. */
PXR_INLINE void v16_store_i8(int8_t *to, v16 a)
{
    const v16 shifted = v16_shifted(a);
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(_mm512_castps_si512(shifted)));
#elif defined(__AVX2__)
    const __m256i byte = _mm256_set1_epi32(0xff);
    const __m256i low = _mm256_and_si256(_mm256_castps_si256(shifted.low), byte);
    const __m256i high = _mm256_and_si256(_mm256_castps_si256(shifted.high), byte);
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
    _mm_storeu_si128((__m128i *)to,
                     _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
#else
    float wide[LANES];
    uint32_t bits[LANES];
    v16_store(wide, shifted);
    memcpy(bits, wide, sizeof bits);
    for (int i = 0; i < LANES; i++) to[i] = (int8_t)(uint8_t)bits[i];
#endif
}

/* ---- transposing ------------------------------------------------------------------------------------------------ */

#if defined(__AVX2__)

/* Rows of eight lanes become columns. */
PXR_INLINE void v8_transpose(__m256 *rows)
{
    __m256 pairs[8], fours[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
        fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
        fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
        fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        rows[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
        rows[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
    }
}

#endif

#if defined(__AVX512F__)

/* Rows of sixteen lanes of 32 bits become columns. */
PXR_INLINE void transpose_bits(__m512i *rows)
{
    __m512i pairs[16], fours[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* quarter q of fours[4 j + i]: lane 4 q + i of rows 4 j .. 4 j + 3 */
        const __m512i low = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0x88);
        const __m512i high = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0x88);
        const __m512i low_odd = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0xdd);
        const __m512i high_odd = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0xdd);
        rows[i] = _mm512_shuffle_i32x4(low, high, 0x88);
        rows[i + 8] = _mm512_shuffle_i32x4(low, high, 0xdd);
        rows[i + 4] = _mm512_shuffle_i32x4(low_odd, high_odd, 0x88);
        rows[i + 12] = _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd);
    }
}

PXR_INLINE void v16_transpose(v16 *rows)
{
    __m512i bits[LANES];
    for (int i = 0; i < LANES; i++) bits[i] = _mm512_castps_si512(rows[i]);
    transpose_bits(bits);
    for (int i = 0; i < LANES; i++) rows[i] = _mm512_castsi512_ps(bits[i]);
}

#elif defined(__AVX2__)

/* Rows become columns. */
PXR_INLINE void v16_transpose(v16 *rows)
{
    __m256 corners[2][2][8]; /* upper and lower rows, left and right lanes */
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        corners[0][0][i] = rows[i].low, corners[0][1][i] = rows[i].high;
        corners[1][0][i] = rows[i + 8].low, corners[1][1][i] = rows[i + 8].high;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) v8_transpose(corners[i / 2][i % 2]);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        rows[i] = PXR_V16(corners[0][0][i], corners[1][0][i]);
        rows[i + 8] = PXR_V16(corners[0][1][i], corners[1][1][i]);
    }
}

#else

/* Rows become columns. */
PXR_INLINE void v16_transpose(v16 *rows)
{
    float all[LANES][LANES], column[LANES];
    for (int i = 0; i < LANES; i++) v16_store(all[i], rows[i]);
    for (int j = 0; j < LANES; j++) {
        for (int i = 0; i < LANES; i++) column[i] = all[i][j];
        rows[j] = v16_load(column);
    }
}

#endif

#endif
