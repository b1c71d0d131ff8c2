/* Attention on the processor's tiles, where operands are rounded to bfloat16. Included by attention_kernel.h only.
 *
 * attention_block_kernel.h's walk over a span's blocks, with its operands: queries and weights are first operands as they lie,
 * keys and values, which lie in pairs of dims and of keys, second ones. Scores of sixteen rows stay in tiles over all dims,
 * 32 at a time; a block's weighted values are summed from zero, 32 keys at a time, and added to the span's. A row's order
 * is the same alone and among others, but not that of other instruction sets.
 */
#ifndef PXR_CPU_ATTENTION_AMX_KERNEL_H
#define PXR_CPU_ATTENTION_AMX_KERNEL_H

#include "cpu/amx_tile.h"
#include "cpu/attention_block_kernel.h"

enum {
    QUERY_STRIDE = QUERY_ROW * sizeof(float), /* bytes from row to row of the state's arrays */
    WEIGHT_STRIDE = WEIGHT_ROW * sizeof(float),
    KEY_STRIDE = KEY_BLOCK * sizeof(float),
    VALUE_STRIDE = PXR_HEAD_DIM_MAX * sizeof(float),
};

/* Pairs of dims up to the next multiple of a tile's are zeros: those of queries already are. */
static void clear_last_pairs(attention_state *state)
{
    const int64_t pairs = (state->job->head_dim + 1) / 2;
    const int64_t all = (pairs + TILE_SIDE - 1) / TILE_SIDE * TILE_SIDE;
    for (int64_t pair = pairs; pair < all; pair++) memset(state->keys[pair], 0, sizeof state->keys[pair]);
}

/* Scores of sixteen rows from `row` on with the whole block; rows behind the part's last one get what nobody reads. */
static void score_on_tiles(attention_state *state, int64_t row)
{
    const float *queries = state->queries[row - state->part->row_begin];
    const char *next = block_keys(state) + KEY_BLOCK * state->job->k_stride;
    const int64_t row_bytes = state->job->head_dim * (int64_t)pxr_dtype_size(state->job->kv_dtype);
    for (int64_t j = 0; row == state->part->row_begin && j < KEY_BLOCK; j++) /* memory brings the next block's keys */
        fetch(next + j * state->job->k_stride, row_bytes);
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (int64_t pair = 0; 2 * pair < state->job->head_dim; pair += TILE_SIDE) {
        const char *keys = (const char *)state->keys[pair];
        TILE_LOAD(4, (const char *)(queries + pair), QUERY_STRIDE);
        TILE_LOAD(6, keys, KEY_STRIDE);
        TILE_DOT_BF16(0, 4, 6);
        TILE_LOAD(7, keys + TILE_BYTES, KEY_STRIDE);
        TILE_DOT_BF16(1, 4, 7);
        TILE_LOAD(6, keys + 2 * TILE_BYTES, KEY_STRIDE);
        TILE_DOT_BF16(2, 4, 6);
        TILE_LOAD(7, keys + 3 * TILE_BYTES, KEY_STRIDE);
        TILE_DOT_BF16(3, 4, 7);
    }
    char *scores = (char *)state->weights;
    TILE_STORE(0, scores, WEIGHT_STRIDE);
    TILE_STORE(1, scores + TILE_BYTES, WEIGHT_STRIDE);
    TILE_STORE(2, scores + 2 * TILE_BYTES, WEIGHT_STRIDE);
    TILE_STORE(3, scores + 3 * TILE_BYTES, WEIGHT_STRIDE);
}

/* A tile of the block's weighted values, from dim d on, to the span's sums of the rows that see the block. */
static void add_tile(const attention_state *state, const float (*tile)[TILE_SIDE], int64_t row, int rows, int64_t d)
{
    float *sums = state->sums.values + (row - state->part->row_begin) * PXR_HEAD_DIM_MAX + d;
    const bool fresh = state->block_begin == state->span_begin;
    for (int r = 0; r < rows; r++, sums += PXR_HEAD_DIM_MAX) {
        if (state->visible[r] == 0) continue;
        const v16 block = v16_load(tile[r]);
        v16_store(sums, fresh ? block : v16_fma(v16_load(sums), v16_set(state->decay[r]), block));
    }
}

/* Adds the values of the block's `count` keys, weighted, to the sums of sixteen rows; hidden keys weigh nothing. */
static void add_values_on_tiles(const attention_state *state, int64_t row, int rows, int64_t count)
{
    const char *weights = (const char *)state->weights, *values = (const char *)state->values;
    const char *second = values + TILE_SIDE * VALUE_STRIDE; /* keys 32 .. 63 */
    float sums[2][TILE_SIDE][TILE_SIDE];
    TILE_LOAD(4, weights, WEIGHT_STRIDE);
    TILE_LOAD(5, weights + TILE_BYTES, WEIGHT_STRIDE);
    for (int64_t d = 0; d < state->job->head_dim; d += 2 * TILE_SIDE) {
        const int64_t at = d * (int64_t)sizeof(float);
        const bool two = d + TILE_SIDE < state->job->head_dim;
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_LOAD(6, values + at, VALUE_STRIDE);
        TILE_DOT_BF16(0, 4, 6);
        if (two) {
            TILE_LOAD(7, values + at + TILE_BYTES, VALUE_STRIDE);
            TILE_DOT_BF16(1, 4, 7);
        }
        if (count > RUN) {
            TILE_LOAD(6, second + at, VALUE_STRIDE);
            TILE_DOT_BF16(0, 5, 6);
        }
        if (count > RUN && two) {
            TILE_LOAD(7, second + at + TILE_BYTES, VALUE_STRIDE);
            TILE_DOT_BF16(1, 5, 7);
        }
        TILE_STORE(0, sums[0], TILE_BYTES);
        add_tile(state, sums[0], row, rows, d);
        if (!two) continue;
        TILE_STORE(1, sums[1], TILE_BYTES);
        add_tile(state, sums[1], row, rows, d + TILE_SIDE);
    }
}

static void attend_on_tiles(attention_state *state, int64_t row, int64_t count)
{
    const int64_t left = state->part->row_end - row;
    const int rows = left < TILE_SIDE ? (int)left : TILE_SIDE;
    find_visible(state, row, rows);
    if (state->visible[rows - 1] == 0) return;
    score_on_tiles(state, row);
    weigh_rows(state, row, rows, true);
    add_values_on_tiles(state, row, rows, count);
}

static void attend_blocks_on_tiles(attention_state *state, int64_t end)
{
    const pxr_attention_part *part = state->part;
    clear_last_pairs(state);
    configure_tiles(TILE_BYTES);
    for (state->block_begin = state->span_begin; state->block_begin < end; state->block_begin += KEY_BLOCK) {
        const int64_t left = end - state->block_begin, count = left < KEY_BLOCK ? left : KEY_BLOCK;
        transpose_keys(state, count, true);
        gather_values(state, count, true);
        for (int64_t row = part->row_begin; row < part->row_end; row += TILE_SIDE) attend_on_tiles(state, row, count);
    }
    TILE_RELEASE();
}

#endif
