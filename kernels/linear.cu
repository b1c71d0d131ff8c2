/* linear: which kernel computes it. Semantics: ops/ops.h.
 *
 *     compute = "bf16", few rows (a decoding step)            linear_vector.cu   weights read once
 *     compute = "bf16", 3 to 16 rows by bfloat16              linear_skinny.cu   the same, on tensor cores
 *     compute = "bf16", many rows, bfloat16 or float16        linear_lt.cu       cuBLASLt
 *     everything else                                         linear_tile.cu     float32, any size and alignment
 *
 * A row's bits depend on the kernel that computes it and on nothing else of the call; with compute = "f32" that is
 * always the same one.
 */
#include "linear.cuh"

#include <limits.h>

/* Fills in the job of a product. */
static pxr_status open_job(const pxr_device *device, const pxr_linear_args *args, pxr_gpu_linear_job *job,
                           pxr_error *error)
{
    const pxr_tensor *x = args->x, *weight = args->weight;
    if (!pxr_dtype_is_float(weight->dtype))
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "linear: %s weights are not on %s", pxr_dtype_name(weight->dtype),
                        device->name);
    if (x->size[0] > INT_MAX || x->size[1] > INT_MAX || weight->size[0] > INT_MAX)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "linear: sizes above %d are not on %s", INT_MAX, device->name);
    *job = {};
    job->out = args->out->data;
    job->x = x->data;
    job->weight = weight->data;
    job->out_type = args->out->dtype;
    job->x_type = x->dtype;
    job->out_stride = args->out->stride[0];
    job->x_stride = x->stride[0];
    job->weight_stride = weight->stride[0];
    job->rows = (int)x->size[0];
    job->columns = (int)weight->size[0];
    job->depth = (int)x->size[1];
    job->weight_type = weight->dtype;
    job->activation = args->activation;
    job->constant = args->constant;
    if (args->bias) {
        job->bias = args->bias->data;
        job->bias_type = args->bias->dtype;
    }
    if (args->residual) {
        job->residual = static_cast<const float *>(args->residual->data);
        job->residual_stride = args->residual->stride[0];
    }
    return PXR_OK;
}

/* Products of the same few rows by weights of one type, which are not empty. Neighbours that one kernel takes go
 * together, so that each product is computed as it is alone. */
static pxr_status run_few_rows(pxr_device *device, const pxr_gpu_linear_job *jobs, int count, pxr_error *error)
{
    enum { VECTOR_ROWS = 2 /* that linear_vector is the better one for */ };
    pxr_status status = PXR_OK;
    const auto is_skinny = [](const pxr_gpu_linear_job &job) {
        return job.rows > VECTOR_ROWS && pxr_gpu_linear_skinny_takes(&job);
    };
    for (int begin = 0, end = 0; status == PXR_OK && begin < count; begin = end) {
        const bool skinny = is_skinny(jobs[begin]);
        while (end < count && is_skinny(jobs[end]) == skinny) end++;
        status = skinny ? pxr_gpu_linear_skinny(device, &jobs[begin], end - begin, error)
                        : pxr_gpu_linear_vector(device, &jobs[begin], end - begin, error);
    }
    return status;
}

/* One product, which is not empty. */
static pxr_status run(pxr_device *device, const pxr_gpu_linear_job *job, pxr_error *error)
{
    const bool rounds = device->compute == PXR_COMPUTE_BF16;
    if (rounds && job->rows <= PXR_GPU_VECTOR_ROWS) return run_few_rows(device, job, 1, error);
    if (rounds && pxr_gpu_linear_lt_takes(job)) return pxr_gpu_linear_lt(device, job, error);
    return pxr_gpu_linear_tile(device, job, error);
}

static pxr_gpu_linear_norm norm_of(const pxr_rms_norm_args *args)
{
    pxr_gpu_linear_norm norm = {};
    norm.x = static_cast<const float *>(args->x->data);
    norm.weight = args->weight->data;
    norm.x_stride = args->x->stride[0];
    norm.weight_type = args->weight->dtype;
    norm.epsilon = args->epsilon;
    return norm;
}

/* Products without empty ones, of weights of one type, with what stands around them. False: not so. */
static bool fuse(pxr_device *device, const pxr_linears_args *args, const pxr_gpu_linear_job *jobs, int count,
                 pxr_status *status, pxr_error *error)
{
    if (!args->norm || count != args->count) return false;
    const pxr_gpu_linear_norm norm = norm_of(args->norm);
    if (!pxr_gpu_linear_fused_takes(jobs, count, &norm, args->silu_mul != NULL)) return false;
    pxr_gpu_linear_gated gated = {};
    if (args->silu_mul) {
        gated.out = args->silu_mul->out->data;
        gated.out_stride = args->silu_mul->out->stride[0];
        gated.out_type = args->silu_mul->out->dtype;
    }
    *status = pxr_gpu_linear_fused(device, jobs, count, &norm, args->silu_mul ? &gated : NULL, error);
    return true;
}

pxr_status pxr_gpu_linears(pxr_device *device, const pxr_linears_args *args, pxr_error *error)
{
    pxr_gpu_linear_job jobs[PXR_LINEARS_MAX];
    int count = 0; /* of those that are not empty */
    bool together = device->compute == PXR_COMPUTE_BF16;
    for (int64_t i = 0; i < args->count; i++) {
        pxr_gpu_linear_job *job = &jobs[count];
        const pxr_status status = open_job(device, &args->each[i], job, error);
        if (status != PXR_OK) return status;
        if (job->rows == 0 || job->columns == 0) continue;
        together = together && job->rows <= PXR_GPU_VECTOR_ROWS && job->weight_type == jobs[0].weight_type;
        count++;
    }
    pxr_status status = PXR_OK;
    if (together && count > 0 && fuse(device, args, jobs, count, &status, error)) return status;
    if (args->norm) status = pxr_gpu_rms_norm(device, args->norm, error);
    if (status == PXR_OK && together && count > 0)
        status = run_few_rows(device, jobs, count, error);
    else
        for (int i = 0; status == PXR_OK && i < count; i++) status = run(device, &jobs[i], error);
    return status == PXR_OK && args->silu_mul ? pxr_gpu_silu_mul(device, args->silu_mul, error) : status;
}

pxr_status pxr_gpu_linear(pxr_device *device, const pxr_linear_args *args, pxr_error *error)
{
    pxr_linears_args only = {};
    only.each = args;
    only.count = 1;
    return pxr_gpu_linears(device, &only, error);
}
