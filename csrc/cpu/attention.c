/* attention on the CPU: segments, key heads and ranges of query rows as tasks; the arithmetic is attention_kernel.h. */
#include "cpu/kernels.h"

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
        job.k += segment->batch * work->args->k->stride[0];
        job.v += segment->batch * work->args->v->stride[0];
    }
    const int64_t begin = task % ranges * PXR_ATTENTION_ROWS, end = begin + PXR_ATTENTION_ROWS;
    work->kernels->attention(&job, &(pxr_attention_part){.segment = *segment,
                                                         .key_head = task / ranges,
                                                         .row_begin = begin,
                                                         .row_end = end < rows ? end : rows});
}

pxr_status pxr_cpu_attention(pxr_device *device, const pxr_attention_args *args, pxr_error *error)
{
    (void)device, (void)error;
    const pxr_tensor *k = args->k, *v = args->v;
    const int dim = k->rank - 3; /* of the keys */
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
                .k_stride = k->stride[dim],
                .k_head_stride = k->stride[dim + 1],
                .v_stride = v->stride[dim],
                .v_head_stride = v->stride[dim + 1],
                .head_dim = args->q->size[2],
                .group = args->q->size[1] / k->size[dim + 1],
                .scale = args->scale,
                .causal = args->causal},
        .key_heads = k->size[dim + 1],
    };
    int64_t tasks = 0;
    for (int64_t i = 0; i < args->segment_count; i++)
        tasks += row_ranges(&args->segments[i], work.job.group) * work.key_heads;
    pxr_parallel_tasks(tasks, do_range, &work);
    return PXR_OK;
}
