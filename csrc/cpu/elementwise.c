/* Arithmetic element by element: unary and binary. Float types are computed in float32, integers in int64 (whose low
 * bits are what a narrower type's wrapping arithmetic gives). Semantics: ops/ops.h. */
#include "cpu/cpu.h"
#include "cpu/elements.h"
#include "cpu/walk.h"

#include <math.h>
#include <stdatomic.h>

/* ---- unary ------------------------------------------------------------------------------------------------------ */

static float sign(float x)
{
    return (float)((x > 0.0f) - (x < 0.0f));
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static float gelu_erf(float x)
{
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
}

static float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}

/* clang-format off */
static void unary_floats(pxr_unary_kind kind, int64_t n, const float *x, float *y)
{
    switch (kind) {
    case PXR_UNARY_NEG: for (int64_t i = 0; i < n; i++) y[i] = -x[i]; break;
    case PXR_UNARY_ABS: for (int64_t i = 0; i < n; i++) y[i] = fabsf(x[i]); break;
    case PXR_UNARY_EXP: for (int64_t i = 0; i < n; i++) y[i] = expf(x[i]); break;
    case PXR_UNARY_LOG: for (int64_t i = 0; i < n; i++) y[i] = logf(x[i]); break;
    case PXR_UNARY_SQRT: for (int64_t i = 0; i < n; i++) y[i] = sqrtf(x[i]); break;
    case PXR_UNARY_RSQRT: for (int64_t i = 0; i < n; i++) y[i] = 1.0f / sqrtf(x[i]); break;
    case PXR_UNARY_SQUARE: for (int64_t i = 0; i < n; i++) y[i] = x[i] * x[i]; break;
    case PXR_UNARY_FLOOR: for (int64_t i = 0; i < n; i++) y[i] = floorf(x[i]); break;
    case PXR_UNARY_CEIL: for (int64_t i = 0; i < n; i++) y[i] = ceilf(x[i]); break;
    case PXR_UNARY_ROUND: for (int64_t i = 0; i < n; i++) y[i] = rintf(x[i]); break;
    case PXR_UNARY_SIGN: for (int64_t i = 0; i < n; i++) y[i] = sign(x[i]); break;
    case PXR_UNARY_SIN: for (int64_t i = 0; i < n; i++) y[i] = sinf(x[i]); break;
    case PXR_UNARY_COS: for (int64_t i = 0; i < n; i++) y[i] = cosf(x[i]); break;
    case PXR_UNARY_TANH: for (int64_t i = 0; i < n; i++) y[i] = tanhf(x[i]); break;
    case PXR_UNARY_ERF: for (int64_t i = 0; i < n; i++) y[i] = erff(x[i]); break;
    case PXR_UNARY_SIGMOID: for (int64_t i = 0; i < n; i++) y[i] = sigmoid(x[i]); break;
    case PXR_UNARY_SILU: for (int64_t i = 0; i < n; i++) y[i] = x[i] / (1.0f + expf(-x[i])); break;
    case PXR_UNARY_RELU: for (int64_t i = 0; i < n; i++) y[i] = x[i] < 0.0f ? 0.0f : x[i]; break;
    case PXR_UNARY_GELU: for (int64_t i = 0; i < n; i++) y[i] = gelu_erf(x[i]); break;
    case PXR_UNARY_GELU_TANH: for (int64_t i = 0; i < n; i++) y[i] = gelu_tanh(x[i]); break;
    default: break;
    }
}
/* clang-format on */

/* Unsigned, so that the most negative integer wraps instead of being undefined. */
static int64_t negated(int64_t x)
{
    return (int64_t)(0 - (uint64_t)x);
}

static int64_t product(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

/* clang-format off */
static void unary_integers(pxr_unary_kind kind, int64_t n, const int64_t *x, int64_t *y)
{
    switch (kind) {
    case PXR_UNARY_NEG: for (int64_t i = 0; i < n; i++) y[i] = negated(x[i]); break;
    case PXR_UNARY_ABS: for (int64_t i = 0; i < n; i++) y[i] = x[i] < 0 ? negated(x[i]) : x[i]; break;
    case PXR_UNARY_SQUARE: for (int64_t i = 0; i < n; i++) y[i] = product(x[i], x[i]); break;
    case PXR_UNARY_SIGN: for (int64_t i = 0; i < n; i++) y[i] = (x[i] > 0) - (x[i] < 0); break;
    default: break;
    }
}
/* clang-format on */

struct unary {
    pxr_unary_kind kind;
    pxr_dtype out, x;
};

static void not_block(const struct unary *op, int64_t n, char *to, int64_t to_stride, const char *from, int64_t stride)
{
    if (pxr_dtype_is_float(op->x)) {
        float block[PXR_BLOCK];
        const float *x = pxr_load_floats(op->x, from, stride, n, block);
        for (int64_t i = 0; i < n; i++) to[i * to_stride] = x[i] == 0.0f;
    } else {
        int64_t block[PXR_BLOCK];
        const int64_t *x = pxr_load_integers(op->x, from, stride, n, block);
        for (int64_t i = 0; i < n; i++) to[i * to_stride] = x[i] == 0;
    }
}

static void unary_row(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    const struct unary *op = context;
    for (int64_t at = 0, n; at < count; at += n) {
        n = count - at < PXR_BLOCK ? count - at : PXR_BLOCK;
        char *to = data[0] + at * stride[0];
        const char *from = data[1] + at * stride[1];
        if (op->kind == PXR_UNARY_NOT) {
            not_block(op, n, to, stride[0], from, stride[1]);
        } else if (pxr_dtype_is_float(op->x)) {
            float in[PXR_BLOCK], out[PXR_BLOCK];
            const float *x = pxr_load_floats(op->x, from, stride[1], n, in);
            float *y = pxr_floats_target(op->out, to, stride[0], n, out);
            unary_floats(op->kind, n, x, y);
            pxr_store_floats(op->out, to, stride[0], n, y);
        } else {
            int64_t in[PXR_BLOCK], out[PXR_BLOCK];
            const int64_t *x = pxr_load_integers(op->x, from, stride[1], n, in);
            int64_t *y = pxr_integers_target(op->out, to, stride[0], n, out);
            unary_integers(op->kind, n, x, y);
            pxr_store_integers(op->out, to, stride[0], n, y);
        }
    }
}

pxr_status pxr_cpu_unary(pxr_device *device, const pxr_unary_args *args, pxr_error *error)
{
    (void)device;
    (void)error;
    pxr_walk walk;
    struct unary op = {args->kind, args->out->dtype, args->x->dtype};
    pxr_walk_plan(&walk, 2, (const pxr_tensor *const[]){args->out, args->x});
    pxr_walk_run(&walk, 4, unary_row, &op);
    return PXR_OK;
}

/* ---- binary: arithmetic ----------------------------------------------------------------------------------------- */

/* The sign of the divisor, as torch.remainder. */
static float modulo(float a, float b)
{
    const float rest = fmodf(a, b);
    return rest != 0.0f && (rest < 0.0f) != (b < 0.0f) ? rest + b : rest;
}

/* A NaN on either side wins. */
static float larger(float a, float b)
{
    return isnan(a) || a > b ? a : b;
}

static float smaller(float a, float b)
{
    return isnan(a) || a < b ? a : b;
}

/* clang-format off */
static void binary_floats(pxr_binary_kind kind, int64_t n, const float *a, const float *b, float *y)
{
    switch (kind) {
    case PXR_BINARY_ADD: for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i]; break;
    case PXR_BINARY_SUB: for (int64_t i = 0; i < n; i++) y[i] = a[i] - b[i]; break;
    case PXR_BINARY_MUL: for (int64_t i = 0; i < n; i++) y[i] = a[i] * b[i]; break;
    case PXR_BINARY_DIV: for (int64_t i = 0; i < n; i++) y[i] = a[i] / b[i]; break;
    case PXR_BINARY_POW: for (int64_t i = 0; i < n; i++) y[i] = powf(a[i], b[i]); break;
    case PXR_BINARY_MOD: for (int64_t i = 0; i < n; i++) y[i] = modulo(a[i], b[i]); break;
    case PXR_BINARY_MAX: for (int64_t i = 0; i < n; i++) y[i] = larger(a[i], b[i]); break;
    case PXR_BINARY_MIN: for (int64_t i = 0; i < n; i++) y[i] = smaller(a[i], b[i]); break;
    default: break;
    }
}
/* clang-format on */

/* Rounded towards minus infinity; the divisor is not 0. */
static int64_t quotient(int64_t a, int64_t b)
{
    if (b == -1) return negated(a);
    const int64_t truncated = a / b;
    return truncated - (a % b != 0 && (a < 0) != (b < 0));
}

static int64_t remainder_of(int64_t a, int64_t b)
{
    if (b == -1) return 0;
    const int64_t rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

/* By squaring, wrapping; a negative exponent gives the truncated inverse: 0, or 1 or -1 for a base of 1 or -1. */
static int64_t power(int64_t base, int64_t exponent)
{
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 != 0 ? -1 : 1) : 0;
    int64_t result = 1;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result = product(result, base);
        base = product(base, base);
    }
    return result;
}

/* clang-format off */
static void binary_integers(pxr_binary_kind kind, int64_t n, const int64_t *a, const int64_t *b, int64_t *y)
{
    switch (kind) {
    case PXR_BINARY_ADD: for (int64_t i = 0; i < n; i++) y[i] = (int64_t)((uint64_t)a[i] + (uint64_t)b[i]); break;
    case PXR_BINARY_SUB: for (int64_t i = 0; i < n; i++) y[i] = (int64_t)((uint64_t)a[i] - (uint64_t)b[i]); break;
    case PXR_BINARY_MUL: for (int64_t i = 0; i < n; i++) y[i] = product(a[i], b[i]); break;
    case PXR_BINARY_DIV: for (int64_t i = 0; i < n; i++) y[i] = b[i] == 0 ? 0 : quotient(a[i], b[i]); break;
    case PXR_BINARY_POW: for (int64_t i = 0; i < n; i++) y[i] = power(a[i], b[i]); break;
    case PXR_BINARY_MOD: for (int64_t i = 0; i < n; i++) y[i] = b[i] == 0 ? 0 : remainder_of(a[i], b[i]); break;
    case PXR_BINARY_MAX: for (int64_t i = 0; i < n; i++) y[i] = a[i] > b[i] ? a[i] : b[i]; break;
    case PXR_BINARY_MIN: for (int64_t i = 0; i < n; i++) y[i] = a[i] < b[i] ? a[i] : b[i]; break;
    default: break;
    }
}
/* clang-format on */

/* ---- binary: comparisons and truth values ----------------------------------------------------------------------- */

/* clang-format off */
static void compare_floats(pxr_binary_kind kind, int64_t n, const float *a, const float *b, uint8_t *y)
{
    switch (kind) {
    case PXR_BINARY_LT: for (int64_t i = 0; i < n; i++) y[i] = a[i] < b[i]; break;
    case PXR_BINARY_LE: for (int64_t i = 0; i < n; i++) y[i] = a[i] <= b[i]; break;
    case PXR_BINARY_GT: for (int64_t i = 0; i < n; i++) y[i] = a[i] > b[i]; break;
    case PXR_BINARY_GE: for (int64_t i = 0; i < n; i++) y[i] = a[i] >= b[i]; break;
    case PXR_BINARY_EQ: for (int64_t i = 0; i < n; i++) y[i] = a[i] == b[i]; break;
    case PXR_BINARY_NE: for (int64_t i = 0; i < n; i++) y[i] = a[i] != b[i]; break;
    case PXR_BINARY_AND: for (int64_t i = 0; i < n; i++) y[i] = (a[i] != 0) & (b[i] != 0); break;
    case PXR_BINARY_OR: for (int64_t i = 0; i < n; i++) y[i] = (a[i] != 0) | (b[i] != 0); break;
    case PXR_BINARY_XOR: for (int64_t i = 0; i < n; i++) y[i] = (a[i] != 0) ^ (b[i] != 0); break;
    default: break;
    }
}
/* clang-format on */

/* clang-format off */
static void compare_integers(pxr_binary_kind kind, int64_t n, const int64_t *a, const int64_t *b, uint8_t *y)
{
    switch (kind) {
    case PXR_BINARY_LT: for (int64_t i = 0; i < n; i++) y[i] = a[i] < b[i]; break;
    case PXR_BINARY_LE: for (int64_t i = 0; i < n; i++) y[i] = a[i] <= b[i]; break;
    case PXR_BINARY_GT: for (int64_t i = 0; i < n; i++) y[i] = a[i] > b[i]; break;
    case PXR_BINARY_GE: for (int64_t i = 0; i < n; i++) y[i] = a[i] >= b[i]; break;
    case PXR_BINARY_EQ: for (int64_t i = 0; i < n; i++) y[i] = a[i] == b[i]; break;
    case PXR_BINARY_NE: for (int64_t i = 0; i < n; i++) y[i] = a[i] != b[i]; break;
    case PXR_BINARY_AND: for (int64_t i = 0; i < n; i++) y[i] = (a[i] != 0) & (b[i] != 0); break;
    case PXR_BINARY_OR: for (int64_t i = 0; i < n; i++) y[i] = (a[i] != 0) | (b[i] != 0); break;
    case PXR_BINARY_XOR: for (int64_t i = 0; i < n; i++) y[i] = (a[i] != 0) ^ (b[i] != 0); break;
    default: break;
    }
}
/* clang-format on */

/* ---- binary: the op --------------------------------------------------------------------------------------------- */

struct binary {
    pxr_binary_kind kind;
    pxr_dtype out, in;
    atomic_bool zero_divisor; /* an integer was divided by zero */
};

static void float_block(struct binary *op, int64_t n, char *const *data, const int64_t *stride)
{
    float a_block[PXR_BLOCK], b_block[PXR_BLOCK], y_block[PXR_BLOCK];
    const float *a = pxr_load_floats(op->in, data[1], stride[1], n, a_block);
    const float *b = pxr_load_floats(op->in, data[2], stride[2], n, b_block);
    if (op->kind >= PXR_BINARY_LT) {
        uint8_t truth[PXR_BLOCK];
        compare_floats(op->kind, n, a, b, truth);
        pxr_move_elements(1, data[0], stride[0], (const char *)truth, 1, n);
    } else {
        float *y = pxr_floats_target(op->out, data[0], stride[0], n, y_block);
        binary_floats(op->kind, n, a, b, y);
        pxr_store_floats(op->out, data[0], stride[0], n, y);
    }
}

static void integer_block(struct binary *op, int64_t n, char *const *data, const int64_t *stride)
{
    int64_t a_block[PXR_BLOCK], b_block[PXR_BLOCK], y_block[PXR_BLOCK];
    const int64_t *a = pxr_load_integers(op->in, data[1], stride[1], n, a_block);
    const int64_t *b = pxr_load_integers(op->in, data[2], stride[2], n, b_block);
    if (op->kind >= PXR_BINARY_LT) {
        uint8_t truth[PXR_BLOCK];
        compare_integers(op->kind, n, a, b, truth);
        pxr_move_elements(1, data[0], stride[0], (const char *)truth, 1, n);
        return;
    }
    if (op->kind == PXR_BINARY_DIV || op->kind == PXR_BINARY_MOD)
        for (int64_t i = 0; i < n; i++)
            if (b[i] == 0) atomic_store_explicit(&op->zero_divisor, true, memory_order_relaxed);
    int64_t *y = pxr_integers_target(op->out, data[0], stride[0], n, y_block);
    binary_integers(op->kind, n, a, b, y);
    pxr_store_integers(op->out, data[0], stride[0], n, y);
}

static void binary_row(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    struct binary *op = context;
    for (int64_t at = 0, n; at < count; at += n) {
        n = count - at < PXR_BLOCK ? count - at : PXR_BLOCK;
        char *const block[3] = {data[0] + at * stride[0], data[1] + at * stride[1], data[2] + at * stride[2]};
        if (pxr_dtype_is_float(op->in))
            float_block(op, n, block, stride);
        else
            integer_block(op, n, block, stride);
    }
}

pxr_status pxr_cpu_binary(pxr_device *device, const pxr_binary_args *args, pxr_error *error)
{
    (void)device;
    pxr_walk walk;
    struct binary op = {.kind = args->kind, .out = args->out->dtype, .in = args->a->dtype};
    pxr_walk_plan(&walk, 3, (const pxr_tensor *const[]){args->out, args->a, args->b});
    pxr_walk_run(&walk, 1, binary_row, &op);
    if (atomic_load(&op.zero_divisor))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "binary: an integer is divided by zero");
    return PXR_OK;
}
