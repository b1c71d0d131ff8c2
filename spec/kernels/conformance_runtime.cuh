/* Conformance of the CUDA runtime: part of conformance.cu. */

__global__ void add(float *x, float value, int n)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) x[i] += value;
}

/* A graph replays its kernels and copies on whatever lies in their buffers then. */
static void test_graph()
{
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    const Buffer<float> x(std::vector<float>(100, 1.0f)), y(100);
    EXPECT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    EXPECT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    EXPECT_CUDA(GPU_LAUNCH(add, 1, 128, 0, stream, x.data, 2.0f, 100));
    EXPECT_CUDA(cudaMemcpyAsync(y.data, x.data, 400, cudaMemcpyDeviceToDevice, stream));
    EXPECT_CUDA(GPU_LAUNCH(add, 1, 128, 0, stream, y.data, 10.0f, 100));
    EXPECT_CUDA(cudaStreamEndCapture(stream, &graph));
    EXPECT_CUDA(cudaGraphInstantiate(&executable, graph, 0));
    EXPECT_CUDA(cudaGraphDestroy(graph));
    const bool untouched = x.values() == std::vector<float>(100, 1.0f);
    for (int i = 0; i < 3; i++) EXPECT_CUDA(cudaGraphLaunch(executable, stream));
    EXPECT_CUDA(cudaStreamSynchronize(stream));
    report("graphs",
           untouched && x.values() == std::vector<float>(100, 7.0f) && y.values() == std::vector<float>(100, 17.0f));
    EXPECT_CUDA(cudaGraphExecDestroy(executable));
    EXPECT_CUDA(cudaStreamDestroy(stream));
}

__global__ void add_early(float *x, const float *y, int n)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    let_next_kernel_begin();
    wait_for_previous_kernel();
    if (i < n) x[i] += y[i];
}

/* Kernels that begin early, each of which adds what the one before has made: as they are, and in a graph. */
static void test_early_launches()
{
    enum { COUNT = 300, BLOCKS = 3 };
    int major;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    const Buffer<float> x(std::vector<float>(COUNT, 1.0f)), y(std::vector<float>(COUNT, 1.0f));
    EXPECT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    EXPECT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    const auto fibonacci =
        [&] { /* (x, y) becomes (x + y, x + 2 y), twice */
              for (int i = 0; i < 2; i++) {
                  EXPECT_CUDA(GPU_LAUNCH_EARLY(add_early, major >= 9, BLOCKS, 128, 0, stream, x.data, y.data, COUNT));
                  EXPECT_CUDA(GPU_LAUNCH_EARLY(add_early, major >= 9, BLOCKS, 128, 0, stream, y.data, x.data, COUNT));
              }
        };
    EXPECT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    EXPECT_CUDA(GPU_LAUNCH(add, BLOCKS, 128, 0, stream, x.data, 0.0f, COUNT));
    fibonacci();
    EXPECT_CUDA(cudaStreamEndCapture(stream, &graph));
    EXPECT_CUDA(cudaGraphInstantiate(&executable, graph, 0));
    fibonacci();
    for (int i = 0; i < 3; i++) EXPECT_CUDA(cudaGraphLaunch(executable, stream));
    EXPECT_CUDA(cudaStreamSynchronize(stream));
    report("early launches",
           x.values() == std::vector<float>(COUNT, 1597.0f) && y.values() == std::vector<float>(COUNT, 2584.0f));
    EXPECT_CUDA(cudaGraphExecDestroy(executable));
    EXPECT_CUDA(cudaGraphDestroy(graph));
    EXPECT_CUDA(cudaStreamDestroy(stream));
}

/* One stream fills, the other waits for the event and goes on; the host waits for the second. */
static void test_streams()
{
    cudaStream_t first, second;
    cudaEvent_t filled;
    float *staging;
    const Buffer<float> x(1000);
    EXPECT_CUDA(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    EXPECT_CUDA(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    EXPECT_CUDA(cudaEventCreateWithFlags(&filled, cudaEventDisableTiming));
    EXPECT_CUDA(cudaHostAlloc((void **)&staging, 4000, cudaHostAllocDefault));
    for (int i = 0; i < 1000; i++) staging[i] = (float)i;
    EXPECT_CUDA(cudaMemcpyAsync(x.data, staging, 4000, cudaMemcpyHostToDevice, first));
    EXPECT_CUDA(cudaEventRecord(filled, first));
    EXPECT_CUDA(cudaStreamWaitEvent(second, filled, 0));
    EXPECT_CUDA(GPU_LAUNCH(add, 8, 128, 0, second, x.data, 1.0f, 1000));
    EXPECT_CUDA(cudaMemsetAsync(x.data + 500, 0, 2000, second));
    EXPECT_CUDA(cudaMemcpyAsync(staging, x.data, 4000, cudaMemcpyDeviceToHost, second));
    EXPECT_CUDA(cudaStreamSynchronize(second));
    bool fine = cudaEventQuery(filled) == cudaSuccess;
    for (int i = 0; i < 1000; i++) fine = fine && staging[i] == (i < 500 ? (float)(i + 1) : 0);
    report("streams and events", fine);
    EXPECT_CUDA(cudaFreeHost(staging));
    EXPECT_CUDA(cudaEventDestroy(filled));
    EXPECT_CUDA(cudaStreamDestroy(first));
    EXPECT_CUDA(cudaStreamDestroy(second));
}

static void test_copy_2d()
{
    std::vector<float> in(5 * 7), expected(5 * 3);
    for (size_t i = 0; i < in.size(); i++) in[i] = (float)i;
    for (size_t i = 0; i < expected.size(); i++) expected[i] = in[i / 3 * 7 + 2 + i % 3];
    const Buffer<float> from(in), to(expected.size());
    EXPECT_CUDA(cudaMemcpy2DAsync(to.data, 12, from.data + 2, 28, 12, 5, cudaMemcpyDeviceToDevice, nullptr));
    report("copies of rows", to.values() == expected);
}

/* What cannot be had leaves an error that goes away, and a device that goes on. */
static void test_refusals()
{
    void *block = nullptr;
    bool fine = cudaMalloc(&block, (size_t)1 << 50) == cudaErrorMemoryAllocation && !block;
    fine = fine && cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess;
    const Buffer<float> x(std::vector<float>(4, 0.0f));
    fine = fine && GPU_LAUNCH(add, 1, 2048, 0, nullptr, x.data, 1.0f, 4) == cudaErrorInvalidConfiguration;
    fine = fine && GPU_LAUNCH(add, 1, 32, 200000, nullptr, x.data, 1.0f, 4) == cudaErrorInvalidValue;
    fine = fine && cudaFuncSetAttribute((const void *)add, cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 20) ==
                       cudaErrorInvalidValue;
    cudaGetLastError();
    EXPECT_CUDA(GPU_LAUNCH(add, 1, 32, 0, nullptr, x.data, 3.0f, 4));
    report("refusals", fine && x.values() == std::vector<float>(4, 3.0f));
}

static void test_device()
{
    int major = 0, processors = 0;
    size_t left = 0, total = 0;
    cudaDeviceProp properties;
    EXPECT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    EXPECT_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    EXPECT_CUDA(cudaGetDeviceProperties(&properties, 0));
    EXPECT_CUDA(cudaMemGetInfo(&left, &total));
    report("device properties", major >= 8 && properties.major == major &&
                                    properties.multiProcessorCount == processors && left <= total &&
                                    properties.sharedMemPerBlockOptin >= 99 << 10);
}

static void test_runtime()
{
    test_graph();
    test_early_launches();
    test_streams();
    test_copy_2d();
    test_refusals();
    test_device();
}
