/* Attention of a range of query rows over one key head. Included by kernels_*.c only.
 *
 * Online softmax (Milakov and Gimelshein 2018; FlashAttention) over blocks of 64 keys counted from the segment's first
 * key. A score is one FMA chain over the head's dims in order; a weighted sum of values is one FMA chain over the
 * visible keys in order; a block's weights are summed as 16 partial sums. None of it depends on which other rows are
 * computed together. Keys past the last visible one are not read.
 *
 * Where operands are rounded to bfloat16 (`narrow`), chains go over pairs, the second's product first: of every 32 dims
 * element i and i + 16 (of a last, shorter, run the halves), of every 32 keys likewise. Hidden keys of a run that has
 * visible ones have the weight 0.
 */
#ifndef PXR_CPU_ATTENTION_KERNEL_H
#define PXR_CPU_ATTENTION_KERNEL_H

#include "cpu/kernels.h"
#include "cpu/v16_dot.h"
#include "cpu/v16_math.h"

enum {
    KEY_BLOCK = 64,
    RUN = 2 * LANES, /* dims or keys that are paired: the first half with the second */
    HALF_DIMS = PXR_HEAD_DIM_MAX / 2,
    HALF_KEYS = KEY_BLOCK / 2,
};

/* What a part keeps while it walks over the blocks. Narrow operands lie as `v16_store_pair` puts them: pair i at i;
 * where there is no instruction for pairs its second lies at i, its first in the array's second half. */
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
    float queries[PXR_ATTENTION_ROWS][PXR_HEAD_DIM_MAX]; /* the rows, narrow; else they are read as they lie */
} attention_state;

/* Vectors that an operand of a step takes, and the steps of `count` dims or keys. */
PXR_INLINE int vectors_of(const bool narrow)
{
    return narrow ? PAIR_VECTORS : 1;
}

PXR_INLINE int64_t steps_of(int64_t count, const bool narrow)
{
    return narrow ? (count + 1) / 2 : count;
}

PXR_INLINE v16 add_product(v16 acc, v16 a, v16 b, const bool narrow)
{
    return narrow && PAIR_VECTORS == 1 ? v16_dot(acc, a, b) : v16_fma(a, b, acc);
}

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

/* Sixteen dims of the block's key j (zeros behind the last visible key, and from `count` dims on). */
PXR_INLINE v16 load_some(const attention_state *state, const char *from, int64_t j, int64_t keys, int64_t stride,
                         int64_t dim, int64_t count)
{
    if (j >= keys) return v16_set(0.0f);
    const pxr_dtype dtype = state->job->kv_dtype;
    return v16_load_some_as(from + j * stride + dim * (dtype == PXR_F32 ? 4 : 2), dtype, count);
}

/* The block's first key, of the part's head. */
static const char *block_keys(const attention_state *state)
{
    const pxr_attention_job *job = state->job;
    return job->k + (state->part->segment.key_begin + state->block_begin) * job->k_stride +
           state->part->key_head * job->k_head_stride;
}

/* keys[..][j] of LANES keys from j on; `left` dims from d on, of which a run is taken. */
PXR_INLINE void transpose_run(attention_state *state, const char *keys, int64_t j, int64_t count, int64_t d,
                              int64_t left, const bool narrow)
{
    const int64_t stride = state->job->k_stride;
    const int64_t dims = narrow && left < RUN ? (left + 1) / 2 : left < LANES ? left : LANES;
    v16 rows[LANES], second[LANES];
    for (int i = 0; i < LANES; i++) rows[i] = load_some(state, keys, j + i, count, stride, d, dims);
    v16_transpose(rows);
    if (narrow) {
        for (int i = 0; i < LANES; i++) second[i] = load_some(state, keys, j + i, count, stride, d + dims, left - dims);
        v16_transpose(second);
        for (int64_t i = 0; i < dims; i++)
            v16_store_pair(&state->keys[d / 2 + i][j], HALF_DIMS * KEY_BLOCK, rows[i], second[i]);
    } else {
        for (int64_t i = 0; i < dims; i++) v16_store(&state->keys[d + i][j], rows[i]);
    }
}

/* Whether keys and values are pairs already but for their order: bfloat16 in whole runs. */
PXR_INLINE bool are_pairs(const pxr_attention_job *job, const bool narrow)
{
    return PAIR_VECTORS == 1 && narrow && job->kv_dtype == PXR_BF16 && job->head_dim % RUN == 0;
}

/* transpose_run of bfloat16. */
PXR_INLINE void transpose_pairs(attention_state *state, const char *keys, int64_t j, int64_t count, int64_t d)
{
    const char *from = keys + j * state->job->k_stride + d * (int64_t)sizeof(uint16_t);
    v16 rows[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        rows[i] = j + i < count ? v16_pairs_of_run(from + i * state->job->k_stride) : v16_set(0.0f);
    v16_transpose(rows);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) v16_store(&state->keys[d / 2 + i][j], rows[i]);
}

PXR_TEMPLATE void transpose_keys(attention_state *state, int64_t count, const bool narrow)
{
    const pxr_attention_job *job = state->job;
    const char *keys = block_keys(state);
    for (int64_t j = 0; j < KEY_BLOCK; j += LANES)
        for (int64_t d = 0; d < job->head_dim; d += narrow ? RUN : LANES)
            if (are_pairs(job, narrow))
                transpose_pairs(state, keys, j, count, d);
            else
                transpose_run(state, keys, j, count, d, job->head_dim - d, narrow);
}

/* gather_values of bfloat16. The next block's are asked for: its rows lie far apart. */
PXR_INLINE void gather_pairs(attention_state *state, const char *values, int64_t count)
{
    const int64_t stride = state->job->v_stride;
    for (int64_t run = 0; run < count; run += RUN)
        for (int64_t j = run; j < run + LANES; j++)
            for (int64_t d = 0; d < state->job->head_dim; d += RUN) {
                const char *first = values + j * stride + d * (int64_t)sizeof(uint16_t);
                const char *second = first + LANES * stride;
                v16 low, high;
                v16_pairs_of_rows(j < count ? first : NULL, j + LANES < count ? second : NULL, &low, &high);
                fetch(first + KEY_BLOCK * stride, 1);
                fetch(second + KEY_BLOCK * stride, 1);
                v16_store(&state->values[run / 2 + j - run][d], low);
                v16_store(&state->values[run / 2 + j - run][d + LANES], high);
            }
}

/* Gathers the block's values, which lie far apart, so that all rows' tiles find them in a cache. */
PXR_TEMPLATE void gather_values(attention_state *state, int64_t count, const bool narrow)
{
    const pxr_attention_job *job = state->job;
    const char *values = job->v + (state->part->segment.key_begin + state->block_begin) * job->v_stride +
                         state->part->key_head * job->v_head_stride;
    if (are_pairs(job, narrow)) {
        gather_pairs(state, values, count);
        return;
    }
    for (int64_t d = 0; d < job->head_dim; d += LANES) {
        const int64_t left = job->head_dim - d, stride = job->v_stride;
        for (int64_t j = 0; !narrow && j < count; j++)
            v16_store(&state->values[j][d], load_some(state, values, j, count, stride, d, left));
        for (int64_t run = 0; narrow && run < count; run += RUN)
            for (int64_t j = run; j < run + LANES; j++)
                v16_store_pair(&state->values[run / 2 + j - run][d], HALF_KEYS * PXR_HEAD_DIM_MAX,
                               load_some(state, values, j, count, stride, d, left),
                               load_some(state, values, j + LANES, count, stride, d, left));
    }
}

/* The part's rows, narrow. */
static void narrow_queries(attention_state *state)
{
    const int64_t head_dim = state->job->head_dim;
    for (int64_t row = state->part->row_begin; row < state->part->row_end; row++) {
        const float *query = query_of(state, row);
        for (int64_t d = 0; d < head_dim; d += RUN) {
            const int64_t left = head_dim - d < RUN ? head_dim - d : RUN, half = (left + 1) / 2;
            v16_store_pair(&state->queries[row - state->part->row_begin][d / 2], HALF_DIMS,
                           v16_load_some(query + d, half), v16_load_some(query + d + half, left - half));
        }
    }
}

/* Scores of TILE_ROWS rows from `row` on (those past the part's last repeat it) with the whole block. */
PXR_TEMPLATE void score_tile(attention_state *state, int64_t row, const bool narrow)
{
    const float *query[TILE_ROWS];
    for (int r = 0; r < TILE_ROWS; r++) {
        const int64_t this_row = row + r < state->part->row_end ? row + r : state->part->row_end - 1;
        query[r] = narrow ? state->queries[this_row - state->part->row_begin] : query_of(state, this_row);
    }
    const v16 scale = v16_set(state->job->scale);
    const int64_t steps = steps_of(state->job->head_dim, narrow), stride = state->job->k_stride;
    const int64_t row_bytes = state->job->head_dim * (state->job->kv_dtype == PXR_F32 ? 4 : 2);
    const char *next = block_keys(state) + KEY_BLOCK * stride;
    const bool fetches = row == state->part->row_begin; /* meanwhile memory brings the next block's keys */
    for (int64_t j = 0; j < KEY_BLOCK; j += TILE_COLUMNS * LANES) {
        v16 acc[TILE_ROWS][TILE_COLUMNS];
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
            for (int c = 0; c < TILE_COLUMNS; c++) acc[r][c] = v16_set(0.0f);
        for (int64_t step = 0; step < steps; step++) {
            if (fetches) fetch(next + step * stride, row_bytes);
#pragma GCC unroll 2
            for (int vector = 0; vector < vectors_of(narrow); vector++) {
                const int64_t d = vector * HALF_DIMS + step;
                v16 keys[TILE_COLUMNS];
#pragma GCC unroll 8
                for (int c = 0; c < TILE_COLUMNS; c++) keys[c] = v16_load(&state->keys[d][j + c * LANES]);
#pragma GCC unroll 8
                for (int r = 0; r < TILE_ROWS; r++) {
                    const v16 q = v16_set(query[r][d]);
#pragma GCC unroll 8
                    for (int c = 0; c < TILE_COLUMNS; c++) acc[r][c] = add_product(acc[r][c], q, keys[c], narrow);
                }
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
PXR_TEMPLATE void weigh(attention_state *state, int r, int64_t index, int64_t visible, const bool narrow)
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
        scores[i] = v16_exp(v16_sub(scores[i], v16_set(now)));
        sum = v16_add(sum, scores[i]);
    }
    for (int i = 0; i < KEY_BLOCK / LANES; i += narrow ? 2 : 1) {
        if (narrow)
            v16_store_pair(&state->weights[r][i / 2 * LANES], HALF_KEYS, scores[i], scores[i + 1]);
        else
            v16_store(&state->weights[r][i * LANES], scores[i]);
    }
    float decay[LANES];
    v16_store(decay, v16_exp(v16_set(before - now)));
    state->decay[r] = decay[0];
    state->largest[index] = now;
    state->weight_sum[index] = state->weight_sum[index] * decay[0] + v16_sum(sum);
}

/* A range of a block's keys that rows of a tile see; a tile's first one decays what is there. */
typedef struct key_range {
    int64_t begin, end;
    bool decays;
} key_range;

/* out[r] = out[r] * decay[r] + sum over the keys of the range of weights[r][key] * v[key], `columns` vectors of it from
 * dim `d` on, for rows first .. first + rows - 1 of the tile; one vector has `count` elements. */
PXR_INLINE void add_values(const attention_state *state, const int rows, const int columns, int first, float **out,
                           int64_t d, key_range range, int64_t count, const bool narrow)
{
    const bool fresh = range.decays && state->block_begin == 0;
    v16 acc[TILE_ROWS][TILE_COLUMNS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++) {
            const v16 old = fresh         ? v16_set(0.0f)
                            : columns > 1 ? v16_load(out[r] + d + c * LANES)
                                          : v16_load_some(out[r] + d, count);
            acc[r][c] = range.decays ? v16_mul(old, v16_set(state->decay[first + r])) : old;
        }
    for (int64_t step = steps_of(range.begin, narrow); step < steps_of(range.end, narrow); step++)
#pragma GCC unroll 2
        for (int vector = 0; vector < vectors_of(narrow); vector++) {
            const int64_t j = vector * HALF_KEYS + step;
            v16 value[TILE_COLUMNS];
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++) value[c] = v16_load(&state->values[j][d + c * LANES]);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const v16 weight = v16_set(state->weights[first + r][j]);
#pragma GCC unroll 8
                for (int c = 0; c < columns; c++) acc[r][c] = add_product(acc[r][c], weight, value[c], narrow);
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

PXR_INLINE void add_values_of_rows(const attention_state *state, const int rows, int first, int64_t row,
                                   key_range range, const bool narrow)
{
    const int64_t head_dim = state->job->head_dim;
    float *out[TILE_ROWS];
    for (int r = 0; r < rows; r++) out[r] = out_of(state, row + first + r);
    int64_t d = 0;
    for (; d + TILE_COLUMNS * LANES <= head_dim; d += TILE_COLUMNS * LANES)
        add_values(state, rows, TILE_COLUMNS, first, out, d, range, LANES, narrow);
    for (; d < head_dim; d += LANES) add_values(state, rows, 1, first, out, d, range, head_dim - d, narrow);
}

PXR_TEMPLATE void attend_tile(attention_state *state, int64_t row, const bool narrow)
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
    score_tile(state, row, narrow);
    for (int r = 0; r < rows; r++) {
        if (state->visible[r] == 0) continue;
        weigh(state, r, row + r - part->row_begin, state->visible[r], narrow);
        if (narrow) state->visible[r] = (state->visible[r] + RUN - 1) / RUN * RUN; /* hidden keys weigh nothing */
    }
    if (narrow) common = common / RUN * RUN;
    if (rows == TILE_ROWS && common > 0)
        add_values_of_rows(state, TILE_ROWS, 0, row, (key_range){0, common, true}, narrow);
    else
        common = 0;
    for (int r = 0; r < rows; r++)
        if (state->visible[r] > common)
            add_values_of_rows(state, 1, r, row, (key_range){common, state->visible[r], common == 0}, narrow);
}

PXR_TEMPLATE void attend_blocks(attention_state *state, const bool narrow)
{
    const pxr_attention_part *part = state->part;
    const int64_t keys = visible_keys(state->job, part, part->row_end - 1);
    if (narrow) narrow_queries(state);
    for (state->block_begin = 0; state->block_begin < keys; state->block_begin += KEY_BLOCK) {
        const int64_t left = keys - state->block_begin, count = left < KEY_BLOCK ? left : KEY_BLOCK;
        transpose_keys(state, count, narrow);
        gather_values(state, count, narrow);
        for (int64_t row = part->row_begin; row < part->row_end; row += TILE_ROWS) attend_tile(state, row, narrow);
    }
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
    if (job->narrow)
        attend_blocks(&state, true);
    else
        attend_blocks(&state, false);
    for (int64_t row = part->row_begin; row < part->row_end; row++) {
        float *out = out_of(&state, row);
        const v16 sum = v16_set(state.weight_sum[row - part->row_begin]);
        for (int64_t d = 0; d < job->head_dim; d += LANES)
            v16_store_some(out + d, v16_div(v16_load_some(out + d, job->head_dim - d), sum), job->head_dim - d);
    }
}

#endif
