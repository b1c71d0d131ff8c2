/* Products of rows in eight bits with weights of eight or four: the kernel of linear for compute = "int8". Included by
 * kernels_*.c only.
 *
 * The integers of a chunk are multiplied and summed exactly; sums over chunks are in order, each
 * acc = fma(sum, x's scale * weight's scale, acc): the same bits for any number of rows and on every instruction set.
 * Without VNNI this is plain C, for comparison: float32 is faster there.
 */
#ifndef PXR_CPU_LINEAR_INT8_KERNEL_H
#define PXR_CPU_LINEAR_INT8_KERNEL_H

#include "cpu/linear_kernel.h"

/* Where rows of int8 are and what goes with them, from one row of them on. */
typedef struct int8_rows {
    const char *x;
    const float *scales;
    const int32_t *corrections;
} int8_rows;

PXR_INLINE int8_rows int8_row(const pxr_linear_job *job, int64_t row)
{
    return (int8_rows){.x = job->x.data + row * job->x_stride,
                       .scales = job->chunks.scales + row * job->chunks.count,
                       .corrections = job->chunks.corrections + row * job->chunks.count};
}

/* The group of weights in which a chunk lies. */
PXR_INLINE int64_t group_of(const pxr_linear_job *job, int64_t chunk)
{
    return chunk << job->chunks.shift >> job->scales.group_shift;
}

/* Where the scale of a weight row's chunk is. */
PXR_INLINE const char *chunk_scale(const pxr_linear_job *job, int64_t column, int64_t chunk)
{
    return job->scales.data + column * job->scales.stride + group_of(job, chunk) * (int64_t)sizeof(uint16_t);
}

PXR_INLINE float float16_at(const char *from)
{
    uint16_t bits;
    memcpy(&bits, from, sizeof bits);
#if defined(__AVX2__)
    return _cvtsh_ss(bits);
#else
    return pxr_f16_to_f32(bits);
#endif
}

/* ---- rows of x ---------------------------------------------------------------------------------------------------- */

/* A chunk's integers; with weights of four bits those of even columns, then those of odd ones, as bytes of two weights
 * are split. */
static void order_chunk(int8_t *out, const int8_t *integers, int64_t length, pxr_dtype weights)
{
    if (weights == PXR_I8) {
        memcpy(out, integers, (size_t)length);
        return;
    }
    const int64_t half = length / 2;
#if defined(__AVX512F__)
    for (int64_t i = 0; i < half; i += LANES) {
        const __m256i pairs = _mm256_loadu_si256((const __m256i *)(integers + 2 * i));
        _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtepi16_epi8(pairs));
        _mm_storeu_si128((__m128i *)(out + half + i), _mm256_cvtepi16_epi8(_mm256_srli_epi16(pairs, 8)));
    }
#else
    for (int64_t i = 0; i < half; i++) {
        out[i] = integers[2 * i];
        out[half + i] = integers[2 * i + 1];
    }
#endif
}

/* Integers of one chunk of `length` values, all zero where their inverse scale would not be finite; a chunk that is not
 * finite itself gets a scale that is not a number. */
static void quantize_chunk(int8_t *integers, float *scale, int32_t *sum, const float *x, int64_t length)
{
    v16 largest = v16_set(0.0f), zeros = v16_set(0.0f), total = v16_set(0.0f);
    for (int64_t i = 0; i < length; i += LANES) {
        const v16 value = v16_load_some(x + i, length - i);
        largest = v16_max(largest, v16_abs(value));
        zeros = v16_fma(value, v16_set(0.0f), zeros);
    }
    const bool is_finite = v16_sum(zeros) == 0.0f;
    const float exact = v16_largest(largest) / 127.0f;
    *scale = !is_finite ? NAN : exact > 0x1p-120f ? exact : 0.0f;
    const v16 factor = v16_set(is_finite && *scale > 0.0f ? 1.0f / *scale : 0.0f);
    for (int64_t i = 0; i < length && is_finite; i += LANES) {
        const v16 value = v16_clamp(v16_mul(v16_load_some(x + i, length - i), factor), -127.0f, 127.0f);
        v16_store_i8(integers + i, value);
        total = v16_add(total, v16_round(value)); /* integers below 2^14: exact */
    }
    *sum = (int32_t)v16_sum(total);
}

static void quantize_x(int8_t *out, const pxr_chunks *chunks, int64_t row, pxr_dtype weights, const float *x,
                       int64_t count, int64_t padded)
{
    const int64_t length = (int64_t)1 << chunks->shift;
    const int32_t offset = weights == PXR_I8 ? 128 : 8;
    for (int64_t k = 0; k < padded; k += length) {
        int8_t integers[PXR_CHUNK_BLOCK] = {0};
        if (k < count) {
            const int64_t at = row * chunks->count + (k >> chunks->shift);
            int32_t sum;
            quantize_chunk(integers, &chunks->scales[at], &sum, x + k, count - k < length ? count - k : length);
            chunks->corrections[at] = -offset * sum;
        }
        order_chunk(out + k, integers, length, weights);
    }
}

#if defined(__AVX512VNNI__)

/* sum + the products of bytes, four to a lane. GCC 12 copies a loop's sums twice a step around its intrinsic. */
PXR_INLINE __m512i dot_bytes(__m512i sum, __m512i weights, __m512i x)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(x));
    return sum;
}

/* 64 bytes of weights, those behind the first `count` zero. */
PXR_INLINE __m512i load_bytes(const char *from, int64_t count)
{
    if (count >= 64) return _mm512_loadu_si512(from);
    return count > 0 ? _mm512_maskz_loadu_epi8(((__mmask64)1 << count) - 1, from) : _mm512_setzero_si512();
}

enum {
    INT8_LANES = 16,   /* columns of a register */
    SCALE_GROUPS = 32, /* whose scales a register holds */
};

/* float16 scales of sixteen columns, two groups to a register. */
typedef union column_scales {
    __m512i pairs[SCALE_GROUPS / 2];
    uint16_t of[SCALE_GROUPS][INT8_LANES];
} column_scales;

/* Reads the scales from `group` on, `groups` of them but at most SCALE_GROUPS, of sixteen columns from `column` on; those
 * of columns behind `count` are zero. The next columns' are asked for. */
PXR_INLINE void read_scales(const pxr_linear_job *job, int64_t column, int64_t count, int64_t group, int64_t groups,
                            column_scales *scales)
{
    const __m512i firsts_seconds = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28,
                                                    26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __mmask32 there = groups < SCALE_GROUPS ? ((__mmask32)1 << groups) - 1 : ~(__mmask32)0;
    const int64_t stride = job->scales.stride;
    const char *from = job->scales.data + column * stride + group * (int64_t)sizeof(uint16_t);
    __m512i rows[INT8_LANES];
#pragma GCC unroll 16
    for (int64_t c = 0; c < INT8_LANES; c++) {
        rows[c] = c < count ? _mm512_maskz_loadu_epi16(there, from + c * stride) : _mm512_setzero_si512();
        fetch(from + (c + INT8_LANES) * stride, 1);
    }
    transpose_bits(rows); /* two scales are a lane */
#pragma GCC unroll 16
    for (int i = 0; i < SCALE_GROUPS / 2; i++)
        _mm512_storeu_si512(&scales->pairs[i], _mm512_permutexvar_epi16(firsts_seconds, rows[i]));
}

PXR_INLINE __m512 scales_of_group(const column_scales *scales, int64_t group)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)scales->of[group]));
}

/* ---- few rows --------------------------------------------------------------------------------------------------- */

enum {
    INT8_ROWS = 4,    /* rows that share the weights that were read */
    INT8_COLUMNS = 4, /* columns whose sums are in registers, a fourth of those that are finished together */
    HALF_BLOCK = PXR_CHUNK_BLOCK / 2,
};

/* Sums of the four lanes of each quarter of four registers: quarter q of the result holds a's, b's, c's and d's. */
PXR_INLINE __m512i quarter_sums(__m512i a, __m512i b, __m512i c, __m512i d)
{
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* Of four registers, each with the sums of four columns by quarters, of which `chunks` are whole chunks: sums[i] are
 * chunk i's, of sixteen columns. */
PXR_INLINE void chunk_sums(const __m512i *quarters, const int chunks, __m512i *sums)
{
    const __m512i a = quarters[0], b = quarters[1], c = quarters[2], d = quarters[3];
    if (chunks == 4) { /* a quarter each */
        const __m512i low_ab = _mm512_shuffle_i64x2(a, b, 0x44), low_cd = _mm512_shuffle_i64x2(c, d, 0x44);
        const __m512i high_ab = _mm512_shuffle_i64x2(a, b, 0xee), high_cd = _mm512_shuffle_i64x2(c, d, 0xee);
        sums[0] = _mm512_shuffle_i64x2(low_ab, low_cd, 0x88);
        sums[1] = _mm512_shuffle_i64x2(low_ab, low_cd, 0xdd);
        sums[2] = _mm512_shuffle_i64x2(high_ab, high_cd, 0x88);
        sums[3] = _mm512_shuffle_i64x2(high_ab, high_cd, 0xdd);
        return;
    }
    const __m512i ab = _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
    const __m512i cd = _mm512_add_epi32(_mm512_shuffle_i64x2(c, d, 0x88), _mm512_shuffle_i64x2(c, d, 0xdd));
    sums[0] = _mm512_shuffle_i64x2(ab, cd, 0x88);
    sums[1] = _mm512_shuffle_i64x2(ab, cd, 0xdd);
    if (chunks == 1) sums[0] = _mm512_add_epi32(sums[0], sums[1]);
}

/* What the two registers of a block's weights are multiplied by: bytes 0 .. 63 and 64 .. 127, or, of weights of four bits
 * in chunks below 128, the chunks' first halves and their second ones. Weights of eight bits in chunks below 128 go by
 * one register. */
PXR_INLINE void load_x(const char *x, const pxr_dtype dtype, const int shift, __m512i *first, __m512i *second)
{
    const __m512i a = _mm512_loadu_si512(x);
    *first = *second = a;
    if (dtype == PXR_I8 && shift < PXR_CHUNK_SHIFT_MAX) return; /* behind it the row may end */
    const __m512i b = _mm512_loadu_si512(x + HALF_BLOCK);
    if (shift == PXR_CHUNK_SHIFT_MAX) {
        *second = b;
    } else if (shift == PXR_CHUNK_SHIFT_MIN) {
        *first = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13), b);
        *second = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15), b);
    } else {
        *first = _mm512_shuffle_i64x2(a, b, 0x44);
        *second = _mm512_shuffle_i64x2(a, b, 0xee);
    }
}

/* Columns of x that a step covers: 128, or 64 of eight bits in chunks below 128. */
PXR_INLINE int64_t int8_span(const pxr_dtype dtype, const int shift)
{
    return dtype == PXR_I8 && shift < PXR_CHUNK_SHIFT_MAX ? HALF_BLOCK : PXR_CHUNK_BLOCK;
}

/* What sums begin with: the corrections of up to four chunks, of which `left` are there, in a lane of their quarters. */
PXR_INLINE __m512i spread_corrections(const int32_t *corrections, const int chunks, int64_t left)
{
    if (chunks == 1) return _mm512_maskz_set1_epi32(1, *corrections);
    const __mmask8 there = left < chunks ? (__mmask8)((1u << left) - 1) : (__mmask8)((1u << chunks) - 1);
    const __m512i all = _mm512_castsi128_si512(_mm_maskz_loadu_epi32(there, corrections));
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0);
    const __m512i half = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_maskz_permutexvar_epi32(chunks == 4 ? 0x1111 : 0x0101, chunks == 4 ? lane : half, all);
}

/* A row of weights from a step's first byte on, `bytes` of them, as one or two registers of bytes without sign. */
PXR_INLINE void load_integers(const char *w, const pxr_dtype dtype, const int registers, const bool whole,
                              int64_t bytes, __m512i *first, __m512i *second)
{
    const __m512i sign = _mm512_set1_epi8(-128), low = _mm512_set1_epi8(15);
    const __m512i bits = whole ? _mm512_loadu_si512(w) : load_bytes(w, bytes);
    *second = _mm512_setzero_si512();
    if (dtype == PXR_U8) {
        *first = _mm512_and_si512(bits, low);
        *second = _mm512_and_si512(_mm512_srli_epi16(bits, 4), low);
        return;
    }
    *first = _mm512_xor_si512(bits, sign);
    if (registers == 2)
        *second = _mm512_xor_si512(whole ? _mm512_loadu_si512(w + 64) : load_bytes(w + 64, bytes - 64), sign);
}

/* sums[r][i] = chunk i of the step from k on, for sixteen columns of which `count` are there; all of them and the whole
 * step if `whole`. The next sixteen columns' weights are asked for. */
PXR_INLINE void sum_step(const pxr_linear_job *job, const int rows, const pxr_dtype dtype, const int shift,
                         const bool whole, const int8_rows *x, int64_t column, int64_t count, int64_t k,
                         __m512i (*sums)[4])
{
    const int registers = dtype == PXR_I8 && shift == PXR_CHUNK_SHIFT_MAX ? 2 : 1;
    const int chunks = (int)(int8_span(dtype, shift) >> shift);
    const int64_t begin = dtype == PXR_I8 ? k : k >> 1, chunk = k >> shift, stride = job->weight_stride;
    const int64_t bytes = (dtype == PXR_I8 ? job->depth : (job->depth + 1) / 2) - begin;
    const char *w = job->weight.data + column * stride + begin;
    __m512i quarters[INT8_ROWS][4], x_first[INT8_ROWS], x_second[INT8_ROWS], corrections[INT8_ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        load_x(x[r].x + k, dtype, shift, &x_first[r], &x_second[r]);
        const int64_t left = whole ? chunks : job->chunks.count - chunk;
        corrections[r] = spread_corrections(x[r].corrections + chunk, chunks, left);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++, w += INT8_COLUMNS * stride) {
        __m512i exact[INT8_ROWS][INT8_COLUMNS];
        const char *next = w + INT8_LANES * stride;
        __asm__("" : "+r"(w), "+r"(next)); /* else GCC keeps a pointer for each column, in memory */
#pragma GCC unroll 4
        for (int c = 0; c < INT8_COLUMNS; c++) {
            __m512i first, second;
            load_integers(w + c * stride, dtype, registers, whole, INT8_COLUMNS * i + c < count ? bytes : 0, &first,
                          &second);
            fetch(next + c * stride, (int64_t)registers * CACHE_LINE);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                exact[r][c] = dot_bytes(corrections[r], first, x_first[r]);
                if (dtype == PXR_U8 || registers == 2) exact[r][c] = dot_bytes(exact[r][c], second, x_second[r]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            quarters[r][i] = quarter_sums(exact[r][0], exact[r][1], exact[r][2], exact[r][3]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) chunk_sums(quarters[r], chunks, sums[r]);
}

/* acc[r] += the step from k on; `scales` begin with group `first`. */
PXR_INLINE void add_step(const pxr_linear_job *job, const int rows, const pxr_dtype dtype, const int shift,
                         const bool whole, const int8_rows *x, int64_t column, int64_t count, int64_t k,
                         const column_scales *scales, int64_t first, __m512 *acc)
{
    const int chunks = (int)(int8_span(dtype, shift) >> shift);
    __m512i sums[INT8_ROWS][4];
    sum_step(job, rows, dtype, shift, whole, x, column, count, k, sums);
#pragma GCC unroll 4
    for (int i = 0; i < chunks; i++) {
        const int64_t chunk = (k >> shift) + i;
        if (!whole && chunk >= job->chunks.count) return;
        const __m512 of_weights = scales_of_group(scales, group_of(job, chunk) - first);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][i]),
                                     _mm512_mul_ps(of_weights, _mm512_set1_ps(x[r].scales[chunk])), acc[r]);
    }
}

/* sums[r][c] = x[r] . weight row column + c for sixteen columns, of which `count` are there. */
PXR_INLINE void int8_tile(const pxr_linear_job *job, const int rows, const pxr_dtype dtype, const int shift,
                          const int8_rows *x, int64_t column, int64_t count, float (*sums)[STRIP])
{
    const int64_t span = int8_span(dtype, shift), whole_depth = count < INT8_LANES ? 0 : job->depth / span * span;
    const int64_t stretch = (int64_t)SCALE_GROUPS << job->scales.group_shift; /* whose scales are read together */
    const int64_t groups = ((job->depth - 1) >> job->scales.group_shift) + 1;
    __m512 acc[INT8_ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) acc[r] = _mm512_setzero_ps();
    for (int64_t begin = 0, group = 0; begin < job->depth; begin += stretch, group += SCALE_GROUPS) {
        const int64_t end = begin + stretch < job->depth ? begin + stretch : job->depth;
        column_scales scales;
        read_scales(job, column, count, group, groups - group, &scales);
        int64_t k = begin;
        for (; k < end && k < whole_depth; k += span)
            add_step(job, rows, dtype, shift, true, x, column, INT8_LANES, k, &scales, group, acc);
        for (; k < end; k += span) add_step(job, rows, dtype, shift, false, x, column, count, k, &scales, group, acc);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) _mm512_storeu_ps(sums[r], acc[r]);
}

/* `rows` rows from `row` on; those past the part's last repeat it and are thrown away. */
PXR_INLINE void int8_strip(const pxr_linear_job *job, const pxr_linear_part *part, const int rows,
                           const pxr_dtype dtype, const int shift, int64_t row, int64_t column, int64_t count)
{
    const int64_t left = part->row_end - row, there = left < rows ? left : rows;
    int8_rows x[INT8_ROWS];
    float sums[INT8_ROWS][STRIP];
    for (int r = 0; r < rows; r++) x[r] = int8_row(job, row + (r < there ? r : there - 1));
    for (int64_t c = 0; c < count; c += INT8_LANES)
        int8_tile(job, rows, dtype, shift, x, column + c, count - c < INT8_LANES ? count - c : INT8_LANES,
                  (float(*)[STRIP])(sums[0] + c));
    for (int r = 0; r < there; r++) finish_row(job, row + r, column, sums[r], count);
}

PXR_TEMPLATE void int8_product_of_few(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype,
                                      const int shift)
{
    const int64_t rows = part->row_end - part->row_begin;
    for (int64_t column = part->column_begin; column < part->column_end; column += STRIP) {
        const int64_t left = part->column_end - column, count = left < STRIP ? left : STRIP;
        if (rows == 1) int8_strip(job, part, 1, dtype, shift, part->row_begin, column, count);
        for (int64_t row = part->row_begin; rows > 1 && row < part->row_end; row += INT8_ROWS)
            int8_strip(job, part, INT8_ROWS, dtype, shift, row, column, count);
    }
}

/* ---- many rows -------------------------------------------------------------------------------------------------- */

enum {
    INT8_REGISTERS = PXR_LINEAR_INT8_COLUMNS / INT8_LANES, /* of columns */
    INT8_TILE_ROWS = 6,                                    /* rows whose sums are in registers */
    INT8_DEPTH = 512,                                      /* k that a block holds: 16 KiB of weights */
    INT8_STEPS = INT8_DEPTH / 4,                           /* of four k, one lane */
};

/* Weights in the order in which tiles read them, for one step 16 columns of four k; their scales; the sums so far. */
typedef struct int8_block {
    __m512i weights[INT8_STEPS][INT8_REGISTERS];
    float scales[INT8_DEPTH >> PXR_CHUNK_SHIFT_MIN][PXR_LINEAR_INT8_COLUMNS];
    float sums[PXR_LINEAR_INT8_ROWS][PXR_LINEAR_INT8_COLUMNS];
} int8_block;

/* The 64 bytes of sixteen columns at `begin` of their rows, as sixteen steps of eight bits each, or as 32: the low
 * halves of bytes, and the high ones, chunk by chunk. All of them are there if `whole`. */
PXR_INLINE void pack_steps(const pxr_linear_job *job, const pxr_dtype dtype, const bool whole, int64_t column,
                           int64_t count, int64_t begin, __m512i (*steps)[INT8_REGISTERS])
{
    const int64_t bytes = (dtype == PXR_I8 ? job->depth : (job->depth + 1) / 2) - begin;
    const int half = 1 << job->chunks.shift >> 3; /* steps of a chunk's halves */
    const char *w = job->weight.data + column * job->weight_stride + begin;
    __m512i rows[INT8_LANES];
#pragma GCC unroll 16
    for (int64_t c = 0; c < INT8_LANES; c++, w += job->weight_stride)
        rows[c] = whole ? _mm512_loadu_si512(w) : c < count ? load_bytes(w, bytes) : _mm512_setzero_si512();
    transpose_bits(rows);
#pragma GCC unroll 16
    for (int s = 0; s < INT8_LANES; s++) {
        if (dtype == PXR_I8) {
            steps[s][0] = _mm512_xor_si512(rows[s], _mm512_set1_epi8(-128));
        } else {
            const int at = s + s / half * half;
            steps[at][0] = _mm512_and_si512(rows[s], _mm512_set1_epi8(15));
            steps[at + half][0] = _mm512_and_si512(_mm512_srli_epi16(rows[s], 4), _mm512_set1_epi8(15));
        }
    }
}

/* Columns of x that a block holds of the `left` ones: whole chunks. */
PXR_INLINE int64_t padded_depth(int64_t left)
{
    return left < INT8_DEPTH ? (left + PXR_CHUNK_BLOCK - 1) / PXR_CHUNK_BLOCK * PXR_CHUNK_BLOCK : INT8_DEPTH;
}

/* Columns column .. column + count - 1 from k on; what is missing is zero. All of them are there if `whole`. */
PXR_INLINE void pack_block(const pxr_linear_job *job, const pxr_dtype dtype, const bool whole, int64_t column,
                           int64_t count, int64_t k, int64_t depth, int8_block *block)
{
    const int64_t span = dtype == PXR_I8 ? 64 : PXR_CHUNK_BLOCK; /* k that 64 bytes hold */
    for (int64_t at = 0; at < depth; at += span)
        for (int64_t v = 0; v < INT8_REGISTERS; v++)
            pack_steps(job, dtype, whole, column + v * INT8_LANES, count - v * INT8_LANES,
                       dtype == PXR_I8 ? k + at : (k + at) / 2,
                       (__m512i(*)[INT8_REGISTERS]) & block->weights[at / 4][v]);
    const int64_t first = k >> job->chunks.shift, left = job->chunks.count - first;
    const int64_t chunks = left < depth >> job->chunks.shift ? left : depth >> job->chunks.shift;
    const int64_t group = group_of(job, first), groups = group_of(job, first + chunks - 1) + 1 - group;
    for (int64_t v = 0; v < INT8_REGISTERS; v++) {
        column_scales scales;
        read_scales(job, column + v * INT8_LANES, count - v * INT8_LANES, group, groups, &scales);
        for (int64_t i = 0; i < chunks; i++)
            _mm512_storeu_ps(block->scales[i] + v * INT8_LANES,
                             scales_of_group(&scales, group_of(job, first + i) - group));
    }
}

/* `rows` rows from row `row` on times the block, chunk by chunk. On the way it asks for what the next block will be made
 * of, 32 columns from `next` on (NULL: it does not): while a block is packed memory could not deliver as much. */
PXR_INLINE void int8_block_tile(const pxr_linear_job *job, const int rows, int64_t row, int64_t k, int64_t depth,
                                const int8_block *block, const char *next, float (*sums)[PXR_LINEAR_INT8_COLUMNS])
{
    const int64_t next_bytes = weight_bytes(job->weight.dtype, INT8_DEPTH);
    const int shift = job->chunks.shift;
    const int64_t steps = (int64_t)1 << shift >> 2, stride = job->x_stride;
    const int64_t first_chunk = k >> shift, chunks = job->chunks.count - first_chunk;
    const int8_rows rows_of_x = int8_row(job, row);
    const char *x = rows_of_x.x + k;
    const __m512i(*weights)[INT8_REGISTERS] = block->weights;
    __m512 acc[INT8_TILE_ROWS][INT8_REGISTERS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < INT8_REGISTERS; v++) acc[r][v] = _mm512_loadu_ps(sums[r] + v * INT8_LANES);
    for (int64_t i = 0; i < depth >> shift && i < chunks; i++) {
        const int32_t *corrections = rows_of_x.corrections + first_chunk + i;
        const float *x_scales = rows_of_x.scales + first_chunk + i;
        __m512i sum[INT8_TILE_ROWS][INT8_REGISTERS];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int v = 0; v < INT8_REGISTERS; v++) sum[r][v] = _mm512_set1_epi32(corrections[r * job->chunks.count]);
        if (next)
            for (int64_t column = 0; column < steps / 4; column++, next += job->weight_stride) fetch(next, next_bytes);
        for (int64_t step = 0; step < steps; step++, weights++, x += 4) {
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, x + r * stride, sizeof four);
#pragma GCC unroll 2
                for (int v = 0; v < INT8_REGISTERS; v++)
                    sum[r][v] = dot_bytes(sum[r][v], (*weights)[v], _mm512_set1_epi32(four));
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int v = 0; v < INT8_REGISTERS; v++) {
                const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(block->scales[i] + v * INT8_LANES),
                                                   _mm512_set1_ps(x_scales[r * job->chunks.count]));
                acc[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][v]), scale, acc[r][v]);
            }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < INT8_REGISTERS; v++) _mm512_storeu_ps(sums[r] + v * INT8_LANES, acc[r][v]);
}

/* All rows of a part times the block, in tiles. */
PXR_INLINE void int8_times_block(const pxr_linear_job *job, const pxr_linear_part *part, int64_t k, int64_t depth,
                                 const char *next, int8_block *block)
{
    int64_t row = part->row_begin;
    float(*sums)[PXR_LINEAR_INT8_COLUMNS] = block->sums;
    for (; row + INT8_TILE_ROWS <= part->row_end; row += INT8_TILE_ROWS, sums += INT8_TILE_ROWS, next = NULL)
        int8_block_tile(job, INT8_TILE_ROWS, row, k, depth, block, next, sums);
    for (; row + 4 <= part->row_end; row += 4, sums += 4, next = NULL)
        int8_block_tile(job, 4, row, k, depth, block, next, sums);
    for (; row + 2 <= part->row_end; row += 2, sums += 2) int8_block_tile(job, 2, row, k, depth, block, NULL, sums);
    for (; row < part->row_end; row++, sums++) int8_block_tile(job, 1, row, k, depth, block, NULL, sums);
}

/* At most PXR_LINEAR_INT8_COLUMNS columns. */
PXR_TEMPLATE void int8_product_of_many(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype)
{
    const int64_t rows = part->row_end - part->row_begin, count = part->column_end - part->column_begin;
    const char *w = job->weight.data + part->column_begin * job->weight_stride;
    int8_block block; /* too large to be cleared whole */
    memset(block.sums, 0, (size_t)rows * sizeof block.sums[0]);
    for (int64_t k = 0; k < job->depth; k += INT8_DEPTH) {
        const int64_t left = job->depth - k, end = k + INT8_DEPTH;
        if (left >= INT8_DEPTH && count == PXR_LINEAR_INT8_COLUMNS)
            pack_block(job, dtype, true, part->column_begin, count, k, INT8_DEPTH, &block);
        else
            pack_block(job, dtype, false, part->column_begin, count, k, padded_depth(left), &block);
        const char *next = left > INT8_DEPTH ? w + weight_bytes(dtype, end)
                                             : w + PXR_LINEAR_INT8_COLUMNS * job->weight_stride;
        int8_times_block(job, part, k, padded_depth(left), next, &block);
    }
    for (int64_t r = 0; r < rows; r++) finish_row(job, part->row_begin + r, part->column_begin, block.sums[r], count);
}

PXR_TEMPLATE void int8_linear_of(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype)
{
    if (part->row_end - part->row_begin <= INT8_ROWS) {
        if (job->chunks.shift == 7)
            int8_product_of_few(job, part, dtype, 7);
        else if (job->chunks.shift == 6)
            int8_product_of_few(job, part, dtype, 6);
        else
            int8_product_of_few(job, part, dtype, 5);
        return;
    }
    for (int64_t column = part->column_begin; column < part->column_end; column += PXR_LINEAR_INT8_COLUMNS) {
        const int64_t end = column + PXR_LINEAR_INT8_COLUMNS;
        pxr_linear_part strip = *part;
        strip.column_begin = column;
        strip.column_end = end < part->column_end ? end : part->column_end;
        int8_product_of_many(job, &strip, dtype);
    }
}

#else

/* Element k of a weight row, with its offset. */
PXR_INLINE int32_t offset_weight(const char *row, const pxr_dtype dtype, int64_t k)
{
    if (dtype == PXR_I8) return (int32_t)(signed char)row[k] + 128;
    return (int32_t)((unsigned char)row[k / 2] >> (k % 2 * 4)) & 15;
}

PXR_TEMPLATE float int8_dot(const pxr_linear_job *job, const pxr_dtype dtype, int8_rows x, int64_t column)
{
    const char *w = job->weight.data + column * job->weight_stride;
    const int64_t length = (int64_t)1 << job->chunks.shift;
    float acc = 0.0f;
    for (int64_t chunk = 0; chunk < job->chunks.count; chunk++) {
        const int64_t begin = chunk * length, end = begin + length < job->depth ? begin + length : job->depth;
        int32_t sum = x.corrections[chunk];
        for (int64_t k = begin; k < end; k++) {
            const int64_t at = dtype == PXR_I8 ? k : begin + (k - begin) / 2 + k % 2 * (length / 2);
            sum += offset_weight(w, dtype, k) * (signed char)x.x[at];
        }
        acc = fmaf((float)sum, float16_at(chunk_scale(job, column, chunk)) * x.scales[chunk], acc);
    }
    return acc;
}

PXR_TEMPLATE void int8_linear_of(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype)
{
    for (int64_t row = part->row_begin; row < part->row_end; row++)
        for (int64_t column = part->column_begin; column < part->column_end; column += STRIP) {
            const int64_t left = part->column_end - column, count = left < STRIP ? left : STRIP;
            float sums[STRIP];
            for (int64_t c = 0; c < count; c++) sums[c] = int8_dot(job, dtype, int8_row(job, row), column + c);
            finish_row(job, row, column, sums, count);
        }
}

#endif

static void linear_int8(const pxr_linear_job *job, const pxr_linear_part *part)
{
    if (job->weight.dtype == PXR_I8)
        int8_linear_of(job, part, PXR_I8);
    else
        int8_linear_of(job, part, PXR_U8);
}

#endif
