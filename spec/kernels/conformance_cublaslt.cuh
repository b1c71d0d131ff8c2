/* Conformance of cuBLASLt: part of conformance.cu. y = epilogue(alpha x w^T + beta c), as the backend asks for it: all
 * row-major, so column-major and transposed to cuBLASLt. */
#include <cublasLt.h>

struct LtCase {
    const char *name;
    cudaDataType_t in, out;
    cublasLtEpilogue_t epilogue;
    float beta;
    int rows, columns, k;
};

static size_t lt_size(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

/* Rounded to `type`, as a float and as bytes at the end of `bytes`. */
static float lt_push(std::vector<uint8_t> &bytes, cudaDataType_t type, float value)
{
    uint8_t raw[4];
    if (type == CUDA_R_16BF) {
        const __nv_bfloat16 narrow = __float2bfloat16(value);
        memcpy(raw, &narrow, 2);
        value = __bfloat162float(narrow);
    } else if (type == CUDA_R_16F) {
        const __half narrow = __float2half(value);
        memcpy(raw, &narrow, 2);
        value = __half2float(narrow);
    } else {
        memcpy(raw, &value, 4);
    }
    bytes.insert(bytes.end(), raw, raw + lt_size(type));
    return value;
}

static float lt_read(const std::vector<uint8_t> &bytes, cudaDataType_t type, size_t index)
{
    const uint8_t *at = bytes.data() + index * lt_size(type);
    float value;
    if (type == CUDA_R_16BF) {
        __nv_bfloat16 narrow;
        memcpy(&narrow, at, 2);
        return __bfloat162float(narrow);
    }
    if (type == CUDA_R_16F) {
        __half narrow;
        memcpy(&narrow, at, 2);
        return __half2float(narrow);
    }
    memcpy(&value, at, 4);
    return value;
}

/* True when cuBLASLt did it. */
static bool lt_multiply(const LtCase &c, const void *x, const void *w, const void *bias, void *y)
{
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t descriptor;
    cublasLtMatrixLayout_t left, right, out;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    const Buffer<uint8_t> workspace((size_t)4 << 20);
    const size_t workspace_bytes = workspace.count;
    const uint32_t alignment = 16;
    const float alpha = 0.5f;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    int count = 0;
    bool fine = cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS;
    fine = fine && cublasLtMatmulDescCreate(&descriptor, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS;
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const void *value, size_t bytes) {
        fine = fine && cublasLtMatmulDescSetAttribute(descriptor, attribute, value, bytes) == CUBLAS_STATUS_SUCCESS;
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, &c.epilogue, sizeof c.epilogue);
    if (c.epilogue & CUBLASLT_EPILOGUE_BIAS) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    const uint64_t rows = (uint64_t)c.rows, columns = (uint64_t)c.columns, k = (uint64_t)c.k;
    fine = fine && cublasLtMatrixLayoutCreate(&left, c.in, k, columns, c.k) == CUBLAS_STATUS_SUCCESS;
    fine = fine && cublasLtMatrixLayoutCreate(&right, c.in, k, rows, c.k) == CUBLAS_STATUS_SUCCESS;
    fine = fine && cublasLtMatrixLayoutCreate(&out, c.out, columns, rows, c.columns) == CUBLAS_STATUS_SUCCESS;
    fine = fine && cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS;
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const void *value, size_t bytes) {
        fine = fine &&
               cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, bytes) == CUBLAS_STATUS_SUCCESS;
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes, sizeof workspace_bytes);
    for (cublasLtMatmulPreferenceAttributes_t attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
        prefer(attribute, &alignment, sizeof alignment);
    fine = fine && cublasLtMatmulAlgoGetHeuristic(handle, descriptor, left, right, out, out, preference, 1, &found,
                                                  &count) == CUBLAS_STATUS_SUCCESS;
    fine = fine && count == 1 &&
           cublasLtMatmul(handle, descriptor, &alpha, w, left, x, right, &c.beta, y, out, y, out, &found.algo,
                          workspace.data, found.workspaceSize, nullptr) == CUBLAS_STATUS_SUCCESS;
    EXPECT_CUDA(cudaDeviceSynchronize());
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(out);
    cublasLtMatrixLayoutDestroy(right);
    cublasLtMatrixLayoutDestroy(left);
    cublasLtMatmulDescDestroy(descriptor);
    cublasLtDestroy(handle);
    return fine;
}

static void test_lt_case(const LtCase &c)
{
    std::vector<uint8_t> x_bytes, w_bytes, bias_bytes, y_bytes;
    std::vector<float> x, w, bias, y;
    const size_t rows = (size_t)c.rows, columns = (size_t)c.columns, k = (size_t)c.k;
    for (size_t i = 0; i < rows * k; i++) x.push_back(lt_push(x_bytes, c.in, next_uniform()));
    for (size_t i = 0; i < columns * k; i++) w.push_back(lt_push(w_bytes, c.in, next_uniform()));
    for (size_t i = 0; i < columns; i++) bias.push_back(lt_push(bias_bytes, c.out, next_uniform()));
    for (size_t i = 0; i < rows * columns; i++) y.push_back(lt_push(y_bytes, c.out, next_uniform()));
    const Buffer<uint8_t> X(x_bytes), W(w_bytes), BIAS(bias_bytes), Y(y_bytes);
    bool fine = lt_multiply(c, X.data, W.data, BIAS.data, Y.data);
    const std::vector<uint8_t> found = Y.values();
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) {
            double sum = 0;
            for (size_t q = 0; q < k; q++) sum += (double)x[i * k + q] * w[j * k + q];
            double expected = 0.5 * sum + (double)c.beta * y[i * columns + j];
            if (c.epilogue & CUBLASLT_EPILOGUE_BIAS) expected += bias[j];
            if (c.epilogue & CUBLASLT_EPILOGUE_GELU) {
                const double u = 0.7978845608028654 * (expected + 0.044715 * expected * expected * expected);
                expected = 0.5 * expected * (1 + tanh(u));
            }
            const double tolerance = c.out == CUDA_R_16BF ? 8e-3 : c.out == CUDA_R_16F ? 1e-3 : 2e-5;
            fine = fine && close_to(lt_read(found, c.out, i * columns + j), expected, tolerance);
        }
    report(c.name, fine);
}

static void test_cublaslt()
{
    const LtCase cases[] = {
        {"float32 product", CUDA_R_32F, CUDA_R_32F, CUBLASLT_EPILOGUE_DEFAULT, 0, 40, 72, 100},
        {"float32 product, bias, added", CUDA_R_32F, CUDA_R_32F, CUBLASLT_EPILOGUE_BIAS, 1, 33, 64, 36},
        {"bfloat16 product to float32", CUDA_R_16BF, CUDA_R_32F, CUBLASLT_EPILOGUE_DEFAULT, 1, 40, 72, 104},
        {"bfloat16 product, bias", CUDA_R_16BF, CUDA_R_16BF, CUBLASLT_EPILOGUE_BIAS, 0, 64, 48, 72},
        {"bfloat16 product, bias, gelu", CUDA_R_16BF, CUDA_R_16BF, CUBLASLT_EPILOGUE_GELU_BIAS, 0, 64, 48, 72},
        {"bfloat16 product to float32, bias, gelu", CUDA_R_16BF, CUDA_R_32F, CUBLASLT_EPILOGUE_GELU_BIAS, 0, 64, 48,
         72},
        {"bfloat16 product, gelu", CUDA_R_16BF, CUDA_R_16BF, CUBLASLT_EPILOGUE_GELU, 0, 32, 128, 64},
        {"float16 product, bias, added", CUDA_R_16F, CUDA_R_16F, CUBLASLT_EPILOGUE_BIAS, 1, 64, 48, 72},
        {"float16 product to float32", CUDA_R_16F, CUDA_R_32F, CUBLASLT_EPILOGUE_DEFAULT, 0, 16, 48, 72},
    };
    for (const LtCase &c : cases) test_lt_case(c);
}
