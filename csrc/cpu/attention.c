/* attention on the CPU: segments, key heads and ranges of query rows as tasks; the arithmetic is attention_kernel.h.
 * attention_weights: the scores are products of rows as linear computes them. */
#include "cpu/kernels.h"

#include "core/memory.h"
#include "core/threads.h"

#include <math.h>

typedef struct attention_work {
    const pxr_kernels *kernels;
    const pxr_attention_args *args;
    pxr_attention_job job;
    int64_t key_heads;
} attention_work;

/* Rows of one key head, of a segment whose batch entry the job points at. */
typedef struct attention_range {
    pxr_attention_job job;
    pxr_attention_part part;
} attention_range;

static int64_t row_ranges(const pxr_attention_segment *segment, int64_t group)
{
    return (segment->query_count * group + PXR_ATTENTION_ROWS - 1) / PXR_ATTENTION_ROWS;
}

/* Ranges are numbered segment by segment, within it key head by key head. */
static attention_range range_at(const attention_work *work, int64_t number)
{
    const pxr_attention_segment *segment = work->args->segments;
    const int64_t group = work->job.group;
    while (number >= row_ranges(segment, group) * work->key_heads) {
        number -= row_ranges(segment, group) * work->key_heads;
        segment++;
    }
    const int64_t ranges = row_ranges(segment, group), rows = segment->query_count * group;
    const int64_t begin = number % ranges * PXR_ATTENTION_ROWS, end = begin + PXR_ATTENTION_ROWS;
    attention_range range = {.job = work->job,
                             .part = {.segment = *segment,
                                      .key_head = number / ranges,
                                      .row_begin = begin,
                                      .row_end = end < rows ? end : rows}};
    if (work->args->k->rank == 4) {
        const int64_t size = (int64_t)pxr_dtype_size(work->job.kv_dtype);
        range.job.k += segment->batch * work->args->k->stride[0] * size;
        range.job.v += segment->batch * work->args->v->stride[0] * size;
    }
    return range;
}

static void do_range(void *context, int64_t task)
{
    const attention_work *work = context;
    const attention_range range = range_at(work, task);
    work->kernels->attention(&range.job, &range.part);
}

/* ---- few ranges: a task for each span of keys --------------------------------------------------------------------- */

enum { SPAN_ROWS = 64 /* more of them in a range: not cut */ };

typedef struct span_task {
    attention_range range;
    int64_t span, spans; /* of the range */
} span_task;

/* The tasks of a range are neighbours, in order of their spans. */
typedef struct span_work {
    const pxr_kernels *kernels;
    span_task *tasks;
    pxr_attention_sums *sums; /* [tasks] */
} span_work;

static void do_span(void *context, int64_t index)
{
    const span_work *work = context;
    const span_task *task = &work->tasks[index];
    work->kernels->attention_span(&task->range.job, &task->range.part, task->span, work->sums[index]);
}

static void do_merge(void *context, int64_t index)
{
    const span_work *work = context;
    const span_task *task = &work->tasks[index];
    if (task->span == 0)
        work->kernels->attention_merge(&task->range.job, &task->range.part, work->sums + index, task->spans);
}

static int64_t rows_of(const attention_range *range)
{
    return range->part.row_end - range->part.row_begin;
}

static int64_t spans_of(const attention_range *range)
{
    return (range->part.segment.key_count + PXR_ATTENTION_SPAN - 1) / PXR_ATTENTION_SPAN;
}

/* Does the work span by span; false, with nothing done, where that does not pay or there is no memory for it. */
static bool run_spans(const attention_work *work, int64_t ranges)
{
    enum { ROW = PXR_HEAD_DIM_MAX + 2 /* floats of a row's sums */ };
    int64_t count = 0, rows = 0;
    for (int64_t i = 0; i < ranges; i++) {
        const attention_range range = range_at(work, i);
        if (rows_of(&range) > SPAN_ROWS) return false;
        count += spans_of(&range);
        rows += spans_of(&range) * rows_of(&range);
    }
    size_t bytes;
    if (count == ranges || !pxr_mul_size((size_t)rows, ROW * sizeof(float), &bytes)) return false;
    span_work spans = {.kernels = work->kernels,
                       .tasks = pxr_calloc((size_t)count, sizeof *spans.tasks),
                       .sums = pxr_calloc((size_t)count, sizeof *spans.sums)};
    float *floats = pxr_malloc(bytes), *next = floats;
    const bool has_memory = floats && spans.tasks && spans.sums;
    for (int64_t i = 0, at = 0; has_memory && i < ranges; i++) {
        const attention_range range = range_at(work, i);
        for (int64_t span = 0; span < spans_of(&range); span++, at++, next += rows_of(&range) * ROW) {
            spans.tasks[at] = (span_task){.range = range, .span = span, .spans = spans_of(&range)};
            spans.sums[at] = (pxr_attention_sums){.values = next,
                                                  .largest = next + rows_of(&range) * PXR_HEAD_DIM_MAX,
                                                  .weight_sum = next + rows_of(&range) * (PXR_HEAD_DIM_MAX + 1)};
        }
    }
    if (has_memory) {
        pxr_parallel_tasks(count, do_span, &spans);
        pxr_parallel_tasks(count, do_merge, &spans);
    }
    pxr_free(floats);
    pxr_free(spans.sums);
    pxr_free(spans.tasks);
    return has_memory;
}

pxr_status pxr_cpu_attention(pxr_device *device, const pxr_attention_args *args, pxr_error *error)
{
    (void)error;
    const pxr_tensor *k = args->k, *v = args->v;
    const int dim = k->rank - 3; /* of the keys */
    const int64_t size = (int64_t)pxr_dtype_size(k->dtype);
    attention_work work = {
        .kernels = pxr_cpu_kernels(),
        .args = args,
        .job = {.out = pxr_tensor_data(args->out),
                .q = pxr_tensor_data(args->q),
                .k = pxr_tensor_data(k),
                .v = pxr_tensor_data(v),
                .out_stride = args->out->stride[0],
                .out_head_stride = args->out->stride[1],
                .q_stride = args->q->stride[0],
                .q_head_stride = args->q->stride[1],
                .kv_dtype = k->dtype,
                .k_stride = k->stride[dim] * size,
                .k_head_stride = k->stride[dim + 1] * size,
                .v_stride = v->stride[dim] * size,
                .v_head_stride = v->stride[dim + 1] * size,
                .head_dim = args->q->size[2],
                .group = args->q->size[1] / k->size[dim + 1],
                .scale = args->scale,
                .causal = args->causal,
                .narrow = device->compute != PXR_COMPUTE_F32},
        .key_heads = k->size[dim + 1],
    };
    int64_t ranges = 0;
    for (int64_t i = 0; i < args->segment_count; i++)
        ranges += row_ranges(&args->segments[i], work.job.group) * work.key_heads;
    if (ranges >= pxr_threads() || !run_spans(&work, ranges)) pxr_parallel_tasks(ranges, do_range, &work);
    return PXR_OK;
}

/* ---- the weights alone ----------------------------------------------------------------------------------------- */

/* Head `head` of [.., heads, ..], whose dim is `dim`: a borrowed matrix. */
static pxr_tensor head_of(const pxr_tensor *x, int dim, int64_t head)
{
    pxr_tensor matrix = *x;
    matrix.data = (float *)x->data + head * x->stride[dim];
    matrix.rank = 2;
    for (int from = 0, to = 0; from < 3; from++) {
        if (from == dim) continue;
        matrix.size[to] = x->size[from];
        matrix.stride[to++] = x->stride[from];
    }
    return matrix;
}

/* Scores become weights, row by row of one head. */
static void do_softmax(void *context, int64_t head)
{
    const pxr_attention_weights_args *args = context;
    const pxr_tensor out = head_of(args->out, 0, head);
    const int64_t queries = out.size[0], keys = out.size[1];
    for (int64_t i = 0; i < queries; i++) {
        float *row = (float *)out.data + i * out.stride[0], largest = -INFINITY;
        const int64_t visible = args->causal ? keys - queries + i + 1 : keys;
        for (int64_t j = 0; j < visible; j++) {
            row[j] *= args->scale;
            if (row[j] > largest) largest = row[j];
        }
        const float sum = pxr_cpu_kernels()->exp_minus(row, row, visible, largest);
        for (int64_t j = 0; j < visible; j++) row[j] /= sum;
        for (int64_t j = visible; j < keys; j++) row[j] = 0.0f;
    }
}

pxr_status pxr_cpu_attention_weights(pxr_device *device, const pxr_attention_weights_args *args, pxr_error *error)
{
    const int64_t heads = args->q->size[1], group = heads / args->k->size[1];
    for (int64_t head = 0; head < heads; head++) {
        const pxr_tensor out = head_of(args->out, 0, head), q = head_of(args->q, 1, head);
        const pxr_tensor k = head_of(args->k, 1, head / group);
        const pxr_status status = pxr_cpu_linear(device, &(pxr_linear_args){.out = &out, .x = &q, .weight = &k}, error);
        if (status != PXR_OK) return status;
    }
    pxr_attention_weights_args work = *args;
    pxr_parallel_tasks(heads, do_softmax, &work);
    return PXR_OK;
}
