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

#if defined(__AVX512BF16__)

enum { PAIR_VECTORS = 1 };

/* Of 32 numbers of bfloat16 each with the one 16 behind it. */
PXR_INLINE v16 v16_pairs_of_run(const char *from)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, _mm512_loadu_si512(from)));
}

/* Each of 32 numbers of bfloat16 with the other row's; zeros for a row that is NULL. */
PXR_INLINE void v16_pairs_of_rows(const char *first, const char *second, v16 *low, v16 *high)
{
    const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                           37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i a = first ? _mm512_loadu_si512(first) : _mm512_setzero_si512();
    const __m512i b = second ? _mm512_loadu_si512(second) : _mm512_setzero_si512();
    *low = _mm512_castsi512_ps(_mm512_permutex2var_epi16(a, order, b));
    *high = _mm512_castsi512_ps(_mm512_permutex2var_epi16(a, _mm512_add_epi16(order, _mm512_set1_epi16(LANES)), b));
}

/* Rounds two vectors to bfloat16, for v16_dot. */
PXR_INLINE void v16_store_pair(float *to, int64_t apart, v16 first, v16 second)
{
    (void)apart;
    const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(v16_round_bf16(first)), 16);
    _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_castps_si512(v16_round_bf16(second))));
}

#else

enum { PAIR_VECTORS = 2 };

/* Where there are no pairs in a register nothing reads them. */
PXR_INLINE v16 v16_pairs_of_run(const char *from)
{
    (void)from;
    return v16_set(0.0f);
}

PXR_INLINE void v16_pairs_of_rows(const char *first, const char *second, v16 *low, v16 *high)
{
    (void)first, (void)second;
    *low = *high = v16_set(0.0f);
}

/* Rounds two vectors to bfloat16, for v16_fma: that of the second, and `apart` floats behind it that of the first. */
PXR_INLINE void v16_store_pair(float *to, int64_t apart, v16 first, v16 second)
{
    v16_store(to, v16_round_bf16(second));
    v16_store(to + apart, v16_round_bf16(first));
}

#endif

#endif
