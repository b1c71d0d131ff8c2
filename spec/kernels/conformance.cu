/* Every wrapper of gpu.h, and what the backend takes for granted of CUDA's runtime and cuBLASLt, against values computed
 * plainly. The same text runs on the emulated device and, built by nvcc, on a GPU: what passes on both means the same
 * on both. Ends with `N passed, N failed, N skipped`. */
#include "harness.h"

#include <math.h>

static int passed, failed;

static void report(const char *name, bool fine)
{
    fine ? passed++ : failed++;
    if (!fine) printf("FAILED %s\n", name);
}

static bool close_to(double found, double expected, double tolerance)
{
    return fabs(found - expected) <= tolerance * (1 + fabs(expected));
}

/* ---- matrices -------------------------------------------------------------------------------------------------- */

/* d[16x8] = d + a[16xK] b[Kx8]; a and b are bfloat16 bits, row-major. */
template <int K> __global__ void multiply(float *d, const uint16_t *a, const uint16_t *b)
{
    const int lane = (int)threadIdx.x, r = lane / 4, c = lane % 4 * 2;
    float sums[4];
    uint32_t left[K / 4], right[K / 8];
    for (int i = 0; i < 4; i++) sums[i] = d[(r + i / 2 * 8) * 8 + c + i % 2];
    for (int i = 0; i < K / 4; i++) {
        const uint16_t *pair = a + (r + i % 2 * 8) * K + c + i / 2 * 8;
        left[i] = (uint32_t)pair[0] | (uint32_t)pair[1] << 16;
    }
    for (int i = 0; i < K / 8; i++)
        right[i] = (uint32_t)b[(c + i * 8) * 8 + r] | (uint32_t)b[(c + 1 + i * 8) * 8 + r] << 16;
    if constexpr (K == 16)
        mma_16816(sums, left, right);
    else
        mma_1688(sums, left, right[0]);
    for (int i = 0; i < 4; i++) d[(r + i / 2 * 8) * 8 + c + i % 2] = sums[i];
}

template <int K> static void test_product(const char *name)
{
    std::vector<float> a(16 * K), b(K * 8), d(16 * 8), expected(16 * 8);
    std::vector<uint16_t> a_bits(a.size()), b_bits(b.size());
    for (size_t i = 0; i < a.size(); i++) a_bits[i] = bf16_bits(a[i] = next_small());
    for (size_t i = 0; i < b.size(); i++) b_bits[i] = bf16_bits(b[i] = next_small());
    for (size_t i = 0; i < 16; i++)
        for (size_t j = 0; j < 8; j++) {
            expected[i * 8 + j] = d[i * 8 + j] = next_small();
            for (size_t k = 0; k < K; k++) expected[i * 8 + j] += a[i * K + k] * b[k * 8 + j];
        }
    const Buffer<uint16_t> A(a_bits), B(b_bits);
    const Buffer<float> D(d);
    EXPECT_CUDA(GPU_LAUNCH(multiply<K>, 1, 32, 0, nullptr, D.data, A.data, B.data));
    report(name, D.values() == expected);
}

/* out[lane][i]: what ldmatrix hands lane `lane` of matrix i; element (r, c) of matrix i is 64 i + 8 r + c. */
template <int COUNT, bool TRANSPOSED> __global__ void load(uint32_t *out)
{
    GPU_SHARED(uint16_t, matrices, 4 * 64);
    for (int i = (int)threadIdx.x; i < 4 * 64; i += 32) matrices[i] = (uint16_t)i;
    __syncthreads();
    uint32_t r[COUNT];
    const uint16_t *row = matrices + (int)threadIdx.x % (8 * COUNT) * 8;
    if constexpr (COUNT == 4)
        ldmatrix_x4(r, row);
    else if constexpr (TRANSPOSED)
        ldmatrix_x2_trans(r, row);
    else
        ldmatrix_x2(r, row);
    for (int i = 0; i < COUNT; i++) out[(int)threadIdx.x * COUNT + i] = r[i];
}

template <int COUNT, bool TRANSPOSED> static void test_load(const char *name)
{
    const Buffer<uint32_t> out(32 * COUNT);
    EXPECT_CUDA(GPU_LAUNCH((load<COUNT, TRANSPOSED>), 1, 32, 0, nullptr, out.data));
    std::vector<uint32_t> expected;
    for (uint32_t lane = 0; lane < 32; lane++)
        for (uint32_t i = 0; i < COUNT; i++) {
            const uint32_t r = lane / 4, c = lane % 4 * 2;
            const uint32_t low = 64 * i + (TRANSPOSED ? 8 * c + r : 8 * r + c), step = TRANSPOSED ? 8 : 1;
            expected.push_back(low | (low + step) << 16);
        }
    report(name, out.values() == expected);
}

/* ---- copies in the background ---------------------------------------------------------------------------------- */

/* Three groups of 16 bytes a thread; the second is not valid. */
__global__ void copy_groups(float *out, const float *in)
{
    GPU_SHARED2(float, stage, 3, 64 * 4);
    const int t = (int)threadIdx.x;
    for (int group = 0; group < 3; group++) {
        cp_async16(&stage[group][t * 4], in + (group * 64 + t) * 4, group != 1);
        cp_async_commit();
    }
    cp_async_wait<1>();
    __syncthreads();
    const int other = 63 - t;
    for (int group = 0; group < 2; group++)
        for (int i = 0; i < 4; i++) out[(group * 64 + t) * 4 + i] = stage[group][other * 4 + i];
    cp_async_wait<0>();
    for (int i = 0; i < 4; i++) out[(2 * 64 + t) * 4 + i] = stage[2][t * 4 + i];
}

static void test_copies()
{
    std::vector<float> in(3 * 64 * 4), expected(in.size());
    for (float &x : in) x = next_uniform();
    for (size_t t = 0; t < 64; t++)
        for (size_t i = 0; i < 4; i++) {
            expected[t * 4 + i] = in[(63 - t) * 4 + i];
            expected[(64 + t) * 4 + i] = 0;
            expected[(128 + t) * 4 + i] = in[(128 + t) * 4 + i];
        }
    const Buffer<float> from(in), out(in.size());
    EXPECT_CUDA(GPU_LAUNCH(copy_groups, 1, 64, 0, nullptr, out.data, from.data));
    report("cp_async16, commit, wait", out.values() == expected);
}

/* ---- one thread, one warp, one block, one grid ----------------------------------------------------------------- */

__global__ void powers(float *out, const float *x)
{
    out[threadIdx.x] = fast_exp2(x[threadIdx.x]);
}

static void test_powers()
{
    std::vector<float> x(256);
    for (size_t i = 0; i < x.size(); i++) x[i] = (float)i - 200.0f + next_uniform();
    x[0] = -INFINITY, x[1] = 0, x[2] = INFINITY;
    const Buffer<float> in(x), out(x.size());
    EXPECT_CUDA(GPU_LAUNCH(powers, 1, 256, 0, nullptr, out.data, in.data));
    const std::vector<float> found = out.values();
    bool fine = found[0] == 0 && found[1] == 1 && found[2] == INFINITY;
    for (size_t i = 3; i < x.size(); i++) {
        const double expected = exp2((double)x[i]);
        if (expected > 1.18e-38) fine = fine && fabs(found[i] - expected) <= 3e-7 * expected;
        if (expected < 1.17e-38) fine = fine && found[i] == 0;
    }
    report("fast_exp2", fine);
}

__global__ void lanes(int *out)
{
    const int lane = (int)threadIdx.x;
    int *own = out + lane * 10;
    own[0] = __shfl_sync(~0u, lane * 3, (lane + 5) % 32);
    own[1] = __shfl_xor_sync(~0u, lane * 3, 9);
    own[2] = __shfl_down_sync(~0u, lane * 3, 4);
    own[3] = __shfl_up_sync(~0u, lane * 3, 4);
    own[4] = (int)__ballot_sync(~0u, lane % 3 == 0);
    own[5] = __any_sync(~0u, lane == 31);
    own[6] = __all_sync(~0u, lane < 31);
    own[7] = (int)__shfl_xor_sync(~0u, (float)lane, 1);
    own[8] = -1;
    if (lane < 16) own[8] = __shfl_xor_sync(0xffffu, lane, 2);
    __syncwarp();
    own[9] = __shfl_xor_sync(~0u, lane, 8, 16);
}

static void test_lanes()
{
    const Buffer<int> out(320);
    EXPECT_CUDA(GPU_LAUNCH(lanes, 1, 32, 0, nullptr, out.data));
    const std::vector<int> found = out.values();
    bool fine = true;
    for (int l = 0; l < 32; l++) {
        const int expected[10] = {(l + 5) % 32 * 3,
                                  (l ^ 9) * 3,
                                  (l + 4 > 31 ? l : l + 4) * 3,
                                  (l < 4 ? l : l - 4) * 3,
                                  (int)0x49249249u,
                                  1,
                                  0,
                                  l ^ 1,
                                  l < 16 ? l ^ 2 : -1,
                                  l ^ 8};
        fine = fine && memcmp(expected, &found[(size_t)l * 10], sizeof expected) == 0;
    }
    report("shuffles and votes", fine);
}

__global__ void counts(int *out)
{
    const int count = __syncthreads_count(threadIdx.x % 3 == 0);
    const int any = __syncthreads_or(threadIdx.x == 77), all = __syncthreads_and(threadIdx.x < 99);
    out[threadIdx.x] = count * 4 + (any != 0) * 2 + (all != 0);
}

static void test_counts()
{
    const Buffer<int> out(100);
    EXPECT_CUDA(GPU_LAUNCH(counts, 1, 100, 0, nullptr, out.data));
    report("block-wide counts", out.values() == std::vector<int>(100, 34 * 4 + 2));
}

/* The last block to finish adds up what all have left. */
__global__ void last_block(unsigned *out, unsigned *parts, unsigned *counter)
{
    GPU_SHARED(unsigned, before, 1);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = blockIdx.x * blockIdx.x;
        before[0] = add_release(counter, 1);
    }
    __syncthreads();
    if (before[0] + 1 < gridDim.x || threadIdx.x != 0) return;
    unsigned sum = ld_acquire(counter) << 20;
    for (unsigned b = 0; b < gridDim.x; b++) sum += parts[b];
    *out = sum;
}

static void test_last_block()
{
    const Buffer<unsigned> out(1), parts(40), counter(std::vector<unsigned>{0});
    EXPECT_CUDA(GPU_LAUNCH(last_block, 40, 64, 0, nullptr, out.data, parts.data, counter.data));
    report("add_release, ld_acquire", out.values()[0] == (40u << 20) + 20540u);
}

/* 90,000 bytes of dynamic shared memory, each thread's neighbour reads it. */
__global__ void large_shared(uint4 *out, const uint4 *in, int count)
{
    GPU_DYN_SMEM(uint4, row);
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x) row[i] = load_once16(in + i);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x) out[i] = row[count - 1 - i];
}

static void test_large_shared()
{
    const int count = 5625;
    std::vector<uint4> in((size_t)count);
    for (int i = 0; i < count; i++) in[(size_t)i] = make_uint4((unsigned)i, (unsigned)i * 3u, ~(unsigned)i, 7);
    const Buffer<uint4> from(in), out(in.size());
    const size_t bytes = (size_t)count * sizeof(uint4);
    EXPECT_CUDA(
        cudaFuncSetAttribute((const void *)large_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    EXPECT_CUDA(GPU_LAUNCH(large_shared, 1, 256, bytes, nullptr, out.data, from.data, count));
    const std::vector<uint4> found = out.values();
    bool fine = true;
    for (size_t i = 0; i < in.size(); i++) fine = fine && memcmp(&found[i], &in[in.size() - 1 - i], sizeof(uint4)) == 0;
    report("90,000 bytes of shared memory, load_once16", fine);
}

/* ---- narrow floats --------------------------------------------------------------------------------------------- */

__global__ void narrow(uint16_t *bf16, uint16_t *f16, float *wide, const float *x)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    const __nv_bfloat16 b = __float2bfloat16(x[i]);
    const __half h = __float2half(x[i]);
    memcpy(bf16 + i, &b, sizeof b);
    memcpy(f16 + i, &h, sizeof h);
    wide[2 * i] = __bfloat162float(b);
    wide[2 * i + 1] = __half2float(h);
}

static void test_narrow()
{
    std::vector<float> x(256);
    for (size_t i = 0; i < x.size(); i++) x[i] = next_uniform() * ldexpf(1, (int)(i % 50) - 30);
    x[0] = INFINITY, x[1] = -0.0f, x[2] = 65520, x[3] = 1 + ldexpf(1, -8), x[4] = 1 + ldexpf(3, -8);
    const Buffer<float> in(x), wide(x.size() * 2);
    const Buffer<uint16_t> bf16(x.size()), f16(x.size());
    EXPECT_CUDA(GPU_LAUNCH(narrow, 2, 128, 0, nullptr, bf16.data, f16.data, wide.data, in.data));
    const std::vector<uint16_t> b = bf16.values(), h = f16.values();
    const std::vector<float> w = wide.values();
    bool fine = h[2] == 0x7c00 && b[3] == 0x3f80 && b[4] == 0x3f82; /* ties to even */
    for (size_t i = 0; i < x.size(); i++) {
        fine = fine && b[i] == bf16_bits(x[i]) && w[2 * i] == __bfloat162float(__float2bfloat16(x[i]));
        fine = fine && w[2 * i + 1] == __half2float(__float2half(x[i]));
    }
    report("bfloat16 and float16", fine);
}

#include "conformance_cublaslt.cuh"
#include "conformance_runtime.cuh"

int main()
{
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status != cudaSuccess || devices == 0) {
        printf("no device: %s\n0 passed, 0 failed, 1 skipped\n", cudaGetErrorString(status));
        return 0;
    }
    test_product<16>("mma_16816");
    test_product<8>("mma_1688");
    test_load<4, false>("ldmatrix_x4");
    test_load<2, false>("ldmatrix_x2");
    test_load<2, true>("ldmatrix_x2_trans");
    test_copies();
    test_powers();
    test_lanes();
    test_counts();
    test_last_block();
    test_large_shared();
    test_narrow();
    test_runtime();
    test_cublaslt();
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
