/* Products of rows: the kernel of linear. Included by kernels_*.c only.
 *
 * A dot product over k is 16 partial sums (lane l sums k = l, l+16, ... by FMA, missing elements of the last step count
 * as zero) and the tree of v16_sum: the same for any number of rows and columns computed together. Rows of bfloat16
 * meet bfloat16 weights in pairs: lane l sums k = 2l+1, 2l, 2l+33, 2l+32, ... Few rows read the weights as they lie; for
 * many rows a block of weights is widened once and used by all of them. A quantised weight is its number times its
 * group's scale, which float32 holds exactly.
 *
 * A step is what one register of x holds: 16 float32 or 32 bfloat16.
 */
#ifndef PXR_CPU_LINEAR_KERNEL_H
#define PXR_CPU_LINEAR_KERNEL_H

#include "cpu/kernels.h"
#include "cpu/v16_dot.h"
#include "cpu/v16_math.h"

enum {
    STRIP = 64,     /* columns finished together where rows are few */
    ROW_TILE = 4,   /* columns that share a load of x where there is one row */
    STRIP_ROWS = 4, /* rows, and columns, that share loads where there are a few */
    STRIP_TILE = SUMS / STRIP_ROWS,
    STEP = 64, /* bytes of x in a step */
    /* Steps that a block of widened weights holds. The fewer blocks, the less often sums leave the registers; where they
     * are read part by part, a tile's rows of x must stay in the first-level cache. */
    BLOCK_STEPS = PARTS == 1 ? 144 : 80,
};

/* ---- weights ---------------------------------------------------------------------------------------------------- */

/* Bytes of k elements of a row; an uint8 weight is two values of four bits. */
PXR_INLINE int64_t weight_bytes(const pxr_dtype dtype, int64_t k)
{
    return dtype == PXR_F32 ? 4 * k : dtype == PXR_I8 ? k : dtype == PXR_U8 ? (k + 1) / 2 : 2 * k;
}

PXR_INLINE bool is_quantised(const pxr_dtype dtype)
{
    return dtype == PXR_I8 || dtype == PXR_U8;
}

/* Sixteen weights as float32; `scale` is their group's. What is rounded nowhere: (n - 8) s and 8 s have few bits. */
PXR_INLINE v16 load_weights(const char *from, const pxr_dtype dtype, v16 scale)
{
    if (dtype == PXR_I8) return v16_mul(v16_load_i8(from), scale);
    if (dtype == PXR_U8) return v16_fma(v16_load_u4(from), scale, v16_mul(scale, v16_set(-8.0f)));
    return v16_load_as(from, dtype);
}

/* The first `count` (1 .. 15) of sixteen, zero in the other lanes. */
PXR_INLINE v16 load_last_weights(const char *from, const pxr_dtype dtype, v16 scale, int64_t count)
{
    char padded[LANES * sizeof(float)];
    memset(padded, dtype == PXR_U8 ? 0x88 : 0, sizeof padded); /* 8 is the zero of four bits */
    memcpy(padded, from, (size_t)weight_bytes(dtype, count));
    if (dtype == PXR_U8 && count % 2 != 0) padded[count / 2] = (char)((padded[count / 2] & 0x0f) | 0x80);
    return load_weights(padded, dtype, scale);
}

/* The scale of element k of weight row `column`; floats have none. */
PXR_INLINE v16 scale_at(const pxr_linear_job *job, const pxr_dtype dtype, int64_t column, int64_t k)
{
    if (!is_quantised(dtype)) return v16_set(1.0f);
    return v16_set_f16(job->scales.data + column * job->scales.stride + (k >> job->scales.group_shift) * 2);
}

static void dequantize(float *out, const char *row, pxr_dtype dtype, const char *scales, int group_shift, int64_t count)
{
    for (int64_t k = 0; k < count; k += LANES) {
        const char *from = row + weight_bytes(dtype, k);
        const int64_t left = count - k;
        const v16 scale = v16_set_f16(scales + (k >> group_shift) * 2);
        const v16 wide = left >= LANES ? load_weights(from, dtype, scale) : load_last_weights(from, dtype, scale, left);
        v16_store_some(out + k, wide, left);
    }
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* Elements of x in a step. */
PXR_INLINE int64_t step_length(const pxr_dtype x_type)
{
    return x_type == PXR_BF16 ? 2 * LANES : LANES;
}

/* A step's weights: widened, or pairs as they lie. */
PXR_INLINE v16 load_step(const char *from, const pxr_dtype dtype, const pxr_dtype x_type, v16 scale)
{
    return x_type == PXR_BF16 ? v16_load_as(from, PXR_F32) : load_weights(from, dtype, scale);
}

/* The first `count` of them, less than a step, and zeros. */
PXR_INLINE v16 load_last_step(const char *from, const pxr_dtype dtype, const pxr_dtype x_type, v16 scale, int64_t count)
{
    if (x_type != PXR_BF16) return load_last_weights(from, dtype, scale, count);
    char padded[STEP] = {0};
    memcpy(padded, from, (size_t)weight_bytes(dtype, count));
    return v16_load_as(padded, PXR_F32);
}

/* The last `count` elements of a row; rows of bfloat16 have zeros behind them. */
PXR_INLINE v16 load_last_x(const char *x, const pxr_dtype x_type, int64_t count)
{
    return x_type == PXR_BF16 ? v16_load((const float *)x) : v16_load_part((const float *)x, count);
}

PXR_INLINE v16 add_products(v16 acc, const pxr_dtype x_type, v16 x, v16 weights)
{
    return x_type == PXR_BF16 ? v16_dot(acc, x, weights) : v16_fma(x, weights, acc);
}

PXR_INLINE v16_part part_add_products(v16_part acc, const pxr_dtype x_type, v16_part x, v16_part weights)
{
    return x_type == PXR_BF16 ? part_dot(acc, x, weights) : part_fma(x, weights, acc);
}

/* ---- one row ---------------------------------------------------------------------------------------------------- */

/* sums[c] = x . weight row column + c */
PXR_TEMPLATE void row_tile(const pxr_linear_job *job, const int columns, const pxr_dtype dtype, const pxr_dtype x_type,
                           const char *x, int64_t column, float *sums)
{
    const int64_t step = step_length(x_type), x_size = STEP / step;
    const int64_t depth = job->depth, whole = depth - depth % step, stride = job->weight_stride;
    const int64_t group = is_quantised(dtype) ? (int64_t)1 << job->scales.group_shift : whole;
    const char *w = job->weight.data + column * stride;
    v16 acc[ROW_TILE], scale[ROW_TILE];
#pragma GCC unroll 8
    for (int c = 0; c < columns; c++) acc[c] = v16_set(0.0f);
    for (int64_t begin = 0; begin < whole; begin += group) {
        const int64_t end = begin + group < whole ? begin + group : whole;
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++) {
            scale[c] = scale_at(job, dtype, column + c, begin);
            if (is_quantised(dtype))
                fetch(w + (columns + c) * stride + weight_bytes(dtype, begin), weight_bytes(dtype, end - begin));
        }
        for (int64_t k = begin; k < end; k += step) {
            const v16 a = v16_load((const float *)(x + k * x_size));
            /* the weights come from memory: ask for the next tile's */
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++)
                if (!is_quantised(dtype)) fetch(w + (columns + c) * stride + weight_bytes(dtype, k), 1);
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++)
                acc[c] = add_products(acc[c], x_type, a,
                                      load_step(w + c * stride + weight_bytes(dtype, k), dtype, x_type, scale[c]));
        }
    }
    if (whole < depth) {
        const v16 a = load_last_x(x + whole * x_size, x_type, depth - whole);
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++) {
            const v16 wide = load_last_step(w + c * stride + weight_bytes(dtype, whole), dtype, x_type,
                                            scale_at(job, dtype, column + c, whole), depth - whole);
            acc[c] = add_products(acc[c], x_type, a, wide);
        }
    }
    if (columns == ROW_TILE)
        v16_sum_four(acc[0], acc[1], acc[2], acc[3], sums);
    else
        sums[0] = v16_sum(acc[0]);
}

/* Bias, activation and residual of `count` finished sums. */
PXR_TEMPLATE void finish_row(const pxr_linear_job *job, int64_t row, int64_t column, const float *sums, int64_t count)
{
    const int64_t bias_size = job->bias.dtype == PXR_F32 ? 4 : 2;
    for (int64_t i = 0; i < count; i += LANES) {
        const int64_t left = count - i;
        v16 y = v16_load_some(sums + i, left);
        if (job->bias.data)
            y = v16_add(y, v16_load_some_as(job->bias.data + (column + i) * bias_size, job->bias.dtype, left));
        if (job->activation != PXR_ACTIVATION_NONE) y = v16_activate(y, job->activation);
        if (job->residual) y = v16_add(y, v16_load_some(job->residual + row * job->residual_stride + column + i, left));
        v16_store_some(job->out + (row - job->out_row) * job->out_stride + column - job->out_column + i, y, left);
    }
}

PXR_TEMPLATE void product_of_row(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype,
                                 const pxr_dtype x_type)
{
    const int64_t row = part->row_begin;
    const char *x = job->x.data + row * job->x_stride;
    float sums[STRIP];
    for (int64_t column = part->column_begin; column < part->column_end; column += STRIP) {
        const int64_t left = part->column_end - column, count = left < STRIP ? left : STRIP;
        int64_t c = 0;
        for (; c + ROW_TILE <= count; c += ROW_TILE) row_tile(job, ROW_TILE, dtype, x_type, x, column + c, sums + c);
        for (; c < count; c++) row_tile(job, 1, dtype, x_type, x, column + c, sums + c);
        finish_row(job, row, column, sums, count);
    }
}

/* ---- few rows --------------------------------------------------------------------------------------------------- */

/* sums[r][c] = x[r] . weight row column + c, one register of each sum at a time. */
PXR_TEMPLATE void strip_tile(const pxr_linear_job *job, const int columns, const pxr_dtype dtype,
                             const pxr_dtype x_type, const char *const *x, int64_t column, float (*sums)[STRIP])
{
    const int64_t step = step_length(x_type), x_size = STEP / step;
    const int64_t depth = job->depth, whole = depth - depth % step, stride = job->weight_stride;
    const int64_t group = is_quantised(dtype) ? (int64_t)1 << job->scales.group_shift : whole;
    const char *w = job->weight.data + column * stride;
    float lanes[STRIP_ROWS][STRIP_TILE][LANES];
    for (int part = 0; part < PARTS; part++) {
        v16_part acc[STRIP_ROWS][STRIP_TILE];
        v16 scale[STRIP_TILE];
#pragma GCC unroll 8
        for (int r = 0; r < STRIP_ROWS; r++)
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) acc[r][c] = part_set(0.0f);
        for (int64_t begin = 0; begin < whole; begin += group) {
            const int64_t end = begin + group < whole ? begin + group : whole;
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) scale[c] = scale_at(job, dtype, column + c, begin);
            for (int64_t k = begin; k < end; k += step) {
                v16_part wide[STRIP_TILE];
#pragma GCC unroll 8
                for (int c = 0; c < columns; c++) {
                    const char *at = w + c * stride + weight_bytes(dtype, k);
                    if (part == 0 && k % CACHE_LINE == 0) fetch(at + columns * stride, weight_bytes(dtype, CACHE_LINE));
                    wide[c] = v16_part_of(load_step(at, dtype, x_type, scale[c]), part);
                }
#pragma GCC unroll 8
                for (int r = 0; r < STRIP_ROWS; r++) {
                    const v16_part a = part_load((const float *)(x[r] + k * x_size) + part * PART_LANES);
#pragma GCC unroll 8
                    for (int c = 0; c < columns; c++) acc[r][c] = part_add_products(acc[r][c], x_type, a, wide[c]);
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < STRIP_ROWS; r++)
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) part_store(&lanes[r][c][part * PART_LANES], acc[r][c]);
    }
    for (int c = 0; c < columns; c++) {
        v16 wide = v16_set(0.0f);
        if (whole < depth)
            wide = load_last_step(w + c * stride + weight_bytes(dtype, whole), dtype, x_type,
                                  scale_at(job, dtype, column + c, whole), depth - whole);
        for (int r = 0; r < STRIP_ROWS; r++) {
            v16 sum = v16_load(lanes[r][c]);
            if (whole < depth)
                sum = add_products(sum, x_type, load_last_x(x[r] + whole * x_size, x_type, depth - whole), wide);
            sums[r][c] = v16_sum(sum);
        }
    }
}

/* STRIP_ROWS rows from `row` on; those past the part's last repeat it and are thrown away. */
PXR_TEMPLATE void product_of_strip(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype,
                                   const pxr_dtype x_type, int64_t row, int64_t column, int64_t count)
{
    const int64_t left = part->row_end - row, there = left < STRIP_ROWS ? left : STRIP_ROWS;
    const char *x[STRIP_ROWS];
    float sums[STRIP_ROWS][STRIP];
    for (int r = 0; r < STRIP_ROWS; r++) x[r] = job->x.data + (row + (r < there ? r : there - 1)) * job->x_stride;
    int64_t c = 0;
    for (; c + STRIP_TILE <= count; c += STRIP_TILE)
        strip_tile(job, STRIP_TILE, dtype, x_type, x, column + c, (float(*)[STRIP])(sums[0] + c));
    for (; c < count; c++) strip_tile(job, 1, dtype, x_type, x, column + c, (float(*)[STRIP])(sums[0] + c));
    for (int r = 0; r < there; r++) finish_row(job, row + r, column, sums[r], count);
}

PXR_TEMPLATE void product_of_few(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype,
                                 const pxr_dtype x_type)
{
    for (int64_t column = part->column_begin; column < part->column_end; column += STRIP) {
        const int64_t left = part->column_end - column, count = left < STRIP ? left : STRIP;
        for (int64_t row = part->row_begin; row < part->row_end; row += STRIP_ROWS)
            product_of_strip(job, part, dtype, x_type, row, column, count);
    }
}

/* ---- many rows -------------------------------------------------------------------------------------------------- */

/* What a part works on: a block of widened weights, in the order in which tiles read it, and the sums. Columns past the
 * part's last hold zeros. */
typedef struct linear_block {
    _Alignas(CACHE_LINE) float weights[PXR_LINEAR_COLUMNS / PART_COLUMNS][PARTS][BLOCK_STEPS][PART_COLUMNS][PART_LANES];
    float partial[PXR_LINEAR_ROWS][PXR_LINEAR_COLUMNS][LANES]; /* over the blocks before this one */
    float sums[PXR_LINEAR_ROWS][PXR_LINEAR_COLUMNS];           /* over all of k */
    int64_t tiles, steps;                                      /* tiles of columns; steps in this block */
    bool is_first, is_last;                                    /* block of k */
} linear_block;

/* The weights of the block's steps from k on, of `count` rows from `column` on. */
PXR_TEMPLATE void widen_block(const pxr_linear_job *job, const pxr_dtype dtype, const pxr_dtype x_type, int64_t column,
                              int64_t count, int64_t k, linear_block *block)
{
    for (int64_t c = 0; c < block->tiles * PART_COLUMNS; c++) {
        const char *w = job->weight.data + (column + c) * job->weight_stride;
        for (int64_t step = 0; step < block->steps; step++) {
            const int64_t at = k + step * step_length(x_type), left = job->depth - at;
            v16 wide = v16_set(0.0f);
            if (c < count) {
                const v16 scale = scale_at(job, dtype, column + c, at);
                const char *from = w + weight_bytes(dtype, at);
                fetch(from + job->weight_stride, 1); /* the next row's: too few bytes for the processor to foresee */
                wide = left >= step_length(x_type) ? load_step(from, dtype, x_type, scale)
                                                   : load_last_step(from, dtype, x_type, scale, left);
            }
            for (int part = 0; part < PARTS; part++)
                part_store(block->weights[c / PART_COLUMNS][part][step][c % PART_COLUMNS], v16_part_of(wide, part));
        }
    }
}

/* The sums of the lanes of a tile's columns. */
PXR_INLINE void sum_columns(float (*lanes)[LANES], float *sums)
{
    enum { THIRD = PART_COLUMNS > 2 ? 2 : 0, FOURTH = PART_COLUMNS > 3 ? 3 : 0 };
    float four[4];
    v16_sum_four(v16_load(lanes[0]), v16_load(lanes[1]), v16_load(lanes[THIRD]), v16_load(lanes[FOURTH]), four);
    for (int c = 0; c < PART_COLUMNS; c++) sums[c] = four[c];
}

/* Rows row .. row + rows - 1 of the part, whose x of this block are given, times one tile of columns. */
PXR_TEMPLATE void block_tile(const int rows, const pxr_dtype x_type, const char *x, int64_t x_stride,
                             linear_block *block, int64_t row, int64_t tile)
{
    float last[PART_ROWS][PART_COLUMNS][LANES];
    float(*partial)[PXR_LINEAR_COLUMNS][LANES] = &block->partial[row];
    for (int part = 0; part < PARTS; part++) {
        v16_part acc[PART_ROWS][PART_COLUMNS];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int c = 0; c < PART_COLUMNS; c++)
                acc[r][c] = block->is_first ? part_set(0.0f)
                                            : part_load(&partial[r][tile * PART_COLUMNS + c][part * PART_LANES]);
        for (int64_t step = 0; step < block->steps; step++) {
            v16_part wide[PART_COLUMNS];
#pragma GCC unroll 8
            for (int c = 0; c < PART_COLUMNS; c++) wide[c] = part_load(block->weights[tile][part][step][c]);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const v16_part a = part_load((const float *)(x + r * x_stride + step * STEP) + part * PART_LANES);
#pragma GCC unroll 8
                for (int c = 0; c < PART_COLUMNS; c++) acc[r][c] = part_add_products(acc[r][c], x_type, a, wide[c]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int c = 0; c < PART_COLUMNS; c++)
                part_store(block->is_last ? &last[r][c][part * PART_LANES]
                                          : &partial[r][tile * PART_COLUMNS + c][part * PART_LANES],
                           acc[r][c]);
    }
    if (!block->is_last) return;
    for (int r = 0; r < rows; r++) sum_columns(last[r], &block->sums[row + r][tile * PART_COLUMNS]);
}

PXR_TEMPLATE void block_rows(const int rows, const pxr_dtype x_type, const char *x, int64_t x_stride,
                             linear_block *block, int64_t row)
{
    for (int64_t tile = 0; tile < block->tiles; tile++)
        block_tile(rows, x_type, x + row * x_stride, x_stride, block, row, tile);
}

PXR_TEMPLATE void multiply_block(const pxr_dtype x_type, const char *x, int64_t x_stride, int64_t rows,
                                 linear_block *block)
{
    enum { HALF = (PART_ROWS + 1) / 2 };
    int64_t row = 0;
    for (; row + PART_ROWS <= rows; row += PART_ROWS) block_rows(PART_ROWS, x_type, x, x_stride, block, row);
    for (; row + HALF <= rows; row += HALF) block_rows(HALF, x_type, x, x_stride, block, row);
    for (; row < rows; row++) block_rows(1, x_type, x, x_stride, block, row);
}

/* The last `count` elements of the rows, less than a step, are multiplied as a step with zeros behind them. */
PXR_TEMPLATE void multiply_last(const pxr_dtype x_type, const char *x, int64_t x_stride, int64_t rows, int64_t count,
                                linear_block *block)
{
    float padded[PXR_LINEAR_ROWS][LANES];
    for (int64_t row = 0; row < rows; row++) v16_store(padded[row], load_last_x(x + row * x_stride, x_type, count));
    multiply_block(x_type, (const char *)padded, STEP, rows, block);
}

PXR_TEMPLATE void product_of_many(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype,
                                  const pxr_dtype x_type)
{
    const int64_t rows = part->row_end - part->row_begin, count = part->column_end - part->column_begin;
    const int64_t steps = job->depth / step_length(x_type), rest = job->depth % step_length(x_type);
    const int64_t blocks = (steps + BLOCK_STEPS - 1) / BLOCK_STEPS; /* of equal length, as nearly as can be */
    const char *x = job->x.data + part->row_begin * job->x_stride;
    linear_block block; /* too large to be cleared */
    block.tiles = (count + PART_COLUMNS - 1) / PART_COLUMNS;
    for (int64_t i = 0; i < blocks; i++) {
        const int64_t begin = steps * i / blocks;
        block.steps = steps * (i + 1) / blocks - begin;
        block.is_first = i == 0;
        block.is_last = i + 1 == blocks && rest == 0;
        widen_block(job, dtype, x_type, part->column_begin, count, begin * step_length(x_type), &block);
        multiply_block(x_type, x + begin * STEP, job->x_stride, rows, &block);
    }
    if (rest > 0 || steps == 0) {
        block.steps = 1;
        block.is_first = steps == 0;
        block.is_last = true;
        widen_block(job, dtype, x_type, part->column_begin, count, steps * step_length(x_type), &block);
        multiply_last(x_type, x + steps * STEP, job->x_stride, rows, rest, &block);
    }
    for (int64_t row = 0; row < rows; row++)
        finish_row(job, part->row_begin + row, part->column_begin, block.sums[row], count);
}

/* ---- any ---------------------------------------------------------------------------------------------------------- */

PXR_TEMPLATE void linear_of(const pxr_linear_job *job, const pxr_linear_part *part, const pxr_dtype dtype,
                            const pxr_dtype x_type)
{
    const int64_t rows = part->row_end - part->row_begin;
    if (rows == 1)
        product_of_row(job, part, dtype, x_type);
    else if (rows <= PXR_LINEAR_FEW)
        product_of_few(job, part, dtype, x_type);
    else
        product_of_many(job, part, dtype, x_type);
}

static void linear(const pxr_linear_job *job, const pxr_linear_part *part)
{
    if (job->x.dtype == PXR_BF16) {
        linear_of(job, part, PXR_BF16, PXR_BF16);
        return;
    }
    switch (job->weight.dtype) {
    case PXR_BF16:
        linear_of(job, part, PXR_BF16, PXR_F32);
        break;
    case PXR_F16:
        linear_of(job, part, PXR_F16, PXR_F32);
        break;
    case PXR_I8:
        linear_of(job, part, PXR_I8, PXR_F32);
        break;
    case PXR_U8:
        linear_of(job, part, PXR_U8, PXR_F32);
        break;
    default:
        linear_of(job, part, PXR_F32, PXR_F32);
        break;
    }
}

#endif
