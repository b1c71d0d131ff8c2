/* attention on tensor cores (FlashAttention 2): head dims 72 and 128, bfloat16 operands, float32 sums.
 *
 * Queries, keys and values of a launch's segments are first rounded to bfloat16 into scratch memory, one segment behind
 * the other. A block of four warps then takes 64 query rows of one head, a warp 16 of them, and goes through the keys
 * in tiles of 64; the next tile is on its way while one is computed with. A head dim of 72 is four steps of 16 and one
 * of 8 in q k^T and nine tiles of 8 in p v: no padded arithmetic.
 */
#include "attention.cuh"
#include "numeric.cuh"

enum { TILE_QUERIES = 64, TILE_KEYS = 64, FLASH_THREADS = 128, PACK_THREADS = 256, PACK_EACH = 8 };

/* ---- packing --------------------------------------------------------------------------------------------------- */

/* Rows of the packed operands where segments begin. */
struct packed_begins {
    int query[PXR_GPU_SEGMENTS], key[PXR_GPU_SEGMENTS];
};

struct flash_job {
    pxr_gpu_attention_job attention;
    __nv_bfloat16 *q;     /* [queries,heads,head_dim] */
    __nv_bfloat16 *k, *v; /* [keys,kv_heads,head_dim] */
    int kv_heads;
};

/* Grid: pieces of rows, q k v, segments. A thread rounds eight neighbours: one store of 16 bytes. */
__global__ void __launch_bounds__(PACK_THREADS)
    pack_rows(flash_job job, pxr_gpu_segments segments, packed_begins begins)
{
    const pxr_gpu_attention_job &from = job.attention;
    const pxr_gpu_segment segment = segments.at[blockIdx.z];
    const bool is_query = blockIdx.y == 0, is_key = blockIdx.y == 1;
    const int heads = is_query ? from.heads : job.kv_heads, pieces = from.head_dim / PACK_EACH;
    const int64_t index = (int64_t)blockIdx.x * PACK_THREADS + threadIdx.x;
    const int64_t row = index / pieces / heads;
    if (row >= (is_query ? segment.query_count : segment.key_count)) return;
    const int head = (int)(index / pieces % heads), d = (int)(index % pieces) * PACK_EACH;
    const void *x = is_query ? from.q : is_key ? from.k : from.v;
    const pxr_dtype type = is_query ? PXR_F32 : is_key ? from.k_type : from.v_type;
    const int64_t first = is_query ? (segment.query_begin + row) * from.q_stride + head * from.q_head_stride
                          : is_key ? segment.batch * from.k_batch_stride + (segment.key_begin + row) * from.k_stride +
                                         head * from.k_head_stride
                                   : segment.batch * from.v_batch_stride + (segment.key_begin + row) * from.v_stride +
                                         head * from.v_head_stride;
    uint32_t words[PACK_EACH / 2];
#pragma unroll
    for (int i = 0; i < PACK_EACH / 2; i++) {
        const float left = load_float(x, type, first + d + 2 * i), right = load_float(x, type, first + d + 2 * i + 1);
        const uint32_t low = __bfloat16_as_ushort(__float2bfloat16_rn(left));
        const uint32_t high = __bfloat16_as_ushort(__float2bfloat16_rn(right));
        words[i] = low | high << 16;
    }
    const int64_t begin = is_query ? begins.query[blockIdx.z] : begins.key[blockIdx.z];
    __nv_bfloat16 *to = (is_query ? job.q : is_key ? job.k : job.v) + ((begin + row) * heads + head) * from.head_dim;
    *reinterpret_cast<uint4 *>(to + d) = make_uint4(words[0], words[1], words[2], words[3]);
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

template <int D> struct flash_shape {
    enum {
        ROW = (D + 15) / 16 * 16 + 8, /* elements of a row in shared memory: ldmatrix meets no bank twice */
        BYTES = (TILE_QUERIES + 4 * TILE_KEYS) * ROW * 2
    };
};

/* `rows` rows of D elements, `stride` apart, from row `first` on; those from `count` on are zeros. */
template <int D>
GPU_DEV void fetch_tile(__nv_bfloat16 *tile, const __nv_bfloat16 *from, int64_t stride, int first, int count, int rows)
{
    enum { ROW = flash_shape<D>::ROW, PIECES = D / 8 };
    for (int i = (int)threadIdx.x; i < rows * PIECES; i += FLASH_THREADS) {
        const int row = i / PIECES, d = i % PIECES * 8;
        const bool is_there = first + row < count;
        cp_async16(tile + row * ROW + d, is_there ? from + (first + row) * stride + d : from, is_there);
    }
}

/* scores[16 x 64] = q k^T of a warp's 16 rows. */
template <int D>
GPU_DEV void multiply_keys(float (&scores)[TILE_KEYS / 8][4], const uint32_t (&q)[D / 16][4],
                           const uint32_t (&q_rest)[2], const __nv_bfloat16 *keys)
{
    enum { ROW = flash_shape<D>::ROW, STEPS = D / 16 };
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < TILE_KEYS / 8; j++) {
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            uint32_t k[2];
            ldmatrix_x2(k, keys + (j * 8 + lane % 8) * ROW + step * 16 + lane / 8 % 2 * 8);
            mma_16816(scores[j], q[step], k);
        }
        if (D % 16 != 0) {
            const __nv_bfloat16 *rest = keys + (j * 8 + lane / 4) * ROW + STEPS * 16 + lane % 4 * 2;
            mma_1688(scores[j], q_rest, *reinterpret_cast<const uint32_t *>(rest));
        }
    }
}

/* What the two rows that a lane holds have seen so far; `sum` is of this lane's keys only. */
struct row_state {
    float largest[2], sum[2];
};

/* Scores become weights, as mma's left operand; sums and results so far shrink to the new maximum. */
template <int D>
GPU_DEV void weigh(float (&scores)[TILE_KEYS / 8][4], uint32_t (&weights)[TILE_KEYS / 16][4], float (&mixed)[D / 8][4],
                   row_state &state, float scale_log2)
{
#pragma unroll
    for (int row = 0; row < 2; row++) {
        float largest = state.largest[row], sum = 0.0f;
#pragma unroll
        for (int j = 0; j < TILE_KEYS / 8; j++)
            largest = fmaxf(largest, fmaxf(scores[j][row * 2], scores[j][row * 2 + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
        const float shrink = fast_exp2((state.largest[row] - largest) * scale_log2);
        state.largest[row] = largest;
#pragma unroll
        for (int j = 0; j < TILE_KEYS / 8; j++) {
            const float left = fast_exp2((scores[j][row * 2] - largest) * scale_log2);
            const float right = fast_exp2((scores[j][row * 2 + 1] - largest) * scale_log2);
            sum += left + right;
            const uint32_t low = __bfloat16_as_ushort(__float2bfloat16_rn(left));
            const uint32_t high = __bfloat16_as_ushort(__float2bfloat16_rn(right));
            weights[j / 2][j % 2 * 2 + row] = low | high << 16;
        }
        state.sum[row] = state.sum[row] * shrink + sum;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            mixed[j][row * 2] *= shrink;
            mixed[j][row * 2 + 1] *= shrink;
        }
    }
}

GPU_DEV void store(float *to, float value)
{
    *to = value;
}

GPU_DEV void store(__nv_bfloat16 *to, float value)
{
    *to = __float2bfloat16_rn(value);
}

/* One of the two rows that a lane holds: two neighbours of each tile of 8. */
template <int D, class Activation>
GPU_DEV void store_row(Activation *out, const float (&mixed)[D / 8][4], int row, float sum)
{
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
        store(out + j * 8, mixed[j][row * 2] / sum);
        store(out + j * 8 + 1, mixed[j][row * 2 + 1] / sum);
    }
}

template <int D>
__global__ void __launch_bounds__(FLASH_THREADS)
    flash(flash_job job, pxr_gpu_segments segments, packed_begins begins, int tiles)
{
    enum { ROW = flash_shape<D>::ROW, STEPS = D / 16, STAGE = TILE_KEYS * ROW };
    GPU_DYN_SMEM(__nv_bfloat16, shared);
    __nv_bfloat16 *queries = shared, *keys = queries + TILE_QUERIES * ROW, *values = keys + 2 * STAGE;
    const pxr_gpu_segment segment = segments.at[blockIdx.z];
    const int head = (int)blockIdx.x / tiles, query0 = (int)blockIdx.x % tiles * TILE_QUERIES;
    if (query0 >= segment.query_count) return;
    const pxr_gpu_attention_job &attention = job.attention;
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, key_head = head / attention.group;
    const int64_t q_stride = (int64_t)attention.heads * D, k_stride = (int64_t)job.kv_heads * D;
    const __nv_bfloat16 *q = job.q + begins.query[blockIdx.z] * q_stride + head * D;
    const __nv_bfloat16 *k = job.k + begins.key[blockIdx.z] * k_stride + key_head * D;
    const __nv_bfloat16 *v = job.v + begins.key[blockIdx.z] * k_stride + key_head * D;
    const int hidden = segment.key_count - segment.query_count; /* with `causal`, query i sees hidden + i + 1 keys */
    const int reach = attention.causal ? hidden + query0 + TILE_QUERIES : segment.key_count;
    const int end = reach < segment.key_count ? reach : segment.key_count;
    const int my_row = query0 + warp * 16 + lane / 4; /* and my_row + 8 */
    const float scale_log2 = attention.scale * 1.44269504f;
    fetch_tile<D>(queries, q, q_stride, query0, segment.query_count, TILE_QUERIES);
    fetch_tile<D>(keys, k, k_stride, 0, segment.key_count, TILE_KEYS);
    fetch_tile<D>(values, v, k_stride, 0, segment.key_count, TILE_KEYS);
    cp_async_commit();
    float mixed[D / 8][4] = {};
    row_state state = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
    uint32_t q_parts[STEPS][4], q_rest[2] = {0, 0};
    for (int key0 = 0, stage = 0; key0 < end; key0 += TILE_KEYS, stage ^= 1) {
        if (key0 + TILE_KEYS < end) {
            fetch_tile<D>(keys + (stage ^ 1) * STAGE, k, k_stride, key0 + TILE_KEYS, segment.key_count, TILE_KEYS);
            fetch_tile<D>(values + (stage ^ 1) * STAGE, v, k_stride, key0 + TILE_KEYS, segment.key_count, TILE_KEYS);
            cp_async_commit();
            cp_async_wait<1>();
        } else {
            cp_async_wait<0>();
        }
        __syncthreads();
        if (key0 == 0) {
            const __nv_bfloat16 *row = queries + (warp * 16 + lane % 16) * ROW;
#pragma unroll
            for (int step = 0; step < STEPS; step++) ldmatrix_x4(q_parts[step], row + step * 16 + lane / 16 * 8);
            if (D % 16 != 0) ldmatrix_x2(q_rest, row + STEPS * 16);
        }
        float scores[TILE_KEYS / 8][4] = {};
        multiply_keys<D>(scores, q_parts, q_rest, keys + stage * STAGE);
        if (key0 + TILE_KEYS > segment.key_count || (attention.causal && key0 + TILE_KEYS > hidden + query0 + 1))
#pragma unroll
            for (int j = 0; j < TILE_KEYS / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int key = key0 + j * 8 + lane % 4 * 2 + e % 2, row = my_row + e / 2 * 8;
                    const int visible = attention.causal ? hidden + row + 1 : segment.key_count;
                    if (key >= visible || key >= segment.key_count) scores[j][e] = -INFINITY;
                }
        uint32_t weights[TILE_KEYS / 16][4];
        weigh<D>(scores, weights, mixed, state, scale_log2);
        const __nv_bfloat16 *tile = values + stage * STAGE + lane % 16 * ROW;
#pragma unroll
        for (int step = 0; step < TILE_KEYS / 16; step++)
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                uint32_t part[2];
                ldmatrix_x2_trans(part, tile + step * 16 * ROW + j * 8);
                mma_16816(mixed[j], weights[step], part);
            }
        __syncthreads();
    }
#pragma unroll
    for (int row = 0; row < 2; row++) {
        float sum = state.sum[row];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        const int query = my_row + row * 8;
        if (query >= segment.query_count) continue;
        const int64_t out = (segment.query_begin + query) * attention.out_stride + head * attention.out_head_stride +
                            lane % 4 * 2;
        if (attention.out_type == PXR_BF16)
            store_row<D>(static_cast<__nv_bfloat16 *>(attention.out) + out, mixed, row, sum);
        else
            store_row<D>(static_cast<float *>(attention.out) + out, mixed, row, sum);
    }
}

template <int D>
static cudaError_t launch(const flash_job &job, const pxr_gpu_segments &segments, const packed_begins &begins,
                          int count, int longest, cudaStream_t stream)
{
    const int tiles = (int)pxr_gpu_blocks(longest, TILE_QUERIES), bytes = flash_shape<D>::BYTES;
    const dim3 grid((unsigned)(tiles * job.attention.heads), 1, (unsigned)count);
    const cudaError_t result = cudaFuncSetAttribute(reinterpret_cast<const void *>(&flash<D>),
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (result != cudaSuccess) return result;
    return GPU_LAUNCH((flash<D>), grid, FLASH_THREADS, (size_t)bytes, stream, job, segments, begins, tiles);
}

bool pxr_gpu_attention_flash_takes(const pxr_gpu_attention_job *job)
{
    return (job->head_dim == 72 || job->head_dim == 128) && job->scale > 0.0f;
}

pxr_status pxr_gpu_attention_flash(pxr_device *device, const pxr_gpu_attention_job *attention,
                                   const pxr_gpu_segments *segments, int count, int longest, pxr_error *error)
{
    const cudaStream_t stream = pxr_gpu_of(device)->stream;
    packed_begins begins;
    int64_t queries = 0, keys = 0, most = 0; /* most: pieces of a segment's rows */
    flash_job job = {};
    job.attention = *attention;
    job.kv_heads = attention->heads / attention->group;
    const int pieces = attention->head_dim / PACK_EACH;
    for (int i = 0; i < count; i++) {
        const pxr_gpu_segment *segment = &segments->at[i];
        begins.query[i] = (int)queries;
        begins.key[i] = (int)keys;
        queries += segment->query_count;
        keys += segment->key_count;
        if (most < (int64_t)segment->query_count * attention->heads * pieces)
            most = (int64_t)segment->query_count * attention->heads * pieces;
        if (most < (int64_t)segment->key_count * job.kv_heads * pieces)
            most = (int64_t)segment->key_count * job.kv_heads * pieces;
    }
    const int64_t q_count = queries * attention->heads * attention->head_dim;
    const int64_t k_count = keys * job.kv_heads * attention->head_dim;
    void *scratch;
    const pxr_status status = pxr_gpu_scratch(device, (size_t)(q_count + 2 * k_count) * 2, &scratch, error);
    if (status != PXR_OK) return status;
    job.q = static_cast<__nv_bfloat16 *>(scratch);
    job.k = job.q + q_count;
    job.v = job.k + k_count;
    const dim3 grid(pxr_gpu_grid(pxr_gpu_blocks(most, PACK_THREADS)), 3, (unsigned)count);
    cudaError_t result = GPU_LAUNCH(pack_rows, grid, PACK_THREADS, 0, stream, job, *segments, begins);
    if (result == cudaSuccess)
        result = attention->head_dim == 72 ? launch<72>(job, *segments, begins, count, longest, stream)
                                           : launch<128>(job, *segments, begins, count, longest, stream);
    return pxr_gpu_launched(device, "attention", result, error);
}
