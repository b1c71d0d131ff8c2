/* Sixteen float32 lanes, on whatever this file is compiled for: one AVX-512 register, two AVX2 registers, or an array.
 *
 * Every operation is one IEEE operation a lane, and sums over lanes have one fixed tree (lanes i and i+8, then +4, +2,
 * +1), so that code written over v16 gives the same bits on every instruction set. Included by kernels_*.c only.
 */
#ifndef PXR_CPU_V16_H
#define PXR_CPU_V16_H

#include "core/dtype.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define PXR_INLINE static inline __attribute__((always_inline, unused))

/* A function that is compiled anew for each set of constant arguments; where lanes are loops that would only be long. */
#if defined(__AVX2__)
#define PXR_TEMPLATE PXR_INLINE
#else
#define PXR_TEMPLATE static __attribute__((noinline, noclone, unused))
#endif

enum { LANES = 16 };

/* Rows and columns of the register tile of products: what the registers hold beside one row of operands. */
#if defined(__AVX512F__)

enum { TILE_ROWS = 6, TILE_COLUMNS = 4 };

typedef __m512 v16;

/* The registers that a v16 is made of, for loops that keep many of them: the tile of a block of weights that is read
 * from a cache, and how many sums leave registers for weights that are widened on the way. */
enum { PARTS = 1, PART_LANES = LANES / PARTS, PART_ROWS = 6, PART_COLUMNS = 4, SUMS = 16 };
typedef __m512 v16_part;

PXR_INLINE __mmask16 v16_mask(int64_t count)
{
    return (__mmask16)((1u << count) - 1u);
}

PXR_INLINE v16 v16_set(float value)
{
    return _mm512_set1_ps(value);
}

PXR_INLINE v16 v16_load(const float *from)
{
    return _mm512_loadu_ps(from);
}

PXR_INLINE void v16_store(float *to, v16 a)
{
    _mm512_storeu_ps(to, a);
}

/* The first `count` lanes (0 .. 15), zero in the others. */
PXR_INLINE v16 v16_load_part(const float *from, int64_t count)
{
    return _mm512_maskz_loadu_ps(v16_mask(count), from);
}

PXR_INLINE void v16_store_part(float *to, v16 a, int64_t count)
{
    _mm512_mask_storeu_ps(to, v16_mask(count), a);
}

PXR_INLINE v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

PXR_INLINE v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

PXR_INLINE v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

PXR_INLINE v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

/* a b + c, rounded once. */
PXR_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* a > b ? a : b, so b where either is NaN; v16_min likewise. */
PXR_INLINE v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

PXR_INLINE v16 v16_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

/* a > b ? yes : no */
PXR_INLINE v16 v16_if_greater(v16 a, v16 b, v16 yes, v16 no)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), no, yes);
}

/* Lanes from `count` (0 .. 16) on replaced by those of `rest`. */
PXR_INLINE v16 v16_keep(v16 a, int64_t count, v16 rest)
{
    return _mm512_mask_blend_ps((__mmask16)((1u << count) - 1u), rest, a);
}

PXR_INLINE v16 v16_abs(v16 a)
{
    return _mm512_abs_ps(a);
}

/* The magnitude of `a` with the sign of `sign`. */
PXR_INLINE v16 v16_copy_sign(v16 a, v16 sign)
{
    const __m512i bit = _mm512_set1_epi32(INT32_MIN);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(bit, _mm512_castps_si512(sign), _mm512_castps_si512(a), 0xca));
}

/* a 2^n where n is the integer in the low bits of `shifted` = 1.5 * 2^23 + n, -200 < n < 200: in two exact steps
 * wherever the result is normal. */
PXR_INLINE v16 v16_scale_by_shifted(v16 a, v16 shifted)
{
    const __m512i n = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(0x4b400000));
    const __m512i half = _mm512_srai_epi32(n, 1), rest = _mm512_sub_epi32(n, half), bias = _mm512_set1_epi32(127);
    const __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
    const __m512 high = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(rest, bias), 23));
    return _mm512_mul_ps(_mm512_mul_ps(a, low), high);
}

PXR_INLINE v16 v16_load_bf16(const void *from)
{
    const __m256i bits = _mm256_loadu_si256((const __m256i *)from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

PXR_INLINE v16 v16_load_f16(const void *from)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}

PXR_INLINE v16 v16_load_i8(const void *from)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
}

PXR_INLINE v16 v16_load_u4(const void *from)
{
    const __m512i half = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i shift = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const __m512i pairs = _mm512_castsi128_si512(_mm_loadl_epi64((const __m128i *)from));
    const __m512i moved = _mm512_srlv_epi32(_mm512_permutexvar_epi32(half, pairs), shift);
    return _mm512_cvtepi32_ps(_mm512_and_si512(moved, _mm512_set1_epi32(15)));
}

PXR_INLINE v16_part v16_part_of(v16 a, int part)
{
    (void)part;
    return a;
}

PXR_INLINE v16_part part_set(float value)
{
    return _mm512_set1_ps(value);
}

PXR_INLINE v16_part part_load(const float *from)
{
    return _mm512_loadu_ps(from);
}

PXR_INLINE void part_store(float *to, v16_part a)
{
    _mm512_storeu_ps(to, a);
}

PXR_INLINE v16_part part_fma(v16_part a, v16_part b, v16_part c)
{
    return _mm512_fmadd_ps(a, b, c);
}

PXR_INLINE float v16_sum(v16 a)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

PXR_INLINE float v16_largest(v16 a)
{
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* The sums of four vectors. */
PXR_INLINE void v16_sum_four(v16 a, v16 b, v16 c, v16 d, float *sums)
{
    const v16 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const v16 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    const v16 four = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    const v16 two = _mm512_add_ps(four, _mm512_permute_ps(four, 0x4e));
    const v16 one = _mm512_add_ps(two, _mm512_permute_ps(two, 0xb1));
    _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, one)));
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

enum { TILE_ROWS = 6, TILE_COLUMNS = 1 };

typedef struct v16 {
    __m256 low, high;
} v16;

enum { PARTS = 2, PART_LANES = LANES / PARTS, PART_ROWS = 4, PART_COLUMNS = 3, SUMS = 8 };
typedef __m256 v16_part;

#define PXR_V16(expression_low, expression_high) ((v16){.low = (expression_low), .high = (expression_high)})

PXR_INLINE v16 v16_set(float value)
{
    return PXR_V16(_mm256_set1_ps(value), _mm256_set1_ps(value));
}

PXR_INLINE v16 v16_load(const float *from)
{
    return PXR_V16(_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8));
}

PXR_INLINE void v16_store(float *to, v16 a)
{
    _mm256_storeu_ps(to, a.low);
    _mm256_storeu_ps(to + 8, a.high);
}

PXR_INLINE v16 v16_load_part(const float *from, int64_t count)
{
    const __m256i limit = _mm256_set1_epi32((int)count), lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i low = _mm256_cmpgt_epi32(limit, lane);
    const __m256i high = _mm256_cmpgt_epi32(limit, _mm256_add_epi32(lane, _mm256_set1_epi32(8)));
    return PXR_V16(_mm256_maskload_ps(from, low), _mm256_maskload_ps(from + 8, high));
}

PXR_INLINE void v16_store_part(float *to, v16 a, int64_t count)
{
    float all[LANES];
    v16_store(all, a);
    memcpy(to, all, (size_t)count * sizeof *to);
}

#define PXR_LANEWISE(name, function)                                                                                   \
    PXR_INLINE v16 name(v16 a, v16 b)                                                                                  \
    {                                                                                                                  \
        return PXR_V16(function(a.low, b.low), function(a.high, b.high));                                              \
    }
PXR_LANEWISE(v16_add, _mm256_add_ps)
PXR_LANEWISE(v16_sub, _mm256_sub_ps)
PXR_LANEWISE(v16_mul, _mm256_mul_ps)
PXR_LANEWISE(v16_div, _mm256_div_ps)
PXR_LANEWISE(v16_max, _mm256_max_ps)
PXR_LANEWISE(v16_min, _mm256_min_ps)
#undef PXR_LANEWISE

PXR_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return PXR_V16(_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high));
}

PXR_INLINE v16 v16_if_greater(v16 a, v16 b, v16 yes, v16 no)
{
    return PXR_V16(_mm256_blendv_ps(no.low, yes.low, _mm256_cmp_ps(a.low, b.low, _CMP_GT_OQ)),
                   _mm256_blendv_ps(no.high, yes.high, _mm256_cmp_ps(a.high, b.high, _CMP_GT_OQ)));
}

PXR_INLINE v16 v16_keep(v16 a, int64_t count, v16 rest)
{
    const __m256i limit = _mm256_set1_epi32((int)count), lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i low = _mm256_cmpgt_epi32(limit, lane);
    const __m256i high = _mm256_cmpgt_epi32(limit, _mm256_add_epi32(lane, _mm256_set1_epi32(8)));
    return PXR_V16(_mm256_blendv_ps(rest.low, a.low, _mm256_castsi256_ps(low)),
                   _mm256_blendv_ps(rest.high, a.high, _mm256_castsi256_ps(high)));
}

PXR_INLINE v16 v16_abs(v16 a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return PXR_V16(_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high));
}

PXR_INLINE v16 v16_copy_sign(v16 a, v16 sign)
{
    const __m256 bit = _mm256_set1_ps(-0.0f);
    return PXR_V16(_mm256_or_ps(_mm256_andnot_ps(bit, a.low), _mm256_and_ps(bit, sign.low)),
                   _mm256_or_ps(_mm256_andnot_ps(bit, a.high), _mm256_and_ps(bit, sign.high)));
}

PXR_INLINE __m256 v8_scale_by_shifted(__m256 a, __m256 shifted)
{
    const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(0x4b400000));
    const __m256i half = _mm256_srai_epi32(n, 1), rest = _mm256_sub_epi32(n, half), bias = _mm256_set1_epi32(127);
    const __m256 low = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const __m256 high = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(a, low), high);
}

PXR_INLINE v16 v16_scale_by_shifted(v16 a, v16 shifted)
{
    return PXR_V16(v8_scale_by_shifted(a.low, shifted.low), v8_scale_by_shifted(a.high, shifted.high));
}

PXR_INLINE __m256 v8_load_bf16(const void *from)
{
    const __m128i bits = _mm_loadu_si128((const __m128i *)from);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

PXR_INLINE v16 v16_load_bf16(const void *from)
{
    return PXR_V16(v8_load_bf16(from), v8_load_bf16((const char *)from + 16));
}

PXR_INLINE v16 v16_load_f16(const void *from)
{
    const __m128i *bits = (const __m128i *)from;
    return PXR_V16(_mm256_cvtph_ps(_mm_loadu_si128(bits)), _mm256_cvtph_ps(_mm_loadu_si128(bits + 1)));
}

PXR_INLINE __m256 v8_load_i8(const void *from)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
}

PXR_INLINE v16 v16_load_i8(const void *from)
{
    return PXR_V16(v8_load_i8(from), v8_load_i8((const char *)from + 8));
}

PXR_INLINE __m256 v8_load_u4(const void *from)
{
    int32_t pairs;
    memcpy(&pairs, from, sizeof pairs);
    const __m256i moved = _mm256_srlv_epi32(_mm256_set1_epi32(pairs), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    return _mm256_cvtepi32_ps(_mm256_and_si256(moved, _mm256_set1_epi32(15)));
}

PXR_INLINE v16 v16_load_u4(const void *from)
{
    return PXR_V16(v8_load_u4(from), v8_load_u4((const char *)from + 4));
}

PXR_INLINE v16_part v16_part_of(v16 a, int part)
{
    return part == 0 ? a.low : a.high;
}

PXR_INLINE v16_part part_set(float value)
{
    return _mm256_set1_ps(value);
}

PXR_INLINE v16_part part_load(const float *from)
{
    return _mm256_loadu_ps(from);
}

PXR_INLINE void part_store(float *to, v16_part a)
{
    _mm256_storeu_ps(to, a);
}

PXR_INLINE v16_part part_fma(v16_part a, v16_part b, v16_part c)
{
    return _mm256_fmadd_ps(a, b, c);
}

PXR_INLINE float v16_sum(v16 a)
{
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

PXR_INLINE float v16_largest(v16 a)
{
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* The sums of four vectors. */
PXR_INLINE void v16_sum_four(v16 a, v16 b, v16 c, v16 d, float *sums)
{
    const __m256 a8 = _mm256_add_ps(a.low, a.high), b8 = _mm256_add_ps(b.low, b.high);
    const __m256 c8 = _mm256_add_ps(c.low, c.high), d8 = _mm256_add_ps(d.low, d.high);
    const __m256 ac = _mm256_add_ps(_mm256_permute2f128_ps(a8, c8, 0x20), _mm256_permute2f128_ps(a8, c8, 0x31));
    const __m256 bd = _mm256_add_ps(_mm256_permute2f128_ps(b8, d8, 0x20), _mm256_permute2f128_ps(b8, d8, 0x31));
    const __m256 two = _mm256_add_ps(_mm256_shuffle_ps(ac, bd, 0x44), _mm256_shuffle_ps(ac, bd, 0xee));
    const __m256 one = _mm256_add_ps(two, _mm256_permute_ps(two, 0xb1)); /* a a b b | c c d d */
    const __m128 all = _mm_shuffle_ps(_mm256_castps256_ps128(one), _mm256_extractf128_ps(one, 1), 0x88);
    _mm_storeu_ps(sums, all);
}

#else

enum { TILE_ROWS = 1, TILE_COLUMNS = 2 };

typedef struct v16 {
    float lane[LANES];
} v16;

enum { PARTS = 1, PART_LANES = LANES / PARTS, PART_ROWS = 1, PART_COLUMNS = 2, SUMS = 8 };
typedef v16 v16_part;

#define PXR_EACH_LANE(expression)                                                                                      \
    v16 result;                                                                                                        \
    for (int i = 0; i < LANES; i++) result.lane[i] = (expression);                                                     \
    return result

PXR_INLINE v16 v16_set(float value)
{
    PXR_EACH_LANE(value);
}

PXR_INLINE v16 v16_load(const float *from)
{
    PXR_EACH_LANE(from[i]);
}

PXR_INLINE void v16_store(float *to, v16 a)
{
    memcpy(to, a.lane, sizeof a.lane);
}

PXR_INLINE v16 v16_load_part(const float *from, int64_t count)
{
    PXR_EACH_LANE(i < count ? from[i] : 0.0f);
}

PXR_INLINE void v16_store_part(float *to, v16 a, int64_t count)
{
    memcpy(to, a.lane, (size_t)count * sizeof *to);
}

PXR_INLINE v16 v16_add(v16 a, v16 b)
{
    PXR_EACH_LANE(a.lane[i] + b.lane[i]);
}

PXR_INLINE v16 v16_sub(v16 a, v16 b)
{
    PXR_EACH_LANE(a.lane[i] - b.lane[i]);
}

PXR_INLINE v16 v16_mul(v16 a, v16 b)
{
    PXR_EACH_LANE(a.lane[i] * b.lane[i]);
}

PXR_INLINE v16 v16_div(v16 a, v16 b)
{
    PXR_EACH_LANE(a.lane[i] / b.lane[i]);
}

PXR_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    PXR_EACH_LANE(fmaf(a.lane[i], b.lane[i], c.lane[i]));
}

PXR_INLINE v16 v16_max(v16 a, v16 b)
{
    PXR_EACH_LANE(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]);
}

PXR_INLINE v16 v16_min(v16 a, v16 b)
{
    PXR_EACH_LANE(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]);
}

PXR_INLINE v16 v16_keep(v16 a, int64_t count, v16 rest)
{
    PXR_EACH_LANE(i < count ? a.lane[i] : rest.lane[i]);
}

PXR_INLINE v16 v16_abs(v16 a)
{
    PXR_EACH_LANE(fabsf(a.lane[i]));
}

PXR_INLINE v16 v16_copy_sign(v16 a, v16 sign)
{
    PXR_EACH_LANE(copysignf(a.lane[i], sign.lane[i]));
}

PXR_INLINE v16 v16_if_greater(v16 a, v16 b, v16 yes, v16 no)
{
    PXR_EACH_LANE(a.lane[i] > b.lane[i] ? yes.lane[i] : no.lane[i]);
}

PXR_INLINE float scale_by_shifted(float a, float shifted)
{
    int32_t n;
    memcpy(&n, &shifted, sizeof n);
    n = (int32_t)((uint32_t)n - 0x4b400000u);
    const int32_t half = n >> 1;
    const uint32_t bits[2] = {(uint32_t)half + 127u, (uint32_t)n - (uint32_t)half + 127u};
    float power[2];
    memcpy(power, (const uint32_t[2]){bits[0] << 23, bits[1] << 23}, sizeof power);
    return a * power[0] * power[1];
}

PXR_INLINE v16 v16_scale_by_shifted(v16 a, v16 shifted)
{
    PXR_EACH_LANE(scale_by_shifted(a.lane[i], shifted.lane[i]));
}

PXR_INLINE v16 v16_load_bf16(const void *from)
{
    uint16_t bits[LANES];
    memcpy(bits, from, sizeof bits);
    PXR_EACH_LANE(pxr_bf16_to_f32(bits[i]));
}

PXR_INLINE v16 v16_load_f16(const void *from)
{
    uint16_t bits[LANES];
    memcpy(bits, from, sizeof bits);
    PXR_EACH_LANE(pxr_f16_to_f32(bits[i]));
}

PXR_INLINE v16 v16_load_i8(const void *from)
{
    int8_t values[LANES];
    memcpy(values, from, sizeof values);
    PXR_EACH_LANE(values[i]);
}

/* Sixteen values of four bits, 0 .. 15, the first of a pair in the low half of a byte. */
PXR_INLINE v16 v16_load_u4(const void *from)
{
    uint8_t pairs[LANES / 2];
    memcpy(pairs, from, sizeof pairs);
    PXR_EACH_LANE((float)(pairs[i / 2] >> (i % 2 * 4) & 15));
}

PXR_INLINE v16_part v16_part_of(v16 a, int part)
{
    (void)part;
    return a;
}

PXR_INLINE v16_part part_set(float value)
{
    return v16_set(value);
}

PXR_INLINE v16_part part_load(const float *from)
{
    return v16_load(from);
}

PXR_INLINE void part_store(float *to, v16_part a)
{
    v16_store(to, a);
}

PXR_INLINE v16_part part_fma(v16_part a, v16_part b, v16_part c)
{
    return v16_fma(a, b, c);
}

PXR_INLINE float v16_sum(v16 a)
{
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) a.lane[i] += a.lane[i + width];
    return a.lane[0];
}

PXR_INLINE float v16_largest(v16 a)
{
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) a.lane[i] = a.lane[i] > a.lane[i + width] ? a.lane[i] : a.lane[i + width];
    return a.lane[0];
}

/* The sums of four vectors. */
PXR_INLINE void v16_sum_four(v16 a, v16 b, v16 c, v16 d, float *sums)
{
    sums[0] = v16_sum(a);
    sums[1] = v16_sum(b);
    sums[2] = v16_sum(c);
    sums[3] = v16_sum(d);
}

#endif

/* ---- any float type -------------------------------------------------------------------------------------------- */

/* All lanes = one float16, at any byte. */
PXR_INLINE v16 v16_set_f16(const void *from)
{
    uint16_t bits;
    memcpy(&bits, from, sizeof bits);
#if defined(__AVX2__)
    return v16_set(_cvtsh_ss(bits));
#else
    return v16_set(pxr_f16_to_f32(bits));
#endif
}

/* Sixteen elements of a float type, at any byte. */
PXR_INLINE v16 v16_load_as(const void *from, pxr_dtype dtype)
{
    if (dtype == PXR_BF16) return v16_load_bf16(from);
    if (dtype == PXR_F16) return v16_load_f16(from);
#if defined(__AVX2__)
    return v16_load((const float *)from); /* an unaligned load */
#else
    float wide[LANES];
    memcpy(wide, from, sizeof wide);
    return v16_load(wide);
#endif
}

/* The first `count` (0 .. 15) elements, zero in the other lanes. */
PXR_INLINE v16 v16_load_part_as(const void *from, pxr_dtype dtype, int64_t count)
{
#if defined(__AVX2__)
    if (dtype == PXR_F32) return v16_load_part((const float *)from, count); /* of any alignment, too */
#endif
    char padded[LANES * sizeof(float)] = {0};
    memcpy(padded, from, (size_t)count * (dtype == PXR_F32 ? sizeof(float) : sizeof(uint16_t)));
    return v16_load_as(padded, dtype);
}

/* `count` >= 0 elements, at most sixteen: whichever of the two applies. */
PXR_INLINE v16 v16_load_some(const float *from, int64_t count)
{
    return count >= LANES ? v16_load(from) : v16_load_part(from, count);
}

PXR_INLINE v16 v16_load_some_as(const void *from, pxr_dtype dtype, int64_t count)
{
    return count >= LANES ? v16_load_as(from, dtype) : v16_load_part_as(from, dtype, count);
}

PXR_INLINE void v16_store_some(float *to, v16 a, int64_t count)
{
    if (count >= LANES)
        v16_store(to, a);
    else
        v16_store_part(to, a, count);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

enum {
    CACHE_LINE = 64, /* bytes */
    FETCH_LEVEL = 2, /* of __builtin_prefetch: into the second-level cache, which may wait for more lines at a time */
};

/* Asks for the cache lines of some bytes; an address behind what is allocated is no harm. */
PXR_INLINE void fetch(const char *address, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += CACHE_LINE) __builtin_prefetch(address + i, 0, FETCH_LEVEL);
}

#endif
