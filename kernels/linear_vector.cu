/* linear for few rows, as a decoding step has them: bound by reading the weights, which are read once for all rows.
 *
 * One launch serves several products of the same rows, each with blocks of its own: queries, keys and values are few
 * columns, and a launch for each would cost more than reading them. A block computes some columns for all rows. Its threads take every 128th piece of 16 bytes of a weight row, so that
 * a warp's loads are whole lines and several are under way at once; the threads' sums are added in one order. Sums of
 * a row do not depend on how many rows there are.
 */
#include "linear.cuh"

enum {
    VECTOR_THREADS = 128,
    VECTOR_WARPS = VECTOR_THREADS / 32,
    VECTOR_BLOCKS = 4, /* of a multiprocessor at least, whose registers they share */
};

/* 16 bytes of weights as float32. */
template <class Weight> struct piece {
    enum { COUNT = 16 / sizeof(Weight) };
    float value[COUNT];
};

GPU_DEV void unpack(piece<float> &to, uint4 bits)
{
    to.value[0] = __uint_as_float(bits.x);
    to.value[1] = __uint_as_float(bits.y);
    to.value[2] = __uint_as_float(bits.z);
    to.value[3] = __uint_as_float(bits.w);
}

GPU_DEV void unpack(piece<__nv_bfloat16> &to, uint4 bits)
{
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to.value[2 * i] = __uint_as_float(words[i] << 16);
        to.value[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

GPU_DEV void unpack(piece<__half> &to, uint4 bits)
{
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to.value[2 * i] = widen(__ushort_as_half((unsigned short)(words[i] & 0xffffu)));
        to.value[2 * i + 1] = widen(__ushort_as_half((unsigned short)(words[i] >> 16)));
    }
}

/* Products of the same rows by weights of one type: y of the grid. */
struct vector_jobs {
    pxr_gpu_linear_job each[PXR_LINEARS_MAX];
};

/* ROWS: rows of x, the last of which may be missing. COLUMNS: of a block. ALIGNED: 16-byte loads are possible. */
template <class Weight, int ROWS, int COLUMNS, bool ALIGNED>
__global__ void __launch_bounds__(VECTOR_THREADS, VECTOR_BLOCKS) linear_vector(const __grid_constant__ vector_jobs jobs)
{
    enum { COUNT = ALIGNED ? (int)piece<Weight>::COUNT : 1 };
    GPU_SHARED(float, partial, VECTOR_WARPS *COLUMNS *ROWS);
    const int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32;
    const pxr_gpu_linear_job &job = jobs.each[blockIdx.y], &any = jobs.each[0]; /* x is every product's */
    const int column0 = (int)blockIdx.x * COLUMNS;
    if (column0 >= job.columns) return; /* the block belongs to a product of more columns */
    const Weight *weight = static_cast<const Weight *>(job.weight);
    float sum[COLUMNS * ROWS] = {};
    for (int k = thread * COUNT; k < any.depth; k += VECTOR_THREADS * COUNT) {
        piece<Weight> w[COLUMNS];
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) { /* beyond the last column the last one again */
            const int column = column0 + c < job.columns ? column0 + c : job.columns - 1;
            const Weight *from = weight + column * job.weight_stride + k;
            if (ALIGNED)
                unpack(w[c], load_once16(from));
            else
                w[c].value[0] = widen(*from);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int64_t x = (r < any.rows ? r : any.rows - 1) * any.x_stride + k;
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                const float value = load_float(any.x, any.x_type, x + i);
#pragma unroll
                for (int c = 0; c < COLUMNS; c++) sum[c * ROWS + r] += w[c].value[i] * value;
            }
        }
    }
    const float of_warp = warp_sums(sum);
    enum { LANES_OF_A_SUM = 32 / (COLUMNS * ROWS) };
    if (lane % LANES_OF_A_SUM == 0) partial[warp * COLUMNS * ROWS + lane / LANES_OF_A_SUM] = of_warp;
    __syncthreads();
    if (thread >= COLUMNS * ROWS) return;
    const int column = column0 + thread / ROWS, row = thread % ROWS;
    float total = 0.0f;
    for (int w = 0; w < VECTOR_WARPS; w++) total += partial[w * COLUMNS * ROWS + thread];
    if (row < job.rows && column < job.columns) finish_element(job, row, column, total);
}

template <class Weight, int ROWS, int COLUMNS>
static cudaError_t launch_rows(const vector_jobs &jobs, int count, bool aligned, cudaStream_t stream)
{
    int columns = 0;
    for (int i = 0; i < count; i++) columns = jobs.each[i].columns > columns ? jobs.each[i].columns : columns;
    const dim3 grid((unsigned)pxr_gpu_blocks(columns, COLUMNS), (unsigned)count);
    if (aligned) return GPU_LAUNCH((linear_vector<Weight, ROWS, COLUMNS, true>), grid, VECTOR_THREADS, 0, stream, jobs);
    return GPU_LAUNCH((linear_vector<Weight, ROWS, COLUMNS, false>), grid, VECTOR_THREADS, 0, stream, jobs);
}

template <class Weight> static bool is_aligned(const pxr_gpu_linear_job *job)
{
    return (uintptr_t)job->weight % 16 == 0 && job->weight_stride * sizeof(Weight) % 16 == 0 &&
           job->depth % (int)piece<Weight>::COUNT == 0;
}

template <class Weight>
static cudaError_t launch_aligned(const vector_jobs &jobs, int count, bool aligned, cudaStream_t stream)
{
    const int rows = jobs.each[0].rows;
    if (rows == 1) return launch_rows<Weight, 1, 4>(jobs, count, aligned, stream);
    if (rows == 2) return launch_rows<Weight, 2, 4>(jobs, count, aligned, stream);
    if (rows <= 4) return launch_rows<Weight, 4, 4>(jobs, count, aligned, stream);
    if (rows <= 8) return launch_rows<Weight, 8, 2>(jobs, count, aligned, stream);
    return launch_rows<Weight, 16, 2>(jobs, count, aligned, stream);
}

/* Neighbours of one alignment go together, so that sums are in the order in which each product alone has them. */
template <class Weight> static cudaError_t launch(const pxr_gpu_linear_job *each, int count, cudaStream_t stream)
{
    cudaError_t result = cudaSuccess;
    for (int begin = 0, end = 0; result == cudaSuccess && begin < count; begin = end) {
        const bool aligned = is_aligned<Weight>(&each[begin]);
        vector_jobs jobs = {};
        for (; end < count && is_aligned<Weight>(&each[end]) == aligned; end++) jobs.each[end - begin] = each[end];
        result = launch_aligned<Weight>(jobs, end - begin, aligned, stream);
    }
    return result;
}

pxr_status pxr_gpu_linear_vector(pxr_device *device, const pxr_gpu_linear_job *each, int count, pxr_error *error)
{
    const cudaStream_t stream = pxr_gpu_of(device)->stream;
    const cudaError_t result = pxr_gpu_by_weight_type(each, [=](auto weight) {
        return launch<decltype(weight)>(each, count, stream);
    });
    return pxr_gpu_launched(device, "linear", result, error);
}
