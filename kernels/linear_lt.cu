/* linear by cuBLASLt: bfloat16 or float16 operands, float32 sums, results in float32 or bfloat16.
 *
 * Weights are read as they lie, and so are activations of their type; others are rounded to it into scratch memory,
 * where float16 ones beyond its range become its largest number. The algorithm is one that the library's heuristic
 * proposes for the sizes: the first, or the one that linear_plans.h names. Nothing is timed.
 *
 * Row-major out [rows,columns] is column-major [columns,rows]: the library sees out = weight^T x with weight
 * [depth,columns] and x [depth,rows].
 */
#include "linear.cuh"
#include "linear_plans.h"

#include "core/memory.h"

#include <string.h>

enum { PACK_THREADS = 256, PACK_EACH = 4 /* elements of a thread: one store of 8 bytes */ };

/* ---- operands -------------------------------------------------------------------------------------------------- */

struct pack_job {
    const void *x;            /* [rows,depth] */
    void *packed;             /* [rows,depth], dense, in the weights' type */
    const void *bias;         /* [columns] or NULL */
    void *packed_bias;        /* [columns]: the library wants the results' type */
    int64_t x_stride, pieces; /* pieces: rows * depth / PACK_EACH; 0: x is as the library wants it */
    int depth, columns;
    pxr_dtype type, x_type, bias_type, out_type;
};

GPU_DEV unsigned short narrow_bits(float value, pxr_dtype type)
{
    if (type == PXR_BF16) return __bfloat16_as_ushort(__float2bfloat16_rn(value));
    const float largest = 65504.0f;
    value = value > largest ? largest : value < -largest ? -largest : value;
    return __half_as_ushort(__float2half_rn(value));
}

__global__ void __launch_bounds__(PACK_THREADS) pack_operands(pack_job job)
{
    const int64_t piece = (int64_t)blockIdx.x * PACK_THREADS + threadIdx.x;
    if (job.bias && piece < job.columns)
        store_activation(job.packed_bias, job.out_type, piece, load_float(job.bias, job.bias_type, piece));
    if (piece >= job.pieces) return;
    const int64_t at = piece * PACK_EACH, row = at / job.depth;
    const int64_t first = row * job.x_stride + at % job.depth;
    unsigned bits[PACK_EACH];
#pragma unroll
    for (int i = 0; i < PACK_EACH; i++) bits[i] = narrow_bits(load_float(job.x, job.x_type, first + i), job.type);
    static_cast<uint2 *>(job.packed)[piece] = make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16);
}

/* What the library's epilogues cannot do. */
__global__ void __launch_bounds__(PACK_THREADS) finish_elements(pxr_gpu_linear_job job)
{
    const int64_t at = (int64_t)blockIdx.x * PACK_THREADS + threadIdx.x;
    if (at >= (int64_t)job.rows * job.columns) return;
    const int row = (int)(at / job.columns), column = (int)(at % job.columns);
    finish_element(job, row, column, load_float(job.out, job.out_type, row * job.out_stride + column));
}

/* ---- the product ----------------------------------------------------------------------------------------------- */

enum { CHOICES = 64 };

/* What an algorithm was chosen for. */
struct lt_problem {
    int rows, columns, depth;
    cublasLtEpilogue_t epilogue;
    cudaDataType_t type, out_type;
    int adds;     /* to a residual */
    int proposal; /* of the library's, from 0 */
    int64_t weight_stride, x_stride, residual_stride, out_stride;
    uint32_t alignment[4]; /* bytes, of weight, x, residual, out */
};

struct pxr_gpu_lt_choices {
    struct {
        lt_problem problem;
        cublasLtMatmulAlgo_t algorithm;
        bool is_set;
    } at[CHOICES];
    int next; /* to be replaced */
};

struct lt_product {
    lt_problem problem;
    const void *weight, *x;
    const void *residual;
    void *out;
    const void *bias;
    cublasLtMatmulDesc_t descriptor;
    cublasLtMatrixLayout_t weight_layout, x_layout, residual_layout, out_layout;
    cublasLtMatmulPreference_t preference;
};

/* The largest power of two up to 256 that divides an address and the bytes between columns. */
static uint32_t alignment_of(const void *data, int64_t stride, size_t size)
{
    const uint64_t both = (uint64_t)(uintptr_t)data | (uint64_t)stride * size;
    uint32_t alignment = 256;
    while (both % alignment != 0) alignment /= 2;
    return alignment;
}

/* The result of `next` if all is well so far. */
#define THEN(next)                                                                                                     \
    if (status == CUBLAS_STATUS_SUCCESS) status = (next)

static cublasStatus_t describe(lt_product *p)
{
    const lt_problem *q = &p->problem;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cudaDataType_t wide = CUDA_R_32F;
    const uint64_t rows = (uint64_t)q->rows, columns = (uint64_t)q->columns, depth = (uint64_t)q->depth;
    cublasStatus_t status = cublasLtMatmulDescCreate(&p->descriptor, CUBLAS_COMPUTE_32F, wide);
    THEN(cublasLtMatmulDescSetAttribute(p->descriptor, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    THEN(
        cublasLtMatmulDescSetAttribute(p->descriptor, CUBLASLT_MATMUL_DESC_EPILOGUE, &q->epilogue, sizeof q->epilogue));
    if (p->bias)
        THEN(
            cublasLtMatmulDescSetAttribute(p->descriptor, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias));
    THEN(cublasLtMatrixLayoutCreate(&p->weight_layout, q->type, depth, columns, q->weight_stride));
    THEN(cublasLtMatrixLayoutCreate(&p->x_layout, q->type, depth, rows, q->x_stride));
    THEN(cublasLtMatrixLayoutCreate(&p->residual_layout, q->out_type, columns, rows, q->residual_stride));
    THEN(cublasLtMatrixLayoutCreate(&p->out_layout, q->out_type, columns, rows, q->out_stride));
    return status;
}

static void forget(lt_product *p)
{
    if (p->descriptor) cublasLtMatmulDescDestroy(p->descriptor);
    if (p->weight_layout) cublasLtMatrixLayoutDestroy(p->weight_layout);
    if (p->x_layout) cublasLtMatrixLayoutDestroy(p->x_layout);
    if (p->residual_layout) cublasLtMatrixLayoutDestroy(p->residual_layout);
    if (p->out_layout) cublasLtMatrixLayoutDestroy(p->out_layout);
    if (p->preference) cublasLtMatmulPreferenceDestroy(p->preference);
}

static cublasStatus_t ask_heuristic(cublasLtHandle_t lt, lt_product *p, cublasLtMatmulAlgo_t *algorithm)
{
    const uint64_t workspace = PXR_GPU_WORKSPACE_BYTES;
    const cublasLtMatmulPreferenceAttributes_t alignments[4] = {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                                                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                                                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    enum { PROPOSALS = 8 };
    cublasLtMatmulHeuristicResult_t found[PROPOSALS];
    int count = 0;
    cublasStatus_t status = cublasLtMatmulPreferenceCreate(&p->preference);
    THEN(cublasLtMatmulPreferenceSetAttribute(p->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                              sizeof workspace));
    for (int i = 0; i < 4; i++)
        THEN(cublasLtMatmulPreferenceSetAttribute(p->preference, alignments[i], &p->problem.alignment[i],
                                                  sizeof p->problem.alignment[i]));
    THEN(cublasLtMatmulAlgoGetHeuristic(lt, p->descriptor, p->weight_layout, p->x_layout, p->residual_layout,
                                        p->out_layout, p->preference,
                                        p->problem.proposal < PROPOSALS ? p->problem.proposal + 1 : PROPOSALS, found,
                                        &count));
    if (status == CUBLAS_STATUS_SUCCESS && count == 0) status = CUBLAS_STATUS_NOT_SUPPORTED;
    if (status == CUBLAS_STATUS_SUCCESS) *algorithm = found[count - 1].algo; /* the last there is */
    return status;
}

/* The algorithm for a problem: remembered, or asked for. NULL with `*status` filled when there is none. */
static const cublasLtMatmulAlgo_t *choose(pxr_gpu *gpu, lt_product *p, cublasStatus_t *status)
{
    if (!gpu->choices) gpu->choices = static_cast<pxr_gpu_lt_choices *>(pxr_calloc(1, sizeof *gpu->choices));
    *status = gpu->choices ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
    if (!gpu->choices) return NULL;
    for (int i = 0; i < CHOICES; i++)
        if (gpu->choices->at[i].is_set && memcmp(&gpu->choices->at[i].problem, &p->problem, sizeof p->problem) == 0)
            return &gpu->choices->at[i].algorithm;
    const int slot = gpu->choices->next;
    gpu->choices->at[slot].is_set = false;
    *status = ask_heuristic(gpu->lt, p, &gpu->choices->at[slot].algorithm);
    if (*status != CUBLAS_STATUS_SUCCESS) return NULL;
    gpu->choices->at[slot].problem = p->problem;
    gpu->choices->at[slot].is_set = true;
    gpu->choices->next = (slot + 1) % CHOICES;
    return &gpu->choices->at[slot].algorithm;
}

/* `*lacks` (where given) instead of an error: the library has no algorithm with this epilogue. */
static pxr_status multiply(pxr_device *device, lt_product *p, bool *lacks, pxr_error *error)
{
    pxr_gpu *gpu = pxr_gpu_of(device);
    const float one = 1.0f, beta = p->problem.adds ? 1.0f : 0.0f;
    void *workspace;
    pxr_status result = pxr_gpu_workspace(device, &workspace, error);
    if (result != PXR_OK) return result;
    cublasStatus_t status = describe(p);
    const cublasLtMatmulAlgo_t *algorithm = status == CUBLAS_STATUS_SUCCESS ? choose(gpu, p, &status) : NULL;
    THEN(cublasLtMatmul(gpu->lt, p->descriptor, &one, p->weight, p->weight_layout, p->x, p->x_layout, &beta,
                        p->residual, p->residual_layout, p->out, p->out_layout, algorithm, workspace,
                        PXR_GPU_WORKSPACE_BYTES, gpu->stream));
    forget(p);
    if (status == CUBLAS_STATUS_SUCCESS) return pxr_gpu_launched(device, "linear", cudaSuccess, error);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED && lacks) {
        *lacks = true;
        return PXR_OK;
    }
    const cudaError_t pending = cudaGetLastError();
    if (pending != cudaSuccess) return pxr_gpu_check(device, "linear", pending, error);
    return pxr_fail(error, PXR_ERROR_IO, "linear on %s: cuBLASLt: %s for %d rows of %d to %d", device->name,
                    cublasLtGetStatusString(status), p->problem.rows, p->problem.depth, p->problem.columns);
}

/* ---- the layer ------------------------------------------------------------------------------------------------- */

/* Bias, the tanh form of GELU without a residual, and a residual without activation are the library's own. */
static bool is_epilogue(const pxr_gpu_linear_job *job)
{
    return job->activation == PXR_ACTIVATION_NONE || (job->activation == PXR_ACTIVATION_GELU_TANH && !job->residual);
}

bool pxr_gpu_linear_lt_takes(const pxr_gpu_linear_job *job)
{
    enum { LEAST_ALIGNMENT = 8 };
    return job->weight_type != PXR_F32 && job->depth % PACK_EACH == 0 && job->depth > 0 &&
           alignment_of(job->weight, job->weight_stride, 2) >= LEAST_ALIGNMENT &&
           (job->out_type == PXR_F32 || !job->residual) &&  /* the library adds what has the results' type */
           (is_epilogue(job) || job->residual != job->out); /* else the product would be written over the residual */
}

static cublasLtEpilogue_t epilogue_of(const pxr_gpu_linear_job *job)
{
    if (!is_epilogue(job)) return CUBLASLT_EPILOGUE_DEFAULT;
    if (job->activation == PXR_ACTIVATION_GELU_TANH)
        return job->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    return job->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

static int proposal_for(const pxr_gpu *gpu, const pxr_gpu_linear_job *job)
{
    if (gpu->proposal >= 0) return gpu->proposal;
    for (const pxr_gpu_plan *plan = pxr_gpu_plans; plan->card; plan++)
        if (plan->card == gpu->capability && plan->columns == job->columns && plan->depth == job->depth &&
            job->rows <= plan->rows && job->rows > plan->rows / 2)
            return plan->proposal;
    return 0;
}

/* All of the problem's bytes are set, as choices are compared by them. */
static void pose(lt_problem *problem, const pxr_gpu *gpu, const pxr_gpu_linear_job *job, bool fused, const void *x,
                 int64_t x_stride)
{
    memset(problem, 0, sizeof *problem);
    problem->proposal = proposal_for(gpu, job);
    problem->rows = job->rows;
    problem->columns = job->columns;
    problem->depth = job->depth;
    problem->epilogue = fused ? epilogue_of(job) : CUBLASLT_EPILOGUE_DEFAULT;
    problem->type = job->weight_type == PXR_BF16 ? CUDA_R_16BF : CUDA_R_16F;
    problem->out_type = job->out_type == PXR_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    problem->x_stride = x_stride;
    problem->adds = is_epilogue(job) && job->residual;
    problem->weight_stride = job->weight_stride;
    problem->out_stride = job->out_stride;
    problem->residual_stride = problem->adds ? job->residual_stride : job->out_stride;
    problem->alignment[0] = alignment_of(job->weight, job->weight_stride, 2);
    const size_t out_size = pxr_dtype_size(job->out_type);
    problem->alignment[1] = alignment_of(x, x_stride, 2);
    problem->alignment[2] = alignment_of(problem->adds ? job->residual : job->out, problem->residual_stride, out_size);
    problem->alignment[3] = alignment_of(job->out, job->out_stride, out_size);
}

/* The operands as the library takes them. */
struct lt_operands {
    const void *x, *bias;
    int64_t x_stride;
};

/* The product with its epilogue (`fused`), or without bias and activation. */
static pxr_status compute(pxr_device *device, const pxr_gpu_linear_job *job, bool fused, const lt_operands *operands,
                          bool *lacks, pxr_error *error)
{
    lt_product product = {};
    pose(&product.problem, pxr_gpu_of(device), job, fused, operands->x, operands->x_stride);
    product.weight = job->weight;
    product.x = operands->x;
    product.residual = product.problem.adds ? job->residual : job->out;
    product.out = job->out;
    product.bias = fused ? operands->bias : NULL;
    return multiply(device, &product, lacks, error);
}

/* Rounds and converts what does not lie as the library takes it. */
static pxr_status prepare(pxr_device *device, const pxr_gpu_linear_job *job, lt_operands *operands, pxr_error *error)
{
    enum { ALIGNMENT = 16 };
    const bool packs = job->x_type != job->weight_type || alignment_of(job->x, job->x_stride, 2) < ALIGNMENT;
    const bool converts = is_epilogue(job) && job->bias &&
                          (job->bias_type != job->out_type || (uintptr_t)job->bias % ALIGNMENT != 0);
    *operands = {job->x, is_epilogue(job) ? job->bias : NULL, job->x_stride};
    if (!packs && !converts) return PXR_OK;
    const size_t packed_bytes = packs ? (size_t)pxr_gpu_blocks((int64_t)job->rows * job->depth * 2, 256) * 256 : 0;
    void *scratch;
    const pxr_status status = pxr_gpu_scratch(device, packed_bytes + (size_t)job->columns * sizeof(float), &scratch,
                                              error);
    if (status != PXR_OK) return status;
    pack_job pack = {};
    pack.x = job->x;
    pack.packed = scratch;
    pack.bias = converts ? job->bias : NULL;
    pack.packed_bias = static_cast<char *>(scratch) + packed_bytes;
    pack.x_stride = job->x_stride;
    pack.pieces = packs ? (int64_t)job->rows * job->depth / PACK_EACH : 0;
    pack.depth = job->depth;
    pack.columns = job->columns;
    pack.type = job->weight_type;
    pack.x_type = job->x_type;
    pack.bias_type = job->bias_type;
    pack.out_type = job->out_type;
    if (packs) operands->x = pack.packed;
    if (packs) operands->x_stride = job->depth;
    if (converts) operands->bias = pack.packed_bias;
    const int64_t threads = converts && job->columns > pack.pieces ? job->columns : pack.pieces;
    return pxr_gpu_launched(device, "linear",
                            GPU_LAUNCH(pack_operands, pxr_gpu_grid(pxr_gpu_blocks(threads, PACK_THREADS)), PACK_THREADS,
                                       0, pxr_gpu_of(device)->stream, pack),
                            error);
}

pxr_status pxr_gpu_linear_lt(pxr_device *device, const pxr_gpu_linear_job *job, pxr_error *error)
{
    lt_operands operands;
    bool lacks = false;
    pxr_status status = prepare(device, job, &operands, error);
    if (status != PXR_OK) return status;
    if (is_epilogue(job)) {
        status = compute(device, job, true, &operands, &lacks, error);
        if (status != PXR_OK || !lacks) return status;
    }
    status = compute(device, job, false, &operands, NULL, error);
    if (status != PXR_OK) return status;
    pxr_gpu_linear_job rest = *job;
    if (is_epilogue(job)) rest.residual = NULL; /* the product has added it */
    const unsigned blocks = pxr_gpu_grid(pxr_gpu_blocks((int64_t)job->rows * job->columns, PACK_THREADS));
    return pxr_gpu_launched(device, "linear",
                            GPU_LAUNCH(finish_elements, blocks, PACK_THREADS, 0, pxr_gpu_of(device)->stream, rest),
                            error);
}
