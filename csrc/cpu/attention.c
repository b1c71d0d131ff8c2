/* attention on the CPU: segments, key heads and ranges of query rows as tasks; the arithmetic is attention_kernel.h.
 * attention_weights: the scores are products of rows as linear computes them. */
#include "cpu/kernels.h"

#include <math.h>

typedef struct attention_work {
    const pxr_kernels *kernels;
    const pxr_attention_args *args;
    pxr_attention_job job;
    int64_t key_heads;
} attention_work;

static int64_t row_ranges(const pxr_attention_segment *segment, int64_t group)
{
    return (segment->query_count * group + PXR_ATTENTION_ROWS - 1) / PXR_ATTENTION_ROWS;
}

/* Tasks are numbered segment by segment, within it key head by key head, within it range by range. */
static void do_range(void *context, int64_t task)
{
    const attention_work *work = context;
    const pxr_attention_segment *segment = work->args->segments;
    const int64_t group = work->job.group;
    while (task >= row_ranges(segment, group) * work->key_heads) {
        task -= row_ranges(segment, group) * work->key_heads;
        segment++;
    }
    const int64_t ranges = row_ranges(segment, group), rows = segment->query_count * group;
    pxr_attention_job job = work->job;
    if (work->args->k->rank == 4) {
        const int64_t size = (int64_t)pxr_dtype_size(job.kv_dtype);
        job.k += segment->batch * work->args->k->stride[0] * size;
        job.v += segment->batch * work->args->v->stride[0] * size;
    }
    const int64_t begin = task % ranges * PXR_ATTENTION_ROWS, end = begin + PXR_ATTENTION_ROWS;
    work->kernels->attention(&job, &(pxr_attention_part){.segment = *segment,
                                                         .key_head = task / ranges,
                                                         .row_begin = begin,
                                                         .row_end = end < rows ? end : rows});
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
    int64_t tasks = 0;
    for (int64_t i = 0; i < args->segment_count; i++)
        tasks += row_ranges(&args->segments[i], work.job.group) * work.key_heads;
    pxr_parallel_tasks(tasks, do_range, &work);
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
