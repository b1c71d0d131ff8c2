/* Products of rows: the kernel of linear. Included by kernels_*.c only.
 *
 * A dot product over k is 16 partial sums (lane l sums k = l, l+16, ... by FMA, missing elements of the last step count
 * as zero) and the tree of v16_sum: the same for any number of rows and columns computed together.
 */
#ifndef PXR_CPU_LINEAR_KERNEL_H
#define PXR_CPU_LINEAR_KERNEL_H

#include "cpu/kernels.h"
#include "cpu/v16_math.h"

enum {
    STRIP = 64,      /* columns finished together */
    FETCH_LEVEL = 3, /* of __builtin_prefetch: into the first-level cache */
};

/* Asks for a cache line; an address behind the weights is no harm. */
PXR_INLINE void fetch(const char *address)
{
    __builtin_prefetch(address, 0, FETCH_LEVEL);
}

/* sums[r][c] = x row r . w row c */
PXR_INLINE void product_tile(const int rows, const int columns, const pxr_dtype dtype, const float *x, int64_t x_stride,
                             const char *w, int64_t w_stride, int64_t depth, float (*sums)[STRIP])
{
    const int64_t size = dtype == PXR_F32 ? 4 : 2, whole = depth - depth % LANES;
    v16 acc[TILE_ROWS][TILE_COLUMNS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++) acc[r][c] = v16_set(0.0f);
    for (int64_t k = 0; k < whole; k += LANES) {
        v16 wide[TILE_COLUMNS];
        if (rows == 1) { /* the weights come from memory: ask for the next tile's */
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) fetch(w + (columns + c) * w_stride + k * size);
        }
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++) wide[c] = v16_load_as(w + c * w_stride + k * size, dtype);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const v16 a = v16_load(x + r * x_stride + k);
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) acc[r][c] = v16_fma(a, wide[c], acc[r][c]);
        }
    }
    if (whole < depth) {
        v16 wide[TILE_COLUMNS];
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++)
            wide[c] = v16_load_part_as(w + c * w_stride + whole * size, dtype, depth - whole);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const v16 a = v16_load_part(x + r * x_stride + whole, depth - whole);
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) acc[r][c] = v16_fma(a, wide[c], acc[r][c]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        if (columns == 4) {
            v16_sum_four(acc[r][0], acc[r][1], acc[r][2 % TILE_COLUMNS], acc[r][3 % TILE_COLUMNS], sums[r]);
        } else {
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) sums[r][c] = v16_sum(acc[r][c]);
        }
    }
}

/* Bias, activation and residual of `count` finished sums. */
PXR_INLINE void finish_row(const pxr_linear_job *job, int64_t row, int64_t column, const float *sums, int64_t count)
{
    const int64_t bias_size = job->bias.dtype == PXR_F32 ? 4 : 2;
    for (int64_t i = 0; i < count; i += LANES) {
        const int64_t left = count - i;
        v16 y = v16_load_some(sums + i, left);
        if (job->bias.data)
            y = v16_add(y, v16_load_some_as(job->bias.data + (column + i) * bias_size, job->bias.dtype, left));
        if (job->activation != PXR_ACTIVATION_NONE) y = v16_activate(y, job->activation);
        if (job->residual) y = v16_add(y, v16_load_some(job->residual + row * job->residual_stride + column + i, left));
        v16_store_some(job->out + row * job->out_stride + column + i, y, left);
    }
}

PXR_INLINE void product_rows(const pxr_linear_job *job, const int rows, const pxr_dtype dtype, int64_t row,
                             int64_t column, int64_t count)
{
    float sums[TILE_ROWS][STRIP];
    const float *x = job->x + row * job->x_stride;
    const char *w = job->weight.data + column * job->weight_stride;
    int64_t c = 0;
    for (; c + TILE_COLUMNS <= count; c += TILE_COLUMNS)
        product_tile(rows, TILE_COLUMNS, dtype, x, job->x_stride, w + c * job->weight_stride, job->weight_stride,
                     job->depth, (float(*)[STRIP])(sums[0] + c));
    for (; c < count; c++)
        product_tile(rows, 1, dtype, x, job->x_stride, w + c * job->weight_stride, job->weight_stride, job->depth,
                     (float(*)[STRIP])(sums[0] + c));
    for (int r = 0; r < rows; r++) finish_row(job, row + r, column, sums[r], count);
}

PXR_INLINE void linear_of(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype)
{
    for (int64_t column = part->column_begin; column < part->column_end; column += STRIP) {
        const int64_t left = part->column_end - column, count = left < STRIP ? left : STRIP;
        int64_t row = part->row_begin;
        for (; row + TILE_ROWS <= part->row_end; row += TILE_ROWS)
            product_rows(job, TILE_ROWS, dtype, row, column, count);
        for (; row < part->row_end; row++) product_rows(job, 1, dtype, row, column, count);
    }
}

static void linear(const pxr_linear_job *job, const pxr_linear_part *part)
{
    if (job->weight.dtype == PXR_BF16)
        linear_of(job, part, PXR_BF16);
    else if (job->weight.dtype == PXR_F16)
        linear_of(job, part, PXR_F16);
    else
        linear_of(job, part, PXR_F32);
}

#endif
