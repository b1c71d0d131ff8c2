/* linear for 3 to 16 rows, as several answers that are decoded together have them: bfloat16 weights are read once, as
 * for one row, and multiplied on tensor cores, since so many rows would keep the other units busier than the memory.
 *
 * The matrix unit's 16 rows are 16 columns of the result, its 8 columns rows of x. A lane loads 16 bytes, eight
 * neighbours of a weight row and of a row of x: the unit takes them in another order than they lie, the same for both,
 * which changes no sum's terms. The warps of a block share the depth; their sums are added in one order, so that a
 * row's sum does not depend on how many rows there are.
 */
#include "linear.cuh"

enum {
    SKINNY_WARPS = 8,
    SKINNY_THREADS = SKINNY_WARPS * 32,
    SKINNY_BLOCKS = 4, /* of a multiprocessor at least */
    COLUMNS = 16,      /* of a block */
    ROWS = 8,          /* of a tile */
    PIECE = 8,         /* values of a load */
    CHUNK = 4 * PIECE, /* of the depth that a warp takes at once: four lanes a row */
    STEP = SKINNY_WARPS * CHUNK,
};

/* Products of the same rows: y of the grid. */
struct skinny_jobs {
    pxr_gpu_linear_job each[PXR_LINEARS_MAX];
};

/* A lane's values of its two weight rows, 8 apart. */
struct weight_pieces {
    uint4 low, high;
};

GPU_DEV void load_weights(weight_pieces &to, const __nv_bfloat16 *low, const __nv_bfloat16 *high, int k, int depth)
{
    const uint4 zero = make_uint4(0, 0, 0, 0);
    to.low = k < depth ? load_once16(low + k) : zero;
    to.high = k < depth ? load_once16(high + k) : zero;
}

GPU_DEV uint4 load_x(const __nv_bfloat16 *row, int k, int depth)
{
    return k < depth ? *reinterpret_cast<const uint4 *>(row + k) : make_uint4(0, 0, 0, 0);
}

GPU_DEV uint32_t rounded_pair(float first, float second)
{
    return (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(first)) |
           (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(second)) << 16;
}

GPU_DEV uint4 load_x(const float *row, int k, int depth)
{
    if (k >= depth) return make_uint4(0, 0, 0, 0);
    const float4 a = *reinterpret_cast<const float4 *>(row + k), b = *reinterpret_cast<const float4 *>(row + k + 4);
    return make_uint4(rounded_pair(a.x, a.y), rounded_pair(a.z, a.w), rounded_pair(b.x, b.y), rounded_pair(b.z, b.w));
}

/* sum [columns r and r + 8][rows 2 (lane % 4) and + 1] += a chunk's products. */
GPU_DEV void multiply_chunk(float (&sum)[4], const weight_pieces &w, uint4 x)
{
    const uint32_t first[4] = {w.low.x, w.high.x, w.low.y, w.high.y},
                   second[4] = {w.low.z, w.high.z, w.low.w, w.high.w};
    const uint32_t x_first[2] = {x.x, x.y}, x_second[2] = {x.z, x.w};
    mma_16816(sum, first, x_first);
    mma_16816(sum, second, x_second);
}

/* X: the type of x, which is rounded to bfloat16. TILES: of its rows. */
template <class X, int TILES>
__global__ void __launch_bounds__(SKINNY_THREADS, SKINNY_BLOCKS) linear_skinny(const __grid_constant__ skinny_jobs jobs)
{
    GPU_SHARED(float, partial, SKINNY_WARPS *TILES *ROWS *COLUMNS); /* [warp][row][column] */
    const pxr_gpu_linear_job &job = jobs.each[blockIdx.y];
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, r = lane / 4, piece = lane % 4 * PIECE;
    const int column0 = (int)blockIdx.x * COLUMNS, last = job.columns - 1;
    const bool is_there = column0 < job.columns; /* else the block belongs to a product of more columns */
    const auto weight_row = [&](int column) {
        return static_cast<const __nv_bfloat16 *>(job.weight) + (column < last ? column : last) * job.weight_stride;
    };
    const __nv_bfloat16 *low = weight_row(column0 + r), *high = weight_row(column0 + r + 8);
    const X *x[TILES];
#pragma unroll
    for (int t = 0; t < TILES; t++) { /* beyond the last row the last one again */
        const int row = t * ROWS + r < job.rows ? t * ROWS + r : job.rows - 1;
        x[t] = static_cast<const X *>(job.x) + row * job.x_stride;
    }
    int k = warp * CHUNK + piece;
    weight_pieces w;
    let_next_kernel_begin();
    if (is_there) load_weights(w, low, high, k, job.depth);
    wait_for_previous_kernel();
    if (!is_there) return;
    uint4 values[TILES];
    float sum[TILES][4] = {};
#pragma unroll
    for (int t = 0; t < TILES; t++) values[t] = load_x(x[t], k, job.depth);
    for (int chunk = warp * CHUNK; chunk < job.depth; chunk += STEP) {
        const weight_pieces now = w;
        k += STEP;
        load_weights(w, low, high, k, job.depth);
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            const uint4 of_row = values[t];
            values[t] = load_x(x[t], k, job.depth);
            multiply_chunk(sum[t], now, of_row);
        }
    }
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = t * ROWS + lane % 4 * 2 + i % 2, column = r + i / 2 * 8;
            partial[(warp * TILES * ROWS + row) * COLUMNS + column] = sum[t][i];
        }
    __syncthreads();
    const int at = (int)threadIdx.x, row = at / COLUMNS, column = column0 + at % COLUMNS;
    if (at >= TILES * ROWS * COLUMNS || row >= job.rows || column >= job.columns) return;
    float total = 0.0f;
    for (int i = 0; i < SKINNY_WARPS; i++) total += partial[i * TILES * ROWS * COLUMNS + at];
    finish_element(job, row, column, total);
}

static bool is_in_pieces(const void *data, int64_t stride)
{
    return (uintptr_t)data % 16 == 0 && stride % PIECE == 0;
}

bool pxr_gpu_linear_skinny_takes(const pxr_gpu_linear_job *job)
{
    return job->rows <= 2 * ROWS && job->weight_type == PXR_BF16 && job->depth % PIECE == 0 &&
           is_in_pieces(job->weight, job->weight_stride) && is_in_pieces(job->x, job->x_stride);
}

template <class X, int TILES>
static cudaError_t launch(const skinny_jobs &jobs, int count, const dim3 &grid, const pxr_gpu *gpu)
{
    if (!pxr_gpu_are_constant(jobs.each, count))
        return GPU_LAUNCH((linear_skinny<X, TILES>), grid, SKINNY_THREADS, 0, gpu->stream, jobs);
    return GPU_LAUNCH_EARLY((linear_skinny<X, TILES>), gpu->early, grid, SKINNY_THREADS, 0, gpu->stream, jobs);
}

template <class X>
static cudaError_t launch_tiles(const skinny_jobs &jobs, int count, const dim3 &grid, const pxr_gpu *gpu)
{
    return jobs.each[0].rows <= ROWS ? launch<X, 1>(jobs, count, grid, gpu) : launch<X, 2>(jobs, count, grid, gpu);
}

pxr_status pxr_gpu_linear_skinny(pxr_device *device, const pxr_gpu_linear_job *each, int count, pxr_error *error)
{
    const pxr_gpu *gpu = pxr_gpu_of(device);
    skinny_jobs jobs = {};
    int columns = 0;
    for (int i = 0; i < count; i++) {
        jobs.each[i] = each[i];
        columns = each[i].columns > columns ? each[i].columns : columns;
    }
    const dim3 grid(pxr_gpu_grid(pxr_gpu_blocks(columns, COLUMNS)), (unsigned)count);
    const cudaError_t result = each->x_type == PXR_BF16 ? launch_tiles<__nv_bfloat16>(jobs, count, grid, gpu)
                                                        : launch_tiles<float>(jobs, count, grid, gpu);
    return pxr_gpu_launched(device, "linear", result, error);
}
