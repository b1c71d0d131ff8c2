/* matmul: products over the last two dims of tensors of any strides, in float32. Semantics: ops/ops.h. The models'
 * products are linear's; this one is for what Lua multiplies. */
#include "walk.cuh"

enum { SIDE = 16, MATMUL_THREADS = SIDE * SIDE };

struct matmul_job {
    pxr_gpu_walk walk; /* over the leading dims: out, a and b */
    int64_t rows, columns, depth;
    int64_t out_stride, out_step, a_stride, a_step, b_stride, b_step; /* of rows, of columns */
    int64_t down, across;                                             /* tiles */
};

/* One block a tile of 16 x 16 results; each sum goes over k in order. */
__global__ void __launch_bounds__(MATMUL_THREADS) matmul_tile(matmul_job job)
{
    GPU_SHARED2(float, a_tile, SIDE, SIDE + 1);
    GPU_SHARED2(float, b_tile, SIDE, SIDE + 1);
    int64_t at[3];
    const int64_t tiles = job.down * job.across, tile = (int64_t)blockIdx.x % tiles;
    walk_offsets(job.walk, (int64_t)blockIdx.x / tiles, at);
    const pxr_gpu_operand &out = job.walk.operand[0], &a = job.walk.operand[1], &b = job.walk.operand[2];
    const int y = (int)threadIdx.x / SIDE, x = (int)threadIdx.x % SIDE;
    const int64_t row = tile / job.across * SIDE + y, column = tile % job.across * SIDE + x;
    float sum = 0.0f;
    for (int64_t k0 = 0; k0 < job.depth; k0 += SIDE) {
        a_tile[y][x] = row < job.rows && k0 + x < job.depth
                           ? load_float(a.data, a.type, at[1] + row * job.a_stride + (k0 + x) * job.a_step)
                           : 0.0f;
        b_tile[y][x] = column < job.columns && k0 + y < job.depth
                           ? load_float(b.data, b.type, at[2] + (k0 + y) * job.b_stride + column * job.b_step)
                           : 0.0f;
        __syncthreads();
#pragma unroll
        for (int k = 0; k < SIDE; k++) sum += a_tile[y][k] * b_tile[k][x];
        __syncthreads();
    }
    if (row < job.rows && column < job.columns)
        store_float(out.data, out.type, at[0] + row * job.out_stride + column * job.out_step, sum);
}

/* The leading dims alone, borrowed. */
static pxr_tensor leading(const pxr_tensor *tensor)
{
    pxr_tensor front = *tensor;
    front.rank -= 2;
    return front;
}

pxr_status pxr_gpu_matmul(pxr_device *device, const pxr_matmul_args *args, pxr_error *error)
{
    const pxr_tensor *out = args->out, *a = args->a, *b = args->b;
    const pxr_tensor fronts[3] = {leading(out), leading(a), leading(b)};
    const pxr_tensor *const operands[] = {&fronts[0], &fronts[1], &fronts[2]};
    if (pxr_tensor_count(out) == 0) return PXR_OK;
    matmul_job job = {};
    pxr_gpu_walk_plan(&job.walk, 3, operands);
    job.rows = out->size[out->rank - 2];
    job.columns = out->size[out->rank - 1];
    job.depth = a->size[a->rank - 1];
    job.out_stride = out->stride[out->rank - 2];
    job.out_step = out->stride[out->rank - 1];
    job.a_stride = a->stride[a->rank - 2];
    job.a_step = a->stride[a->rank - 1];
    job.b_stride = b->stride[b->rank - 2];
    job.b_step = b->stride[b->rank - 1];
    job.down = pxr_gpu_blocks(job.rows, SIDE);
    job.across = pxr_gpu_blocks(job.columns, SIDE);
    const unsigned blocks = pxr_gpu_grid(job.walk.count * job.down * job.across);
    return pxr_gpu_launched(device, "matmul",
                            GPU_LAUNCH(matmul_tile, blocks, MATMUL_THREADS, 0, pxr_gpu_of(device)->stream, job), error);
}
