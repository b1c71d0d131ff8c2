/* Checks of the tensor primitives' arguments; semantics in ops.h. Every message begins with the op's name, names the
 * argument, and says what was expected and what was found. */
#include "ops/check.h"

#include <stdio.h>

/* What a check carries along: the op's name, the device (that of the first tensor seen), the caller's error. Each
 * helper returns false with the error filled. */
typedef struct check {
    const char *op;
    pxr_device **device;
    pxr_error *error;
} check;

#define FAIL(...) (pxr_fail(c->error, PXR_ERROR_ARGUMENT, __VA_ARGS__), false)

enum { DESCRIPTION = PXR_SHAPE_TEXT + 16 };

/* "[2x3] float32". */
static const char *describe(const pxr_tensor *tensor, char *text)
{
    char shape[PXR_SHAPE_TEXT];
    snprintf(text, DESCRIPTION, "%s %s", pxr_tensor_shape_text(tensor, shape), pxr_dtype_name(tensor->dtype));
    return text;
}

/* ---- single tensors --------------------------------------------------------------------------------------------- */

static bool input(const check *c, const char *name, const pxr_tensor *tensor)
{
    if (!tensor || !tensor->storage) return FAIL("%s: %s is missing", c->op, name);
    pxr_device *device = pxr_tensor_device(tensor);
    if (!*c->device) *c->device = device;
    if (*c->device != device)
        return FAIL("%s: %s is on %s, expected %s", c->op, name, device->name, (*c->device)->name);
    return true;
}

/* An output's elements have a place of their own each. */
static bool output(const check *c, const char *name, const pxr_tensor *tensor)
{
    if (!input(c, name, tensor)) return false;
    for (int dim = 0; dim < tensor->rank; dim++) {
        if (tensor->size[dim] > 1 && tensor->stride[dim] == 0)
            return FAIL("%s: %s is an expanded view and cannot be written to", c->op, name);
    }
    return true;
}

static bool type_is(const check *c, const char *name, const pxr_tensor *tensor, pxr_dtype dtype)
{
    if (tensor->dtype == dtype) return true;
    return FAIL("%s: %s is %s, expected %s", c->op, name, pxr_dtype_name(tensor->dtype), pxr_dtype_name(dtype));
}

static bool type_is_float(const check *c, const char *name, const pxr_tensor *tensor)
{
    if (pxr_dtype_is_float(tensor->dtype)) return true;
    return FAIL("%s: %s is %s, expected a float type", c->op, name, pxr_dtype_name(tensor->dtype));
}

static bool rank_is(const check *c, const char *name, const pxr_tensor *tensor, int rank, const char *meaning)
{
    char shape[PXR_SHAPE_TEXT];
    if (tensor->rank == rank) return true;
    return FAIL("%s: %s is %s, expected %s", c->op, name, pxr_tensor_shape_text(tensor, shape), meaning);
}

static bool dim_is_in(const check *c, const pxr_tensor *tensor, int dim)
{
    char shape[PXR_SHAPE_TEXT];
    if (dim >= 0 && dim < tensor->rank) return true;
    return FAIL("%s: x is %s and has no dim %d", c->op, pxr_tensor_shape_text(tensor, shape), dim + 1);
}

/* ---- pairs of tensors ------------------------------------------------------------------------------------------- */

static bool shape_is(const check *c, const char *name, const pxr_tensor *tensor, const pxr_tensor *expected)
{
    char found[PXR_SHAPE_TEXT], wanted[PXR_SHAPE_TEXT];
    if (pxr_tensor_same_shape(tensor, expected)) return true;
    return FAIL("%s: %s is %s, expected %s", c->op, name, pxr_tensor_shape_text(tensor, found),
                pxr_tensor_shape_text(expected, wanted));
}

/* As `expected`, but with `size` at `dim`; -1: any size there. */
static bool shape_is_with(const check *c, const char *name, const pxr_tensor *tensor, const pxr_tensor *expected,
                          int dim, int64_t size)
{
    pxr_tensor wanted = *expected;
    wanted.size[dim] = size == -1 && tensor->rank == expected->rank ? tensor->size[dim] : size;
    return shape_is(c, name, tensor, &wanted);
}

static bool broadcasts(const check *c, const char *name, const pxr_tensor *tensor, const pxr_tensor *out)
{
    bool fits = tensor->rank <= out->rank;
    for (int dim = 0; fits && dim < tensor->rank; dim++) {
        const int64_t size = tensor->size[dim];
        fits = size == 1 || size == out->size[dim + out->rank - tensor->rank];
    }
    char found[PXR_SHAPE_TEXT], wanted[PXR_SHAPE_TEXT];
    if (fits) return true;
    return FAIL("%s: %s is %s, which does not broadcast to %s", c->op, name, pxr_tensor_shape_text(tensor, found),
                pxr_tensor_shape_text(out, wanted));
}

/* Refuses memory shared between an output and an input. Only dense tensors are looked at: strided views of one storage
 * may interleave without meeting. `same` allows the input to be the output itself. */
static bool apart(const check *c, const char *name, const pxr_tensor *tensor, const pxr_tensor *out, bool same)
{
    if (tensor->storage != out->storage) return true;
    if (!pxr_tensor_is_contiguous(tensor) || !pxr_tensor_is_contiguous(out)) return true;
    const size_t bytes = (size_t)pxr_tensor_count(tensor) * pxr_dtype_size(tensor->dtype);
    const size_t out_bytes = (size_t)pxr_tensor_count(out) * pxr_dtype_size(out->dtype);
    const char *begin = tensor->data, *out_begin = out->data;
    if (same && begin == out_begin && tensor->dtype == out->dtype && bytes == out_bytes) return true;
    if (bytes == 0 || out_bytes == 0 || begin + bytes <= out_begin || out_begin + out_bytes <= begin) return true;
    return FAIL("%s: %s and out share memory", c->op, name);
}

#define CHECK(name)                                                                                                    \
    const check checks = {#name, device, error}, *const c = &checks;                                                   \
    *device = NULL
#define RESULT(condition) ((condition) ? PXR_OK : PXR_ERROR_ARGUMENT)

/* ---- elements --------------------------------------------------------------------------------------------------- */

/* The one op between two devices: dense copies of one type, of which one end is the host. */
static bool transfer(const check *c, const pxr_copy_args *args)
{
    pxr_device *from = pxr_tensor_device(args->x), *to = pxr_tensor_device(args->out);
    if (!from->is_host && !to->is_host) return FAIL("copy: from %s to %s is not possible", from->name, to->name);
    if (!pxr_tensor_is_contiguous(args->x) || !pxr_tensor_is_contiguous(args->out))
        return FAIL("copy: tensors on different devices must be contiguous");
    return type_is(c, "x", args->x, args->out->dtype) && shape_is(c, "x", args->x, args->out);
}

pxr_status pxr_check_copy(const pxr_copy_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(copy);
    if (!output(c, "out", args->out)) return PXR_ERROR_ARGUMENT;
    if (args->x && args->x->storage && pxr_tensor_device(args->x) != *device) return RESULT(transfer(c, args));
    return RESULT(input(c, "x", args->x) && broadcasts(c, "x", args->x, args->out) &&
                  apart(c, "x", args->x, args->out, true));
}

pxr_status pxr_check_fill(const pxr_fill_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(fill);
    return RESULT(output(c, "out", args->out));
}

/* True when start, step and the last element can be written in int64. */
static bool integers_hold(const check *c, const pxr_sequence_args *args)
{
    const double limit = 9223372036854775808.0; /* 2^63 */
    const double last = args->start + (double)args->out->size[0] * args->step;
    if (args->start > -limit && args->start < limit && args->step > -limit && args->step < limit && last > -limit &&
        last < limit)
        return true;
    return FAIL("sequence: from %g in steps of %g does not fit int64", args->start, args->step);
}

pxr_status pxr_check_sequence(const pxr_sequence_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(sequence);
    return RESULT(output(c, "out", args->out) && rank_is(c, "out", args->out, 1, "one dim") &&
                  (pxr_dtype_is_float(args->out->dtype) || integers_hold(c, args)));
}

static bool unary_types(const check *c, const pxr_unary_args *args)
{
    switch (args->kind) {
    case PXR_UNARY_NOT:
        return type_is(c, "out", args->out, PXR_U8);
    case PXR_UNARY_NEG:
    case PXR_UNARY_ABS:
    case PXR_UNARY_SQUARE:
    case PXR_UNARY_SIGN:
        return type_is(c, "out", args->out, args->x->dtype);
    default:
        return type_is_float(c, "x", args->x) && type_is(c, "out", args->out, args->x->dtype);
    }
}

pxr_status pxr_check_unary(const pxr_unary_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(unary);
    if ((unsigned)args->kind >= PXR_UNARY_COUNT) return RESULT(FAIL("unary: there is no kind %d", (int)args->kind));
    return RESULT(output(c, "out", args->out) && input(c, "x", args->x) && shape_is(c, "x", args->x, args->out) &&
                  unary_types(c, args) && apart(c, "x", args->x, args->out, true));
}

pxr_status pxr_check_binary(const pxr_binary_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(binary);
    if ((unsigned)args->kind >= PXR_BINARY_COUNT) return RESULT(FAIL("binary: there is no kind %d", (int)args->kind));
    return RESULT(output(c, "out", args->out) && input(c, "a", args->a) && input(c, "b", args->b) &&
                  type_is(c, "b", args->b, args->a->dtype) &&
                  type_is(c, "out", args->out, args->kind >= PXR_BINARY_LT ? PXR_U8 : args->a->dtype) &&
                  broadcasts(c, "a", args->a, args->out) && broadcasts(c, "b", args->b, args->out) &&
                  apart(c, "a", args->a, args->out, true) && apart(c, "b", args->b, args->out, true));
}

pxr_status pxr_check_where(const pxr_where_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(where);
    return RESULT(output(c, "out", args->out) && input(c, "condition", args->condition) && input(c, "a", args->a) &&
                  input(c, "b", args->b) && type_is(c, "condition", args->condition, PXR_U8) &&
                  type_is(c, "a", args->a, args->out->dtype) && type_is(c, "b", args->b, args->out->dtype) &&
                  broadcasts(c, "condition", args->condition, args->out) && broadcasts(c, "a", args->a, args->out) &&
                  broadcasts(c, "b", args->b, args->out) && apart(c, "condition", args->condition, args->out, true) &&
                  apart(c, "a", args->a, args->out, true) && apart(c, "b", args->b, args->out, true));
}

/* ---- along a dim ------------------------------------------------------------------------------------------------ */

pxr_dtype pxr_reduced_type(pxr_reduce_kind kind, pxr_dtype x)
{
    switch (kind) {
    case PXR_REDUCE_SUM:
    case PXR_REDUCE_PROD:
        return pxr_dtype_is_float(x) ? x : PXR_I64;
    case PXR_REDUCE_ARGMAX:
    case PXR_REDUCE_ARGMIN:
        return PXR_I64;
    case PXR_REDUCE_ANY:
    case PXR_REDUCE_ALL:
        return PXR_U8;
    default:
        return x;
    }
}

static bool reducible(const check *c, const pxr_reduce_args *args)
{
    const bool extremum = args->kind == PXR_REDUCE_MAX || args->kind == PXR_REDUCE_MIN ||
                          args->kind == PXR_REDUCE_ARGMAX || args->kind == PXR_REDUCE_ARGMIN;
    if (extremum && args->x->size[args->dim] == 0 && pxr_tensor_count(args->out) > 0)
        return FAIL("reduce: dim %d is empty and has no extremum", args->dim + 1);
    return args->kind != PXR_REDUCE_MEAN || type_is_float(c, "x", args->x);
}

pxr_status pxr_check_reduce(const pxr_reduce_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(reduce);
    if ((unsigned)args->kind >= PXR_REDUCE_COUNT) return RESULT(FAIL("reduce: there is no kind %d", (int)args->kind));
    return RESULT(output(c, "out", args->out) && input(c, "x", args->x) && dim_is_in(c, args->x, args->dim) &&
                  shape_is_with(c, "out", args->out, args->x, args->dim, 1) && reducible(c, args) &&
                  type_is(c, "out", args->out, pxr_reduced_type(args->kind, args->x->dtype)) &&
                  apart(c, "x", args->x, args->out, false));
}

pxr_status pxr_check_cumsum(const pxr_cumsum_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(cumsum);
    return RESULT(output(c, "out", args->out) && input(c, "x", args->x) && dim_is_in(c, args->x, args->dim) &&
                  shape_is(c, "x", args->x, args->out) &&
                  type_is(c, "out", args->out, pxr_reduced_type(PXR_REDUCE_SUM, args->x->dtype)) &&
                  apart(c, "x", args->x, args->out, false));
}

pxr_status pxr_check_softmax(const pxr_softmax_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(softmax);
    return RESULT(output(c, "out", args->out) && input(c, "x", args->x) && dim_is_in(c, args->x, args->dim) &&
                  shape_is(c, "x", args->x, args->out) && type_is_float(c, "x", args->x) &&
                  type_is(c, "out", args->out, args->x->dtype) && apart(c, "x", args->x, args->out, true));
}

static bool not_longer(const check *c, const pxr_sort_args *args)
{
    const int64_t wanted = args->out->size[args->dim], there = args->x->size[args->dim];
    if (wanted <= there) return true;
    return FAIL("sort: %lld elements wanted of the %lld in dim %d", (long long)wanted, (long long)there, args->dim + 1);
}

pxr_status pxr_check_sort(const pxr_sort_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(sort);
    return RESULT(output(c, "out", args->out) && output(c, "indices", args->indices) && input(c, "x", args->x) &&
                  dim_is_in(c, args->x, args->dim) && shape_is_with(c, "out", args->out, args->x, args->dim, -1) &&
                  not_longer(c, args) && shape_is(c, "indices", args->indices, args->out) &&
                  type_is(c, "out", args->out, args->x->dtype) && type_is(c, "indices", args->indices, PXR_I64) &&
                  apart(c, "x", args->x, args->out, false) && apart(c, "x", args->x, args->indices, false) &&
                  apart(c, "indices", args->indices, args->out, false));
}

/* ---- indices ---------------------------------------------------------------------------------------------------- */

static bool gather_sizes(const check *c, const pxr_gather_args *args)
{
    bool fits = args->index->rank == args->x->rank;
    for (int dim = 0; fits && dim < args->x->rank; dim++)
        fits = dim == args->dim || args->index->size[dim] <= args->x->size[dim];
    char found[PXR_SHAPE_TEXT], there[PXR_SHAPE_TEXT];
    if (fits) return true;
    return FAIL("gather: index is %s, but x is %s: ranks must agree and only dim %d may be larger",
                pxr_tensor_shape_text(args->index, found), pxr_tensor_shape_text(args->x, there), args->dim + 1);
}

pxr_status pxr_check_gather(const pxr_gather_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(gather);
    return RESULT(output(c, "out", args->out) && input(c, "x", args->x) && input(c, "index", args->index) &&
                  dim_is_in(c, args->x, args->dim) && gather_sizes(c, args) &&
                  shape_is(c, "out", args->out, args->index) && type_is(c, "index", args->index, PXR_I64) &&
                  type_is(c, "out", args->out, args->x->dtype) && apart(c, "x", args->x, args->out, false) &&
                  apart(c, "index", args->index, args->out, false));
}

pxr_status pxr_check_index_select(const pxr_index_select_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(index_select);
    return RESULT(output(c, "out", args->out) && input(c, "x", args->x) && input(c, "index", args->index) &&
                  dim_is_in(c, args->x, args->dim) && rank_is(c, "index", args->index, 1, "one dim") &&
                  type_is(c, "index", args->index, PXR_I64) &&
                  shape_is_with(c, "out", args->out, args->x, args->dim, args->index->size[0]) &&
                  type_is(c, "out", args->out, args->x->dtype) && apart(c, "x", args->x, args->out, false) &&
                  apart(c, "index", args->index, args->out, false));
}

pxr_status pxr_check_index_add(const pxr_index_add_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(index_add);
    return RESULT(output(c, "out", args->out) && input(c, "index", args->index) && input(c, "source", args->source) &&
                  dim_is_in(c, args->out, args->dim) && rank_is(c, "index", args->index, 1, "one dim") &&
                  type_is(c, "index", args->index, PXR_I64) &&
                  shape_is_with(c, "source", args->source, args->out, args->dim, args->index->size[0]) &&
                  type_is(c, "source", args->source, args->out->dtype) &&
                  apart(c, "source", args->source, args->out, false) &&
                  apart(c, "index", args->index, args->out, false));
}

static bool has_dims(const check *c, const pxr_tensor *x)
{
    if (x->rank > 0) return true;
    return FAIL("%s: x is a single element, expected at least one dim", c->op);
}

pxr_status pxr_check_nonzero(const pxr_nonzero_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(nonzero);
    if (!args->count) return RESULT(FAIL("nonzero: count is missing"));
    if (!input(c, "x", args->x) || !has_dims(c, args->x)) return PXR_ERROR_ARGUMENT;
    if (!args->out) return PXR_OK;
    return RESULT(output(c, "out", args->out) && rank_is(c, "out", args->out, 2, "[count,rank]") &&
                  type_is(c, "out", args->out, PXR_I64) &&
                  shape_is_with(c, "out", args->out, args->out, 1, args->x->rank) &&
                  apart(c, "x", args->x, args->out, false));
}

/* ---- products and distances ------------------------------------------------------------------------------------- */

static bool matmul_sizes(const check *c, const pxr_matmul_args *args)
{
    const pxr_tensor *a = args->a, *b = args->b, *out = args->out;
    char a_text[PXR_SHAPE_TEXT], b_text[PXR_SHAPE_TEXT], out_text[PXR_SHAPE_TEXT];
    const int rank = a->rank > b->rank ? a->rank : b->rank;
    bool fits = a->rank >= 2 && b->rank >= 2 && out->rank == rank && a->size[a->rank - 1] == b->size[b->rank - 2] &&
                out->size[rank - 2] == a->size[a->rank - 2] && out->size[rank - 1] == b->size[b->rank - 1];
    for (int dim = 0; fits && dim < rank - 2; dim++) {
        const int a_dim = dim - (rank - a->rank), b_dim = dim - (rank - b->rank);
        const int64_t a_size = a_dim < 0 ? 1 : a->size[a_dim], b_size = b_dim < 0 ? 1 : b->size[b_dim];
        const int64_t size = a_size == 1 ? b_size : a_size;
        fits = (b_size == 1 || b_size == size) && out->size[dim] == size;
    }
    if (fits) return true;
    return FAIL("matmul: a is %s, b is %s and out %s, expected [...,n,K], [...,K,m] and [...,n,m]",
                pxr_tensor_shape_text(a, a_text), pxr_tensor_shape_text(b, b_text),
                pxr_tensor_shape_text(out, out_text));
}

pxr_status pxr_check_matmul(const pxr_matmul_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(matmul);
    return RESULT(output(c, "out", args->out) && input(c, "a", args->a) && input(c, "b", args->b) &&
                  type_is_float(c, "a", args->a) && type_is(c, "b", args->b, args->a->dtype) &&
                  type_is(c, "out", args->out, args->a->dtype) && matmul_sizes(c, args) &&
                  apart(c, "a", args->a, args->out, false) && apart(c, "b", args->b, args->out, false));
}

pxr_status pxr_check_pairwise_distance(const pxr_pairwise_distance_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(pairwise_distance);
    const pxr_tensor *out = args->out, *a = args->a, *b = args->b;
    if (!output(c, "out", out) || !input(c, "a", a) || !input(c, "b", b) || !type_is(c, "out", out, PXR_F32) ||
        !type_is(c, "a", a, PXR_F32) || !type_is(c, "b", b, PXR_F32) || !rank_is(c, "out", out, 2, "[n,m]") ||
        !rank_is(c, "a", a, 2, "[n,D]") || !rank_is(c, "b", b, 2, "[m,D]"))
        return PXR_ERROR_ARGUMENT;
    char a_text[DESCRIPTION], b_text[DESCRIPTION], out_text[DESCRIPTION];
    if (a->size[1] != b->size[1] || out->size[0] != a->size[0] || out->size[1] != b->size[0])
        return RESULT(FAIL("pairwise_distance: a is %s, b is %s and out %s, expected [n,D], [m,D] and [n,m]",
                           describe(a, a_text), describe(b, b_text), describe(out, out_text)));
    return RESULT(apart(c, "a", a, out, false) && apart(c, "b", b, out, false));
}

/* ---- sampling --------------------------------------------------------------------------------------------------- */

pxr_status pxr_check_resize_bilinear(const pxr_resize_bilinear_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(resize_bilinear);
    const pxr_tensor *out = args->out, *x = args->x;
    if (!output(c, "out", out) || !input(c, "x", x) || !type_is(c, "out", out, PXR_F32) ||
        !type_is(c, "x", x, PXR_F32) || !rank_is(c, "out", out, 3, "[H,W,C]") || !rank_is(c, "x", x, 3, "[h,w,C]"))
        return PXR_ERROR_ARGUMENT;
    char x_text[PXR_SHAPE_TEXT], out_text[PXR_SHAPE_TEXT];
    const bool from_nothing = (x->size[0] == 0 || x->size[1] == 0) && pxr_tensor_count(out) > 0;
    if (out->size[2] != x->size[2] || from_nothing)
        return RESULT(FAIL("resize_bilinear: x is %s and out %s, expected [h,w,C] with h, w > 0 and [H,W,C]",
                           pxr_tensor_shape_text(x, x_text), pxr_tensor_shape_text(out, out_text)));
    return RESULT(apart(c, "x", x, out, false));
}

pxr_status pxr_check_grid_sample(const pxr_grid_sample_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(grid_sample);
    const pxr_tensor *out = args->out, *x = args->x, *points = args->points;
    if (!output(c, "out", out) || !input(c, "x", x) || !input(c, "points", points) ||
        !type_is(c, "out", out, PXR_F32) || !type_is(c, "x", x, PXR_F32) || !type_is(c, "points", points, PXR_F32) ||
        !rank_is(c, "out", out, 2, "[n,C]") || !rank_is(c, "x", x, 3, "[h,w,C]") ||
        !rank_is(c, "points", points, 2, "[n,2]"))
        return PXR_ERROR_ARGUMENT;
    char x_text[PXR_SHAPE_TEXT], points_text[PXR_SHAPE_TEXT], out_text[PXR_SHAPE_TEXT];
    const bool from_nothing = (x->size[0] == 0 || x->size[1] == 0) && pxr_tensor_count(out) > 0;
    if (points->size[1] != 2 || out->size[0] != points->size[0] || out->size[1] != x->size[2] || from_nothing)
        return RESULT(FAIL("grid_sample: x is %s, points %s and out %s, expected [h,w,C] with h, w > 0, [n,2] and "
                           "[n,C]",
                           pxr_tensor_shape_text(x, x_text), pxr_tensor_shape_text(points, points_text),
                           pxr_tensor_shape_text(out, out_text)));
    return RESULT(apart(c, "x", x, out, false) && apart(c, "points", points, out, false));
}

pxr_status pxr_check_random_fill(const pxr_random_fill_args *args, pxr_device **device, pxr_error *error)
{
    CHECK(random_fill);
    if ((unsigned)args->kind > PXR_RANDOM_NORMAL)
        return RESULT(FAIL("random_fill: there is no kind %d", (int)args->kind));
    return RESULT(output(c, "out", args->out) && type_is_float(c, "out", args->out));
}
