/* kmeans and pairwise_distance on the CPU: both measure with the distance of rows_kernel.h. */
#include "cpu/kernels.h"

#include "core/memory.h"
#include "core/threads.h"

#include <math.h>

/* ---- k-means --------------------------------------------------------------------------------------------------- */

typedef struct clustering {
    const pxr_kernels *kernels;
    const float *points; /* [count,width] */
    float *centroids;    /* [clusters,width] */
    float *means;        /* [clusters,width]: the next centroids */
    int64_t *assignment; /* [count] */
    int64_t *members;    /* [clusters]: points in each */
    int64_t count, width, clusters;
} clustering;

static void assign_points(void *context, int64_t begin, int64_t end)
{
    enum { TOGETHER = 64 };
    const clustering *c = context;
    float distance[TOGETHER];
    for (int64_t i = begin; i < end; i++) {
        float nearest = INFINITY;
        c->assignment[i] = 0;
        for (int64_t first = 0; first < c->clusters; first += TOGETHER) {
            const int64_t left = c->clusters - first, count = left < TOGETHER ? left : TOGETHER;
            c->kernels->distances(distance, c->points + i * c->width, c->centroids + first * c->width, count, c->width,
                                  c->width);
            for (int64_t j = 0; j < count; j++)
                if (distance[j] < nearest) {
                    nearest = distance[j];
                    c->assignment[i] = first + j;
                }
        }
    }
}

/* Dims begin .. end-1 of all means: sums in order of the points. */
static void average_dims(void *context, int64_t begin, int64_t end)
{
    const clustering *c = context;
    for (int64_t j = 0; j < c->clusters; j++)
        for (int64_t d = begin; d < end; d++) c->means[j * c->width + d] = 0.0f;
    for (int64_t i = 0; i < c->count; i++) {
        float *mean = c->means + c->assignment[i] * c->width;
        for (int64_t d = begin; d < end; d++) mean[d] += c->points[i * c->width + d];
    }
    for (int64_t j = 0; j < c->clusters; j++)
        for (int64_t d = begin; d < end; d++) {
            float *mean = c->means + j * c->width + d;
            *mean = c->members[j] > 0 ? *mean / (float)c->members[j] : c->centroids[j * c->width + d];
        }
}

/* Puts the means in place of the centroids; false when none moved (torch.allclose with atol 1e-6, rtol 1e-5). */
static bool move_centroids(const clustering *c)
{
    bool moved = false;
    for (int64_t i = 0; i < c->clusters * c->width; i++) {
        if (!(fabsf(c->means[i] - c->centroids[i]) <= 1e-6f + 1e-5f * fabsf(c->means[i]))) moved = true;
        c->centroids[i] = c->means[i];
    }
    return moved;
}

static void run_rounds(clustering *c, int rounds)
{
    enum { POINTS_OF_A_THREAD = 16, DIMS_OF_A_THREAD = 64 };
    bool moved = true;
    for (int round = 0; round < rounds && moved; round++) {
        pxr_parallel_for(c->count, POINTS_OF_A_THREAD, assign_points, c);
        for (int64_t j = 0; j < c->clusters; j++) c->members[j] = 0;
        for (int64_t i = 0; i < c->count; i++) c->members[c->assignment[i]]++;
        pxr_parallel_for(c->width, DIMS_OF_A_THREAD, average_dims, c);
        moved = move_centroids(c);
    }
}

static pxr_status choose_start(const clustering *c, const int64_t *start, pxr_error *error)
{
    for (int64_t j = 0; j < c->clusters; j++) {
        if (start[j] < 0 || start[j] >= c->count)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "kmeans: start %lld is point %lld, there are %lld (from 0)",
                            (long long)j, (long long)start[j], (long long)c->count);
        for (int64_t d = 0; d < c->width; d++) c->centroids[j * c->width + d] = c->points[start[j] * c->width + d];
    }
    return PXR_OK;
}

pxr_status pxr_cpu_kmeans(pxr_device *device, const pxr_kmeans_args *args, pxr_error *error)
{
    (void)device;
    clustering c = {
        .kernels = pxr_cpu_kernels(),
        .points = pxr_tensor_data(args->points),
        .centroids = pxr_tensor_data(args->out),
        .assignment = args->assignment ? pxr_tensor_data(args->assignment) : NULL,
        .count = args->points->size[0],
        .width = args->points->size[1],
        .clusters = args->start->size[0],
    };
    int64_t *own_assignment = NULL;
    const size_t clusters = (size_t)c.clusters, mean_count = clusters * (size_t)c.width; /* as `out`: no overflow */
    pxr_status status = choose_start(&c, pxr_tensor_data(args->start), error);
    if (status != PXR_OK) return status;
    c.means = pxr_malloc(mean_count * sizeof *c.means);
    c.members = pxr_malloc(clusters * sizeof *c.members);
    if (!c.assignment) c.assignment = own_assignment = pxr_malloc((size_t)c.count * sizeof *own_assignment);
    if (c.means && c.members && c.assignment)
        run_rounds(&c, args->rounds);
    else
        status = pxr_fail_memory(error, mean_count * sizeof *c.means, "kmeans");
    pxr_free(c.means);
    pxr_free(c.members);
    pxr_free(own_assignment);
    return status;
}

/* ---- pairwise distance ----------------------------------------------------------------------------------------- */

typedef struct distance_work {
    const pxr_kernels *kernels;
    const float *a, *b; /* rows dense */
    float *out;         /* rows dense */
    int64_t a_stride, b_stride, out_stride, others, width;
} distance_work;

static void measure_rows(void *context, int64_t begin, int64_t end)
{
    const distance_work *work = context;
    for (int64_t i = begin; i < end; i++)
        work->kernels->distances(work->out + i * work->out_stride, work->a + i * work->a_stride, work->b, work->others,
                                 work->b_stride, work->width);
}

/* The rows of a float32 matrix, dense: its own, or a copy in `*copy` (to be freed). */
static pxr_status dense_rows(const pxr_tensor *matrix, const float **rows, int64_t *stride, float **copy,
                             pxr_error *error)
{
    const int64_t height = matrix->size[0], width = matrix->size[1];
    const float *data = pxr_tensor_data(matrix);
    *rows = data;
    *stride = matrix->stride[0];
    if (pxr_tensor_rows_are_dense(matrix)) return PXR_OK;
    size_t bytes;
    if (!pxr_mul_size((size_t)height, (size_t)width, &bytes) || !pxr_mul_size(bytes, sizeof **copy, &bytes))
        return pxr_fail(error, PXR_ERROR_MEMORY, "pairwise_distance: %lld rows of %lld do not fit in memory",
                        (long long)height, (long long)width);
    *copy = pxr_malloc(bytes);
    if (!*copy) return pxr_fail_memory(error, bytes, "pairwise_distance");
    for (int64_t i = 0; i < height; i++)
        for (int64_t j = 0; j < width; j++)
            (*copy)[i * width + j] = data[i * matrix->stride[0] + j * matrix->stride[1]];
    *rows = *copy;
    *stride = width;
    return PXR_OK;
}

pxr_status pxr_cpu_pairwise_distance(pxr_device *device, const pxr_pairwise_distance_args *args, pxr_error *error)
{
    (void)device;
    const pxr_tensor *out = args->out;
    distance_work work = {.kernels = pxr_cpu_kernels(), .others = args->b->size[0], .width = args->a->size[1]};
    float *a_copy = NULL, *b_copy = NULL, *out_copy = NULL;
    const float *out_rows;
    pxr_status status = dense_rows(args->a, &work.a, &work.a_stride, &a_copy, error);
    if (status == PXR_OK) status = dense_rows(args->b, &work.b, &work.b_stride, &b_copy, error);
    if (status == PXR_OK) status = dense_rows(out, &out_rows, &work.out_stride, &out_copy, error);
    if (status == PXR_OK) {
        float *data = pxr_tensor_data(out);
        work.out = out_copy ? out_copy : data;
        pxr_parallel_for(out->size[0], 16, measure_rows, &work);
        for (int64_t i = 0; out_copy && i < out->size[0]; i++)
            for (int64_t j = 0; j < out->size[1]; j++)
                data[i * out->stride[0] + j * out->stride[1]] = out_copy[i * out->size[1] + j];
    }
    pxr_free(a_copy);
    pxr_free(b_copy);
    pxr_free(out_copy);
    return status;
}
