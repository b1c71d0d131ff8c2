/* linear: which kernel computes it. Semantics: ops/ops.h.
 *
 *     compute = "bf16", few rows (a decoding step)            linear_vector.cu   weights read once
 *     compute = "bf16", many rows, bfloat16 or float16        linear_lt.cu       cuBLASLt
 *     everything else                                         linear_tile.cu     float32, any size and alignment
 *
 * A row's bits depend on the kernel that computes it and on nothing else of the call; with compute = "f32" that is
 * always the same one.
 */
#include "linear.cuh"

#include <limits.h>

pxr_status pxr_gpu_linear(pxr_device *device, const pxr_linear_args *args, pxr_error *error)
{
    const pxr_tensor *x = args->x, *weight = args->weight;
    if (!pxr_dtype_is_float(weight->dtype))
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "linear: %s weights are not on %s", pxr_dtype_name(weight->dtype),
                        device->name);
    if (x->size[0] > INT_MAX || x->size[1] > INT_MAX || weight->size[0] > INT_MAX)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "linear: sizes above %d are not on %s", INT_MAX, device->name);
    pxr_gpu_linear_job job = {};
    job.out = args->out->data;
    job.x = x->data;
    job.weight = weight->data;
    job.out_type = args->out->dtype;
    job.x_type = x->dtype;
    job.out_stride = args->out->stride[0];
    job.x_stride = x->stride[0];
    job.weight_stride = weight->stride[0];
    job.rows = (int)x->size[0];
    job.columns = (int)weight->size[0];
    job.depth = (int)x->size[1];
    job.weight_type = weight->dtype;
    job.activation = args->activation;
    if (args->bias) {
        job.bias = args->bias->data;
        job.bias_type = args->bias->dtype;
    }
    if (args->residual) {
        job.residual = static_cast<const float *>(args->residual->data);
        job.residual_stride = args->residual->stride[0];
    }
    if (job.rows == 0 || job.columns == 0) return PXR_OK;
    const bool rounds = device->compute == PXR_COMPUTE_BF16;
    if (rounds && job.rows <= PXR_GPU_VECTOR_ROWS) return pxr_gpu_linear_vector(device, &job, error);
    if (rounds && pxr_gpu_linear_lt_takes(&job)) return pxr_gpu_linear_lt(device, &job, error);
    return pxr_gpu_linear_tile(device, &job, error);
}
