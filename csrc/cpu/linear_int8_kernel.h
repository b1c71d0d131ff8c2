/* Products of rows in eight bits with weights of eight or four: the kernel of linear for compute = "int8". Included by
 * kernels_*.c only.
 *
 * The integers of a chunk are multiplied and summed exactly; sums over chunks are in order, each
 * acc = fma(sum, x's scale * weight's scale, acc): the same bits for any number of rows and on every instruction set.
 * The scalar set's is plain C, for comparison: float32 is faster there.
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
#if defined(__AVX2__)
    const __m128i first = _mm_set1_epi16(0xff);
    for (int64_t i = 0; i < half; i += LANES) {
        const __m128i a = _mm_loadu_si128((const __m128i *)(integers + 2 * i));
        const __m128i b = _mm_loadu_si128((const __m128i *)(integers + 2 * i + LANES));
        const __m128i even = _mm_packus_epi16(_mm_and_si128(a, first), _mm_and_si128(b, first));
        const __m128i odd = _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8));
        _mm_storeu_si128((__m128i *)(out + i), even);
        _mm_storeu_si128((__m128i *)(out + half + i), odd);
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

#if defined(__AVX2__)

#if defined(__AVX512VNNI__)
#include "cpu/linear_int8_vnni_kernel.h"
#else
#include "cpu/linear_int8_avx2_kernel.h"
#endif

/* ---- few rows --------------------------------------------------------------------------------------------------- */

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

/* Columns of x that a block holds of the `left` ones: whole chunks. */
PXR_INLINE int64_t padded_depth(int64_t left)
{
    return left < INT8_DEPTH ? (left + PXR_CHUNK_BLOCK - 1) / PXR_CHUNK_BLOCK * PXR_CHUNK_BLOCK : INT8_DEPTH;
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
