/* Attention of a range of query rows over one key head, block of keys by block. Included by attention_kernel.h and
 * attention_amx_kernel.h only.
 *
 * A score is one FMA chain over the head's dims in order; a span's weighted sum of values is one FMA chain over the
 * visible keys in order; a block's weights are summed as 16 partial sums. None of it depends on which other rows are
 * computed together. Keys past the last visible one are not read.
 *
 * Where operands are rounded to bfloat16 (`narrow`), chains go over pairs, the second's product first: of every 32 dims
 * element i and i + 16 (of a last, shorter, run the halves), of every 32 keys likewise. Hidden keys of a run that has
 * visible ones have the weight 0.
 */
#ifndef PXR_CPU_ATTENTION_BLOCK_KERNEL_H
#define PXR_CPU_ATTENTION_BLOCK_KERNEL_H

#include "cpu/kernels.h"
#include "cpu/v16_dot.h"
#include "cpu/v16_math.h"

enum {
    KEY_BLOCK = 64,
    HALF_DIMS = PXR_HEAD_DIM_MAX / 2,
    HALF_KEYS = KEY_BLOCK / 2,
    MOST_ROWS = LANES, /* of a tile of any kind */
    /* Rows of what is read a number at a time, for a tile's rows in turn. Where only two FMAs follow each number the rows begin
     * in different banks of the cache. */
    BANKS = PARTS > 1 ? 3 : 0, /* floats */
    QUERY_ROW = PXR_HEAD_DIM_MAX + BANKS,
    WEIGHT_ROW = KEY_BLOCK + BANKS,
};

/* What a part keeps while it walks over a span's blocks. Narrow keys and values lie as `v16_store_pair` puts them, pair i
 * of dims or keys in row i; queries and weights as `v16_store_shared_pair` does, whose numbers are one half apart. */
typedef struct attention_state {
    const pxr_attention_job *job;
    const pxr_attention_part *part;
    pxr_attention_sums sums;                     /* of the span so far */
    int64_t span_begin, block_begin;             /* their first keys, from the segment's first */
    _Alignas(CACHE_LINE)                         /* vectors of the arrays lie in one line each */
        float keys[PXR_HEAD_DIM_MAX][KEY_BLOCK]; /* the block's keys, transposed, zeros behind the last visible one */
    float values[KEY_BLOCK][PXR_HEAD_DIM_MAX];   /* the block's values; zeros behind a row's head_dim up to 16 */
    float weights[MOST_ROWS][WEIGHT_ROW];        /* scores, then exp(score - largest), of a tile of rows */
    float decay[MOST_ROWS];                      /* what earlier sums of the tile's rows are multiplied by */
    int64_t visible[MOST_ROWS];                  /* keys of the block that the tile's rows see */
    float queries[PXR_ATTENTION_ROWS][QUERY_ROW];
} attention_state;

/* Rows of `count` dims or keys. */
PXR_INLINE int64_t rows_of(int64_t count, const bool narrow)
{
    return narrow ? (count + 1) / 2 : count;
}

/* Steps of a row. */
PXR_INLINE int steps_of(const bool narrow)
{
    return narrow ? PAIR_STEPS : 1;
}

PXR_INLINE v16 operand(v16 row, const int step, const bool narrow)
{
    return narrow ? v16_of_step(row, step) : row;
}

PXR_INLINE v16 add_product(v16 acc, v16 a, v16 b, const bool narrow)
{
    return narrow ? v16_add_step(acc, a, b) : v16_fma(a, b, acc);
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
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) rows[i] = load_some(state, keys, j + i, count, stride, d, dims);
    v16_transpose(rows);
    if (narrow) {
        for (int i = 0; i < LANES; i++) second[i] = load_some(state, keys, j + i, count, stride, d + dims, left - dims);
        v16_transpose(second);
        for (int64_t i = 0; i < dims; i++) v16_store_pair(&state->keys[d / 2 + i][j], rows[i], second[i]);
    } else {
        for (int64_t i = 0; i < dims; i++) v16_store(&state->keys[d + i][j], rows[i]);
    }
}

/* Whether keys and values are pairs already but for their order: bfloat16 in whole runs. */
PXR_INLINE bool are_pairs(const pxr_attention_job *job, const bool narrow)
{
    return narrow && job->kv_dtype == PXR_BF16 && job->head_dim % RUN == 0;
}

PXR_TEMPLATE void transpose_keys(attention_state *state, int64_t count, const bool narrow)
{
    const pxr_attention_job *job = state->job;
    const char *keys = block_keys(state);
    for (int64_t j = 0; j < KEY_BLOCK; j += LANES)
        for (int64_t d = 0; d < job->head_dim; d += narrow ? RUN : LANES)
            if (are_pairs(job, narrow))
                v16_transpose_run(keys + j * job->k_stride + d * 2, job->k_stride, count - j, &state->keys[d / 2][j],
                                  KEY_BLOCK);
            else
                transpose_run(state, keys, j, count, d, job->head_dim - d, narrow);
}

/* gather_values of bfloat16. */
PXR_INLINE void gather_pairs(attention_state *state, const char *values, int64_t count)
{
    const int64_t stride = state->job->v_stride;
    for (int64_t run = 0; run < count; run += RUN)
        for (int64_t j = run; j < run + LANES; j++)
            for (int64_t d = 0; d < state->job->head_dim; d += RUN) {
                const char *first = values + j * stride + d * 2, *second = first + LANES * stride;
                fetch(first + KEY_BLOCK * stride, 1);
                fetch(second + KEY_BLOCK * stride, 1);
                v16_store_pair_of_rows(&state->values[run / 2 + j - run][d], j < count ? first : NULL,
                                       j + LANES < count ? second : NULL);
            }
}

/* Gathers the block's values, which lie far apart, so that all rows' tiles find them in a cache; the next block's are asked
 * for. */
PXR_TEMPLATE void gather_values(attention_state *state, int64_t count, const bool narrow)
{
    const pxr_attention_job *job = state->job;
    const char *values = job->v + (state->part->segment.key_begin + state->block_begin) * job->v_stride +
                         state->part->key_head * job->v_head_stride;
    if (are_pairs(job, narrow)) {
        gather_pairs(state, values, count);
        return;
    }
    const int64_t stride = job->v_stride, size = job->kv_dtype == PXR_F32 ? 4 : 2;
    for (int64_t d = 0; d < job->head_dim; d += LANES) {
        const int64_t left = job->head_dim - d;
        for (int64_t j = 0; j < count && d * size % CACHE_LINE == 0; j++)
            fetch(values + (KEY_BLOCK + j) * stride + d * size, 1);
        for (int64_t j = 0; !narrow && j < count; j++)
            v16_store(&state->values[j][d], load_some(state, values, j, count, stride, d, left));
        for (int64_t run = 0; narrow && run < count; run += RUN)
            for (int64_t j = run; j < run + LANES; j++)
                v16_store_pair(&state->values[run / 2 + j - run][d],
                               load_some(state, values, j, count, stride, d, left),
                               load_some(state, values, j + LANES, count, stride, d, left));
    }
}

/* The part's rows. */
static void gather_queries(attention_state *state)
{
    const int64_t head_dim = state->job->head_dim;
    for (int64_t row = state->part->row_begin; row < state->part->row_end; row++) {
        const float *query = query_of(state, row);
        float *to = state->queries[row - state->part->row_begin];
        if (!state->job->narrow) {
            memcpy(to, query, (size_t)head_dim * sizeof *to);
            continue;
        }
        for (int64_t d = 0; d < head_dim; d += RUN) {
            const int64_t left = head_dim - d < RUN ? head_dim - d : RUN, half = (left + 1) / 2;
            v16_store_shared_pair(to + d / 2, HALF_DIMS, v16_load_some(query + d, half),
                                  v16_load_some(query + d + half, left - half));
        }
    }
}

/* Scores of TILE_ROWS rows from `row` on (those past the part's last repeat it) with the whole block. */
PXR_TEMPLATE void score_tile(attention_state *state, int64_t row, const bool narrow)
{
    const float *query[TILE_ROWS];
    for (int r = 0; r < TILE_ROWS; r++) {
        const int64_t this_row = row + r < state->part->row_end ? row + r : state->part->row_end - 1;
        query[r] = state->queries[this_row - state->part->row_begin];
    }
    const int64_t rows = rows_of(state->job->head_dim, narrow), stride = state->job->k_stride;
    const int64_t row_bytes = state->job->head_dim * (state->job->kv_dtype == PXR_F32 ? 4 : 2);
    const char *next = block_keys(state) + KEY_BLOCK * stride;
    const bool is_first = row == state->part->row_begin; /* meanwhile memory brings the next block's keys */
    for (int64_t j = 0; j < KEY_BLOCK; j += TILE_COLUMNS * LANES) {
        v16 acc[TILE_ROWS][TILE_COLUMNS];
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
            for (int c = 0; c < TILE_COLUMNS; c++) acc[r][c] = v16_set(0.0f);
        for (int64_t d = 0; d < rows; d++) {
            if (is_first && j == 0 && d < KEY_BLOCK) fetch(next + d * stride, row_bytes);
#pragma GCC unroll 2
            for (int step = 0; step < steps_of(narrow); step++) {
                v16 keys[TILE_COLUMNS];
#pragma GCC unroll 8
                for (int c = 0; c < TILE_COLUMNS; c++)
                    keys[c] = operand(v16_load(&state->keys[d][j + c * LANES]), step, narrow);
#pragma GCC unroll 8
                for (int r = 0; r < TILE_ROWS; r++) {
                    const v16 q = v16_set(query[r][step * HALF_DIMS + d]);
#pragma GCC unroll 8
                    for (int c = 0; c < TILE_COLUMNS; c++) acc[r][c] = add_product(acc[r][c], q, keys[c], narrow);
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 8
            for (int c = 0; c < TILE_COLUMNS; c++) v16_store(&state->weights[r][j + c * LANES], acc[r][c]);
    }
}

/* How many keys of the block the tile's rows see; returns how many all of them do. */
static int64_t find_visible(attention_state *state, int64_t row, int rows)
{
    int64_t common = KEY_BLOCK;
    for (int r = 0; r < rows; r++) {
        const int64_t left = visible_keys(state->job, state->part, row + r) - state->block_begin;
        state->visible[r] = left < 0 ? 0 : left < KEY_BLOCK ? left : KEY_BLOCK;
        if (state->visible[r] < common) common = state->visible[r];
    }
    return common;
}

/* Scores of row r of the tile, not yet scaled, become weights, whose sum it returns; the row's running largest moves on,
 * by -decay[r]. */
PXR_INLINE float weigh(attention_state *state, int r, float *row_largest, const bool narrow)
{
    const v16 never = v16_set(-INFINITY), scale = v16_set(state->job->scale);
    v16 scores[KEY_BLOCK / LANES], largest = never, sum = v16_set(0.0f);
    for (int i = 0; i < KEY_BLOCK / LANES; i++) {
        const int64_t left = state->visible[r] - i * LANES;
        scores[i] = v16_mul(v16_load(&state->weights[r][i * LANES]), scale);
        if (left < LANES) scores[i] = v16_keep(scores[i], left > 0 ? left : 0, never);
        largest = v16_max(largest, scores[i]);
    }
    const float block_largest = v16_largest(largest), before = *row_largest;
    const float now = block_largest > before ? block_largest : before;
    for (int i = 0; i < KEY_BLOCK / LANES; i++) {
        scores[i] = v16_exp(v16_sub(scores[i], v16_set(now)));
        sum = v16_add(sum, scores[i]);
    }
    for (int i = 0; i < KEY_BLOCK / LANES; i += narrow ? 2 : 1) {
        if (narrow)
            v16_store_shared_pair(&state->weights[r][i / 2 * LANES], HALF_KEYS, scores[i], scores[i + 1]);
        else
            v16_store(&state->weights[r][i * LANES], scores[i]);
    }
    state->decay[r] = before - now;
    *row_largest = now;
    return v16_sum(sum);
}

/* The scores of the tile's rows that see the block become weights. */
PXR_TEMPLATE void weigh_rows(attention_state *state, int64_t row, int rows, const bool narrow)
{
    const int64_t index = row - state->part->row_begin;
    float sums[MOST_ROWS] = {0};
    memset(state->decay, 0, sizeof state->decay);
    for (int r = 0; r < rows; r++)
        if (state->visible[r] > 0) sums[r] = weigh(state, r, &state->sums.largest[index + r], narrow);
    v16_store(state->decay, v16_exp(v16_load(state->decay)));
    for (int r = 0; r < rows; r++) {
        float *sum = &state->sums.weight_sum[index + r];
        *sum = *sum * state->decay[r] + sums[r];
    }
}

/* A range of a block's keys that rows of a tile see; a tile's first one decays what is there. */
typedef struct key_range {
    int64_t begin, end;
    bool decays;
} key_range;

/* sums[r] = sums[r] * decay[r] + sum over the keys of the range of weights[r][key] * v[key], `columns` vectors of it from
 * dim `d` on, for rows first .. first + rows - 1 of the tile. */
PXR_INLINE void add_values(const attention_state *state, const int rows, const int columns, int first, float *sums,
                           int64_t d, key_range range, const bool narrow)
{
    const bool fresh = range.decays && state->block_begin == state->span_begin;
    v16 acc[TILE_ROWS][TILE_COLUMNS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++) {
            const v16 old = fresh ? v16_set(0.0f) : v16_load(sums + r * PXR_HEAD_DIM_MAX + d + c * LANES);
            acc[r][c] = range.decays ? v16_mul(old, v16_set(state->decay[first + r])) : old;
        }
    for (int64_t j = rows_of(range.begin, narrow); j < rows_of(range.end, narrow); j++)
#pragma GCC unroll 2
        for (int step = 0; step < steps_of(narrow); step++) {
            v16 value[TILE_COLUMNS];
#pragma GCC unroll 8
            for (int c = 0; c < columns; c++)
                value[c] = operand(v16_load(&state->values[j][d + c * LANES]), step, narrow);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const v16 weight = v16_set(state->weights[first + r][step * HALF_KEYS + j]);
#pragma GCC unroll 8
                for (int c = 0; c < columns; c++) acc[r][c] = add_product(acc[r][c], weight, value[c], narrow);
            }
        }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++) v16_store(sums + r * PXR_HEAD_DIM_MAX + d + c * LANES, acc[r][c]);
}

PXR_INLINE void add_values_of_rows(const attention_state *state, const int rows, int first, int64_t row,
                                   key_range range, const bool narrow)
{
    const int64_t head_dim = state->job->head_dim;
    float *sums = state->sums.values + (row + first - state->part->row_begin) * PXR_HEAD_DIM_MAX;
    int64_t d = 0;
    for (; d + TILE_COLUMNS * LANES <= head_dim; d += TILE_COLUMNS * LANES)
        add_values(state, rows, TILE_COLUMNS, first, sums, d, range, narrow);
    for (; d < head_dim; d += LANES) add_values(state, rows, 1, first, sums, d, range, narrow);
}

PXR_TEMPLATE void attend_tile(attention_state *state, int64_t row, const bool narrow)
{
    const pxr_attention_part *part = state->part;
    const int rows = part->row_end - row < TILE_ROWS ? (int)(part->row_end - row) : TILE_ROWS;
    int64_t common = find_visible(state, row, rows);
    if (state->visible[rows - 1] == 0) return;
    score_tile(state, row, narrow);
    weigh_rows(state, row, rows, narrow);
    for (int r = 0; narrow && r < rows; r++) /* hidden keys weigh nothing */
        state->visible[r] = (state->visible[r] + RUN - 1) / RUN * RUN;
    if (narrow) common = common / RUN * RUN;
    if (rows == TILE_ROWS && common > 0)
        add_values_of_rows(state, TILE_ROWS, 0, row, (key_range){0, common, true}, narrow);
    else
        common = 0;
    for (int r = 0; r < rows; r++)
        if (state->visible[r] > common)
            add_values_of_rows(state, 1, r, row, (key_range){common, state->visible[r], common == 0}, narrow);
}

PXR_TEMPLATE void attend_blocks(attention_state *state, int64_t end, const bool narrow)
{
    const pxr_attention_part *part = state->part;
    for (state->block_begin = state->span_begin; state->block_begin < end; state->block_begin += KEY_BLOCK) {
        const int64_t left = end - state->block_begin, count = left < KEY_BLOCK ? left : KEY_BLOCK;
        transpose_keys(state, count, narrow);
        gather_values(state, count, narrow);
        for (int64_t row = part->row_begin; row < part->row_end; row += TILE_ROWS) attend_tile(state, row, narrow);
    }
}

#endif
