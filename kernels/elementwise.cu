/* Element by element: copy, fill, sequence, unary, binary, where. Semantics: ops/ops.h. */
#include "walk.cuh"

/* ---- copy ------------------------------------------------------------------------------------------------------ */

__global__ void __launch_bounds__(PXR_GPU_WALK_THREADS) copy_elements(pxr_gpu_walk walk)
{
    PXR_GPU_WALK(walk, index)
    {
        int64_t at[2];
        walk_offsets(walk, index, at);
        const pxr_gpu_operand &out = walk.operand[0], &x = walk.operand[1];
        if (out.type == x.type)
            move_element(out.data, at[0], x.data, at[1], out.type);
        else if (is_float_type(x.type))
            store_float(out.data, out.type, at[0], load_float(x.data, x.type, at[1]));
        else
            store_integer(out.data, out.type, at[0], load_integer(x.data, x.type, at[1]));
    }
}

pxr_status pxr_gpu_copy(pxr_device *device, const pxr_copy_args *args, pxr_error *error)
{
    const pxr_tensor *out = args->out, *x = args->x;
    const cudaStream_t stream = pxr_gpu_of(device)->stream;
    const size_t bytes = (size_t)pxr_tensor_count(out) * pxr_dtype_size(out->dtype);
    if (bytes == 0) return PXR_OK;
    if (pxr_tensor_device(x) != device) return pxr_gpu_upload(device, out->data, x->data, bytes, error);
    if (out->dtype == x->dtype && pxr_tensor_same_shape(out, x) && pxr_tensor_is_contiguous(out) &&
        pxr_tensor_is_contiguous(x)) {
        if (out->data == x->data) return PXR_OK;
        return pxr_gpu_launched(device, "copy",
                                cudaMemcpyAsync(out->data, x->data, bytes, cudaMemcpyDeviceToDevice, stream), error);
    }
    pxr_gpu_walk walk;
    const pxr_tensor *const operands[] = {out, x};
    pxr_gpu_walk_plan(&walk, 2, operands);
    return pxr_gpu_launched(device, "copy",
                            GPU_LAUNCH(copy_elements, pxr_gpu_walk_blocks(&walk), PXR_GPU_WALK_THREADS, 0, stream,
                                       walk),
                            error);
}

/* ---- fill, sequence -------------------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(PXR_GPU_WALK_THREADS) fill_elements(pxr_gpu_walk walk, float value, int64_t integer)
{
    PXR_GPU_WALK(walk, index)
    {
        int64_t at[1];
        walk_offsets(walk, index, at);
        const pxr_gpu_operand &out = walk.operand[0];
        if (is_float_type(out.type))
            store_float(out.data, out.type, at[0], value);
        else
            store_integer(out.data, out.type, at[0], integer);
    }
}

pxr_status pxr_gpu_fill(pxr_device *device, const pxr_fill_args *args, pxr_error *error)
{
    pxr_gpu_walk walk;
    pxr_gpu_walk_plan(&walk, 1, &args->out);
    if (walk.count == 0) return PXR_OK;
    return pxr_gpu_launched(device, "fill",
                            GPU_LAUNCH(fill_elements, pxr_gpu_walk_blocks(&walk), PXR_GPU_WALK_THREADS, 0,
                                       pxr_gpu_of(device)->stream, walk, (float)args->value, args->integer),
                            error);
}

struct progression {
    double start, step;
    uint64_t integer_start, integer_step;
};

__global__ void __launch_bounds__(PXR_GPU_WALK_THREADS) sequence_elements(pxr_gpu_walk walk, progression p)
{
    PXR_GPU_WALK(walk, index)
    {
        int64_t at[1];
        walk_offsets(walk, index, at);
        const pxr_gpu_operand &out = walk.operand[0];
        if (is_float_type(out.type))
            store_float(out.data, out.type, at[0], (float)(p.start + (double)index * p.step));
        else
            store_integer(out.data, out.type, at[0], (int64_t)(p.integer_start + (uint64_t)index * p.integer_step));
    }
}

pxr_status pxr_gpu_sequence(pxr_device *device, const pxr_sequence_args *args, pxr_error *error)
{
    pxr_gpu_walk walk;
    progression p = {args->start, args->step, 0, 0};
    if (!pxr_dtype_is_float(args->out->dtype)) {
        p.integer_start = (uint64_t)(int64_t)args->start;
        p.integer_step = (uint64_t)(int64_t)args->step;
    }
    pxr_gpu_walk_plan(&walk, 1, &args->out);
    if (walk.count == 0) return PXR_OK;
    return pxr_gpu_launched(device, "sequence",
                            GPU_LAUNCH(sequence_elements, pxr_gpu_walk_blocks(&walk), PXR_GPU_WALK_THREADS, 0,
                                       pxr_gpu_of(device)->stream, walk, p),
                            error);
}

/* ---- unary ----------------------------------------------------------------------------------------------------- */

/* clang-format off */
GPU_DEV float unary_float(pxr_unary_kind kind, float x)
{
    switch (kind) {
    case PXR_UNARY_NEG: return -x;
    case PXR_UNARY_ABS: return fabsf(x);
    case PXR_UNARY_EXP: return expf(x);
    case PXR_UNARY_LOG: return logf(x);
    case PXR_UNARY_SQRT: return sqrtf(x);
    case PXR_UNARY_RSQRT: return 1.0f / sqrtf(x);
    case PXR_UNARY_SQUARE: return x * x;
    case PXR_UNARY_FLOOR: return floorf(x);
    case PXR_UNARY_CEIL: return ceilf(x);
    case PXR_UNARY_ROUND: return rintf(x);
    case PXR_UNARY_SIGN: return (float)((x > 0.0f) - (x < 0.0f));
    case PXR_UNARY_SIN: return sinf(x);
    case PXR_UNARY_COS: return cosf(x);
    case PXR_UNARY_TANH: return tanhf(x);
    case PXR_UNARY_ERF: return erff(x);
    case PXR_UNARY_SIGMOID: return sigmoid(x);
    case PXR_UNARY_SILU: return x / (1.0f + expf(-x));
    case PXR_UNARY_RELU: return x < 0.0f ? 0.0f : x;
    case PXR_UNARY_GELU: return gelu_erf(x);
    default: return gelu_tanh(x);
    }
}

/* Unsigned, so that the most negative integer wraps. */
GPU_DEV int64_t unary_integer(pxr_unary_kind kind, int64_t x)
{
    switch (kind) {
    case PXR_UNARY_NEG: return (int64_t)(0 - (uint64_t)x);
    case PXR_UNARY_ABS: return x < 0 ? (int64_t)(0 - (uint64_t)x) : x;
    case PXR_UNARY_SQUARE: return (int64_t)((uint64_t)x * (uint64_t)x);
    default: return (x > 0) - (x < 0);
    }
}
/* clang-format on */

__global__ void __launch_bounds__(PXR_GPU_WALK_THREADS) unary_elements(pxr_gpu_walk walk, pxr_unary_kind kind)
{
    PXR_GPU_WALK(walk, index)
    {
        int64_t at[2];
        walk_offsets(walk, index, at);
        const pxr_gpu_operand &out = walk.operand[0], &x = walk.operand[1];
        if (is_float_type(x.type)) {
            const float value = load_float(x.data, x.type, at[1]);
            if (kind == PXR_UNARY_NOT)
                reinterpret_cast<uint8_t *>(out.data)[at[0]] = value == 0.0f;
            else
                store_float(out.data, out.type, at[0], unary_float(kind, value));
        } else {
            const int64_t value = load_integer(x.data, x.type, at[1]);
            if (kind == PXR_UNARY_NOT)
                reinterpret_cast<uint8_t *>(out.data)[at[0]] = value == 0;
            else
                store_integer(out.data, out.type, at[0], unary_integer(kind, value));
        }
    }
}

pxr_status pxr_gpu_unary(pxr_device *device, const pxr_unary_args *args, pxr_error *error)
{
    pxr_gpu_walk walk;
    const pxr_tensor *const operands[] = {args->out, args->x};
    pxr_gpu_walk_plan(&walk, 2, operands);
    if (walk.count == 0) return PXR_OK;
    return pxr_gpu_launched(device, "unary",
                            GPU_LAUNCH(unary_elements, pxr_gpu_walk_blocks(&walk), PXR_GPU_WALK_THREADS, 0,
                                       pxr_gpu_of(device)->stream, walk, args->kind),
                            error);
}

/* ---- binary ---------------------------------------------------------------------------------------------------- */

/* The sign of the divisor, as torch.remainder. */
GPU_DEV float modulo(float a, float b)
{
    const float rest = fmodf(a, b);
    return rest != 0.0f && (rest < 0.0f) != (b < 0.0f) ? rest + b : rest;
}

/* clang-format off */
/* A NaN on either side wins in MAX and MIN. */
GPU_DEV float binary_float(pxr_binary_kind kind, float a, float b)
{
    switch (kind) {
    case PXR_BINARY_ADD: return a + b;
    case PXR_BINARY_SUB: return a - b;
    case PXR_BINARY_MUL: return a * b;
    case PXR_BINARY_DIV: return a / b;
    case PXR_BINARY_POW: return powf(a, b);
    case PXR_BINARY_MOD: return modulo(a, b);
    case PXR_BINARY_MAX: return a != a || a > b ? a : b;
    default: return a != a || a < b ? a : b;
    }
}
/* clang-format on */

/* Rounded towards minus infinity; the divisor is not 0. */
GPU_DEV int64_t quotient(int64_t a, int64_t b)
{
    if (b == -1) return (int64_t)(0 - (uint64_t)a);
    const int64_t truncated = a / b;
    return truncated - (a % b != 0 && (a < 0) != (b < 0));
}

GPU_DEV int64_t remainder_of(int64_t a, int64_t b)
{
    if (b == -1) return 0;
    const int64_t rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

/* By squaring, wrapping; a negative exponent gives the truncated inverse. */
GPU_DEV int64_t power(int64_t base, int64_t exponent)
{
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 != 0 ? -1 : 1) : 0;
    uint64_t result = 1, square = (uint64_t)base;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result *= square;
        square *= square;
    }
    return (int64_t)result;
}

/* clang-format off */
GPU_DEV int64_t binary_integer(pxr_binary_kind kind, int64_t a, int64_t b)
{
    switch (kind) {
    case PXR_BINARY_ADD: return (int64_t)((uint64_t)a + (uint64_t)b);
    case PXR_BINARY_SUB: return (int64_t)((uint64_t)a - (uint64_t)b);
    case PXR_BINARY_MUL: return (int64_t)((uint64_t)a * (uint64_t)b);
    case PXR_BINARY_DIV: return b == 0 ? 0 : quotient(a, b);
    case PXR_BINARY_POW: return power(a, b);
    case PXR_BINARY_MOD: return b == 0 ? 0 : remainder_of(a, b);
    case PXR_BINARY_MAX: return a > b ? a : b;
    default: return a < b ? a : b;
    }
}

template <class Number> GPU_DEV bool compare(pxr_binary_kind kind, Number a, Number b)
{
    switch (kind) {
    case PXR_BINARY_LT: return a < b;
    case PXR_BINARY_LE: return a <= b;
    case PXR_BINARY_GT: return a > b;
    case PXR_BINARY_GE: return a >= b;
    case PXR_BINARY_EQ: return a == b;
    case PXR_BINARY_NE: return a != b;
    case PXR_BINARY_AND: return a != 0 && b != 0;
    case PXR_BINARY_OR: return a != 0 || b != 0;
    default: return (a != 0) != (b != 0);
    }
}
/* clang-format on */

/* `zero_divisor` becomes 1 where an integer is divided by zero (several threads may say so; NULL: no such kind). */
__global__ void __launch_bounds__(PXR_GPU_WALK_THREADS)
    binary_elements(pxr_gpu_walk walk, pxr_binary_kind kind, int *zero_divisor)
{
    PXR_GPU_WALK(walk, index)
    {
        int64_t at[3];
        walk_offsets(walk, index, at);
        const pxr_gpu_operand &out = walk.operand[0], &a = walk.operand[1], &b = walk.operand[2];
        if (is_float_type(a.type)) {
            const float left = load_float(a.data, a.type, at[1]), right = load_float(b.data, b.type, at[2]);
            if (kind >= PXR_BINARY_LT)
                reinterpret_cast<uint8_t *>(out.data)[at[0]] = compare(kind, left, right);
            else
                store_float(out.data, out.type, at[0], binary_float(kind, left, right));
        } else {
            const int64_t left = load_integer(a.data, a.type, at[1]), right = load_integer(b.data, b.type, at[2]);
            if (zero_divisor && right == 0) atomicOr(zero_divisor, 1);
            if (kind >= PXR_BINARY_LT)
                reinterpret_cast<uint8_t *>(out.data)[at[0]] = compare(kind, left, right);
            else
                store_integer(out.data, out.type, at[0], binary_integer(kind, left, right));
        }
    }
}

pxr_status pxr_gpu_binary(pxr_device *device, const pxr_binary_args *args, pxr_error *error)
{
    pxr_gpu_walk walk;
    const pxr_tensor *const operands[] = {args->out, args->a, args->b};
    const bool divides = !pxr_dtype_is_float(args->a->dtype) &&
                         (args->kind == PXR_BINARY_DIV || args->kind == PXR_BINARY_MOD);
    const cudaStream_t stream = pxr_gpu_of(device)->stream;
    pxr_gpu_walk_plan(&walk, 3, operands);
    if (walk.count == 0) return PXR_OK;
    void *flag = NULL;
    pxr_status status = divides ? pxr_gpu_scratch(device, sizeof(int), &flag, error) : PXR_OK;
    if (status == PXR_OK && divides)
        status = pxr_gpu_check(device, "binary", cudaMemsetAsync(flag, 0, sizeof(int), stream), error);
    if (status == PXR_OK)
        status = pxr_gpu_launched(device, "binary",
                                  GPU_LAUNCH(binary_elements, pxr_gpu_walk_blocks(&walk), PXR_GPU_WALK_THREADS, 0,
                                             stream, walk, args->kind, static_cast<int *>(flag)),
                                  error);
    int zero_divisor = 0;
    if (status == PXR_OK && divides) status = pxr_gpu_download(device, &zero_divisor, flag, sizeof(int), error);
    if (status == PXR_OK && zero_divisor)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "binary: an integer is divided by zero");
    return status;
}

/* ---- where ----------------------------------------------------------------------------------------------------- */

__global__ void __launch_bounds__(PXR_GPU_WALK_THREADS) where_elements(pxr_gpu_walk walk)
{
    PXR_GPU_WALK(walk, index)
    {
        int64_t at[4];
        walk_offsets(walk, index, at);
        const int choice = reinterpret_cast<const uint8_t *>(walk.operand[1].data)[at[1]] ? 2 : 3;
        move_element(walk.operand[0].data, at[0], walk.operand[choice].data, choice == 2 ? at[2] : at[3],
                     walk.operand[0].type);
    }
}

pxr_status pxr_gpu_where(pxr_device *device, const pxr_where_args *args, pxr_error *error)
{
    pxr_gpu_walk walk;
    const pxr_tensor *const operands[] = {args->out, args->condition, args->a, args->b};
    pxr_gpu_walk_plan(&walk, 4, operands);
    if (walk.count == 0) return PXR_OK;
    return pxr_gpu_launched(device, "where",
                            GPU_LAUNCH(where_elements, pxr_gpu_walk_blocks(&walk), PXR_GPU_WALK_THREADS, 0,
                                       pxr_gpu_of(device)->stream, walk),
                            error);
}
