/* Ops on rows: layer_norm, rms_norm, rope, rope_store, silu_mul, embedding. Semantics: ops/ops.h. */
#include "device.h"
#include "numeric.cuh"

enum { ROW_THREADS = 256, ELEMENTS_OF_A_THREAD = 4 };

/* Threads for a row of `width` elements: whole warps. */
static unsigned row_threads(int64_t width)
{
    const int64_t warps = pxr_gpu_blocks(width, 32 * ELEMENTS_OF_A_THREAD);
    return warps * 32 < ROW_THREADS ? (unsigned)warps * 32 : (unsigned)ROW_THREADS;
}

/* Blocks for `count` elements, of which each thread takes ELEMENTS_OF_A_THREAD, a block apart. */
static unsigned element_blocks(int64_t count)
{
    return pxr_gpu_grid(pxr_gpu_blocks(count, ROW_THREADS * ELEMENTS_OF_A_THREAD));
}

#define FOR_ELEMENTS(at, count)                                                                                        \
    for (int64_t at = (int64_t)blockIdx.x * ROW_THREADS * ELEMENTS_OF_A_THREAD + threadIdx.x, passes = 0;              \
         passes < ELEMENTS_OF_A_THREAD && at < (count); at += ROW_THREADS, passes++)

/* ---- norms ----------------------------------------------------------------------------------------------------- */

struct norm_job {
    void *out;          /* [n,width], rows `out_stride` elements apart */
    const float *x;     /* [n,width] */
    const void *weight; /* [width] */
    const void *bias;   /* [width], layer_norm only */
    int64_t out_stride, x_stride;
    int width;
    pxr_dtype out_type, weight_type, bias_type;
    float epsilon;
};

/* One block a row. Every thread reads its own elements before it writes them, so `out` may be `x`. */
__global__ void __launch_bounds__(ROW_THREADS) layer_norm_rows(norm_job job)
{
    GPU_SHARED(float, partial, 32);
    const float *x = job.x + (int64_t)blockIdx.x * job.x_stride;
    const int64_t first = (int64_t)blockIdx.x * job.out_stride;
    float sum = 0.0f, squares = 0.0f;
    for (int i = (int)threadIdx.x; i < job.width; i += (int)blockDim.x) sum += x[i];
    const float mean = block_sum(sum, partial) / (float)job.width;
    for (int i = (int)threadIdx.x; i < job.width; i += (int)blockDim.x) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1.0f / sqrtf(block_sum(squares, partial) / (float)job.width + job.epsilon);
    for (int i = (int)threadIdx.x; i < job.width; i += (int)blockDim.x)
        store_activation(job.out, job.out_type, first + i,
                         (x[i] - mean) * scale * load_float(job.weight, job.weight_type, i) +
                             load_float(job.bias, job.bias_type, i));
}

__global__ void __launch_bounds__(ROW_THREADS) rms_norm_rows(norm_job job)
{
    GPU_SHARED(float, partial, 32);
    const float *x = job.x + (int64_t)blockIdx.x * job.x_stride;
    const int64_t first = (int64_t)blockIdx.x * job.out_stride;
    float squares = 0.0f;
    let_next_kernel_begin();
    wait_for_previous_kernel();
    for (int i = (int)threadIdx.x; i < job.width; i += (int)blockDim.x) squares += x[i] * x[i];
    const float scale = 1.0f / sqrtf(block_sum(squares, partial) / (float)job.width + job.epsilon);
    for (int i = (int)threadIdx.x; i < job.width; i += (int)blockDim.x)
        store_activation(job.out, job.out_type, first + i, x[i] * scale * load_float(job.weight, job.weight_type, i));
}

static norm_job norm_of(const pxr_tensor *out, const pxr_tensor *x, const pxr_tensor *weight, const pxr_tensor *bias,
                        float epsilon)
{
    norm_job job = {};
    job.out = out->data;
    job.out_type = out->dtype;
    job.x = static_cast<const float *>(x->data);
    job.weight = weight->data;
    job.bias = bias ? bias->data : NULL;
    job.out_stride = out->stride[0];
    job.x_stride = x->stride[0];
    job.width = (int)x->size[1];
    job.weight_type = weight->dtype;
    job.bias_type = bias ? bias->dtype : PXR_F32;
    job.epsilon = epsilon;
    return job;
}

pxr_status pxr_gpu_layer_norm(pxr_device *device, const pxr_layer_norm_args *args, pxr_error *error)
{
    if (pxr_tensor_count(args->x) == 0) return PXR_OK;
    const norm_job job = norm_of(args->out, args->x, args->weight, args->bias, args->epsilon);
    return pxr_gpu_launched(device, "layer_norm",
                            GPU_LAUNCH(layer_norm_rows, pxr_gpu_grid(args->x->size[0]), row_threads(job.width), 0,
                                       pxr_gpu_of(device)->stream, job),
                            error);
}

pxr_status pxr_gpu_rms_norm(pxr_device *device, const pxr_rms_norm_args *args, pxr_error *error)
{
    const pxr_gpu *gpu = pxr_gpu_of(device);
    if (pxr_tensor_count(args->x) == 0) return PXR_OK;
    const norm_job job = norm_of(args->out, args->x, args->weight, NULL, args->epsilon);
    return pxr_gpu_launched(device, "rms_norm",
                            GPU_LAUNCH_EARLY(rms_norm_rows, gpu->early, pxr_gpu_grid(args->x->size[0]),
                                             row_threads(job.width), 0, gpu->stream, job),
                            error);
}

/* ---- rope ------------------------------------------------------------------------------------------------------ */

struct rope_job {
    float *x;               /* [n,heads,2*half], in place */
    const float *cos, *sin; /* [n,half] */
    int64_t stride, head_stride, cos_stride, sin_stride, count;
    int heads, half;
};

/* One thread a pair (x[i], x[i+half]). */
__global__ void __launch_bounds__(ROW_THREADS) rope_pairs(rope_job job)
{
    FOR_ELEMENTS(at, job.count)
    {
        const int i = (int)(at % job.half), head = (int)(at / job.half % job.heads);
        const int64_t row = at / job.half / job.heads;
        float *x = job.x + row * job.stride + head * job.head_stride;
        const float c = job.cos[row * job.cos_stride + i], s = job.sin[row * job.sin_stride + i];
        const float a = x[i], b = x[i + job.half];
        x[i] = a * c - b * s;
        x[i + job.half] = b * c + a * s;
    }
}

pxr_status pxr_gpu_rope(pxr_device *device, const pxr_rope_args *args, pxr_error *error)
{
    const pxr_tensor *out = args->out;
    rope_job job = {};
    job.x = static_cast<float *>(out->data);
    job.cos = static_cast<const float *>(args->cos->data);
    job.sin = static_cast<const float *>(args->sin->data);
    job.stride = out->stride[0];
    job.head_stride = out->stride[1];
    job.cos_stride = args->cos->stride[0];
    job.sin_stride = args->sin->stride[0];
    job.count = pxr_tensor_count(out) / 2;
    job.heads = (int)out->size[1];
    job.half = (int)out->size[2] / 2;
    if (job.count == 0) return PXR_OK;
    const unsigned blocks = element_blocks(job.count);
    return pxr_gpu_launched(device, "rope",
                            GPU_LAUNCH(rope_pairs, blocks, ROW_THREADS, 0, pxr_gpu_of(device)->stream, job), error);
}

/* ---- rope_store ------------------------------------------------------------------------------------------------ */

/* Rows of heads; strides in elements. */
struct heads_of_rows {
    float *at; /* [n,heads,2*half] */
    int64_t stride, head_stride;
};

/* A past of keys or values. */
struct past_positions {
    void *at; /* [batch,m,kv_heads,2*half] */
    int64_t batch_stride, stride, head_stride;
};

struct rope_store_job {
    heads_of_rows q, k, v;
    past_positions keys, values;
    const float *cos, *sin; /* [n,half] */
    const int64_t *places;  /* [n] */
    int64_t cos_stride, sin_stride, m, positions, count;
    int heads, kv_heads, half;
    pxr_dtype type; /* of the past */
};

GPU_DEV void store_pair(const past_positions &past, const rope_store_job &job, int64_t place, int head, int i, float a,
                        float b)
{
    const int64_t at = place / job.m * past.batch_stride + place % job.m * past.stride + head * past.head_stride + i;
    store_activation(past.at, job.type, at, a);
    store_activation(past.at, job.type, at + job.half, b);
}

/* One thread a pair (x[i], x[i+half]) of a query, key or value head. */
__global__ void __launch_bounds__(ROW_THREADS) rope_store_pairs(const __grid_constant__ rope_store_job job)
{
    const int64_t at = (int64_t)blockIdx.x * ROW_THREADS + threadIdx.x;
    let_next_kernel_begin();
    wait_for_previous_kernel();
    if (at >= job.count) return;
    const int i = (int)(at % job.half), turned = job.heads + job.kv_heads;
    const int head = (int)(at / job.half % (turned + job.kv_heads));
    const int64_t row = at / job.half / (turned + job.kv_heads), place = job.places[row];
    const bool is_query = head < job.heads, is_there = place >= 0 && place < job.positions;
    if (head >= turned) {
        const float *v = job.v.at + row * job.v.stride + (head - turned) * job.v.head_stride;
        if (is_there) store_pair(job.values, job, place, head - turned, i, v[i], v[i + job.half]);
        return;
    }
    const float c = job.cos[row * job.cos_stride + i], s = job.sin[row * job.sin_stride + i];
    float *x = is_query ? job.q.at + row * job.q.stride + head * job.q.head_stride
                        : job.k.at + row * job.k.stride + (head - job.heads) * job.k.head_stride;
    const float a = x[i], b = x[i + job.half];
    x[i] = a * c - b * s;
    x[i + job.half] = b * c + a * s;
    if (!is_query && is_there) store_pair(job.keys, job, place, head - job.heads, i, x[i], x[i + job.half]);
}

static heads_of_rows heads_of(const pxr_tensor *x)
{
    return {static_cast<float *>(x->data), x->stride[0], x->stride[1]};
}

static past_positions positions_of(const pxr_tensor *past)
{
    return {past->data, past->stride[0], past->stride[1], past->stride[2]};
}

pxr_status pxr_gpu_rope_store(pxr_device *device, const pxr_rope_store_args *args, pxr_error *error)
{
    const pxr_gpu *gpu = pxr_gpu_of(device);
    rope_store_job job = {};
    job.q = heads_of(args->q);
    job.k = heads_of(args->k);
    job.v = heads_of(args->v);
    job.keys = positions_of(args->keys);
    job.values = positions_of(args->values);
    job.cos = static_cast<const float *>(args->cos->data);
    job.sin = static_cast<const float *>(args->sin->data);
    job.places = static_cast<const int64_t *>(args->places->data);
    job.cos_stride = args->cos->stride[0];
    job.sin_stride = args->sin->stride[0];
    job.m = args->keys->size[1];
    job.positions = args->keys->size[0] * job.m;
    job.heads = (int)args->q->size[1];
    job.kv_heads = (int)args->k->size[1];
    job.half = (int)args->q->size[2] / 2;
    job.count = args->q->size[0] * (job.heads + 2 * job.kv_heads) * job.half;
    job.type = args->keys->dtype;
    if (job.count == 0) return PXR_OK;
    const unsigned blocks = pxr_gpu_grid(pxr_gpu_blocks(job.count, ROW_THREADS));
    return pxr_gpu_launched(device, "rope_store",
                            GPU_LAUNCH_EARLY(rope_store_pairs, gpu->early, blocks, ROW_THREADS, 0, gpu->stream, job),
                            error);
}

/* ---- silu_mul -------------------------------------------------------------------------------------------------- */

struct silu_mul_job {
    void *out; /* [n,width] */
    const void *gate, *up;
    int64_t out_stride, gate_stride, up_stride, width, count;
    pxr_dtype out_type, gate_type, up_type;
};

__global__ void __launch_bounds__(ROW_THREADS) silu_mul_elements(silu_mul_job job)
{
    let_next_kernel_begin();
    wait_for_previous_kernel();
    FOR_ELEMENTS(at, job.count)
    {
        const int64_t row = at / job.width, i = at % job.width;
        const float gate = load_float(job.gate, job.gate_type, row * job.gate_stride + i);
        const float up = load_float(job.up, job.up_type, row * job.up_stride + i);
        store_activation(job.out, job.out_type, row * job.out_stride + i, gate * sigmoid(gate) * up);
    }
}

pxr_status pxr_gpu_silu_mul(pxr_device *device, const pxr_silu_mul_args *args, pxr_error *error)
{
    const pxr_gpu *gpu = pxr_gpu_of(device);
    silu_mul_job job = {};
    job.out = args->out->data;
    job.gate = args->gate->data;
    job.up = args->up->data;
    job.out_type = args->out->dtype;
    job.gate_type = args->gate->dtype;
    job.up_type = args->up->dtype;
    job.out_stride = args->out->stride[0];
    job.gate_stride = args->gate->stride[0];
    job.up_stride = args->up->stride[0];
    job.width = args->out->size[1];
    job.count = pxr_tensor_count(args->out);
    if (job.count == 0) return PXR_OK;
    const unsigned blocks = element_blocks(job.count);
    return pxr_gpu_launched(device, "silu_mul",
                            GPU_LAUNCH_EARLY(silu_mul_elements, gpu->early, blocks, ROW_THREADS, 0, gpu->stream, job),
                            error);
}

/* ---- embedding ------------------------------------------------------------------------------------------------- */

struct embedding_job {
    float *out;         /* [n,width] */
    const void *table;  /* [rows,width] */
    const int64_t *ids; /* [n] */
    int64_t out_stride, table_stride, rows, width, count;
    long long *wrong; /* the first place whose id is in no row; NULL: there is none */
    pxr_dtype table_type;
};

__global__ void __launch_bounds__(ROW_THREADS) embedding_elements(embedding_job job)
{
    FOR_ELEMENTS(at, job.count)
    {
        const int64_t row = at / job.width, i = at % job.width, id = job.ids[row];
        if (!job.wrong || (id >= 0 && id < job.rows))
            job.out[row * job.out_stride + i] = load_float(job.table, job.table_type, id * job.table_stride + i);
        else
            atomicMin(job.wrong, (long long)row);
    }
}

/* Waits for the device, to tell which id is in no row, unless that was seen to. */
pxr_status pxr_gpu_embedding(pxr_device *device, const pxr_embedding_args *args, pxr_error *error)
{
    if (!pxr_dtype_is_float(args->table->dtype))
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "embedding: %s tables are not on %s",
                        pxr_dtype_name(args->table->dtype), device->name);
    embedding_job job = {};
    job.out = static_cast<float *>(args->out->data);
    job.table = args->table->data;
    job.ids = static_cast<const int64_t *>(args->ids->data);
    job.out_stride = args->out->stride[0];
    job.table_stride = args->table->stride[0];
    job.rows = args->table->size[0];
    job.width = args->table->size[1];
    job.count = pxr_tensor_count(args->out);
    job.table_type = args->table->dtype;
    if (job.count == 0) return PXR_OK;
    pxr_status status = args->checked ? PXR_OK : pxr_gpu_watch(device, &job.wrong, error);
    if (status != PXR_OK) return status;
    status = pxr_gpu_launched(device, "embedding",
                              GPU_LAUNCH(embedding_elements, element_blocks(job.count), ROW_THREADS, 0,
                                         pxr_gpu_of(device)->stream, job),
                              error);
    int64_t place = PXR_GPU_FINE, id = 0;
    if (status == PXR_OK && !args->checked) status = pxr_gpu_first_wrong(device, job.wrong, &place, error);
    if (status != PXR_OK || place == PXR_GPU_FINE) return status;
    status = pxr_gpu_download(device, &id, job.ids + place, sizeof id, error);
    if (status != PXR_OK) return status;
    return pxr_fail(error, PXR_ERROR_ARGUMENT, "embedding: id %lld at place %lld is not in 0 .. %lld", (long long)id,
                    (long long)place, (long long)job.rows - 1);
}
