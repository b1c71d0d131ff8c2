/* linear in float32, for any size and alignment: tiles of 64 x 64 results, the sum over k in order. */
#include "linear.cuh"

enum { TILE = 64, STEP = 16, EACH = 4, TILE_THREADS = (TILE / EACH) * (TILE / EACH) };

/* Each thread computes EACH x EACH results, TILE / EACH apart, so that neighbours read neighbouring words of a tile. */
template <class Weight> __global__ void __launch_bounds__(TILE_THREADS) linear_tile(pxr_gpu_linear_job job)
{
    enum { ROW = TILE + 1, ACROSS = TILE / EACH };
    GPU_SHARED(float, x_tile, STEP *ROW); /* [STEP][TILE]: k first */
    GPU_SHARED(float, w_tile, STEP *ROW);
    const int thread = (int)threadIdx.x, across = (job.columns + TILE - 1) / TILE;
    const int row0 = (int)blockIdx.x / across * TILE, column0 = (int)blockIdx.x % across * TILE;
    const int my_row = thread / ACROSS, my_column = thread % ACROSS;
    const Weight *weight = static_cast<const Weight *>(job.weight);
    float sum[EACH][EACH] = {};
    for (int k0 = 0; k0 < job.depth; k0 += STEP) {
        for (int i = thread; i < TILE * STEP; i += TILE_THREADS) {
            const int line = i / STEP, k = i % STEP, row = row0 + line, column = column0 + line;
            const bool in_depth = k0 + k < job.depth;
            x_tile[k * ROW + line] = in_depth && row < job.rows
                                         ? load_float(job.x, job.x_type, row * job.x_stride + k0 + k)
                                         : 0.0f;
            w_tile[k * ROW + line] = in_depth && column < job.columns
                                         ? widen(weight[column * job.weight_stride + k0 + k])
                                         : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < STEP; k++) {
            float x[EACH], w[EACH];
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                x[i] = x_tile[k * ROW + my_row + i * ACROSS];
                w[i] = w_tile[k * ROW + my_column + i * ACROSS];
            }
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++) sum[i][j] += x[i] * w[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < EACH; i++)
        for (int j = 0; j < EACH; j++) {
            const int row = row0 + my_row + i * ACROSS, column = column0 + my_column + j * ACROSS;
            if (row < job.rows && column < job.columns) finish_element(job, row, column, sum[i][j]);
        }
}

pxr_status pxr_gpu_linear_tile(pxr_device *device, const pxr_gpu_linear_job *job, pxr_error *error)
{
    const cudaStream_t stream = pxr_gpu_of(device)->stream;
    const unsigned blocks = (unsigned)(pxr_gpu_blocks(job->rows, TILE) * pxr_gpu_blocks(job->columns, TILE));
    cudaError_t result;
    if (job->weight_type == PXR_BF16)
        result = GPU_LAUNCH(linear_tile<__nv_bfloat16>, blocks, TILE_THREADS, 0, stream, *job);
    else if (job->weight_type == PXR_F16)
        result = GPU_LAUNCH(linear_tile<__half>, blocks, TILE_THREADS, 0, stream, *job);
    else
        result = GPU_LAUNCH(linear_tile<float>, blocks, TILE_THREADS, 0, stream, *job);
    return pxr_gpu_launched(device, "linear", result, error);
}
