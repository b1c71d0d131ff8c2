/* attention and attention_weights in float32, for any head dim up to 160. Semantics: ops/ops.h.
 *
 * attention: a block takes 32 query rows of one head of one segment and goes through the segment's keys in tiles of 32
 * counted from its first key, with a running maximum and sum (online softmax). A row's bits depend on its own query
 * and keys only.
 */
#include "attention.cuh"
#include "numeric.cuh"

#include <limits.h>

enum {
    QUERIES = 32, /* of a block */
    KEYS = 32,    /* of a tile */
    LANES = 8,    /* threads of a query row: neighbours in a warp */
    ATTENTION_THREADS = QUERIES * LANES,
    HEAD_DIM_MAX = 160,
    PARTS = HEAD_DIM_MAX / LANES, /* dims of a row that a thread computes, LANES apart */
    ROW = HEAD_DIM_MAX + 1 /* of a tile in shared memory: odd, so that rows begin in different banks */
};

GPU_DEV float lanes_max(float value)
{
    for (int offset = LANES / 2; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, offset));
    return value;
}

GPU_DEV float lanes_sum(float value)
{
    for (int offset = LANES / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
    return value;
}

/* `count` rows of head_dim elements, `stride` apart, into a tile of `rows` rows; the rest are zeros, as are the dims up
 * to the next multiple of LANES. */
GPU_DEV void load_tile(float *tile, const float *from, int64_t stride, int count, int rows, int head_dim)
{
    const int width = (head_dim + LANES - 1) / LANES * LANES;
    for (int i = (int)threadIdx.x; i < rows * width; i += ATTENTION_THREADS) {
        const int row = i / width, d = i % width;
        tile[row * ROW + d] = row < count && d < head_dim ? from[row * stride + d] : 0.0f;
    }
}

__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_plain(pxr_gpu_attention_job job, pxr_gpu_segments segments, int tiles)
{
    GPU_SHARED(float, queries, QUERIES *ROW);
    GPU_SHARED(float, tile, KEYS *ROW); /* of keys, then of values */
    GPU_SHARED2(float, weights, QUERIES, KEYS + 1);
    const pxr_gpu_segment segment = segments.at[blockIdx.z];
    const int head = (int)blockIdx.x / tiles, query0 = (int)blockIdx.x % tiles * QUERIES;
    if (query0 >= segment.query_count) return;
    const int row = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, head_dim = job.head_dim;
    const int left = segment.query_count - query0, count = left < QUERIES ? left : QUERIES;
    const int key_head = head / job.group;
    const float *k = job.k + segment.batch * job.k_batch_stride + segment.key_begin * job.k_stride +
                     key_head * job.k_head_stride;
    const float *v = job.v + segment.batch * job.v_batch_stride + segment.key_begin * job.v_stride +
                     key_head * job.v_head_stride;
    const int64_t first = segment.query_begin + query0;
    load_tile(queries, job.q + first * job.q_stride + head * job.q_head_stride, job.q_stride, count, QUERIES, head_dim);
    const int hidden = segment.key_count - segment.query_count; /* with `causal`, query i sees hidden + i + 1 keys */
    const int visible = job.causal ? hidden + query0 + row + 1 : segment.key_count; /* by this row */
    const int end = job.causal ? hidden + query0 + count : segment.key_count;      /* by the block's last row */
    float sum = 0.0f, largest = -INFINITY, mixed[PARTS] = {};
    for (int key0 = 0; key0 < end; key0 += KEYS) {
        const int keys = segment.key_count - key0 < KEYS ? segment.key_count - key0 : KEYS;
        load_tile(tile, k + key0 * job.k_stride, job.k_stride, keys, KEYS, head_dim);
        __syncthreads();
        float score[KEYS / LANES] = {}, tile_largest = largest;
        for (int d = 0; d < head_dim; d++) {
            const float query = queries[row * ROW + d];
#pragma unroll
            for (int j = 0; j < KEYS / LANES; j++) score[j] += query * tile[(lane + j * LANES) * ROW + d];
        }
#pragma unroll
        for (int j = 0; j < KEYS / LANES; j++) {
            const int key = lane + j * LANES;
            score[j] = key0 + key < visible && key < keys ? score[j] * job.scale : -INFINITY;
            tile_largest = fmaxf(tile_largest, score[j]);
        }
        tile_largest = lanes_max(tile_largest);
        const float shrink = expf(largest - tile_largest);
        float tile_sum = 0.0f;
        for (int j = 0; j < KEYS / LANES; j++) {
            const float weight = expf(score[j] - tile_largest);
            weights[row][lane + j * LANES] = weight;
            tile_sum += weight;
        }
        sum = sum * shrink + lanes_sum(tile_sum);
        largest = tile_largest;
        __syncthreads();
        load_tile(tile, v + key0 * job.v_stride, job.v_stride, keys, KEYS, head_dim);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < PARTS; i++) mixed[i] *= shrink;
        const int seen = visible - key0 < keys ? visible - key0 : keys; /* of this tile: what is not may be no number */
        for (int key = 0; key < seen; key++) {
            const float weight = weights[row][key];
#pragma unroll
            for (int i = 0; i < PARTS; i++)
                if (i * LANES < head_dim) mixed[i] += weight * tile[key * ROW + lane + i * LANES];
        }
        __syncthreads();
    }
    if (row >= count) return;
    float *out = job.out + (first + row) * job.out_stride + head * job.out_head_stride;
#pragma unroll
    for (int i = 0; i < PARTS; i++)
        if (lane + i * LANES < head_dim) out[lane + i * LANES] = mixed[i] / sum;
}

pxr_status pxr_gpu_attention_plain(pxr_device *device, const pxr_gpu_attention_job *job,
                                   const pxr_gpu_segments *segments, int count, int longest, pxr_error *error)
{
    const int tiles = (int)pxr_gpu_blocks(longest, QUERIES);
    const dim3 grid((unsigned)(tiles * job->heads), 1, (unsigned)count);
    const cudaError_t result = GPU_LAUNCH(attention_plain, grid, ATTENTION_THREADS, 0, pxr_gpu_of(device)->stream,
                                          *job, *segments, tiles);
    return pxr_gpu_launched(device, "attention", result, error);
}

/* ---- the op ---------------------------------------------------------------------------------------------------- */

static pxr_gpu_attention_job job_of(const pxr_attention_args *args)
{
    const pxr_tensor *k = args->k, *v = args->v;
    const int dim = k->rank - 3; /* of the keys */
    pxr_gpu_attention_job job = {};
    job.out = static_cast<float *>(args->out->data);
    job.q = static_cast<const float *>(args->q->data);
    job.k = static_cast<const float *>(k->data);
    job.v = static_cast<const float *>(v->data);
    job.out_stride = args->out->stride[0];
    job.out_head_stride = args->out->stride[1];
    job.q_stride = args->q->stride[0];
    job.q_head_stride = args->q->stride[1];
    job.k_batch_stride = dim ? k->stride[0] : 0;
    job.k_stride = k->stride[dim];
    job.k_head_stride = k->stride[dim + 1];
    job.v_batch_stride = dim ? v->stride[0] : 0;
    job.v_stride = v->stride[dim];
    job.v_head_stride = v->stride[dim + 1];
    job.heads = (int)args->q->size[1];
    job.group = (int)(args->q->size[1] / k->size[dim + 1]);
    job.head_dim = (int)args->q->size[2];
    job.scale = args->scale;
    job.causal = args->causal;
    return job;
}

pxr_status pxr_gpu_attention(pxr_device *device, const pxr_attention_args *args, pxr_error *error)
{
    enum { FEW_QUERIES = 8 /* of a segment: fewer leave most rows of a tensor-core tile empty */ };
    const int keys_dim = args->k->rank - 3;
    if (args->q->size[0] > INT_MAX || args->k->size[keys_dim] > INT_MAX)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "attention: more than %d rows are not on %s", INT_MAX,
                        device->name);
    const pxr_gpu_attention_job job = job_of(args);
    const bool narrow = device->compute == PXR_COMPUTE_BF16 && pxr_gpu_attention_flash_takes(&job);
    pxr_status status = PXR_OK;
    for (int64_t done = 0, next; status == PXR_OK && done < args->segment_count; done = next) {
        pxr_gpu_segments segments;
        int count = 0, longest = 0;
        for (next = done; next < args->segment_count && count < PXR_GPU_SEGMENTS; next++) {
            const pxr_attention_segment *from = &args->segments[next];
            if (from->query_count == 0) continue;
            segments.at[count++] = {(int)from->query_begin, (int)from->query_count, (int)from->key_begin,
                                    (int)from->key_count, (int)from->batch};
            if (longest < from->query_count) longest = (int)from->query_count;
        }
        if (count == 0 || job.heads == 0) continue;
        status = narrow && longest > FEW_QUERIES
                     ? pxr_gpu_attention_flash(device, &job, &segments, count, longest, error)
                     : pxr_gpu_attention_plain(device, &job, &segments, count, longest, error);
    }
    return status;
}

/* ---- the weights alone ----------------------------------------------------------------------------------------- */

enum { WEIGHTS_THREADS = 256 };

struct weights_job {
    float *out;         /* [heads,n,m] */
    const float *q, *k; /* [n,heads,head_dim], [m,kv_heads,head_dim] */
    int64_t out_stride, out_head_stride, q_stride, q_head_stride, k_stride, k_head_stride;
    int queries, keys, group, head_dim;
    float scale;
    bool causal;
};

/* One block a query row of one head; `out` holds the scores in between. Each thread reads what it has written. */
__global__ void __launch_bounds__(WEIGHTS_THREADS) attention_weights_rows(weights_job job)
{
    GPU_SHARED(float, partial, 32);
    const int query = (int)blockIdx.x % job.queries, head = (int)blockIdx.x / job.queries;
    const float *q = job.q + query * job.q_stride + head * job.q_head_stride;
    const float *k = job.k + head / job.group * job.k_head_stride;
    float *out = job.out + head * job.out_head_stride + query * job.out_stride;
    const int visible = job.causal ? job.keys - job.queries + query + 1 : job.keys;
    float largest = -INFINITY, sum = 0.0f;
    for (int key = (int)threadIdx.x; key < visible; key += WEIGHTS_THREADS) {
        float dot = 0.0f;
        for (int d = 0; d < job.head_dim; d++) dot += q[d] * k[key * job.k_stride + d];
        out[key] = dot * job.scale;
        largest = fmaxf(largest, out[key]);
    }
    largest = block_max(largest, partial);
    for (int key = (int)threadIdx.x; key < visible; key += WEIGHTS_THREADS) {
        out[key] = expf(out[key] - largest);
        sum += out[key];
    }
    sum = block_sum(sum, partial);
    for (int key = (int)threadIdx.x; key < job.keys; key += WEIGHTS_THREADS)
        out[key] = key < visible ? out[key] / sum : 0.0f;
}

pxr_status pxr_gpu_attention_weights(pxr_device *device, const pxr_attention_weights_args *args, pxr_error *error)
{
    weights_job job = {};
    job.out = static_cast<float *>(args->out->data);
    job.q = static_cast<const float *>(args->q->data);
    job.k = static_cast<const float *>(args->k->data);
    job.out_head_stride = args->out->stride[0];
    job.out_stride = args->out->stride[1];
    job.q_stride = args->q->stride[0];
    job.q_head_stride = args->q->stride[1];
    job.k_stride = args->k->stride[0];
    job.k_head_stride = args->k->stride[1];
    job.queries = (int)args->q->size[0];
    job.keys = (int)args->k->size[0];
    job.group = (int)(args->q->size[1] / args->k->size[1]);
    job.head_dim = (int)args->q->size[2];
    job.scale = args->scale;
    job.causal = args->causal;
    if (pxr_tensor_count(args->out) == 0) return PXR_OK;
    const unsigned blocks = (unsigned)(args->q->size[1] * args->q->size[0]);
    return pxr_gpu_launched(device, "attention_weights",
                            GPU_LAUNCH(attention_weights_rows, blocks, WEIGHTS_THREADS, 0, pxr_gpu_of(device)->stream,
                                       job),
                            error);
}
