/* Kernels with one planted defect each, and the same kernels without: what a lane of `make check` must find, and where it
 * must stay silent. Only the emulated device runs them.
 *
 * usage: defects NAME planted|mended      exit code 0: nothing was noticed
 */
#include "harness.h"

constexpr int THREADS = 64;

/* ---- kernels --------------------------------------------------------------------------------------------------- */

template <bool PLANTED> __global__ void missing_barrier(float *out)
{
    GPU_SHARED(float, row, THREADS);
    row[threadIdx.x] = (float)threadIdx.x;
    if (!PLANTED) __syncthreads();
    out[threadIdx.x] = row[THREADS - 1 - threadIdx.x];
}

template <bool PLANTED> __global__ void static_index(float *out)
{
    GPU_SHARED(float, row, THREADS);
    const unsigned at = PLANTED ? threadIdx.x + 1 : threadIdx.x;
    row[at] = (float)(THREADS - 1 - threadIdx.x);
    out[threadIdx.x] = row[at];
}

template <bool PLANTED> __global__ void dynamic_index(float *out)
{
    GPU_DYN_SMEM(float, row); /* THREADS */
    const unsigned at = PLANTED ? threadIdx.x + 1 : threadIdx.x;
    row[at] = (float)(THREADS - 1 - threadIdx.x);
    out[threadIdx.x] = row[at];
}

template <bool PLANTED> __global__ void copy_not_waited_for(float *out, const float *in)
{
    GPU_SHARED(float, row, THREADS * 4);
    float *own = row + threadIdx.x * 4;
    cp_async16(own, in + threadIdx.x * 4, true);
    cp_async_commit();
    if (!PLANTED) cp_async_wait<0>();
    out[threadIdx.x] = own[0];
    cp_async_wait<0>();
}

template <bool PLANTED> __global__ void missing_lane(float *out)
{
    float value = (float)(threadIdx.x ^ 1);
    if (!PLANTED || threadIdx.x % 32 != 7) value = __shfl_xor_sync(~0u, value, 1);
    out[threadIdx.x] = (float)(THREADS - 1) - value;
}

template <bool PLANTED> __global__ void different_barriers(float *out)
{
    if (PLANTED && threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = (float)(THREADS - 1 - threadIdx.x);
}

template <bool PLANTED> __global__ void unaligned_store(float *out)
{
    if (threadIdx.x % 4 == 0 && threadIdx.x + 4 < THREADS) {
        const float first = (float)(THREADS - 1 - threadIdx.x);
        *(float4 *)(out + threadIdx.x + (PLANTED ? 1 : 0)) = make_float4(first, first - 1, first - 2, first - 3);
    }
    if (threadIdx.x + 4 >= THREADS) out[threadIdx.x] = (float)(THREADS - 1 - threadIdx.x);
}

/* Each block leaves a part; the block that comes last adds them up. Relaxed counting orders nothing. */
template <bool PLANTED> __global__ void unordered_blocks(float *out, float *parts, unsigned *counter)
{
    GPU_SHARED(unsigned, before, 1);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = (float)blockIdx.x;
        before[0] = PLANTED ? atomicAdd(counter, 1u) : add_release(counter, 1);
    }
    __syncthreads();
    if (before[0] + 1 < gridDim.x) return;
    float sum = 0;
    if (threadIdx.x == 0)
        for (unsigned b = 0; b < gridDim.x; b++) sum += parts[b];
    out[threadIdx.x] = threadIdx.x == 0 ? sum - 6.0f + (float)(THREADS - 1) : (float)(THREADS - 1 - threadIdx.x);
}

/* Launched early behind the kernel that fills `in`. */
template <bool PLANTED> __global__ void read_before_wait(float *out, const float *in)
{
    const float early = PLANTED ? in[threadIdx.x] : 0;
    wait_for_previous_kernel();
    out[threadIdx.x] = PLANTED ? early : in[threadIdx.x];
}

template <bool PLANTED> __global__ void no_wait(float *out)
{
    if (!PLANTED || threadIdx.x != 7) wait_for_previous_kernel();
    out[threadIdx.x] = (float)(THREADS - 1 - threadIdx.x);
}

__global__ void fill_descending(float *out)
{
    out[threadIdx.x] = (float)(THREADS - 1 - threadIdx.x);
}

__global__ void copy_row(float *out, const float *in)
{
    out[threadIdx.x] = in[threadIdx.x];
}

/* ---- hosts ----------------------------------------------------------------------------------------------------- */

typedef bool (*Host)(Buffer<float> &out); /* false: the runtime noticed something */

static bool done(cudaError_t status)
{
    if (status == cudaSuccess) status = cudaDeviceSynchronize();
    if (status != cudaSuccess) printf("%s\n", cudaGetErrorString(status));
    return status == cudaSuccess;
}

#define SIMPLE_HOST(name, smem)                                                                                        \
    template <bool PLANTED> static bool host_of_##name(Buffer<float> &out)                                             \
    {                                                                                                                  \
        return done(GPU_LAUNCH(name<PLANTED>, 1, THREADS, smem, nullptr, out.data));                                   \
    }
SIMPLE_HOST(missing_barrier, 0)
SIMPLE_HOST(static_index, 0)
SIMPLE_HOST(dynamic_index, THREADS * sizeof(float))
SIMPLE_HOST(missing_lane, 0)
SIMPLE_HOST(different_barriers, 0)
SIMPLE_HOST(unaligned_store, 0)

template <bool PLANTED> static bool host_of_copy_not_waited_for(Buffer<float> &out)
{
    std::vector<float> values(THREADS * 4);
    for (int i = 0; i < THREADS; i++) values[(size_t)i * 4] = (float)(THREADS - 1 - i);
    const Buffer<float> in(values);
    return done(GPU_LAUNCH(copy_not_waited_for<PLANTED>, 1, THREADS, 0, nullptr, out.data, in.data));
}

template <bool PLANTED> static bool host_of_unordered_blocks(Buffer<float> &out)
{
    Buffer<float> parts(4);
    const Buffer<unsigned> counter(std::vector<unsigned>{0});
    return done(GPU_LAUNCH(unordered_blocks<PLANTED>, 4, THREADS, 0, nullptr, out.data, parts.data, counter.data));
}

template <bool PLANTED> static bool host_of_missing_stream_wait(Buffer<float> &out)
{
    Buffer<float> between(THREADS);
    cudaStream_t first, second;
    cudaEvent_t filled;
    EXPECT_CUDA(cudaStreamCreate(&first));
    EXPECT_CUDA(cudaStreamCreate(&second));
    EXPECT_CUDA(cudaEventCreate(&filled));
    EXPECT_CUDA(GPU_LAUNCH(fill_descending, 1, THREADS, 0, first, between.data));
    EXPECT_CUDA(cudaEventRecord(filled, first));
    if (!PLANTED) EXPECT_CUDA(cudaStreamWaitEvent(second, filled, 0));
    EXPECT_CUDA(GPU_LAUNCH(copy_row, 1, THREADS, 0, second, out.data, between.data));
    EXPECT_CUDA(cudaStreamSynchronize(second));
    const bool fine = done(cudaSuccess);
    EXPECT_CUDA(cudaEventDestroy(filled));
    EXPECT_CUDA(cudaStreamDestroy(first));
    EXPECT_CUDA(cudaStreamDestroy(second));
    return fine;
}

template <bool PLANTED> static bool host_of_read_before_wait(Buffer<float> &out)
{
    Buffer<float> between(THREADS);
    cudaError_t result = GPU_LAUNCH(fill_descending, 1, THREADS, 0, nullptr, between.data);
    if (result == cudaSuccess)
        result = GPU_LAUNCH_EARLY(read_before_wait<PLANTED>, true, 1, THREADS, 0, nullptr, out.data, between.data);
    return done(result);
}

template <bool PLANTED> static bool host_of_no_wait(Buffer<float> &out)
{
    return done(GPU_LAUNCH_EARLY(no_wait<PLANTED>, true, 1, THREADS, 0, nullptr, out.data));
}

template <bool PLANTED> static bool host_of_staging_reused(Buffer<float> &out)
{
    float *staging;
    cudaStream_t stream;
    EXPECT_CUDA(cudaStreamCreate(&stream));
    EXPECT_CUDA(cudaMallocHost((void **)&staging, THREADS * sizeof *staging));
    for (int i = 0; i < THREADS; i++) staging[i] = (float)(THREADS - 1 - i);
    EXPECT_CUDA(cudaMemcpyAsync(out.data, staging, THREADS * sizeof *staging, cudaMemcpyHostToDevice, stream));
    if (!PLANTED) EXPECT_CUDA(cudaStreamSynchronize(stream));
    for (int i = 0; i < THREADS; i++) staging[i] = -1;
    EXPECT_CUDA(cudaStreamSynchronize(stream));
    EXPECT_CUDA(cudaFreeHost(staging));
    EXPECT_CUDA(cudaStreamDestroy(stream));
    return done(cudaSuccess);
}

template <bool PLANTED> static bool host_of_host_pointer_in_kernel(Buffer<float> &out)
{
    std::vector<float> values(THREADS);
    for (int i = 0; i < THREADS; i++) values[(size_t)i] = (float)(THREADS - 1 - i);
    const Buffer<float> in(values);
    const float *pointer = PLANTED ? values.data() : in.data;
    return done(GPU_LAUNCH(copy_row, 1, THREADS, 0, nullptr, out.data, pointer));
}

template <bool PLANTED> static bool host_of_device_pointer_on_host(Buffer<float> &out)
{
    const bool fine = done(GPU_LAUNCH(fill_descending, 1, THREADS, 0, nullptr, out.data));
    return fine &&
           (!PLANTED || ((volatile float *)out.data)[1] == (float)(THREADS - 2)); /* does not come to the test */
}

template <bool PLANTED> static bool host_of_too_much_shared_memory(Buffer<float> &out)
{
    return done(GPU_LAUNCH(dynamic_index<false>, 1, THREADS, PLANTED ? 50000 : 40000, nullptr, out.data));
}

#define DEFECT(name)                                                                                                   \
    {                                                                                                                  \
#name, host_of_##name < true>, host_of_##name < false>                                                         \
    }
static const struct {
    const char *name;
    Host planted, mended;
} defects[] = {DEFECT(missing_barrier),
               DEFECT(static_index),
               DEFECT(dynamic_index),
               DEFECT(copy_not_waited_for),
               DEFECT(missing_lane),
               DEFECT(different_barriers),
               DEFECT(unaligned_store),
               DEFECT(unordered_blocks),
               DEFECT(missing_stream_wait),
               DEFECT(read_before_wait),
               DEFECT(no_wait),
               DEFECT(staging_reused),
               DEFECT(host_pointer_in_kernel),
               DEFECT(device_pointer_on_host),
               DEFECT(too_much_shared_memory)};

int main(int count, char **words)
{
    if (count != 3) return 2;
    for (const auto &defect : defects) {
        if (strcmp(words[1], defect.name) != 0) continue;
        Buffer<float> out(THREADS);
        if (!(strcmp(words[2], "planted") == 0 ? defect.planted : defect.mended)(out)) return 1;
        const std::vector<float> found = out.values();
        for (int i = 0; i < THREADS; i++) {
            if (found[(size_t)i] == (float)(THREADS - 1 - i)) continue;
            printf("wrong value: element %d is %g\n", i, (double)found[(size_t)i]);
            return 1;
        }
        return 0;
    }
    return 2;
}
