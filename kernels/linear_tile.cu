/* linear in float32, for any size and alignment. Every sum goes over k in order, whatever the tile, so that a row has the
 * same bits among any others. */
#include "linear.cuh"

enum {
    SIDE = 16, /* threads of a block are SIDE x SIDE */
    STEP = 16, /* of k */
    EACH = 4,  /* columns of a thread */
    COLUMNS = SIDE * EACH,
    TILE_THREADS = SIDE * SIDE
};

/* A block computes ROWS x COLUMNS results. Those of a thread are SIDE apart, so that neighbours read neighbouring words
 * of a tile. */
template <class Weight, int ROWS> __global__ void __launch_bounds__(TILE_THREADS) linear_tile(pxr_gpu_linear_job job)
{
    enum { X_LINE = ROWS + 1, W_LINE = COLUMNS + 1, EACH_ROW = ROWS / SIDE };
    GPU_SHARED(float, x_tile, STEP *X_LINE); /* [STEP][ROWS]: k first */
    GPU_SHARED(float, w_tile, STEP *W_LINE); /* [STEP][COLUMNS] */
    const int thread = (int)threadIdx.x, across = (job.columns + COLUMNS - 1) / COLUMNS;
    const int row0 = (int)blockIdx.x / across * ROWS, column0 = (int)blockIdx.x % across * COLUMNS;
    const int my_row = thread / SIDE, my_column = thread % SIDE;
    const Weight *weight = static_cast<const Weight *>(job.weight);
    float sum[EACH_ROW][EACH] = {};
    for (int k0 = 0; k0 < job.depth; k0 += STEP) {
        for (int i = thread; i < ROWS * STEP; i += TILE_THREADS) {
            const int line = i / STEP, k = i % STEP, row = row0 + line;
            const bool is_there = row < job.rows && k0 + k < job.depth;
            x_tile[k * X_LINE + line] = is_there ? load_float(job.x, job.x_type, row * job.x_stride + k0 + k) : 0.0f;
        }
        for (int i = thread; i < COLUMNS * STEP; i += TILE_THREADS) {
            const int line = i / STEP, k = i % STEP, column = column0 + line;
            const bool is_there = column < job.columns && k0 + k < job.depth;
            w_tile[k * W_LINE + line] = is_there ? widen(weight[column * job.weight_stride + k0 + k]) : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < STEP; k++) {
            float x[EACH_ROW], w[EACH];
#pragma unroll
            for (int i = 0; i < EACH_ROW; i++) x[i] = x_tile[k * X_LINE + my_row + i * SIDE];
#pragma unroll
            for (int j = 0; j < EACH; j++) w[j] = w_tile[k * W_LINE + my_column + j * SIDE];
#pragma unroll
            for (int i = 0; i < EACH_ROW; i++)
#pragma unroll
                for (int j = 0; j < EACH; j++) sum[i][j] += x[i] * w[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < EACH_ROW; i++)
        for (int j = 0; j < EACH; j++) {
            const int row = row0 + my_row + i * SIDE, column = column0 + my_column + j * SIDE;
            if (row < job.rows && column < job.columns) finish_element(job, row, column, sum[i][j]);
        }
}

template <class Weight> static cudaError_t launch(const pxr_gpu_linear_job *job, cudaStream_t stream)
{
    enum { FEW = SIDE, MANY = 64 };
    const int64_t across = pxr_gpu_blocks(job->columns, COLUMNS);
    if (job->rows <= FEW)
        return GPU_LAUNCH((linear_tile<Weight, FEW>), pxr_gpu_grid(across), TILE_THREADS, 0, stream, *job);
    return GPU_LAUNCH((linear_tile<Weight, MANY>), pxr_gpu_grid(across * pxr_gpu_blocks(job->rows, MANY)), TILE_THREADS,
                      0, stream, *job);
}

pxr_status pxr_gpu_linear_tile(pxr_device *device, const pxr_gpu_linear_job *job, pxr_error *error)
{
    const cudaStream_t stream = pxr_gpu_of(device)->stream;
    const cudaError_t result = pxr_gpu_by_weight_type(job, [=](auto weight) {
        return launch<decltype(weight)>(job, stream);
    });
    return pxr_gpu_launched(device, "linear", result, error);
}
