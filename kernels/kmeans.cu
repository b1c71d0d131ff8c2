/* kmeans and pairwise_distance. Distances and means are computed in the CPU's order and rounding (csrc/cpu/kmeans.c),
 * so that every cell goes to the same cluster on every device. Semantics: ops/ops.h. */
#include "device.h"
#include "numeric.cuh"

enum { KMEANS_THREADS = 128 };

/* Squared Euclidean distance: 16 partial sums over d, one rounding a term, then halves added to halves. */
GPU_DEV float squared_distance(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int width)
{
    enum { PARTIALS = 16 };
    float sum[PARTIALS] = {};
    int d = 0;
    for (; d + PARTIALS <= width; d += PARTIALS) {
#pragma unroll
        for (int i = 0; i < PARTIALS; i++) {
            const float away = a[(d + i) * a_stride] - b[(d + i) * b_stride];
            sum[i] = __fmaf_rn(away, away, sum[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < PARTIALS; i++) {
        if (d + i >= width) break;
        const float away = a[(d + i) * a_stride] - b[(d + i) * b_stride];
        sum[i] = __fmaf_rn(away, away, sum[i]);
    }
#pragma unroll
    for (int distance = PARTIALS / 2; distance > 0; distance /= 2)
#pragma unroll
        for (int i = 0; i < distance; i++) sum[i] = __fadd_rn(sum[i], sum[i + distance]);
    return sum[0];
}

/* ---- k-means --------------------------------------------------------------------------------------------------- */

struct kmeans_job {
    const float *points;  /* [count,width] */
    float *centroids;     /* [clusters,width]: the result */
    float *means;         /* [clusters,width]: the next centroids */
    int64_t *assignment;  /* [count] */
    const int64_t *start; /* [clusters] */
    int *moved;           /* [rounds + 1]: moved[r] is whether round r may change anything; [0] is 1 */
    int count, width, clusters;
};

/* The first centroids; the flags, of which there are `rounds` + 1. A start that is no point gives NaN. */
__global__ void __launch_bounds__(KMEANS_THREADS) kmeans_start(kmeans_job job, int rounds)
{
    const int at = (int)(blockIdx.x * KMEANS_THREADS + threadIdx.x);
    if (at <= rounds) job.moved[at] = at == 0;
    if (at >= job.clusters * job.width) return;
    const int64_t point = job.start[at / job.width];
    job.centroids[at] = point >= 0 && point < job.count ? job.points[point * job.width + at % job.width] : NAN;
}

/* One thread a point: the first of the nearest centroids. */
__global__ void __launch_bounds__(KMEANS_THREADS) kmeans_assign(kmeans_job job, int round)
{
    const int point = (int)(blockIdx.x * KMEANS_THREADS + threadIdx.x);
    if (point >= job.count || !job.moved[round]) return;
    float nearest = INFINITY;
    int cluster = 0;
    for (int j = 0; j < job.clusters; j++) {
        const float distance = squared_distance(job.points + (int64_t)point * job.width, 1,
                                                job.centroids + (int64_t)j * job.width, 1, job.width);
        if (distance < nearest) {
            nearest = distance;
            cluster = j;
        }
    }
    job.assignment[point] = cluster;
}

/* One thread a dim of a cluster: the mean of its points, summed in their order. */
__global__ void __launch_bounds__(KMEANS_THREADS) kmeans_average(kmeans_job job, int round)
{
    const int at = (int)(blockIdx.x * KMEANS_THREADS + threadIdx.x);
    if (at >= job.clusters * job.width || !job.moved[round]) return;
    const int cluster = at / job.width, d = at % job.width;
    float sum = 0.0f;
    int members = 0;
    for (int point = 0; point < job.count; point++) {
        if (job.assignment[point] != cluster) continue;
        sum = __fadd_rn(sum, job.points[(int64_t)point * job.width + d]);
        members++;
    }
    job.means[at] = members > 0 ? __fdiv_rn(sum, (float)members) : job.centroids[at];
}

/* One block: the means become the centroids; moved[round + 1] says whether any of them moved. */
__global__ void __launch_bounds__(KMEANS_THREADS) kmeans_move(kmeans_job job, int round)
{
    if (!job.moved[round]) return;
    int moved = 0;
    for (int at = (int)threadIdx.x; at < job.clusters * job.width; at += KMEANS_THREADS) {
        const float mean = job.means[at], limit = __fadd_rn(1e-6f, __fmul_rn(1e-5f, fabsf(mean)));
        if (!(fabsf(mean - job.centroids[at]) <= limit)) moved = 1;
        job.centroids[at] = mean;
    }
    moved = __syncthreads_count(moved);
    if (threadIdx.x == 0) job.moved[round + 1] = moved > 0;
}

static cudaError_t run_rounds(const kmeans_job &job, int rounds, cudaStream_t stream)
{
    const int values = job.clusters * job.width;
    const unsigned starts = pxr_gpu_grid(pxr_gpu_blocks(values > rounds ? values : rounds + 1, KMEANS_THREADS));
    const unsigned points = pxr_gpu_grid(pxr_gpu_blocks(job.count, KMEANS_THREADS));
    cudaError_t result = GPU_LAUNCH(kmeans_start, starts, KMEANS_THREADS, 0, stream, job, rounds);
    for (int round = 0; result == cudaSuccess && round < rounds; round++) {
        result = GPU_LAUNCH(kmeans_assign, points, KMEANS_THREADS, 0, stream, job, round);
        if (result == cudaSuccess)
            result = GPU_LAUNCH(kmeans_average, pxr_gpu_grid(pxr_gpu_blocks(values, KMEANS_THREADS)), KMEANS_THREADS, 0,
                                stream, job, round);
        if (result == cudaSuccess) result = GPU_LAUNCH(kmeans_move, 1, KMEANS_THREADS, 0, stream, job, round);
    }
    return result;
}

pxr_status pxr_gpu_kmeans(pxr_device *device, const pxr_kmeans_args *args, pxr_error *error)
{
    const int64_t count = args->points->size[0], width = args->points->size[1], clusters = args->start->size[0];
    if (count > (1 << 30) || width > (1 << 30) / clusters || args->rounds > (1 << 20))
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                        "kmeans: %lld points of width %lld in %lld clusters are not on %s", (long long)count,
                        (long long)width, (long long)clusters, device->name);
    if (width == 0) return PXR_OK;
    const size_t own_assignment = args->assignment ? 0 : (size_t)count * sizeof(int64_t);
    const size_t means = (size_t)(clusters * width) * sizeof(float);
    void *scratch;
    const pxr_status status = pxr_gpu_scratch(device, own_assignment + means + (size_t)(args->rounds + 1) * sizeof(int),
                                              &scratch, error);
    if (status != PXR_OK) return status;
    char *at = static_cast<char *>(scratch);
    kmeans_job job = {};
    job.points = static_cast<const float *>(args->points->data);
    job.centroids = static_cast<float *>(args->out->data);
    job.assignment = reinterpret_cast<int64_t *>(args->assignment ? args->assignment->data : at);
    job.means = reinterpret_cast<float *>(at + own_assignment);
    job.moved = reinterpret_cast<int *>(at + own_assignment + means);
    job.start = static_cast<const int64_t *>(args->start->data);
    job.count = (int)count;
    job.width = (int)width;
    job.clusters = (int)clusters;
    return pxr_gpu_launched(device, "kmeans", run_rounds(job, args->rounds, pxr_gpu_of(device)->stream), error);
}

/* ---- pairwise distance ----------------------------------------------------------------------------------------- */

struct distance_job {
    float *out;         /* [n,m] */
    const float *a, *b; /* [n,width], [m,width] */
    int64_t out_stride, out_step, a_stride, a_step, b_stride, b_step, others, count;
    int width;
};

__global__ void __launch_bounds__(KMEANS_THREADS) distance_pairs(distance_job job)
{
    const int64_t at = (int64_t)blockIdx.x * KMEANS_THREADS + threadIdx.x;
    if (at >= job.count) return;
    const int64_t i = at / job.others, j = at % job.others;
    job.out[i * job.out_stride + j * job.out_step] = squared_distance(job.a + i * job.a_stride, job.a_step,
                                                                      job.b + j * job.b_stride, job.b_step, job.width);
}

pxr_status pxr_gpu_pairwise_distance(pxr_device *device, const pxr_pairwise_distance_args *args, pxr_error *error)
{
    distance_job job = {};
    job.out = static_cast<float *>(args->out->data);
    job.a = static_cast<const float *>(args->a->data);
    job.b = static_cast<const float *>(args->b->data);
    job.out_stride = args->out->stride[0];
    job.out_step = args->out->stride[1];
    job.a_stride = args->a->stride[0];
    job.a_step = args->a->stride[1];
    job.b_stride = args->b->stride[0];
    job.b_step = args->b->stride[1];
    job.others = args->b->size[0];
    job.count = pxr_tensor_count(args->out);
    job.width = (int)args->a->size[1];
    if (job.count == 0) return PXR_OK;
    const unsigned blocks = pxr_gpu_grid(pxr_gpu_blocks(job.count, KMEANS_THREADS));
    return pxr_gpu_launched(device, "pairwise_distance",
                            GPU_LAUNCH(distance_pairs, blocks, KMEANS_THREADS, 0, pxr_gpu_of(device)->stream, job),
                            error);
}
