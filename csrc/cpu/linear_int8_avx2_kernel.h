/* Products of bytes with AVX2, without VNNI; see linear_int8_kernel.h, which alone includes this.
 *
 * Pairs of bytes that are multiplied and added must fit in 16 bits. Of few rows, weights of eight bits are multiplied as
 * |w| times x with w's sign (at most 2 * 128 * 127); for many rows both are widened to 16 bits, the weights once for a
 * block and x once for a tile. Weights of four bits are multiplied as they are kept, 0 .. 15, with corrections.
 */
#ifndef PXR_CPU_LINEAR_INT8_AVX2_KERNEL_H
#define PXR_CPU_LINEAR_INT8_AVX2_KERNEL_H

#include "cpu/linear_kernel.h"

enum {
    INT8_LANES = 8,   /* columns of a register */
    SCALE_GROUPS = 8, /* whose scales are read together */
    VECTOR = 32,      /* bytes of a register */
    PIECE = 16,       /* bytes that are widened together */
};

/* float16 scales of eight columns. */
typedef struct column_scales {
    __m128i of[SCALE_GROUPS];
} column_scales;

/* Sixteen bytes, those behind the first `count` zero. */
PXR_INLINE __m128i load_piece(const char *from, int64_t count)
{
    if (count >= PIECE) return _mm_loadu_si128((const __m128i *)from);
    char padded[PIECE] = {0};
    if (count > 0) memcpy(padded, from, (size_t)count);
    return _mm_loadu_si128((const __m128i *)padded);
}

PXR_INLINE __m256i load_vector(const char *from, int64_t count)
{
    if (count >= VECTOR) return _mm256_loadu_si256((const __m256i *)from);
    return _mm256_set_m128i(load_piece(from + PIECE, count - PIECE), load_piece(from, count));
}

/* Reads the scales from `group` on, `groups` of them but at most SCALE_GROUPS, of eight columns from `column` on; those of
 * columns behind `count` are zero. The next columns' are asked for. */
PXR_INLINE void read_scales(const pxr_linear_job *job, int64_t column, int64_t count, int64_t group, int64_t groups,
                            column_scales *scales)
{
    const int64_t size = (int64_t)sizeof(uint16_t), stride = job->scales.stride;
    const char *from = job->scales.data + column * stride + group * size;
    __m128i rows[INT8_LANES], pairs[INT8_LANES], fours[INT8_LANES];
#pragma GCC unroll 8
    for (int64_t c = 0; c < INT8_LANES; c++) {
        rows[c] = c < count ? load_piece(from + c * stride, groups * size) : _mm_setzero_si128();
        fetch(from + (c + INT8_LANES) * stride, 1);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* columns i and i + 4 */
        pairs[2 * i] = _mm_unpacklo_epi16(rows[i], rows[i + 4]);
        pairs[2 * i + 1] = _mm_unpackhi_epi16(rows[i], rows[i + 4]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* columns i / 2, i / 2 + 2, .. + 4, .. + 6 */
        fours[2 * i] = _mm_unpacklo_epi16(pairs[i], pairs[i + 4]);
        fours[2 * i + 1] = _mm_unpackhi_epi16(pairs[i], pairs[i + 4]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        scales->of[2 * i] = _mm_unpacklo_epi16(fours[i], fours[i + 4]);
        scales->of[2 * i + 1] = _mm_unpackhi_epi16(fours[i], fours[i + 4]);
    }
}

PXR_INLINE __m256 scales_of_group(const column_scales *scales, int64_t group)
{
    return _mm256_cvtph_ps(scales->of[group]);
}

/* The low halves of sixteen bytes, then their high halves. */
PXR_INLINE __m256i split_halves(__m128i bits)
{
    const __m256i moved = _mm256_srlv_epi64(_mm256_broadcastsi128_si256(bits), _mm256_setr_epi64x(0, 0, 4, 4));
    return _mm256_and_si256(moved, _mm256_set1_epi8(15));
}

/* ---- few rows --------------------------------------------------------------------------------------------------- */

enum { INT8_ROWS = 4 /* rows that share the weights that were read */ };

PXR_INLINE __m256i add_pairs(__m256i pairs)
{
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* Sums of the four lanes of each half of four registers: a half of the result holds a's, b's, c's and d's. */
PXR_INLINE __m256i half_sums(__m256i a, __m256i b, __m256i c, __m256i d)
{
    const __m256i ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    const __m256i cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
}

/* Chunks that a step covers: two of four bits where 32 bytes hold as many. */
PXR_INLINE int int8_chunks(const pxr_dtype dtype, const int shift)
{
    return dtype == PXR_U8 && shift == PXR_CHUNK_SHIFT_MIN ? 2 : 1;
}

/* The bytes that four rows of x, or one, are multiplied by: vector i of `vectors`. Of two chunks of four bits first the
 * even columns of both, then the odd ones. */
PXR_INLINE __m256i load_x(const char *x, const int chunks, const int i)
{
    if (chunks == 1) return load_vector(x + i * VECTOR, VECTOR);
    const __m256i a = load_vector(x, VECTOR), b = load_vector(x + VECTOR, VECTOR);
    return i == 0 ? _mm256_permute2x128_si256(a, b, 0x20) : _mm256_permute2x128_si256(a, b, 0x31);
}

/* A step's bytes of a weight row, of which `bytes` are there, times rows of x; lanes of exact[r] are to be added up: all
 * of them, or of two chunks a half each. */
PXR_INLINE void multiply_step(const char *w, const pxr_dtype dtype, const int shift, int64_t bytes, const int rows,
                              const char *const *x, __m256i (*exact)[INT8_LANES])
{
    const int chunks = int8_chunks(dtype, shift), vectors = chunks << shift >> 5; /* of x */
    if (dtype == PXR_I8) {
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            const __m256i bits = load_vector(w + i * VECTOR, bytes - i * VECTOR), size = _mm256_abs_epi8(bits);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const __m256i signed_x = _mm256_sign_epi8(load_x(x[r], chunks, i), bits);
                const __m256i products = add_pairs(_mm256_maddubs_epi16(size, signed_x));
                *exact[r] = i == 0 ? products : _mm256_add_epi32(*exact[r], products);
            }
        }
        return;
    }
    const __m256i low = _mm256_set1_epi8(15);
    __m256i weights[4];
#pragma GCC unroll 2
    for (int i = 0; i < vectors / 2; i++) {
        const __m256i bits = load_vector(w + i * VECTOR, bytes - i * VECTOR);
        weights[i] = _mm256_and_si256(bits, low);
        weights[vectors / 2 + i] = _mm256_and_si256(_mm256_srli_epi16(bits, 4), low);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        __m256i pairs = _mm256_maddubs_epi16(weights[0], load_x(x[r], chunks, 0));
#pragma GCC unroll 4
        for (int i = 1; i < vectors; i++) /* four of them are at most 4 * 2 * 15 * 127 */
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(weights[i], load_x(x[r], chunks, i)));
        *exact[r] = add_pairs(pairs);
    }
}

/* acc[r] += the products of a step's chunks, from `chunk` on, with eight columns, of which `count` are there; all of them
 * and the whole step if `whole`. Scales begin with group `first`. The next eight columns' weights are asked for. */
PXR_INLINE void add_step(const pxr_linear_job *job, const int rows, const pxr_dtype dtype, const int shift,
                         const bool whole, const int8_rows *x, int64_t column, int64_t count, int64_t chunk,
                         const column_scales *scales, int64_t first, __m256 *acc)
{
    const int chunks = int8_chunks(dtype, shift);
    const int64_t begin = weight_bytes(dtype, chunk << shift), length = weight_bytes(dtype, (int64_t)chunks << shift);
    const int64_t bytes = weight_bytes(dtype, job->depth) - begin, stride = job->weight_stride;
    const char *w = job->weight.data + column * stride + begin, *rows_of_x[INT8_ROWS];
    __m256i exact[INT8_ROWS][INT8_LANES];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) rows_of_x[r] = x[r].x + (chunk << shift);
#pragma GCC unroll 8
    for (int c = 0; c < INT8_LANES; c++) {
        const bool is_there = whole || c < count;
        multiply_step(w + (is_there ? c * stride : 0), dtype, shift, whole ? length : bytes, rows, rows_of_x,
                      (__m256i(*)[INT8_LANES]) & exact[0][c]);
        if (begin % CACHE_LINE == 0) fetch(w + (INT8_LANES + c) * stride, length);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const __m256i a = half_sums(exact[r][0], exact[r][1], exact[r][2], exact[r][3]);
        const __m256i b = half_sums(exact[r][4], exact[r][5], exact[r][6], exact[r][7]);
        __m256i sums[2] = {_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31)};
        if (chunks == 1) sums[0] = _mm256_add_epi32(sums[0], sums[1]);
#pragma GCC unroll 2
        for (int i = 0; i < chunks; i++) {
            if (!whole && chunk + i >= job->chunks.count) break;
            const __m256 of_weights = scales_of_group(scales, group_of(job, chunk + i) - first);
            if (dtype == PXR_U8) sums[i] = _mm256_add_epi32(sums[i], _mm256_set1_epi32(x[r].corrections[chunk + i]));
            const __m256 scale = _mm256_mul_ps(of_weights, _mm256_set1_ps(x[r].scales[chunk + i]));
            acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[i]), scale, acc[r]);
        }
    }
}

/* sums[r][c] = x[r] . weight row column + c for eight columns, of which `count` are there. */
PXR_INLINE void int8_tile(const pxr_linear_job *job, const int rows, const pxr_dtype dtype, const int shift,
                          const int8_rows *x, int64_t column, int64_t count, float (*sums)[STRIP])
{
    const int chunks = int8_chunks(dtype, shift);
    const int64_t whole_chunks = count < INT8_LANES ? 0 : (job->depth >> shift) / chunks * chunks;
    const int64_t groups = ((job->depth - 1) >> job->scales.group_shift) + 1;
    __m256 acc[INT8_ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) acc[r] = _mm256_setzero_ps();
    for (int64_t first = 0; first < groups; first += SCALE_GROUPS) {
        const int64_t stretch = (first + SCALE_GROUPS) << job->scales.group_shift >> shift;
        const int64_t end = stretch < job->chunks.count ? stretch : job->chunks.count;
        int64_t chunk = first << job->scales.group_shift >> shift;
        column_scales scales;
        read_scales(job, column, count, first, groups - first, &scales);
        for (; chunk < end && chunk < whole_chunks; chunk += chunks)
            add_step(job, rows, dtype, shift, true, x, column, INT8_LANES, chunk, &scales, first, acc);
        for (; chunk < end; chunk += chunks)
            add_step(job, rows, dtype, shift, false, x, column, count, chunk, &scales, first, acc);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) _mm256_storeu_ps(sums[r], acc[r]);
}

/* ---- many rows -------------------------------------------------------------------------------------------------- */

enum {
    INT8_REGISTERS = 2,          /* of columns, whose sums are in registers */
    INT8_TILE_ROWS = 6,          /* rows of such sums */
    INT8_DEPTH = 256,            /* k that a block holds: 16 KiB of weights */
    INT8_STEPS = INT8_DEPTH / 2, /* of one lane: two k in 16 bits, or four bytes of weights of four bits */
    INT8_TILES = PXR_LINEAR_INT8_COLUMNS / (INT8_REGISTERS * INT8_LANES),
    BYTE_STEPS = 8, /* steps of bytes whose sums fit in 16 bits: 8 * 2 * 15 * 127 */
};

/* Weights in the order in which tiles read them; their scales; the sums so far. */
typedef struct int8_block {
    __m256i weights[INT8_TILES][INT8_STEPS][INT8_REGISTERS];
    float scales[INT8_DEPTH >> PXR_CHUNK_SHIFT_MIN][PXR_LINEAR_INT8_COLUMNS];
    float sums[PXR_LINEAR_INT8_ROWS][PXR_LINEAR_INT8_COLUMNS];
} int8_block;

/* What a tile multiplies: a chunk's part of a block, and what its rows of x and columns are scaled by. */
typedef struct int8_chunk {
    const __m256i (*weights)[INT8_REGISTERS];
    const float *scales, *x_scales;
    const int32_t *corrections;
    int64_t x_chunks; /* from row to row of x_scales and corrections */
    int64_t steps;
    float (*sums)[PXR_LINEAR_INT8_COLUMNS];
} int8_chunk;

/* Sixteen bytes of eight columns at `begin` of their rows, of which `bytes` are there: eight steps of pairs, widened; or
 * four steps of the low halves of bytes and, `half` steps behind them, four of the high ones. */
PXR_INLINE void pack_piece(const pxr_linear_job *job, const pxr_dtype dtype, int64_t column, int64_t count,
                           int64_t begin, int64_t bytes, int64_t half, __m256i (*steps)[INT8_REGISTERS])
{
    const char *w = job->weight.data + column * job->weight_stride + begin;
    __m256 rows[INT8_LANES];
#pragma GCC unroll 8
    for (int64_t c = 0; c < INT8_LANES; c++, w += job->weight_stride) {
        const __m128i bits = c < count ? load_piece(w, bytes) : _mm_setzero_si128();
        rows[c] = _mm256_castsi256_ps(dtype == PXR_I8 ? _mm256_cvtepi8_epi16(bits) : split_halves(bits));
    }
    v8_transpose(rows);
    const int64_t behind = dtype == PXR_I8 ? 0 : half - INT8_LANES / 2;
#pragma GCC unroll 8
    for (int s = 0; s < INT8_LANES; s++) *steps[s < INT8_LANES / 2 ? s : s + behind] = _mm256_castps_si256(rows[s]);
}

/* Columns column .. column + count - 1 from k on; what is missing is of no consequence, since rows of x are zero there.
 * All of them are there if `whole`. */
PXR_INLINE void pack_block(const pxr_linear_job *job, const pxr_dtype dtype, const bool whole, int64_t column,
                           int64_t count, int64_t k, int64_t depth, int8_block *block)
{
    const int shift = job->chunks.shift;
    const int64_t bytes = weight_bytes(dtype, job->depth), length = weight_bytes(dtype, (int64_t)1 << shift);
    const int64_t first = k >> shift, left = job->chunks.count - first;
    const int64_t chunks = left < depth >> shift ? left : depth >> shift;
    const int64_t half = (int64_t)1 << shift >> 3; /* steps of four bytes */
    for (int64_t v = 0; v < PXR_LINEAR_INT8_COLUMNS / INT8_LANES; v++) {
        __m256i(*steps)[INT8_REGISTERS] = (__m256i(*)[INT8_REGISTERS]) &
                                          block->weights[v / INT8_REGISTERS][0][v % INT8_REGISTERS];
        const int64_t there = whole ? INT8_LANES : count - v * INT8_LANES, at = column + v * INT8_LANES;
        for (int64_t i = 0; i < chunks; i++, steps += length / 2)
            for (int64_t j = 0; j < length; j += PIECE) {
                const int64_t begin = weight_bytes(dtype, k) + i * length + j;
                pack_piece(job, dtype, at, there, begin, whole ? PIECE : bytes - begin, half,
                           steps + (dtype == PXR_I8 ? j / 2 : j / 4));
            }
        const int64_t group = group_of(job, first), groups = group_of(job, first + chunks - 1) + 1 - group;
        column_scales scales;
        read_scales(job, at, there, group, groups, &scales);
        for (int64_t i = 0; i < chunks; i++)
            _mm256_storeu_ps(block->scales[i] + v * INT8_LANES,
                             scales_of_group(&scales, group_of(job, first + i) - group));
    }
}

PXR_INLINE __m256i broadcast_lane(const void *from)
{
    int32_t lane;
    memcpy(&lane, from, sizeof lane);
    return _mm256_set1_epi32(lane);
}

/* Adds a row's exact sums over a chunk to what it has. */
PXR_INLINE void add_scaled(const int8_chunk *chunk, int r, const __m256i *exact)
{
    const __m256 x_scale = _mm256_set1_ps(chunk->x_scales[r * chunk->x_chunks]);
#pragma GCC unroll 2
    for (int v = 0; v < INT8_REGISTERS; v++) {
        const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(chunk->scales + v * INT8_LANES), x_scale);
        float *to = chunk->sums[r] + v * INT8_LANES;
        _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(exact[v]), scale, _mm256_loadu_ps(to)));
    }
}

/* A chunk of `rows` widened rows. */
PXR_INLINE void multiply_pairs(const int8_chunk *chunk, const int rows, int16_t (*x)[INT8_DEPTH])
{
    __m256i sum[INT8_TILE_ROWS][INT8_REGISTERS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < INT8_REGISTERS; v++) sum[r][v] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int64_t step = 0; step < chunk->steps; step++) {
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const __m256i pair = broadcast_lane(&x[r][2 * step]);
#pragma GCC unroll 2
            for (int v = 0; v < INT8_REGISTERS; v++)
                sum[r][v] = _mm256_add_epi32(sum[r][v], _mm256_madd_epi16(pair, chunk->weights[step][v]));
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) add_scaled(chunk, r, sum[r]);
}

/* sum + other. GCC would add what an unrolled loop sums up as a tree, whose leaves leave the registers. */
PXR_INLINE __m256i add_words(__m256i sum, __m256i other)
{
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(other));
    return sum;
}

/* A chunk of `rows` rows of bytes, `stride` apart, with weights of four bits; `pieces` times BYTE_STEPS are its steps. */
PXR_INLINE void multiply_bytes(const int8_chunk *chunk, const int rows, const int64_t pieces, const char *x,
                               int64_t stride)
{
    __m256i exact[INT8_TILE_ROWS][INT8_REGISTERS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < INT8_REGISTERS; v++)
            exact[r][v] = _mm256_set1_epi32(chunk->corrections[r * chunk->x_chunks]);
    for (int64_t piece = 0; piece < pieces; piece++, x += 4 * BYTE_STEPS) {
        const __m256i(*weights)[INT8_REGISTERS] = chunk->weights + piece * BYTE_STEPS;
        __m256i sum[INT8_TILE_ROWS][INT8_REGISTERS];
#pragma GCC unroll 8
        for (int step = 0; step < BYTE_STEPS; step++)
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const __m256i four = broadcast_lane(x + r * stride + 4 * step);
#pragma GCC unroll 2
                for (int v = 0; v < INT8_REGISTERS; v++) {
                    const __m256i products = _mm256_maddubs_epi16(weights[step][v], four);
                    sum[r][v] = step == 0 ? products : add_words(sum[r][v], products);
                }
            }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int v = 0; v < INT8_REGISTERS; v++) exact[r][v] = _mm256_add_epi32(exact[r][v], add_pairs(sum[r][v]));
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) add_scaled(chunk, r, exact[r]);
}

/* `rows` rows from row `row` on times the block, chunk by chunk. On the way it asks for what the next block will be made
 * of, 32 columns from `next` on (NULL: it does not). */
PXR_INLINE void int8_block_tile(const pxr_linear_job *job, const int rows, int64_t row, int64_t k, int64_t depth,
                                const int8_block *block, const char *next, float (*sums)[PXR_LINEAR_INT8_COLUMNS])
{
    const bool widened = job->weight.dtype == PXR_I8;
    const int shift = job->chunks.shift;
    const int64_t next_bytes = weight_bytes(job->weight.dtype, INT8_DEPTH), length = (int64_t)1 << shift;
    const int64_t first = k >> shift, left = job->chunks.count - first;
    const int64_t chunks = left < depth >> shift ? left : depth >> shift;
    const int8_rows given = int8_row(job, row);
    _Alignas(VECTOR) int16_t x[INT8_TILE_ROWS][INT8_DEPTH];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        for (int64_t i = 0; i < depth && widened; i += PIECE)
            _mm256_store_si256((__m256i *)&x[r][i],
                               _mm256_cvtepi8_epi16(load_piece(given.x + r * job->x_stride + k + i, PIECE)));
    int8_chunk chunk = {.x_chunks = job->chunks.count, .steps = widened ? length / 2 : length / 4};
    for (int64_t tile = 0; tile < INT8_TILES; tile++) {
        const int64_t column = tile * INT8_REGISTERS * INT8_LANES;
        chunk.sums = (float(*)[PXR_LINEAR_INT8_COLUMNS])(sums[0] + column);
        for (int64_t i = 0; i < chunks; i++) {
            chunk.weights = block->weights[tile] + i * chunk.steps;
            chunk.scales = block->scales[i] + column;
            chunk.x_scales = given.scales + first + i;
            chunk.corrections = given.corrections + first + i;
            if (next)
                for (int64_t c = 0; c < length / 16; c++, next += job->weight_stride) fetch(next, next_bytes);
            if (widened)
                multiply_pairs(&chunk, rows, (int16_t(*)[INT8_DEPTH]) & x[0][i << shift]);
            else if (shift == PXR_CHUNK_SHIFT_MIN)
                multiply_bytes(&chunk, rows, 1, given.x + k + (i << shift), job->x_stride);
            else
                multiply_bytes(&chunk, rows, chunk.steps / BYTE_STEPS, given.x + k + (i << shift), job->x_stride);
        }
    }
}

#endif
