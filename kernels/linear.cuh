/* What the three ways to compute a linear layer share: the job and its epilogue. */
#ifndef PXR_KERNELS_LINEAR_CUH
#define PXR_KERNELS_LINEAR_CUH

#include "device.h"
#include "numeric.cuh"

/* out = activation(x weight^T + bias) + residual; strides in elements. */
struct pxr_gpu_linear_job {
    void *out;             /* [rows,columns] */
    const void *x;         /* [rows,depth] */
    const void *weight;    /* [columns,depth] */
    const void *bias;      /* [columns] or NULL */
    const float *residual; /* [rows,columns], may be `out`, or NULL */
    int64_t out_stride, x_stride, weight_stride, residual_stride;
    int rows, columns, depth;
    pxr_dtype out_type, x_type, weight_type, bias_type;
    pxr_activation activation;
    bool constant; /* the weights: no work under way writes them */
};

/* What becomes of a sum. */
GPU_DEV float finished(const pxr_gpu_linear_job &job, int row, int column, float sum)
{
    if (job.bias) sum += load_float(job.bias, job.bias_type, column);
    sum = activate(sum, job.activation);
    return job.residual ? sum + job.residual[row * job.residual_stride + column] : sum;
}

GPU_DEV void finish_element(const pxr_gpu_linear_job &job, int row, int column, float sum)
{
    store_activation(job.out, job.out_type, row * job.out_stride + column, finished(job, row, column, sum));
}

/* launch(w), w of the type of the job's weights. */
template <class Launch> static cudaError_t pxr_gpu_by_weight_type(const pxr_gpu_linear_job *job, Launch launch)
{
    if (job->weight_type == PXR_BF16) return launch(__nv_bfloat16{});
    if (job->weight_type == PXR_F16) return launch(__half{});
    return launch(0.0f);
}

/** Any sizes, types and alignment, in float32. linear_tile.cu */
pxr_status pxr_gpu_linear_tile(pxr_device *device, const pxr_gpu_linear_job *job, pxr_error *error);

/* Whether the kernel of some products may read their weights before earlier work is done. */
static inline bool pxr_gpu_are_constant(const pxr_gpu_linear_job *each, int count)
{
    for (int i = 0; i < count; i++)
        if (!each[i].constant) return false;
    return true;
}

enum { PXR_GPU_VECTOR_ROWS = 16 };

/** Products of the same rows, up to PXR_GPU_VECTOR_ROWS, by weights of one type, in one launch: each weight is read
 * once. linear_vector.cu */
pxr_status pxr_gpu_linear_vector(pxr_device *device, const pxr_gpu_linear_job *each, int count, pxr_error *error);

/* x of the products is these rows divided by the root of their mean square, times weight. */
struct pxr_gpu_linear_norm {
    const float *x;     /* [rows,depth] */
    const void *weight; /* [depth] */
    int64_t x_stride;
    pxr_dtype weight_type;
    float epsilon;
};

/* silu of the first product times the second. */
struct pxr_gpu_linear_gated {
    void *out; /* [rows,columns] */
    int64_t out_stride;
    pxr_dtype out_type;
};

/** Products in one launch with the norm before them and, if `gated`, what is made of them; neither x nor the gated
 * products are written. For as few rows as pay and aligned weights of 16 bits. linear_vector.cu */
bool pxr_gpu_linear_fused_takes(const pxr_gpu_linear_job *each, int count, const pxr_gpu_linear_norm *norm, bool gated);
pxr_status pxr_gpu_linear_fused(pxr_device *device, const pxr_gpu_linear_job *each, int count,
                                const pxr_gpu_linear_norm *norm, const pxr_gpu_linear_gated *gated, pxr_error *error);

/** Up to 16 rows, rounded to bfloat16, by weights of bfloat16, both aligned, several products in one launch: on tensor
 * cores.
 * linear_skinny.cu */
bool pxr_gpu_linear_skinny_takes(const pxr_gpu_linear_job *job);
pxr_status pxr_gpu_linear_skinny(pxr_device *device, const pxr_gpu_linear_job *each, int count, pxr_error *error);

/** True where cuBLASLt takes the job's narrow weights as they lie. linear_lt.cu */
bool pxr_gpu_linear_lt_takes(const pxr_gpu_linear_job *job);

/** Tensor cores: operands in the weights' narrow type, float32 sums. linear_lt.cu */
pxr_status pxr_gpu_linear_lt(pxr_device *device, const pxr_gpu_linear_job *job, pxr_error *error);

#endif
