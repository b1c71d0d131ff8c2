/* attention and attention_weights in float32, for any head dim up to 160. Semantics: ops/ops.h.
 *
 * attention: the query rows of a key head are its heads' queries side by side: row r of a segment is query r / group
 * under head key_head * group + r % group, so that each key is read once for all heads that share it. A block takes 32
 * rows and goes through the segment's keys in spans of 64 counted from its first key, a span in tiles of 32 with a
 * running maximum and sum (online softmax); spans are merged in order. Where there are few queries and many keys, as in
 * a decoding step, spans have blocks of their own and the last one merges them, with the same bits. So a row's bits depend
 * on its own query and keys only.
 */
#include "attention.cuh"
#include "numeric.cuh"

#include <limits.h>

enum {
    ROWS = 32, /* of a block */
    KEYS = 32, /* of a tile */
    SPAN = 64, /* keys */
    LANES = 8, /* threads of a row: neighbours in a warp */
    ATTENTION_THREADS = ROWS * LANES,
    HEAD_DIM_MAX = 160,
    PARTS = HEAD_DIM_MAX / LANES, /* dims of a row that a thread computes, LANES apart */
    WIDTH = HEAD_DIM_MAX + 1      /* of a tile in shared memory: odd, so that rows begin in different banks */
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

/* What some keys give to a row: sum and mixed are relative to exp(largest). */
struct row_state {
    float largest, sum;
    float mixed[PARTS]; /* this thread's dims */
};

GPU_DEV void clear(row_state &state)
{
    state.largest = -INFINITY;
    state.sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PARTS; i++) state.mixed[i] = 0.0f;
}

/* Two numbers relative to different maxima, as one: `a` and `b` are what the maxima shrink by. */
GPU_DEV float merged(float left, float a, float right, float b)
{
    return __fmaf_rn(right, b, __fmul_rn(left, a));
}

/* exp(x - largest), where no key has been seen 0. */
GPU_DEV float shrunk(float x, float largest)
{
    return largest == -INFINITY ? 0.0f : expf(x - largest);
}

/* The keys of `other` lie behind those of `state`. */
GPU_DEV void merge(row_state &state, const row_state &other)
{
    const float largest = fmaxf(state.largest, other.largest);
    const float a = shrunk(state.largest, largest), b = shrunk(other.largest, largest);
    state.largest = largest;
    state.sum = merged(state.sum, a, other.sum, b);
#pragma unroll
    for (int i = 0; i < PARTS; i++) state.mixed[i] = merged(state.mixed[i], a, other.mixed[i], b);
}

/* The block's place: its segment's keys and its rows. */
struct row_block {
    int64_t k, v;         /* where the segment's first key under the key head lies, in elements */
    int row0, count;      /* rows */
    int key_head, hidden; /* with `causal`, query i sees hidden + i + 1 keys */
    int end;              /* keys that some row of the block sees */
    int visible;          /* keys that this thread's row sees */
};

/* The block's segment. What places say, which is unknown at the launch, is no memory outside of k and v. */
GPU_DEV pxr_gpu_segment segment_of(const pxr_gpu_attention_job &job, const pxr_gpu_segments &segments)
{
    pxr_gpu_segment segment = segments.at[blockIdx.z];
    if (job.places) {
        const int64_t place = job.places[blockIdx.z];
        const bool is_there = place >= 0 && place < job.batches * job.m;
        segment.batch = is_there ? (int)(place / job.m) : 0;
        segment.key_count = is_there ? (int)(place % job.m) + 1 : 0;
    }
    return segment;
}

/* False when the block has no rows. */
GPU_DEV bool find_rows(row_block &block, const pxr_gpu_attention_job &job, const pxr_gpu_segment &segment, int tiles)
{
    const int rows = segment.query_count * job.group, row = (int)threadIdx.x / LANES;
    block.key_head = (int)blockIdx.x / tiles;
    block.row0 = (int)blockIdx.x % tiles * ROWS;
    if (block.row0 >= rows) return false;
    block.count = rows - block.row0 < ROWS ? rows - block.row0 : ROWS;
    block.hidden = segment.key_count - segment.query_count;
    block.k = segment.batch * job.k_batch_stride + segment.key_begin * job.k_stride +
              block.key_head * job.k_head_stride;
    block.v = segment.batch * job.v_batch_stride + segment.key_begin * job.v_stride +
              block.key_head * job.v_head_stride;
    const int my_query = (block.row0 + row) / job.group, last_query = (block.row0 + block.count - 1) / job.group;
    block.visible = row >= block.count ? 0 : job.causal ? block.hidden + my_query + 1 : segment.key_count;
    block.end = job.causal ? block.hidden + last_query + 1 : segment.key_count;
    return true;
}

/* Tiles hold zeros in rows that are not there and in dims up to the next multiple of LANES. */
GPU_DEV void load_queries(float *tile, const row_block &block, const pxr_gpu_attention_job &job,
                          const pxr_gpu_segment &segment)
{
    const int width = (job.head_dim + LANES - 1) / LANES * LANES;
    for (int i = (int)threadIdx.x; i < ROWS * width; i += ATTENTION_THREADS) {
        const int row = i / width, d = i % width;
        const int64_t query = segment.query_begin + (block.row0 + row) / job.group;
        const int head = block.key_head * job.group + (block.row0 + row) % job.group;
        tile[row * WIDTH + d] = row < block.count && d < job.head_dim
                                    ? job.q[query * job.q_stride + head * job.q_head_stride + d]
                                    : 0.0f;
    }
}

GPU_DEV void load_tile(float *tile, const void *data, pxr_dtype type, int64_t first, int64_t stride, int count,
                       int head_dim)
{
    const int width = (head_dim + LANES - 1) / LANES * LANES;
    for (int i = (int)threadIdx.x; i < KEYS * width; i += ATTENTION_THREADS) {
        const int row = i / width, d = i % width;
        tile[row * WIDTH + d] = row < count && d < head_dim ? load_float(data, type, first + row * stride + d) : 0.0f;
    }
}

/* Shared memory of a block: [ROWS][WIDTH], [KEYS][WIDTH] of keys and then of values, [ROWS][KEYS + 1]. */
struct attention_tiles {
    float *queries, *keys, *weights;
};

/* What the keys key0 .. key1-1 give. All threads of the block come here together. */
GPU_DEV void attend(row_state &state, const attention_tiles &tiles, const row_block &block,
                    const pxr_gpu_attention_job &job, int key0, int key1)
{
    const int row = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, head_dim = job.head_dim;
    clear(state);
    for (; key0 < key1; key0 += KEYS) {
        const int count = key1 - key0 < KEYS ? key1 - key0 : KEYS;
        const int seen = block.visible - key0 < count ? block.visible - key0 : count; /* what is not may be no number */
        float score[KEYS / LANES] = {}, largest = state.largest, sum = 0.0f;
        load_tile(tiles.keys, job.k, job.k_type, block.k + key0 * job.k_stride, job.k_stride, count, head_dim);
        __syncthreads();
        for (int d = 0; seen > 0 && d < head_dim; d++) {
            const float query = tiles.queries[row * WIDTH + d];
#pragma unroll
            for (int j = 0; j < KEYS / LANES; j++) score[j] += query * tiles.keys[(lane + j * LANES) * WIDTH + d];
        }
#pragma unroll
        for (int j = 0; j < KEYS / LANES; j++) {
            score[j] = lane + j * LANES < seen ? score[j] * job.scale : -INFINITY;
            largest = fmaxf(largest, score[j]);
        }
        largest = lanes_max(largest);
        const float shrink = shrunk(state.largest, largest);
#pragma unroll
        for (int j = 0; j < KEYS / LANES; j++) {
            const float weight = shrunk(score[j], largest);
            tiles.weights[row * (KEYS + 1) + lane + j * LANES] = weight;
            sum += weight;
        }
        state.sum = state.sum * shrink + lanes_sum(sum);
        state.largest = largest;
        __syncthreads();
        load_tile(tiles.keys, job.v, job.v_type, block.v + key0 * job.v_stride, job.v_stride, count, head_dim);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < PARTS; i++) state.mixed[i] *= shrink;
        for (int key = 0; key < seen; key++) {
            const float weight = tiles.weights[row * (KEYS + 1) + key];
#pragma unroll
            for (int i = 0; i < PARTS; i++)
                if (i * LANES < head_dim) state.mixed[i] += weight * tiles.keys[key * WIDTH + lane + i * LANES];
        }
        __syncthreads();
    }
}

GPU_DEV void store_row(const row_state &state, const pxr_gpu_attention_job &job, const pxr_gpu_segment &segment,
                       int key_head, int row, int lane)
{
    const int64_t out = (int64_t)(segment.query_begin + row / job.group) * job.out_stride +
                        (key_head * job.group + row % job.group) * job.out_head_stride;
#pragma unroll
    for (int i = 0; i < PARTS; i++)
        if (lane + i * LANES < job.head_dim)
            store_activation(job.out, job.out_type, out + lane + i * LANES, state.mixed[i] / state.sum);
}

#define ATTENTION_TILES(tiles)                                                                                         \
    GPU_SHARED(float, query_tile, ROWS *WIDTH);                                                                        \
    GPU_SHARED(float, key_tile, KEYS *WIDTH);                                                                          \
    GPU_SHARED(float, weight_tile, ROWS *(KEYS + 1));                                                                  \
    const attention_tiles tiles = {query_tile, key_tile, weight_tile}

/* Grid: blocks of rows of each key head, 1, segments. */
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_plain(const __grid_constant__ pxr_gpu_attention_job job,
                    const __grid_constant__ pxr_gpu_segments segments, int row_tiles)
{
    ATTENTION_TILES(tiles);
    let_next_kernel_begin();
    wait_for_previous_kernel();
    const pxr_gpu_segment segment = segment_of(job, segments);
    row_block block;
    if (!find_rows(block, job, segment, row_tiles)) return;
    load_queries(tiles.queries, block, job, segment);
    row_state all, span;
    clear(all);
    for (int key0 = 0; key0 < block.end; key0 += SPAN) {
        attend(span, tiles, block, job, key0, key0 + SPAN < block.end ? key0 + SPAN : block.end);
        merge(all, span);
    }
    const int row = (int)threadIdx.x / LANES;
    if (row < block.count) store_row(all, job, segment, block.key_head, block.row0 + row, (int)threadIdx.x % LANES);
}

/* The states of spans: [segments,key heads,rows,spans] of head dim + 2 numbers. */
struct span_states {
    float *at;
    unsigned *done;  /* spans of each block's rows so far, [segments,blocks]; 0 between kernels */
    int rows, spans; /* at most, of a segment */
};

GPU_DEV float *state_of(const span_states &states, const pxr_gpu_attention_job &job, int key_head, int row, int span)
{
    const int64_t head = (int64_t)blockIdx.z * (job.heads / job.group) + key_head;
    return states.at + ((head * states.rows + row) * states.spans + span) * (job.head_dim + 2);
}

/* Merges a row's spans in order and stores it. */
GPU_DEV void finish_row(const pxr_gpu_attention_job &job, const pxr_gpu_segment &segment, const row_block &block,
                        const span_states &states, int spans)
{
    const int row = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    row_state all, span;
    clear(all);
    clear(span);
    for (int i = 0; i < spans; i++) {
        const float *from = state_of(states, job, block.key_head, block.row0 + row, i);
#pragma unroll
        for (int d = 0; d < PARTS; d++)
            if (lane + d * LANES < job.head_dim) span.mixed[d] = from[lane + d * LANES];
        span.largest = from[job.head_dim];
        span.sum = from[job.head_dim + 1];
        merge(all, span);
    }
    store_row(all, job, segment, block.key_head, block.row0 + row, lane);
}

/* Grid: blocks of rows of each key head, spans, segments. The block that is done last with its rows' spans merges them. */
__global__ void __launch_bounds__(ATTENTION_THREADS)
    attention_spans(const __grid_constant__ pxr_gpu_attention_job job,
                    const __grid_constant__ pxr_gpu_segments segments, int row_tiles, span_states states)
{
    ATTENTION_TILES(tiles);
    GPU_SHARED(unsigned, before, 1);
    let_next_kernel_begin();
    wait_for_previous_kernel();
    const pxr_gpu_segment segment = segment_of(job, segments);
    const int key0 = (int)blockIdx.y * SPAN, row = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    row_block block;
    if (!find_rows(block, job, segment, row_tiles)) return;
    const int spans = block.end > SPAN ? (block.end + SPAN - 1) / SPAN : 1;
    if ((int)blockIdx.y >= spans) return;
    load_queries(tiles.queries, block, job, segment);
    row_state span;
    attend(span, tiles, block, job, key0, key0 + SPAN < block.end ? key0 + SPAN : block.end);
    if (row < block.count) {
        float *to = state_of(states, job, block.key_head, block.row0 + row, (int)blockIdx.y);
#pragma unroll
        for (int i = 0; i < PARTS; i++)
            if (lane + i * LANES < job.head_dim) to[lane + i * LANES] = span.mixed[i];
        if (lane == 0) to[job.head_dim] = span.largest;
        if (lane == 1) to[job.head_dim + 1] = span.sum;
    }
    unsigned *counter = states.done + blockIdx.z * gridDim.x + blockIdx.x;
    __syncthreads();
    if (threadIdx.x == 0) before[0] = add_release(counter, 1);
    __syncthreads();
    if ((int)before[0] + 1 < spans) return;
    if (threadIdx.x == 0) *counter = 0;
    if (row < block.count) finish_row(job, segment, block, states, spans);
}

pxr_status pxr_gpu_attention_plain(pxr_device *device, const pxr_gpu_attention_job *job,
                                   const pxr_gpu_segments *segments, int count, int longest, pxr_error *error)
{
    const pxr_gpu *gpu = pxr_gpu_of(device);
    const int row_tiles = (int)pxr_gpu_blocks((int64_t)longest * job->group, ROWS), key_heads = job->heads / job->group;
    const unsigned blocks = (unsigned)(row_tiles * key_heads), depth = (unsigned)count;
    int keys = job->places ? (int)job->m : 0; /* of a segment, at most */
    for (int i = 0; i < count; i++)
        if (keys < segments->at[i].key_count) keys = segments->at[i].key_count;
    const int spans = (int)pxr_gpu_blocks(keys, SPAN);
    if (row_tiles > 1 || spans == 1 || spans > 65535 || blocks * depth > PXR_GPU_COUNTERS)
        return pxr_gpu_launched(device, "attention",
                                GPU_LAUNCH_EARLY(attention_plain, gpu->early, dim3(blocks, 1, depth), ATTENTION_THREADS,
                                                 0, gpu->stream, *job, *segments, row_tiles),
                                error);
    span_states states = {NULL, NULL, longest * job->group, spans};
    const size_t numbers = (size_t)count * (size_t)key_heads * (size_t)states.rows * (size_t)spans;
    void *scratch;
    pxr_status status = pxr_gpu_counters(device, &states.done, error);
    if (status == PXR_OK)
        status = pxr_gpu_scratch(device, numbers * (size_t)(job->head_dim + 2) * sizeof(float), &scratch, error);
    if (status != PXR_OK) return status;
    states.at = static_cast<float *>(scratch);
    return pxr_gpu_launched(device, "attention",
                            GPU_LAUNCH_EARLY(attention_spans, gpu->early, dim3(blocks, (unsigned)spans, depth),
                                             ATTENTION_THREADS, 0, gpu->stream, *job, *segments, row_tiles, states),
                            error);
}

/* ---- the op ---------------------------------------------------------------------------------------------------- */

static pxr_gpu_attention_job job_of(const pxr_attention_args *args)
{
    const pxr_tensor *k = args->k, *v = args->v;
    const int dim = k->rank - 3; /* of the keys */
    pxr_gpu_attention_job job = {};
    job.out = args->out->data;
    job.out_type = args->out->dtype;
    job.q = static_cast<const float *>(args->q->data);
    job.k = k->data;
    job.v = v->data;
    job.k_type = k->dtype;
    job.v_type = v->dtype;
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
    job.batches = dim ? k->size[0] : 1;
    job.m = k->size[dim];
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
    pxr_gpu_attention_job job = job_of(args);
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
        if (args->places) job.places = static_cast<const int64_t *>(args->places->data) + done;
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
    const unsigned blocks = pxr_gpu_grid(args->q->size[1] * args->q->size[0]);
    return pxr_gpu_launched(device, "attention_weights",
                            GPU_LAUNCH(attention_weights_rows, blocks, WEIGHTS_THREADS, 0, pxr_gpu_of(device)->stream,
                                       job),
                            error);
}
