/* Products of bytes with VNNI; see linear_int8_kernel.h, which alone includes this. */
#ifndef PXR_CPU_LINEAR_INT8_VNNI_KERNEL_H
#define PXR_CPU_LINEAR_INT8_VNNI_KERNEL_H

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

#endif
