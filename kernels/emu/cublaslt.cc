/* cuBLASLt of the emulated device: matrix products with an epilogue, as a plain loop over cuBLASLt's own declarations.
 *
 * It knows what the kernels' host code asks for and refuses the rest: operands of one float type (bfloat16, float16,
 * float32), float32 sums from k = 0 upwards, output float32 or of the operands' type, column-major layouts, transposed operands,
 * strided batches, alpha, beta, bias and GELU. Pointers must be aligned as promised to the heuristic, 256 bytes when
 * nothing was said.
 */
#include "emu/launch.h"
#include "emu/stream.h"

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <string.h>

using namespace pxr_emu;

namespace
{

struct Descriptor {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void *bias = nullptr;
    int bias_type = -1; /* the output's */
};

struct Layout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t leading; /* elements from column to column */
    int32_t batch = 1;
    int64_t batch_stride = 0;
};

struct Preference {
    uint64_t workspace = 0;
    uint32_t alignment[4] = {256, 256, 256, 256}; /* of A, B, C, D */
};

/* What the heuristic leaves in an algorithm. */
struct Algorithm {
    uint64_t workspace;
    uint32_t alignment[4];
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm holds what it was chosen for");

struct Product {
    Descriptor descriptor;
    Layout a, b, c, d;
    const void *A, *B, *C;
    void *D;
    float alpha, beta;
    uint64_t m, n, k;
};

bool is_float(int type)
{
    return type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
}

size_t size_of(int type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

float load(const void *data, int type, uint64_t index)
{
    if (type == CUDA_R_32F) return ((const float *)data)[index];
    if (type == CUDA_R_16F) return __half2float(((const __half *)data)[index]);
    return __bfloat162float(((const __nv_bfloat16 *)data)[index]);
}

void store(void *data, int type, uint64_t index, float value)
{
    if (type == CUDA_R_32F)
        ((float *)data)[index] = value;
    else if (type == CUDA_R_16F)
        ((__half *)data)[index] = __float2half(value);
    else
        ((__nv_bfloat16 *)data)[index] = __float2bfloat16(value);
}

float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

/* One matrix of the batch. */
void multiply(const Product &p, uint64_t batch)
{
    const uint64_t a_at = batch * (uint64_t)p.a.batch_stride, b_at = batch * (uint64_t)p.b.batch_stride;
    const uint64_t c_at = batch * (uint64_t)p.c.batch_stride, d_at = batch * (uint64_t)p.d.batch_stride;
    const uint64_t a_ld = (uint64_t)p.a.leading, b_ld = (uint64_t)p.b.leading;
    const bool a_transposed = p.descriptor.transpose_a != CUBLAS_OP_N;
    const bool b_transposed = p.descriptor.transpose_b != CUBLAS_OP_N;
    const int bias_type = p.descriptor.bias_type < 0 ? (int)p.d.type : p.descriptor.bias_type;
    std::vector<float> a(p.k * p.m), sums(p.m); /* a: [k,m] */
    for (uint64_t q = 0; q < p.k; q++)
        for (uint64_t i = 0; i < p.m; i++)
            a[q * p.m + i] = load(p.A, p.a.type, a_at + (a_transposed ? q + i * a_ld : i + q * a_ld));
    for (uint64_t j = 0; j < p.n; j++) {
        for (float &sum : sums) sum = 0;
        for (uint64_t q = 0; q < p.k; q++) {
            const float b = load(p.B, p.b.type, b_at + (b_transposed ? j + q * b_ld : q + j * b_ld));
            for (uint64_t i = 0; i < p.m; i++) sums[i] += a[q * p.m + i] * b;
        }
        for (uint64_t i = 0; i < p.m; i++) {
            float y = p.alpha * sums[i];
            if (p.beta != 0) y += p.beta * load(p.C, p.c.type, c_at + i + j * (uint64_t)p.c.leading);
            if (p.descriptor.epilogue & CUBLASLT_EPILOGUE_BIAS) y += load(p.descriptor.bias, bias_type, i);
            if (p.descriptor.epilogue & CUBLASLT_EPILOGUE_GELU) y = gelu_tanh(y);
            store(p.D, p.d.type, d_at + i + j * (uint64_t)p.d.leading, y);
        }
    }
}

bool layout_fits(const Layout &layout, uint64_t rows, uint64_t columns)
{
    return layout.rows == rows && layout.columns == columns && layout.leading >= (int64_t)rows && layout.batch >= 1;
}

/* All bytes of a matrix and its batch lie on the device. */
bool lies_on_device(const void *data, const Layout &layout)
{
    const uint64_t last = (uint64_t)(layout.batch - 1) * (uint64_t)layout.batch_stride +
                          (layout.columns - 1) * (uint64_t)layout.leading + layout.rows;
    return is_device(data, last * size_of(layout.type));
}

cublasStatus_t check_types(const Product &p)
{
    const Descriptor &d = p.descriptor;
    const cublasLtEpilogue_t known[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_GELU,
                                        CUBLASLT_EPILOGUE_GELU_BIAS};
    bool epilogue_known = false;
    for (cublasLtEpilogue_t epilogue : known) epilogue_known = epilogue_known || d.epilogue == epilogue;
    if (d.compute != CUBLAS_COMPUTE_32F || d.scale != CUDA_R_32F || !epilogue_known) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!is_float(p.a.type) || p.a.type != p.b.type || p.c.type != p.d.type) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.d.type != CUDA_R_32F && p.d.type != p.a.type) return CUBLAS_STATUS_NOT_SUPPORTED;
    if ((d.epilogue & CUBLASLT_EPILOGUE_BIAS) && d.bias_type >= 0 && d.bias_type != (int)p.d.type)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_product(const Product &p, const cublasLtMatmulAlgo_t *algorithm)
{
    const cublasStatus_t status = check_types(p);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    const bool ta = p.descriptor.transpose_a != CUBLAS_OP_N, tb = p.descriptor.transpose_b != CUBLAS_OP_N;
    if (p.m == 0 || p.n == 0 || p.k == 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (!layout_fits(p.a, ta ? p.k : p.m, ta ? p.m : p.k) || !layout_fits(p.b, tb ? p.n : p.k, tb ? p.k : p.n) ||
        !layout_fits(p.c, p.m, p.n) || !layout_fits(p.d, p.m, p.n))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (p.a.batch != p.d.batch || p.b.batch != p.d.batch || p.c.batch != p.d.batch) return CUBLAS_STATUS_INVALID_VALUE;
    const void *pointers[4] = {p.A, p.B, p.beta != 0 ? p.C : p.D, p.D};
    for (int i = 0; i < 4; i++) {
        Algorithm chosen = {0, {16, 16, 16, 16}}; /* without an algorithm cuBLASLt looks at the pointers itself */
        if (algorithm) memcpy((void *)&chosen, algorithm, sizeof chosen);
        const size_t least = algorithm ? chosen.alignment[i] : size_of(p.a.type);
        if ((uintptr_t)pointers[i] % least != 0) return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (!lies_on_device(p.A, p.a) || !lies_on_device(p.B, p.b) || !lies_on_device(p.D, p.d) ||
        (p.beta != 0 && !lies_on_device(p.C, p.c)))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if ((p.descriptor.epilogue & CUBLASLT_EPILOGUE_BIAS) && !is_device(p.descriptor.bias, p.m * size_of(p.d.type)))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    return CUBLAS_STATUS_SUCCESS;
}

/* Copies an attribute whose size must be right. */
template <class T> cublasStatus_t take(T *to, const void *from, size_t bytes)
{
    if (bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy((void *)to, from, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

} /* namespace */

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = (cublasLtHandle_t) new char;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete (char *)handle;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
        return "unknown status";
    }
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VER_MAJOR * 10000 + CUBLAS_VER_MINOR * 100 + CUBLAS_VER_PATCH;
}

/* ---- descriptors ----------------------------------------------------------------------------------------------- */

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *handle, cublasComputeType_t compute, cudaDataType_t scale)
{
    Descriptor *descriptor = new Descriptor();
    descriptor->compute = compute;
    descriptor->scale = scale;
    *handle = (cublasLtMatmulDesc_t)descriptor;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t handle)
{
    delete (Descriptor *)handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t handle, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    Descriptor *descriptor = (Descriptor *)handle;
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return take(&descriptor->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return take(&descriptor->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return take(&descriptor->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return take(&descriptor->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return take(&descriptor->bias_type, value, bytes);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *handle, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t leading)
{
    Layout *layout = new Layout();
    layout->type = type;
    layout->rows = rows;
    layout->columns = columns;
    layout->leading = leading;
    *handle = (cublasLtMatrixLayout_t)layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t handle)
{
    delete (Layout *)handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t handle,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                size_t bytes)
{
    Layout *layout = (Layout *)handle;
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return take(&layout->rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        return take(&layout->columns, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
        return take(&layout->leading, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return take(&layout->batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return take(&layout->batch_stride, value, bytes);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *handle)
{
    *handle = (cublasLtMatmulPreference_t) new Preference();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t handle)
{
    delete (Preference *)handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t handle,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes)
{
    Preference *preference = (Preference *)handle;
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return take(&preference->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return take(&preference->alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return take(&preference->alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return take(&preference->alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return take(&preference->alignment[3], value, bytes);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

/* ---- products -------------------------------------------------------------------------------------------------- */

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t preference_handle, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    const Preference *preference = (const Preference *)preference_handle;
    enum { PROPOSALS = 3 /* all the same */ };
    *found = 0;
    if (wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    Algorithm algorithm = {preference->workspace, {}};
    memcpy(algorithm.alignment, preference->alignment, sizeof algorithm.alignment);
    for (int i = 0; i < wanted && i < PROPOSALS; i++) {
        memset((void *)&results[i], 0, sizeof results[i]);
        memcpy((void *)&results[i].algo, &algorithm, sizeof algorithm);
        results[i].workspaceSize = preference->workspace;
        results[i].state = CUBLAS_STATUS_SUCCESS;
        *found = i + 1;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t descriptor, const void *alpha, const void *A,
                              cublasLtMatrixLayout_t a, const void *B, cublasLtMatrixLayout_t b, const void *beta,
                              const void *C, cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream)
{
    Product p = {*(const Descriptor *)descriptor,
                 *(const Layout *)a,
                 *(const Layout *)b,
                 *(const Layout *)c,
                 *(const Layout *)d,
                 A,
                 B,
                 C,
                 D,
                 *(const float *)alpha,
                 *(const float *)beta,
                 0,
                 0,
                 0};
    const bool transposed = p.descriptor.transpose_a != CUBLAS_OP_N;
    p.m = p.d.rows;
    p.n = p.d.columns;
    p.k = transposed ? p.a.rows : p.a.columns;
    const cublasStatus_t status = check_product(p, algorithm);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (workspace_bytes > 0 && !is_device(workspace, workspace_bytes)) return CUBLAS_STATUS_INVALID_VALUE;
    if (algorithm) {
        Algorithm chosen;
        memcpy((void *)&chosen, algorithm, sizeof chosen);
        if (chosen.workspace > workspace_bytes) return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (report(cudaSuccess) != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
    submit(stream, [p] {
        for (int32_t batch = 0; batch < p.d.batch; batch++) multiply(p, (uint64_t)batch);
    });
    return CUBLAS_STATUS_SUCCESS;
}

} /* extern "C" */
