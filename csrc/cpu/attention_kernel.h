/* Attention of a range of query rows over one key head. Included by kernels_*.c only.
 *
 * Online softmax (Milakov and Gimelshein 2018; FlashAttention) over blocks of 64 keys counted from the segment's first
 * key. A score is one FMA chain over the head's dims in order; a weighted sum of values is one FMA chain over the
 * visible keys in order; a block's weights are summed as 16 partial sums. None of it depends on which other rows are
 * computed together. Keys past the last visible one are not read.
 */
#ifndef PXR_CPU_ATTENTION_KERNEL_H
#define PXR_CPU_ATTENTION_KERNEL_H

#include "cpu/kernels.h"
#include "cpu/v16_math.h"

enum { KEY_BLOCK = 64 };

/* What a part keeps while it walks over the blocks. */
typedef struct attention_state {
    const pxr_attention_job *job;
    const pxr_attention_part *part;
    int64_t block_begin;                       /* first key of the block, from the segment's first */
    float largest[PXR_ATTENTION_ROWS];         /* of the scores so far */
    float weight_sum[PXR_ATTENTION_ROWS];      /* of exp(score - largest) so far */
    float keys[PXR_HEAD_DIM_MAX][KEY_BLOCK];   /* the block's keys, transposed, zeros behind the last visible one */
    float values[KEY_BLOCK][PXR_HEAD_DIM_MAX]; /* the block's values; zeros behind a row's head_dim up to 16 */
    float weights[TILE_ROWS][KEY_BLOCK];       /* scores, then exp(score - largest), of a tile of rows */
    float decay[TILE_ROWS];                    /* what earlier sums of the tile's rows are multiplied by */
    int64_t visible[TILE_ROWS];                /* keys of the block that the tile's rows see */
} attention_state;

static int64_t visible_keys(const pxr_attention_job *job, const pxr_attention_part *part, int64_t row)
{
    const pxr_attention_segment *segment = &part->segment;
    if (!job->causal) return segment->key_count;
    return segment->key_count - segment->query_count + row / job->group + 1;
}

static const float *query_of(const attention_state *state, int64_t row)
{
    const pxr_attention_job *job = state->job;
    const int64_t head = state->part->key_head * job->group + row % job->group;
    return job->q + (state->part->segment.query_begin + row / job->group) * job->q_stride + head * job->q_head_stride;
}

static float *out_of(const attention_state *state, int64_t row)
{
    const pxr_attention_job *job = state->job;
    const int64_t head = state->part->key_head * job->group + row % job->group;
    return job->out + (state->part->segment.query_begin + row / job->group) * job->out_stride +
           head * job->out_head_stride;
}

static void transpose_keys(attention_state *state, int64_t count)
{
    const pxr_attention_job *job = state->job;
    const char *keys = job->k + (state->part->segment.key_begin + state->block_begin) * job->k_stride +
                       state->part->key_head * job->k_head_stride;
    const int64_t size = job->kv_dtype == PXR_F16 ? 2 : 4;
    for (int64_t j = 0; j < KEY_BLOCK; j += LANES)
        for (int64_t d = 0; d < job->head_dim; d += LANES) {
            const int64_t left = job->head_dim - d, dims = left < LANES ? left : LANES;
            v16 rows[LANES];
            for (int64_t i = 0; i < LANES; i++)
                rows[i] = j + i < count
                              ? v16_load_some_as(keys + (j + i) * job->k_stride + d * size, job->kv_dtype, left)
                              : v16_set(0.0f);
            v16_transpose(rows);
            for (int64_t i = 0; i < dims; i++) v16_store(&state->keys[d + i][j], rows[i]);
        }
}

/* Gathers the block's values, which lie far apart, so that all rows' tiles find them in a cache. */
static void gather_values(attention_state *state, int64_t count)
{
    const pxr_attention_job *job = state->job;
    const char *values = job->v + (state->part->segment.key_begin + state->block_begin) * job->v_stride +
                         state->part->key_head * job->v_head_stride;
    const int64_t size = job->kv_dtype == PXR_F16 ? 2 : 4;
    for (int64_t j = 0; j < count; j++)
        for (int64_t d = 0; d < job->head_dim; d += LANES)
            v16_store(&state->values[j][d],
                      v16_load_some_as(values + j * job->v_stride + d * size, job->kv_dtype, job->head_dim - d));
}

/* Scores of TILE_ROWS rows from `row` on (those past the part's last repeat it) with the whole block. */
static void score_tile(attention_state *state, int64_t row)
{
    const float *query[TILE_ROWS];
    for (int r = 0; r < TILE_ROWS; r++)
        query[r] = query_of(state, row + r < state->part->row_end ? row + r : state->part->row_end - 1);
    const v16 scale = v16_set(state->job->scale);
    const int64_t head_dim = state->job->head_dim;
    for (int64_t j = 0; j < KEY_BLOCK; j += TILE_COLUMNS * LANES) {
        v16 acc[TILE_ROWS][TILE_COLUMNS];
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
            for (int c = 0; c < TILE_COLUMNS; c++) acc[r][c] = v16_set(0.0f);
        for (int64_t d = 0; d < head_dim; d++) {
            v16 keys[TILE_COLUMNS];
#pragma GCC unroll 8
            for (int c = 0; c < TILE_COLUMNS; c++) keys[c] = v16_load(&state->keys[d][j + c * LANES]);
#pragma GCC unroll 8
            for (int r = 0; r < TILE_ROWS; r++) {
                const v16 q = v16_set(query[r][d]);
#pragma GCC unroll 8
                for (int c = 0; c < TILE_COLUMNS; c++) acc[r][c] = v16_fma(q, keys[c], acc[r][c]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
            for (int c = 0; c < TILE_COLUMNS; c++)
                v16_store(&state->weights[r][j + c * LANES], v16_mul(acc[r][c], scale));
    }
}

/* Scores of one row of the tile become weights; the row's running largest and sum move on. */
static void weigh(attention_state *state, int r, int64_t index, int64_t visible)
{
    const v16 never = v16_set(-INFINITY);
    v16 scores[KEY_BLOCK / LANES], largest = never, sum = v16_set(0.0f);
    for (int i = 0; i < KEY_BLOCK / LANES; i++) {
        const int64_t left = visible - i * LANES;
        scores[i] = v16_load(&state->weights[r][i * LANES]);
        if (left < LANES) scores[i] = v16_keep(scores[i], left > 0 ? left : 0, never);
        largest = v16_max(largest, scores[i]);
    }
    const float block_largest = v16_largest(largest), before = state->largest[index];
    const float now = block_largest > before ? block_largest : before;
    for (int i = 0; i < KEY_BLOCK / LANES; i++) {
        const v16 weight = v16_exp(v16_sub(scores[i], v16_set(now)));
        v16_store(&state->weights[r][i * LANES], weight);
        sum = v16_add(sum, weight);
    }
    float decay[LANES];
    v16_store(decay, v16_exp(v16_set(before - now)));
    state->decay[r] = decay[0];
    state->largest[index] = now;
    state->weight_sum[index] = state->weight_sum[index] * decay[0] + v16_sum(sum);
}

/* out[r] = out[r] * decay[r] + sum over keys begin .. end-1 of weights[r][key] * v[key], `columns` vectors of it from dim
 * `d` on, for rows first .. first + rows - 1 of the tile; one vector has `count` elements. The first range of a tile
 * decays. */
PXR_INLINE void add_values(const attention_state *state, const int rows, const int columns, int first, float **out,
                           int64_t d, int64_t begin, int64_t end, int64_t count, bool decays)
{
    const bool fresh = decays && state->block_begin == 0;
    v16 acc[TILE_ROWS][TILE_COLUMNS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++) {
            const v16 old = fresh         ? v16_set(0.0f)
                            : columns > 1 ? v16_load(out[r] + d + c * LANES)
                                          : v16_load_some(out[r] + d, count);
            acc[r][c] = decays ? v16_mul(old, v16_set(state->decay[first + r])) : old;
        }
    for (int64_t j = begin; j < end; j++) {
        v16 value[TILE_COLUMNS];
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++) value[c] = v16_load(&state->values[j][d + c * LANES]);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const v16 weight = v16_set(state->weights[first + r][j]);
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) acc[r][c] = v16_fma(weight, value[c], acc[r][c]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++) {
            if (columns > 1)
                v16_store(out[r] + d + c * LANES, acc[r][c]);
            else
                v16_store_some(out[r] + d, acc[r][c], count);
        }
}

PXR_INLINE void add_values_of_rows(const attention_state *state, const int rows, int first, int64_t row, int64_t begin,
                                   int64_t end, bool decays)
{
    const int64_t head_dim = state->job->head_dim;
    float *out[TILE_ROWS];
    for (int r = 0; r < rows; r++) out[r] = out_of(state, row + first + r);
    int64_t d = 0;
    for (; d + TILE_COLUMNS * LANES <= head_dim; d += TILE_COLUMNS * LANES)
        add_values(state, rows, TILE_COLUMNS, first, out, d, begin, end, LANES, decays);
    for (; d < head_dim; d += LANES) add_values(state, rows, 1, first, out, d, begin, end, head_dim - d, decays);
}

static void attend_tile(attention_state *state, int64_t row)
{
    const pxr_attention_part *part = state->part;
    const int rows = part->row_end - row < TILE_ROWS ? (int)(part->row_end - row) : TILE_ROWS;
    int64_t common = KEY_BLOCK; /* keys of the block that all rows of the tile see */
    for (int r = 0; r < rows; r++) {
        const int64_t left = visible_keys(state->job, part, row + r) - state->block_begin;
        state->visible[r] = left < 0 ? 0 : left < KEY_BLOCK ? left : KEY_BLOCK;
        if (state->visible[r] < common) common = state->visible[r];
    }
    if (state->visible[rows - 1] == 0) return;
    score_tile(state, row);
    for (int r = 0; r < rows; r++)
        if (state->visible[r] > 0) weigh(state, r, row + r - part->row_begin, state->visible[r]);
    if (rows == TILE_ROWS && common > 0)
        add_values_of_rows(state, TILE_ROWS, 0, row, 0, common, true);
    else
        common = 0;
    for (int r = 0; r < rows; r++)
        if (state->visible[r] > common) add_values_of_rows(state, 1, r, row, common, state->visible[r], common == 0);
}

static void attention(const pxr_attention_job *job, const pxr_attention_part *part)
{
    attention_state state;
    state.job = job;
    state.part = part;
    for (int64_t i = 0; i < part->row_end - part->row_begin; i++) {
        state.largest[i] = -INFINITY;
        state.weight_sum[i] = 0.0f;
    }
    const int64_t keys = visible_keys(job, part, part->row_end - 1);
    for (state.block_begin = 0; state.block_begin < keys; state.block_begin += KEY_BLOCK) {
        const int64_t left = keys - state.block_begin;
        transpose_keys(&state, left < KEY_BLOCK ? left : KEY_BLOCK);
        gather_values(&state, left < KEY_BLOCK ? left : KEY_BLOCK);
        for (int64_t row = part->row_begin; row < part->row_end; row += TILE_ROWS) attend_tile(&state, row);
    }
    for (int64_t row = part->row_begin; row < part->row_end; row++) {
        float *out = out_of(&state, row);
        const v16 sum = v16_set(state.weight_sum[row - part->row_begin]);
        for (int64_t d = 0; d < job->head_dim; d += LANES)
            v16_store_some(out + d, v16_div(v16_load_some(out + d, job->head_dim - d), sum), job->head_dim - d);
    }
}

#endif
