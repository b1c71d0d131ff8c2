/* Attention of a range of query rows over one key head. Included by kernels_*.c only.
 *
 * Online softmax (Milakov and Gimelshein 2018; FlashAttention) over blocks of 64 keys (attention_block_kernel.h; on tiles
 * attention_amx_kernel.h). Eight blocks, counted from the segment's first key, are a span, whose sums are merged with those
 * of the spans before it, in order: the same bits whether spans are walked by one task or each by its own.
 */
#ifndef PXR_CPU_ATTENTION_KERNEL_H
#define PXR_CPU_ATTENTION_KERNEL_H

#include "cpu/attention_block_kernel.h"
#if defined(PXR_HAS_TILES)
#include "cpu/attention_amx_kernel.h"
#endif

/* Of a part's rows over all spans so far; the weighted values are in `out`. */
typedef struct attention_total {
    float largest[PXR_ATTENTION_ROWS];
    float weight_sum[PXR_ATTENTION_ROWS];
} attention_total;

static float *out_of(const pxr_attention_job *job, const pxr_attention_part *part, int64_t row)
{
    const int64_t head = part->key_head * job->group + row % job->group;
    return job->out + (part->segment.query_begin + row / job->group) * job->out_stride + head * job->out_head_stride;
}

static float exp_of(float x)
{
    float lanes[LANES];
    v16_store(lanes, v16_exp(v16_set(x)));
    return lanes[0];
}

static void open_state(attention_state *state, const pxr_attention_job *job, const pxr_attention_part *part)
{
    state->job = job;
    state->part = part;
    gather_queries(state);
}

static void attend_span(attention_state *state, int64_t span, pxr_attention_sums sums)
{
    const pxr_attention_part *part = state->part;
    const int64_t end = (span + 1) * PXR_ATTENTION_SPAN, keys = visible_keys(state->job, part, part->row_end - 1);
    const int64_t last = end < keys ? end : keys;
    state->sums = sums;
    state->span_begin = span * PXR_ATTENTION_SPAN;
    for (int64_t i = 0; i < part->row_end - part->row_begin; i++) {
        sums.largest[i] = -INFINITY;
        sums.weight_sum[i] = 0.0f;
    }
    if (!state->job->narrow)
        attend_blocks(state, last, false);
    else
#if defined(PXR_HAS_TILES)
        attend_blocks_on_tiles(state, last);
#else
        attend_blocks(state, last, true);
#endif
}

/* out = out * before + values * now */
static void mix_rows(float *out, float before, const float *values, float now, int64_t count)
{
    for (int64_t d = 0; d < count; d += LANES) {
        const v16 old = v16_mul(v16_load_some(out + d, count - d), v16_set(before));
        v16_store_some(out + d, v16_fma(v16_load(values + d), v16_set(now), old), count - d);
    }
}

/* Adds a span's sums to those of the spans before it, which lie in `out`. */
static void merge_span(const pxr_attention_job *job, const pxr_attention_part *part, int64_t span,
                       pxr_attention_sums sums, attention_total *total)
{
    for (int64_t row = part->row_begin; row < part->row_end; row++) {
        const int64_t i = row - part->row_begin;
        const float *values = sums.values + i * PXR_HEAD_DIM_MAX;
        if (visible_keys(job, part, row) <= span * PXR_ATTENTION_SPAN) continue;
        if (span == 0) {
            memcpy(out_of(job, part, row), values, (size_t)job->head_dim * sizeof *values);
            total->largest[i] = sums.largest[i];
            total->weight_sum[i] = sums.weight_sum[i];
            continue;
        }
        const float largest = sums.largest[i] > total->largest[i] ? sums.largest[i] : total->largest[i];
        const float before = exp_of(total->largest[i] - largest), now = exp_of(sums.largest[i] - largest);
        mix_rows(out_of(job, part, row), before, values, now, job->head_dim);
        total->largest[i] = largest;
        total->weight_sum[i] = total->weight_sum[i] * before + sums.weight_sum[i] * now;
    }
}

static void divide_rows(const pxr_attention_job *job, const pxr_attention_part *part, const attention_total *total)
{
    for (int64_t row = part->row_begin; row < part->row_end; row++) {
        float *out = out_of(job, part, row);
        const v16 sum = v16_set(total->weight_sum[row - part->row_begin]);
        for (int64_t d = 0; d < job->head_dim; d += LANES)
            v16_store_some(out + d, v16_div(v16_load_some(out + d, job->head_dim - d), sum), job->head_dim - d);
    }
}

static void attention(const pxr_attention_job *job, const pxr_attention_part *part)
{
    float values[PXR_ATTENTION_ROWS][PXR_HEAD_DIM_MAX], largest[PXR_ATTENTION_ROWS], weight_sum[PXR_ATTENTION_ROWS];
    const pxr_attention_sums sums = {.values = values[0], .largest = largest, .weight_sum = weight_sum};
    const int64_t keys = visible_keys(job, part, part->row_end - 1);
    attention_total total;
    attention_state state;
    open_state(&state, job, part);
    for (int64_t span = 0; span * PXR_ATTENTION_SPAN < keys; span++) {
        attend_span(&state, span, sums);
        merge_span(job, part, span, sums, &total);
    }
    divide_rows(job, part, &total);
}

static void attention_span(const pxr_attention_job *job, const pxr_attention_part *part, int64_t span,
                           pxr_attention_sums sums)
{
    attention_state state;
    open_state(&state, job, part);
    attend_span(&state, span, sums);
}

static void attention_merge(const pxr_attention_job *job, const pxr_attention_part *part,
                            const pxr_attention_sums *sums, int64_t spans)
{
    attention_total total;
    for (int64_t span = 0; span < spans; span++) merge_span(job, part, span, sums[span], &total);
    divide_rows(job, part, &total);
}

#endif
