/* Along one dim: reduce and softmax. Semantics: ops/ops.h.
 *
 * A lane is the run of elements along the dim. Short lanes are one thread's each, longer ones a block's: its threads
 * take every 256th element and their results are combined in one tree, so that the order of a sum depends on the
 * lane's length alone.
 */
#include "walk.cuh"

enum { REDUCE_THREADS = 256, SHORT_LANE = 64 };

struct reduction {
    pxr_gpu_walk walk; /* over the lanes: the output, where the lanes begin */
    int64_t length, stride;
    pxr_reduce_kind kind;
};

/* What is known of a part of a lane. Float types use `number`, integer types `integer`. */
struct reduced {
    float number;
    int64_t integer;
    int64_t index; /* of the extremum; -1: none was seen */
};

GPU_DEV reduced nothing_of(pxr_reduce_kind kind)
{
    const bool is_one = kind == PXR_REDUCE_PROD || kind == PXR_REDUCE_ALL;
    return {is_one ? 1.0f : 0.0f, is_one ? 1 : 0, -1};
}

/* True when `b` is the extremum rather than `a`; of equals the first one is, and a NaN before all numbers. */
template <class Number>
GPU_DEV bool is_better(pxr_reduce_kind kind, Number a, int64_t a_index, Number b, int64_t b_index)
{
    const bool max = kind == PXR_REDUCE_MAX || kind == PXR_REDUCE_ARGMAX;
    if (b_index < 0) return false;
    if (a_index < 0) return true;
    if (a != a || b != b) return b != b && (a == a || b_index < a_index);
    if (a == b) return b_index < a_index;
    return max ? b > a : b < a;
}

GPU_DEV reduced combine(pxr_reduce_kind kind, bool is_float, const reduced &a, const reduced &b)
{
    reduced both = a;
    switch (kind) {
    case PXR_REDUCE_SUM:
    case PXR_REDUCE_MEAN:
        both.number = a.number + b.number;
        both.integer = (int64_t)((uint64_t)a.integer + (uint64_t)b.integer);
        break;
    case PXR_REDUCE_PROD:
        both.number = a.number * b.number;
        both.integer = (int64_t)((uint64_t)a.integer * (uint64_t)b.integer);
        break;
    case PXR_REDUCE_ANY:
        both.integer = a.integer | b.integer;
        break;
    case PXR_REDUCE_ALL:
        both.integer = a.integer & b.integer;
        break;
    default:
        if (is_float ? is_better(kind, a.number, a.index, b.number, b.index)
                     : is_better(kind, a.integer, a.index, b.integer, b.index))
            both = b;
    }
    return both;
}

GPU_DEV reduced element_of(const reduction &op, const void *lane, int64_t index)
{
    const pxr_dtype type = op.walk.operand[1].type;
    reduced element = {0.0f, 0, index};
    if (is_float_type(type))
        element.number = load_float(lane, type, index * op.stride);
    else
        element.integer = load_integer(lane, type, index * op.stride);
    if (op.kind == PXR_REDUCE_ANY || op.kind == PXR_REDUCE_ALL)
        element.integer = is_float_type(type) ? element.number != 0.0f : element.integer != 0;
    return element;
}

GPU_DEV void store_reduced(const reduction &op, int64_t at, const reduced &result)
{
    const pxr_gpu_operand &out = op.walk.operand[0];
    if (op.kind == PXR_REDUCE_ARGMAX || op.kind == PXR_REDUCE_ARGMIN)
        store_integer(out.data, out.type, at, result.index);
    else if (is_float_type(op.walk.operand[1].type) && is_float_type(out.type))
        store_float(out.data, out.type, at,
                    op.kind == PXR_REDUCE_MEAN ? result.number / (float)op.length : result.number);
    else
        store_integer(out.data, out.type, at, result.integer);
}

GPU_DEV const void *lane_begin(const pxr_gpu_operand &x, int64_t offset)
{
    const int size = x.type == PXR_I64                        ? 8
                     : x.type == PXR_F32 || x.type == PXR_I32 ? 4
                     : x.type == PXR_I8 || x.type == PXR_U8   ? 1
                                                              : 2;
    return x.data + offset * size;
}

__global__ void __launch_bounds__(PXR_GPU_WALK_THREADS) reduce_short_lanes(reduction op)
{
    PXR_GPU_WALK(op.walk, lane)
    {
        int64_t at[2];
        walk_offsets(op.walk, lane, at);
        const bool is_float = is_float_type(op.walk.operand[1].type);
        const void *x = lane_begin(op.walk.operand[1], at[1]);
        reduced result = nothing_of(op.kind);
        for (int64_t i = 0; i < op.length; i++) result = combine(op.kind, is_float, result, element_of(op, x, i));
        store_reduced(op, at[0], result);
    }
}

__global__ void __launch_bounds__(REDUCE_THREADS) reduce_long_lanes(reduction op)
{
    GPU_SHARED(float, number, REDUCE_THREADS);
    GPU_SHARED(int64_t, integer, REDUCE_THREADS);
    GPU_SHARED(int64_t, index, REDUCE_THREADS);
    const int thread = (int)threadIdx.x;
    int64_t at[2];
    walk_offsets(op.walk, (int64_t)blockIdx.x, at);
    const bool is_float = is_float_type(op.walk.operand[1].type);
    const void *x = lane_begin(op.walk.operand[1], at[1]);
    reduced mine = nothing_of(op.kind);
    for (int64_t i = thread; i < op.length; i += REDUCE_THREADS)
        mine = combine(op.kind, is_float, mine, element_of(op, x, i));
    for (int distance = REDUCE_THREADS / 2; distance > 0; distance /= 2) {
        number[thread] = mine.number;
        integer[thread] = mine.integer;
        index[thread] = mine.index;
        __syncthreads();
        if (thread < distance) {
            const reduced other = {number[thread + distance], integer[thread + distance], index[thread + distance]};
            mine = combine(op.kind, is_float, mine, other);
        }
        __syncthreads();
    }
    if (thread == 0) store_reduced(op, at[0], mine);
}

pxr_status pxr_gpu_reduce(pxr_device *device, const pxr_reduce_args *args, pxr_error *error)
{
    const pxr_tensor out = pxr_gpu_lanes(args->out, args->dim), x = pxr_gpu_lanes(args->x, args->dim);
    const pxr_tensor *const operands[] = {&out, &x};
    const cudaStream_t stream = pxr_gpu_of(device)->stream;
    reduction op = {};
    pxr_gpu_walk_plan(&op.walk, 2, operands);
    op.length = args->x->size[args->dim];
    op.stride = args->x->stride[args->dim];
    op.kind = args->kind;
    if (op.walk.count == 0) return PXR_OK;
    const cudaError_t result = op.length <= SHORT_LANE ? GPU_LAUNCH(reduce_short_lanes, pxr_gpu_walk_blocks(&op.walk),
                                                                    PXR_GPU_WALK_THREADS, 0, stream, op)
                                                       : GPU_LAUNCH(reduce_long_lanes, pxr_gpu_grid(op.walk.count),
                                                                    REDUCE_THREADS, 0, stream, op);
    return pxr_gpu_launched(device, "reduce", result, error);
}

/* ---- softmax --------------------------------------------------------------------------------------------------- */

struct softmax_job {
    pxr_gpu_walk walk; /* over the lanes: the output's and the input's beginnings */
    int64_t length, out_stride, stride;
    bool logarithm;
};

/* One block a lane. A thread reads its own elements before it writes them, so `out` may be `x`. */
__global__ void __launch_bounds__(REDUCE_THREADS) softmax_lanes(softmax_job job)
{
    GPU_SHARED(float, partial, 32);
    int64_t at[2];
    walk_offsets(job.walk, (int64_t)blockIdx.x, at);
    const pxr_gpu_operand &out = job.walk.operand[0], &x = job.walk.operand[1];
    float largest = -INFINITY, sum = 0.0f;
    for (int64_t i = threadIdx.x; i < job.length; i += REDUCE_THREADS)
        largest = fmaxf(largest, load_float(x.data, x.type, at[1] + i * job.stride));
    largest = block_max(largest, partial);
    for (int64_t i = threadIdx.x; i < job.length; i += REDUCE_THREADS)
        sum += expf(load_float(x.data, x.type, at[1] + i * job.stride) - largest);
    sum = block_sum(sum, partial);
    const float shift = job.logarithm ? logf(sum) : 0.0f;
    for (int64_t i = threadIdx.x; i < job.length; i += REDUCE_THREADS) {
        const float value = load_float(x.data, x.type, at[1] + i * job.stride) - largest;
        store_float(out.data, out.type, at[0] + i * job.out_stride, job.logarithm ? value - shift : expf(value) / sum);
    }
}

pxr_status pxr_gpu_softmax(pxr_device *device, const pxr_softmax_args *args, pxr_error *error)
{
    const pxr_tensor out = pxr_gpu_lanes(args->out, args->dim), x = pxr_gpu_lanes(args->x, args->dim);
    const pxr_tensor *const operands[] = {&out, &x};
    softmax_job job = {};
    pxr_gpu_walk_plan(&job.walk, 2, operands);
    job.length = args->x->size[args->dim];
    job.out_stride = args->out->stride[args->dim];
    job.stride = args->x->stride[args->dim];
    job.logarithm = args->logarithm;
    if (job.walk.count == 0 || job.length == 0) return PXR_OK;
    return pxr_gpu_launched(device, "softmax",
                            GPU_LAUNCH(softmax_lanes, pxr_gpu_grid(job.walk.count), REDUCE_THREADS, 0,
                                       pxr_gpu_of(device)->stream, job),
                            error);
}
