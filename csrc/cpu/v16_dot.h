/* Sums of products of bfloat16 pairs, which a float32 register holds two to a lane: VDPBF16PS, and the same bits where
 * there is no such instruction (which takes numbers below 2^-126 for zero). Included by kernels_*.c only. */
#ifndef PXR_CPU_V16_DOT_H
#define PXR_CPU_V16_DOT_H

#include "cpu/v16_math.h"

/* The second and the first of a lane's pair, as float32. */
#if defined(__AVX512F__)

PXR_INLINE v16_part part_second(v16_part pairs)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(-0x10000)));
}

PXR_INLINE v16_part part_first(v16_part pairs)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
}

#elif defined(__AVX2__)

PXR_INLINE v16_part part_second(v16_part pairs)
{
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(pairs), _mm256_set1_epi32(-0x10000)));
}

PXR_INLINE v16_part part_first(v16_part pairs)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
}

#else

PXR_INLINE v16_part part_second(v16_part pairs)
{
    uint32_t bits[LANES];
    memcpy(bits, &pairs, sizeof bits);
    for (int i = 0; i < LANES; i++) bits[i] &= 0xffff0000u;
    memcpy(&pairs, bits, sizeof bits);
    return pairs;
}

PXR_INLINE v16_part part_first(v16_part pairs)
{
    uint32_t bits[LANES];
    memcpy(bits, &pairs, sizeof bits);
    for (int i = 0; i < LANES; i++) bits[i] <<= 16;
    memcpy(&pairs, bits, sizeof bits);
    return pairs;
}

#endif

/* acc + a's second times b's second, rounded, + a's first times b's first, rounded. */
PXR_INLINE v16_part part_dot(v16_part acc, v16_part a, v16_part b)
{
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
#else
    return part_fma(part_first(a), part_first(b), part_fma(part_second(a), part_second(b), acc));
#endif
}

PXR_INLINE v16 v16_dot(v16 acc, v16 a, v16 b)
{
#if defined(__AVX2__) && !defined(__AVX512F__)
    return PXR_V16(part_dot(acc.low, a.low, b.low), part_dot(acc.high, a.high, b.high));
#else
    return part_dot(acc, a, b);
#endif
}

/* ---- pairs of vectors ------------------------------------------------------------------------------------------- */

enum { RUN = 2 * LANES /* numbers that are paired: the first half with the second */ };

/* The numbers that have bfloat16's precision, in pairs. */
PXR_INLINE v16_part part_pair(v16_part first, v16_part second)
{
#if defined(__AVX512F__)
    const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(first), 16);
    return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(second)));
#elif defined(__AVX2__)
    const __m256i low = _mm256_srli_epi32(_mm256_castps_si256(first), 16);
    return _mm256_castsi256_ps(_mm256_or_si256(low, _mm256_castps_si256(second)));
#else
    uint32_t bits[2][LANES];
    memcpy(bits[0], &first, sizeof first);
    memcpy(bits[1], &second, sizeof second);
    for (int i = 0; i < LANES; i++) bits[1][i] |= bits[0][i] >> 16;
    memcpy(&second, bits[1], sizeof second);
    return second;
#endif
}

/* Rounds two vectors to bfloat16. */
PXR_INLINE void v16_store_pair(float *to, v16 first, v16 second)
{
    first = v16_round_bf16(first);
    second = v16_round_bf16(second);
    for (int i = 0; i < PARTS; i++)
        part_store(to + i * PART_LANES, part_pair(v16_part_of(first, i), v16_part_of(second, i)));
}

#if defined(__AVX512F__)

/* A run of bfloat16 of each of two rows, which are paired; zeros for a row that is NULL. */
PXR_INLINE void v16_store_pair_of_rows(float *to, const char *first, const char *second)
{
    const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                           37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i behind = _mm512_add_epi16(order, _mm512_set1_epi16(LANES));
    const __m512i a = first ? _mm512_loadu_si512(first) : _mm512_setzero_si512();
    const __m512i b = second ? _mm512_loadu_si512(second) : _mm512_setzero_si512();
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, order, b));
    _mm512_storeu_si512(to + LANES, _mm512_permutex2var_epi16(a, behind, b));
}

/* Sixteen rows of a run of bfloat16, `stride` bytes apart (from `count` on: zeros), become columns: pair i of each row i,
 * `to_stride` floats apart. */
PXR_INLINE void v16_transpose_run(const char *from, int64_t stride, int64_t count, float *to, int64_t to_stride)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i rows[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        rows[i] = i < count ? _mm512_permutexvar_epi16(order, _mm512_loadu_si512(from + i * stride))
                            : _mm512_setzero_si512();
    transpose_bits(rows);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) _mm512_storeu_si512(to + i * to_stride, rows[i]);
}

#elif defined(__AVX2__)

PXR_INLINE void v16_store_pair_of_rows(float *to, const char *first, const char *second)
{
    const __m256i zero = _mm256_setzero_si256();
    for (int i = 0; i < 2; i++) {
        const __m256i a = first ? _mm256_loadu_si256((const __m256i *)(const void *)first + i) : zero;
        const __m256i b = second ? _mm256_loadu_si256((const __m256i *)(const void *)second + i) : zero;
        const __m256i low = _mm256_unpacklo_epi16(a, b), high = _mm256_unpackhi_epi16(a, b);
        _mm256_storeu_si256((__m256i *)(void *)(to + i * LANES), _mm256_permute2x128_si256(low, high, 0x20));
        _mm256_storeu_si256((__m256i *)(void *)(to + i * LANES + 8), _mm256_permute2x128_si256(low, high, 0x31));
    }
}

/* Eight rows and eight pairs at a time, which the registers hold; the pairs that one instruction makes are 0 .. 3 and 8 .. 11,
 * or 4 .. 7 and 12 .. 15. */
PXR_INLINE void v16_transpose_run(const char *from, int64_t stride, int64_t count, float *to, int64_t to_stride)
{
    for (int quarter = 0; quarter < 4; quarter++) {
        const int row = quarter / 2 * 8, pair = quarter % 2 * 4;
        __m256 rows[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            const __m256i *at = (const __m256i *)(const void *)(from + (row + i) * stride);
            rows[i] = _mm256_setzero_ps();
            if (row + i >= count) continue;
            const __m256i first = _mm256_loadu_si256(at), second = _mm256_loadu_si256(at + 1);
            rows[i] = _mm256_castsi256_ps(pair == 0 ? _mm256_unpacklo_epi16(first, second)
                                                    : _mm256_unpackhi_epi16(first, second));
        }
        v8_transpose(rows);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) _mm256_storeu_ps(to + (pair + i / 4 * 8 + i % 4) * to_stride + row, rows[i]);
    }
}

#else

PXR_INLINE void v16_store_pair_of_rows(float *to, const char *first, const char *second)
{
    for (int64_t i = 0; i < RUN; i += LANES)
        v16_store_pair(to + i, first ? v16_load_bf16(first + i * 2) : v16_set(0.0f),
                       second ? v16_load_bf16(second + i * 2) : v16_set(0.0f));
}

PXR_INLINE void v16_transpose_run(const char *from, int64_t stride, int64_t count, float *to, int64_t to_stride)
{
    v16 first[LANES], second[LANES];
    for (int64_t i = 0; i < LANES; i++) {
        first[i] = i < count ? v16_load_bf16(from + i * stride) : v16_set(0.0f);
        second[i] = i < count ? v16_load_bf16(from + i * stride + LANES * 2) : v16_set(0.0f);
    }
    v16_transpose(first);
    v16_transpose(second);
    for (int64_t i = 0; i < LANES; i++) v16_store_pair(to + i * to_stride, first[i], second[i]);
}

#endif

/* ---- steps of products ------------------------------------------------------------------------------------------
 *
 * A vector of pairs times a pair in all lanes: one instruction, or two FMAs of float32, the second numbers first. The pairs
 * that lanes share are read number by number then: the second ones, and `apart` floats behind them the first ones. */
#if defined(__AVX512BF16__)

enum { PAIR_STEPS = 1 };

/* Rounds two vectors to bfloat16. */
PXR_INLINE void v16_store_shared_pair(float *to, int64_t apart, v16 first, v16 second)
{
    (void)apart;
    v16_store_pair(to, first, second);
}

/* What a step multiplies of some pairs. */
PXR_INLINE v16 v16_of_step(v16 pairs, const int step)
{
    (void)step;
    return pairs;
}

PXR_INLINE v16 v16_add_step(v16 acc, v16 a, v16 b)
{
    return v16_dot(acc, a, b);
}

#else

enum { PAIR_STEPS = 2 };

PXR_INLINE void v16_store_shared_pair(float *to, int64_t apart, v16 first, v16 second)
{
    v16_store(to, v16_round_bf16(second));
    v16_store(to + apart, v16_round_bf16(first));
}

PXR_INLINE v16 v16_of_step(v16 pairs, const int step)
{
#if defined(__AVX2__) && !defined(__AVX512F__)
    return step == 0 ? PXR_V16(part_second(pairs.low), part_second(pairs.high))
                     : PXR_V16(part_first(pairs.low), part_first(pairs.high));
#else
    return step == 0 ? part_second(pairs) : part_first(pairs);
#endif
}

PXR_INLINE v16 v16_add_step(v16 acc, v16 a, v16 b)
{
    return v16_fma(a, b, acc);
}

#endif

#endif
