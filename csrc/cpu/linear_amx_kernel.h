/* Products of rows on the processor's tiles: linear's kernels where rows of x are of fewer bits. Included by kernels_amx.c
 * only.
 *
 * Weight rows are the first operand, as they lie. The second are the rows of x, arranged (pxr_linear_job): sixteen of them
 * together, four bytes of k of each. A tile of sums is 16 columns of `out` by 16 of its rows, turned on its way out.
 *
 * In bfloat16 a sum takes up 32 of k at a time, all of k in order: one order for one row as for thousands, but not that of
 * other instruction sets. In int8 a chunk's sum is exact and the rest as in linear_int8_kernel.h: the same bits everywhere.
 */
#ifndef PXR_CPU_LINEAR_AMX_KERNEL_H
#define PXR_CPU_LINEAR_AMX_KERNEL_H

#include "cpu/amx_tile.h"
#include "cpu/linear_int8_kernel.h"
#include "cpu/linear_kernel.h"

_Static_assert((int)TILE_SIDE == (int)PXR_LINEAR_TILE_ROWS, "rows are tiled for tiles of another size");

/* sums[m][c] = tile[c][m]; a row of sums has `stride` floats. */
PXR_INLINE void turn_tile(const float (*tile)[TILE_SIDE], float *sums, int64_t stride)
{
    v16 rows[TILE_SIDE];
#pragma GCC unroll 16
    for (int c = 0; c < TILE_SIDE; c++) rows[c] = v16_load(tile[c]);
    v16_transpose(rows);
#pragma GCC unroll 16
    for (int m = 0; m < TILE_SIDE; m++) v16_store(sums + m * stride, rows[m]);
}

/* ---- bfloat16 --------------------------------------------------------------------------------------------------- */

enum {
    AMX_COLUMNS = PXR_LINEAR_TILE_COLUMNS,
    AMX_ROWS = 2 * TILE_SIDE,
    AMX_DEPTH = 1024, /* bytes of k that all rows of a part are multiplied by at a time: 32 KiB of weights stay near */
};

/* Sums of 32 columns by 32 rows. */
typedef struct amx_sums {
    float tiles[2][2][TILE_SIDE][TILE_SIDE]; /* tile of rows, of columns; column, row */
} amx_sums;

/* Weights of 32 columns, 64 bytes of each: as they lie, or copied with zeros for what is missing. */
typedef struct amx_weights {
    const char *from;
    int64_t stride; /* bytes */
    char copy[AMX_COLUMNS][TILE_BYTES];
} amx_weights;

PXR_INLINE void find_weights(const pxr_linear_job *job, int64_t column, int64_t count, int64_t begin,
                             amx_weights *weights)
{
    const int64_t left = job->depth * (int64_t)sizeof(uint16_t) - begin, bytes = left < TILE_BYTES ? left : TILE_BYTES;
    weights->from = job->weight.data + column * job->weight_stride + begin;
    weights->stride = job->weight_stride;
    if (count == AMX_COLUMNS && bytes == TILE_BYTES) return;
    memset(weights->copy, 0, sizeof weights->copy);
    for (int64_t c = 0; c < count; c++) memcpy(weights->copy[c], weights->from + c * weights->stride, (size_t)bytes);
    weights->from = weights->copy[0];
    weights->stride = TILE_BYTES;
}

/* Adds the products of bytes begin .. end - 1 of k to the sums of `count` columns from `column` on, and of two tiles of
 * rows or one. With the first rows the next columns' weights are asked for. */
PXR_TEMPLATE void bf16_tiles(const pxr_linear_job *job, const bool two, const bool is_first, const char *x,
                             int64_t column, int64_t count, int64_t begin, int64_t end, amx_sums *sums)
{
    const char *second_x = x + TILE_SIDE * job->x_stride;
    amx_weights weights;
    TILE_LOAD(0, (const char *)sums->tiles[0][0], TILE_BYTES);
    TILE_LOAD(1, (const char *)sums->tiles[0][1], TILE_BYTES);
    TILE_LOAD(2, (const char *)sums->tiles[1][0], TILE_BYTES);
    TILE_LOAD(3, (const char *)sums->tiles[1][1], TILE_BYTES);
    for (int64_t at = begin; at < end; at += TILE_BYTES) {
        find_weights(job, column, count, at, &weights);
        for (int64_t c = 0; is_first && c < AMX_COLUMNS; c++)
            fetch(weights.from + (AMX_COLUMNS + c) * weights.stride, TILE_BYTES);
        TILE_LOAD(4, weights.from, weights.stride);
        TILE_LOAD(6, x + at * TILE_SIDE, TILE_BYTES);
        TILE_DOT_BF16(0, 4, 6);
        TILE_LOAD(5, weights.from + TILE_SIDE * weights.stride, weights.stride);
        TILE_DOT_BF16(1, 5, 6);
        if (!two) continue;
        TILE_LOAD(7, second_x + at * TILE_SIDE, TILE_BYTES);
        TILE_DOT_BF16(2, 4, 7);
        TILE_DOT_BF16(3, 5, 7);
    }
    TILE_STORE(0, sums->tiles[0][0], TILE_BYTES);
    TILE_STORE(1, sums->tiles[0][1], TILE_BYTES);
    TILE_STORE(2, sums->tiles[1][0], TILE_BYTES);
    TILE_STORE(3, sums->tiles[1][1], TILE_BYTES);
}

/* Turns the sums and finishes `rows` rows of `count` columns. */
static void finish_tiles(const pxr_linear_job *job, int64_t row, int64_t rows, int64_t column, int64_t count,
                         const amx_sums *sums)
{
    float turned[AMX_ROWS][AMX_COLUMNS];
    for (int64_t tile = 0; tile * TILE_SIDE < rows; tile++)
        for (int half = 0; half < 2; half++)
            turn_tile(sums->tiles[tile][half], &turned[tile * TILE_SIDE][half * TILE_SIDE], AMX_COLUMNS);
    for (int64_t r = 0; r < rows; r++) finish_row(job, row + r, column, turned[r], count);
}

static void amx_bf16_columns(const pxr_linear_job *job, const pxr_linear_part *part, int64_t column)
{
    amx_sums sums[PXR_LINEAR_ROWS / AMX_ROWS];
    const int64_t left = part->column_end - column, count = left < AMX_COLUMNS ? left : AMX_COLUMNS;
    const int64_t groups = (part->row_end - part->row_begin + AMX_ROWS - 1) / AMX_ROWS;
    memset(sums, 0, (size_t)groups * sizeof *sums);
    for (int64_t begin = 0; begin < job->x_stride; begin += AMX_DEPTH) {
        const int64_t end = begin + AMX_DEPTH < job->x_stride ? begin + AMX_DEPTH : job->x_stride;
        for (int64_t i = 0; i < groups; i++) {
            const int64_t row = part->row_begin + i * AMX_ROWS;
            const char *x = job->x.data + row * job->x_stride;
            if (part->row_end - row > TILE_SIDE)
                bf16_tiles(job, true, i == 0, x, column, count, begin, end, &sums[i]);
            else
                bf16_tiles(job, false, i == 0, x, column, count, begin, end, &sums[i]);
        }
    }
    for (int64_t i = 0; i < groups; i++) {
        const int64_t row = part->row_begin + i * AMX_ROWS, below = part->row_end - row;
        finish_tiles(job, row, below < AMX_ROWS ? below : AMX_ROWS, column, count, &sums[i]);
    }
}

static void amx_bf16(const pxr_linear_job *job, const pxr_linear_part *part)
{
    configure_tiles(TILE_BYTES);
    for (int64_t column = part->column_begin; column < part->column_end; column += AMX_COLUMNS)
        amx_bf16_columns(job, part, column);
    TILE_RELEASE();
}

/* ---- int8 ------------------------------------------------------------------------------------------------------- */

/* Weights of 16 columns, INT8_DEPTH of each: eight bits as they lie; else copied, those of four bits as bytes in the
 * order of x's chunks (quantize_x), with zeros for what is missing. */
typedef struct amx_block {
    const char *from;
    int64_t stride; /* bytes */
    char copy[TILE_SIDE][INT8_DEPTH];
    float scales[INT8_DEPTH >> PXR_CHUNK_SHIFT_MIN][TILE_SIDE];
} amx_block;

/* 64 bytes of weights of four bits, as bytes: chunk by chunk the low halves, then the high ones. */
PXR_INLINE void split_bytes(char *to, __m512i bytes, const int shift)
{
    const __m512i low = _mm512_and_si512(bytes, _mm512_set1_epi8(15));
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15));
    __m512i first = low, second = high;
    if (shift == PXR_CHUNK_SHIFT_MIN) {
        first = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high);
        second = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high);
    } else if (shift < PXR_CHUNK_SHIFT_MAX) {
        first = _mm512_shuffle_i64x2(low, high, 0x44);
        second = _mm512_shuffle_i64x2(low, high, 0xee);
    }
    _mm512_storeu_si512(to, first);
    _mm512_storeu_si512(to + 64, second);
}

PXR_TEMPLATE void find_block(const pxr_linear_job *job, const pxr_dtype dtype, int64_t column, int64_t count, int64_t k,
                             amx_block *block)
{
    const int64_t begin = weight_bytes(dtype, k), bytes = weight_bytes(dtype, job->depth) - begin;
    const int64_t span = weight_bytes(dtype, INT8_DEPTH), first = k >> job->chunks.shift;
    const char *w = job->weight.data + column * job->weight_stride + begin;
    const bool whole = count == TILE_SIDE && k + INT8_DEPTH <= job->depth;
    block->from = w;
    block->stride = job->weight_stride;
    for (int64_t c = 0; c < TILE_SIDE; c++) {
        const char *row = w + c * job->weight_stride;
        fetch(row + TILE_SIDE * job->weight_stride, span);
        for (int64_t at = 0; at < span && !(whole && dtype == PXR_I8); at += 64) {
            const __m512i weights = load_bytes(row + at, c < count ? bytes - at : 0);
            if (dtype == PXR_I8)
                _mm512_storeu_si512(block->copy[c] + at, weights);
            else
                split_bytes(block->copy[c] + 2 * at, weights, job->chunks.shift);
        }
    }
    if (!whole || dtype != PXR_I8) {
        block->from = block->copy[0];
        block->stride = INT8_DEPTH;
    }
    for (int64_t i = 0; i < INT8_DEPTH >> job->chunks.shift && first + i < job->chunks.count; i++)
        for (int64_t c = 0; c < TILE_SIDE; c++)
            block->scales[i][c] = c < count ? float16_at(chunk_scale(job, column + c, first + i)) : 0.0f;
}

/* A product's chunks that are under way at a time: each has a tile of sums of its own, so that none waits for another. */
enum { AMX_CHUNKS = 4 };

/* The exact sums of one chunk of `length` columns, of which a tile takes `bytes`. */
#define MULTIPLY_CHUNK(sums, a, b)                                                                                     \
    TILE_ZERO(sums);                                                                                                   \
    for (int64_t at = 0; at < length; at += bytes) {                                                                   \
        TILE_LOAD(a, weights + at, stride);                                                                            \
        TILE_LOAD(b, x + at * TILE_SIDE, TILE_BYTES);                                                                  \
        if (dtype == PXR_I8)                                                                                           \
            TILE_DOT_SIGNED(sums, a, b);                                                                               \
        else                                                                                                           \
            TILE_DOT_UNSIGNED(sums, a, b);                                                                             \
    }

/* Chunk number `chunk` of those under way. */
PXR_INLINE void multiply_chunk(const int chunk, const pxr_dtype dtype, const int64_t length, const char *weights,
                               int64_t stride, const char *x)
{
    const int64_t bytes = length < TILE_BYTES ? length : TILE_BYTES;
    switch (chunk) {
    case 0:
        MULTIPLY_CHUNK(0, 4, 6)
        break;
    case 1:
        MULTIPLY_CHUNK(1, 5, 7)
        break;
    case 2:
        MULTIPLY_CHUNK(2, 4, 6)
        break;
    default:
        MULTIPLY_CHUNK(3, 5, 7)
        break;
    }
}

PXR_INLINE void store_chunk(const int chunk, int32_t (*exact)[TILE_SIDE])
{
    switch (chunk) {
    case 0:
        TILE_STORE(0, exact, TILE_BYTES);
        break;
    case 1:
        TILE_STORE(1, exact, TILE_BYTES);
        break;
    case 2:
        TILE_STORE(2, exact, TILE_BYTES);
        break;
    default:
        TILE_STORE(3, exact, TILE_BYTES);
        break;
    }
}

/* Adds the block's part to a tile of sums, sums[c] those of column c; x is the tile's rows from k on. */
PXR_TEMPLATE void int8_tile_of(const pxr_linear_job *job, const pxr_dtype dtype, const int shift, const char *x,
                               int64_t row, int64_t k, const amx_block *block, float (*sums)[TILE_SIDE])
{
    const int64_t length = (int64_t)1 << shift, first = k >> shift, left = job->chunks.count - first;
    const int64_t chunks = left < INT8_DEPTH >> shift ? left : INT8_DEPTH >> shift;
    const int64_t scales_at = row * job->chunks.count + first * TILE_SIDE;
    int32_t exact[AMX_CHUNKS][TILE_SIDE][TILE_SIDE];
    __m512 acc[TILE_SIDE];
#pragma GCC unroll 16
    for (int c = 0; c < TILE_SIDE; c++) acc[c] = _mm512_loadu_ps(sums[c]);
    for (int64_t begin = 0; begin < chunks; begin += AMX_CHUNKS) {
        const int64_t count = chunks - begin < AMX_CHUNKS ? chunks - begin : AMX_CHUNKS;
#pragma GCC unroll 4
        for (int i = 0; i < AMX_CHUNKS; i++)
            if (i < count)
                multiply_chunk(i, dtype, length, block->from + (begin + i) * length, block->stride,
                               x + (begin + i) * length * TILE_SIDE);
#pragma GCC unroll 4
        for (int i = 0; i < AMX_CHUNKS; i++)
            if (i < count) store_chunk(i, exact[i]);
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = scales_at + (begin + i) * TILE_SIDE;
            const __m512 x_scales = _mm512_loadu_ps(job->chunks.scales + at);
            const __m512i corrections = _mm512_loadu_si512(job->chunks.corrections + at);
#pragma GCC unroll 16
            for (int c = 0; c < TILE_SIDE; c++) {
                __m512i sum = _mm512_loadu_si512(exact[i][c]);
                if (dtype == PXR_U8) sum = _mm512_add_epi32(sum, corrections);
                acc[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum),
                                         _mm512_mul_ps(_mm512_set1_ps(block->scales[begin + i][c]), x_scales), acc[c]);
            }
        }
    }
#pragma GCC unroll 16
    for (int c = 0; c < TILE_SIDE; c++) _mm512_storeu_ps(sums[c], acc[c]);
}

PXR_TEMPLATE void amx_int8_of(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype,
                              const int shift)
{
    float sums[PXR_LINEAR_ROWS / TILE_SIDE][TILE_SIDE][TILE_SIDE], turned[TILE_SIDE][TILE_SIDE];
    amx_block block;
    const int64_t tiles = (part->row_end - part->row_begin + TILE_SIDE - 1) / TILE_SIDE;
    configure_tiles(shift < 6 ? 1 << shift : TILE_BYTES);
    for (int64_t column = part->column_begin; column < part->column_end; column += TILE_SIDE) {
        const int64_t left = part->column_end - column, count = left < TILE_SIDE ? left : TILE_SIDE;
        memset(sums, 0, (size_t)tiles * sizeof sums[0]);
        for (int64_t k = 0; k < job->depth; k += INT8_DEPTH) {
            find_block(job, dtype, column, count, k, &block);
            for (int64_t row = part->row_begin, i = 0; row < part->row_end; row += TILE_SIDE, i++)
                int8_tile_of(job, dtype, shift, job->x.data + row * job->x_stride + k * TILE_SIDE, row, k, &block,
                             sums[i]);
        }
        for (int64_t row = part->row_begin, i = 0; row < part->row_end; row += TILE_SIDE, i++) {
            turn_tile(sums[i], turned[0], TILE_SIDE);
            for (int64_t r = 0; r < TILE_SIDE && row + r < part->row_end; r++)
                finish_row(job, row + r, column, turned[r], count);
        }
    }
    TILE_RELEASE();
}

PXR_TEMPLATE void amx_int8_with(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype)
{
    if (job->chunks.shift == 7)
        amx_int8_of(job, part, dtype, 7);
    else if (job->chunks.shift == 6)
        amx_int8_of(job, part, dtype, 6);
    else
        amx_int8_of(job, part, dtype, 5);
}

static void amx_int8(const pxr_linear_job *job, const pxr_linear_part *part)
{
    if (job->weight.dtype == PXR_I8)
        amx_int8_with(job, part, PXR_I8);
    else
        amx_int8_with(job, part, PXR_U8);
}

/* ---- any -------------------------------------------------------------------------------------------------------- */

static void linear_amx(const pxr_linear_job *job, const pxr_linear_part *part)
{
    if (job->is_tiled)
        amx_bf16(job, part);
    else
        linear(job, part);
}

static void linear_int8_amx(const pxr_linear_job *job, const pxr_linear_part *part)
{
    if (job->is_tiled)
        amx_int8(job, part);
    else
        linear_int8(job, part);
}

#endif
