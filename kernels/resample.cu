/* Bilinear resizing and sampling of maps [h,w,C], one thread an element. Semantics: ops/ops.h; the positions' arithmetic
 * is that of csrc/cpu/resample.c. */
#include "device.h"
#include "numeric.cuh"

enum { RESAMPLE_THREADS = 256 };

struct resample_job {
    float *out;          /* [H,W,C], or [n,C] (then W is 1) */
    const float *x;      /* [h,w,C] */
    const float *points; /* [n,2], grid_sample only */
    int64_t out_stride[3], stride[3], points_stride[2];
    int64_t height, width, channels, count; /* of out: columns, channels, elements */
    int64_t from_height, from_width;
    bool zeros;
};

/* One direction of a bilinear sample: two cells and their weights. */
struct taps {
    int64_t cell[2];
    float weight[2];
};

/* As torch: where cell `index` of a dim resized from `from` to `to` cells comes from. */
GPU_DEV taps resize_taps(int64_t index, int64_t from, int64_t to)
{
    const float scale = __fdiv_rn((float)from, (float)to);
    float source = __fmaf_rn(scale, (float)index + 0.5f, -0.5f);
    if (source < 0.0f) source = 0.0f;
    int64_t first = (int64_t)source;
    if (first > from - 1) first = from - 1;
    const float weight = source - (float)first;
    return {{first, first < from - 1 ? first + 1 : first}, {1.0f - weight, weight}};
}

/* A coordinate in cells; outside either clamped to the border, or cells outside weigh 0. A NaN is outside. */
GPU_DEV taps sample_taps(float at, int64_t size, bool zeros)
{
    const float last = (float)(size - 1);
    if (!zeros) at = at > 0.0f ? at < last ? at : last : 0.0f;
    if (!(at > -1.0f && at < (float)size)) return {{0, 0}, {0.0f, 0.0f}};
    const float floor_at = floorf(at), weight = at - floor_at;
    const int64_t first = (int64_t)floor_at;
    taps result = {{first, first + 1}, {1.0f - weight, weight}};
    for (int i = 0; i < 2; i++) {
        if (result.cell[i] >= 0 && result.cell[i] < size) continue;
        result.cell[i] = 0;
        result.weight[i] = 0.0f;
    }
    return result;
}

/* The weighted sum of four cells: rows first, then columns. */
GPU_DEV float blend(const resample_job &job, const taps &rows, const taps &columns, int64_t channel)
{
    const float *x = job.x + channel * job.stride[2];
    const float *upper = x + rows.cell[0] * job.stride[0], *lower = x + rows.cell[1] * job.stride[0];
    const int64_t left = columns.cell[0] * job.stride[1], right = columns.cell[1] * job.stride[1];
    return rows.weight[0] * (columns.weight[0] * upper[left] + columns.weight[1] * upper[right]) +
           rows.weight[1] * (columns.weight[0] * lower[left] + columns.weight[1] * lower[right]);
}

__global__ void __launch_bounds__(RESAMPLE_THREADS) resize_elements(resample_job job)
{
    const int64_t at = (int64_t)blockIdx.x * RESAMPLE_THREADS + threadIdx.x;
    if (at >= job.count) return;
    const int64_t channel = at % job.channels, column = at / job.channels % job.width;
    const int64_t row = at / job.channels / job.width;
    const taps rows = resize_taps(row, job.from_height, job.height);
    const taps columns = resize_taps(column, job.from_width, job.width);
    job.out[row * job.out_stride[0] + column * job.out_stride[1] + channel * job.out_stride[2]] = blend(job, rows,
                                                                                                        columns,
                                                                                                        channel);
}

__global__ void __launch_bounds__(RESAMPLE_THREADS) sample_elements(resample_job job)
{
    const int64_t at = (int64_t)blockIdx.x * RESAMPLE_THREADS + threadIdx.x;
    if (at >= job.count) return;
    const int64_t channel = at % job.channels, point = at / job.channels;
    const float *place = job.points + point * job.points_stride[0];
    const taps rows = sample_taps(place[0], job.from_height, job.zeros);
    const taps columns = sample_taps(place[job.points_stride[1]], job.from_width, job.zeros);
    job.out[point * job.out_stride[0] + channel * job.out_stride[2]] = blend(job, rows, columns, channel);
}

static resample_job job_of(const pxr_tensor *out, const pxr_tensor *x)
{
    resample_job job = {};
    job.out = static_cast<float *>(out->data);
    job.x = static_cast<const float *>(x->data);
    job.out_stride[0] = out->stride[0];
    job.out_stride[2] = out->stride[out->rank - 1];
    for (int dim = 0; dim < 3; dim++) job.stride[dim] = x->stride[dim];
    job.channels = x->size[2];
    job.count = pxr_tensor_count(out);
    job.from_height = x->size[0];
    job.from_width = x->size[1];
    return job;
}

pxr_status pxr_gpu_resize_bilinear(pxr_device *device, const pxr_resize_bilinear_args *args, pxr_error *error)
{
    resample_job job = job_of(args->out, args->x);
    job.out_stride[1] = args->out->stride[1];
    job.height = args->out->size[0];
    job.width = args->out->size[1];
    if (job.count == 0) return PXR_OK;
    const unsigned blocks = pxr_gpu_grid(pxr_gpu_blocks(job.count, RESAMPLE_THREADS));
    return pxr_gpu_launched(device, "resize_bilinear",
                            GPU_LAUNCH(resize_elements, blocks, RESAMPLE_THREADS, 0, pxr_gpu_of(device)->stream, job),
                            error);
}

pxr_status pxr_gpu_grid_sample(pxr_device *device, const pxr_grid_sample_args *args, pxr_error *error)
{
    resample_job job = job_of(args->out, args->x);
    job.points = static_cast<const float *>(args->points->data);
    job.points_stride[0] = args->points->stride[0];
    job.points_stride[1] = args->points->stride[1];
    job.zeros = args->zeros;
    if (job.count == 0) return PXR_OK;
    const unsigned blocks = pxr_gpu_grid(pxr_gpu_blocks(job.count, RESAMPLE_THREADS));
    return pxr_gpu_launched(device, "grid_sample",
                            GPU_LAUNCH(sample_elements, blocks, RESAMPLE_THREADS, 0, pxr_gpu_of(device)->stream, job),
                            error);
}
