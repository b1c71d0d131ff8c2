/* Checks of the fused ops' arguments; see check.h. */
#include "ops/check.h"

#include <stdio.h>
#include <string.h>

/* ---- one tensor ------------------------------------------------------------------------------------------------ */

typedef enum layout { ROWS_DENSE, ROWS_WRITTEN /* dense, and each a place of its own */, CONTIGUOUS } layout;

enum {
    FLOAT32 = 1u << PXR_F32,
    FLOAT16 = 1u << PXR_F16,
    INT64 = 1u << PXR_I64,
    FLOATS = 1u << PXR_F32 | 1u << PXR_F16 | 1u << PXR_BF16,
    ACTIVATIONS = 1u << PXR_F32 | 1u << PXR_BF16,
    INTEGERS = 1u << PXR_I8 | 1u << PXR_U8,
};

typedef struct expectation {
    const char *name; /* of the argument */
    const pxr_tensor *tensor;
    unsigned types; /* bits 1 << pxr_dtype */
    layout layout;
    int rank;
    struct {
        const char *name; /* how the size is called where it is free */
        int64_t value;    /* -1: free */
    } size[4];
} expectation;

enum { FREE = -1 };

static const char *types_text(unsigned types)
{
    return types == FLOATS        ? "float32, float16 or bfloat16"
           : types == ACTIVATIONS ? "float32 or bfloat16"
           : types == INT64       ? "int64"
           : types == FLOAT16     ? "float16"
           : types == INTEGERS    ? "int8 or uint8 (four bits)"
                                  : "float32";
}

static void shape_text(const expectation *expected, char *text, size_t capacity)
{
    size_t length = 0;
    for (int i = 0; i < expected->rank && length < capacity; i++) {
        const char *separator = i == 0 ? "[" : "x";
        const int written = expected->size[i].value == FREE
                                ? snprintf(text + length, capacity - length, "%s%s", separator, expected->size[i].name)
                                : snprintf(text + length, capacity - length, "%s%lld", separator,
                                           (long long)expected->size[i].value);
        length += (size_t)written;
    }
    if (length < capacity) snprintf(text + length, capacity - length, "]");
}

static bool layout_fits(const pxr_tensor *tensor, layout wanted)
{
    return wanted == CONTIGUOUS ? pxr_tensor_is_contiguous(tensor) : pxr_tensor_rows_are_dense(tensor);
}

static bool is_expanded(const pxr_tensor *tensor)
{
    for (int dim = 0; dim < tensor->rank; dim++)
        if (tensor->size[dim] > 1 && tensor->stride[dim] == 0) return true;
    return false;
}

/* Checks one tensor; `device` is NULL for the first one of a call and is filled by it. */
static pxr_status check_tensor(const char *op, const expectation *expected, pxr_device **device, pxr_error *error)
{
    const pxr_tensor *tensor = expected->tensor;
    if (!tensor) return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: %s is missing", op, expected->name);
    bool fits = tensor->rank == expected->rank && (expected->types >> tensor->dtype & 1u) != 0;
    for (int i = 0; fits && i < expected->rank; i++)
        fits = expected->size[i].value == FREE || expected->size[i].value == tensor->size[i];
    char found[PXR_SHAPE_TEXT], wanted[PXR_SHAPE_TEXT];
    pxr_tensor_shape_text(tensor, found);
    if (!fits) {
        shape_text(expected, wanted, sizeof wanted);
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: %s is %s %s, expected %s %s", op, expected->name, found,
                        pxr_dtype_name(tensor->dtype), wanted, types_text(expected->types));
    }
    if (!layout_fits(tensor, expected->layout))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: %s %s must %s: make it contiguous first", op, expected->name,
                        found,
                        expected->layout == CONTIGUOUS ? "be contiguous"
                                                       : "have dense rows (stride 1 in the last dim)");
    if (expected->layout == ROWS_WRITTEN && is_expanded(tensor))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: %s is an expanded view and cannot be written to", op,
                        expected->name);
    pxr_device *holder = pxr_tensor_device(tensor);
    if (!*device) *device = holder;
    if (*device != holder)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: %s is on %s, but out is on %s", op, expected->name,
                        holder->name, (*device)->name);
    return PXR_OK;
}

/* Checks `count` tensors, `out` first; absent optional ones are left out by the caller through `tensor` NULL and
 * `types` 0. */
static pxr_status check_tensors(const char *op, const expectation *expected, size_t count, pxr_device **device,
                                pxr_error *error)
{
    *device = NULL;
    for (size_t i = 0; i < count; i++) {
        if (!expected[i].tensor && expected[i].types == 0) continue;
        const pxr_status status = check_tensor(op, &expected[i], device, error);
        if (status != PXR_OK) return status;
    }
    return PXR_OK;
}

#define CHECK_TENSORS(op, ...)                                                                                         \
    check_tensors(op, (const expectation[]){__VA_ARGS__},                                                              \
                  sizeof((const expectation[]){__VA_ARGS__}) / sizeof(expectation), device, error)

/* Size `dim` of a tensor that may be missing or of a smaller rank: those are reported by check_tensor. */
static int64_t size_of(const pxr_tensor *tensor, int dim)
{
    return tensor && tensor->rank > dim ? tensor->size[dim] : FREE;
}

/* The types of an optional argument. */
static unsigned if_there(const pxr_tensor *tensor, unsigned types)
{
    return tensor ? types : 0;
}

/* What a matrix [rows,columns] is expected to be: floats, or integers when there are scales. */
static expectation matrix_of(const char *name, const pxr_tensor *matrix, const pxr_tensor *scales, int64_t rows,
                             int64_t columns)
{
    const bool pairs = scales && matrix && matrix->dtype == PXR_U8 && columns != FREE;
    return (expectation){.name = name,
                         .tensor = matrix,
                         .types = scales ? INTEGERS : FLOATS,
                         .layout = ROWS_DENSE,
                         .rank = 2,
                         .size = {{"N", rows}, {pairs ? "K/2" : "K", pairs ? (columns + 1) / 2 : columns}}};
}

static expectation scales_of(const pxr_tensor *scales, int64_t rows)
{
    return (expectation){.name = "scales",
                         .tensor = scales,
                         .types = if_there(scales, FLOAT16),
                         .layout = ROWS_DENSE,
                         .rank = 2,
                         .size = {{"N", rows}, {"groups", FREE}}};
}

static pxr_status check_groups(const char *op, const pxr_tensor *scales, int64_t columns, pxr_error *error)
{
    if (!scales || pxr_group_shift(columns, scales->size[1]) >= 0) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_ARGUMENT,
                    "%s: %lld scales for a row of %lld weights: groups of %d to %d, a power of two, expected", op,
                    (long long)scales->size[1], (long long)columns, 1 << PXR_GROUP_SHIFT_MIN, 1 << PXR_GROUP_SHIFT_MAX);
}

/* The types of activations where they lie. */
static unsigned activations(const pxr_tensor *tensor)
{
    return tensor && tensor->storage && !pxr_tensor_device(tensor)->is_host ? ACTIVATIONS : FLOAT32;
}

/* ---- the ops --------------------------------------------------------------------------------------------------- */

pxr_status pxr_check_linear(const pxr_linear_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t rows = size_of(args->x, 0), depth = size_of(args->x, 1), columns = size_of(args->weight, 0);
    pxr_status status = CHECK_TENSORS(
        "linear", {"out", args->out, activations(args->out), ROWS_DENSE, 2, {{"n", rows}, {"N", columns}}},
        {"x", args->x, activations(args->x), ROWS_DENSE, 2, {{"n", rows}, {"K", depth}}},
        matrix_of("weight", args->weight, args->scales, columns, depth), scales_of(args->scales, columns),
        {"bias", args->bias, if_there(args->bias, FLOATS), CONTIGUOUS, 1, {{"N", columns}}},
        {"residual", args->residual, if_there(args->residual, FLOAT32), ROWS_DENSE, 2, {{"n", rows}, {"N", columns}}});
    if (status == PXR_OK) status = check_groups("linear", args->scales, depth, error);
    if (status != PXR_OK) return status;
    if ((unsigned)args->activation >= PXR_ACTIVATION_COUNT)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "linear: there is no activation number %d", (int)args->activation);
    return PXR_OK;
}

static pxr_status check_epsilon(const char *op, float epsilon, pxr_error *error)
{
    if (epsilon >= 0.0f) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: epsilon is %g, expected a number that is not negative", op,
                    (double)epsilon);
}

pxr_status pxr_check_layer_norm(const pxr_layer_norm_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t rows = size_of(args->x, 0), width = size_of(args->x, 1);
    const pxr_status status = CHECK_TENSORS(
        "layer_norm", {"out", args->out, activations(args->out), ROWS_DENSE, 2, {{"n", rows}, {"D", width}}},
        {"x", args->x, FLOAT32, ROWS_DENSE, 2, {{"n", rows}, {"D", width}}},
        {"weight", args->weight, FLOATS, CONTIGUOUS, 1, {{"D", width}}},
        {"bias", args->bias, FLOATS, CONTIGUOUS, 1, {{"D", width}}});
    return status != PXR_OK ? status : check_epsilon("layer_norm", args->epsilon, error);
}

pxr_status pxr_check_rms_norm(const pxr_rms_norm_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t rows = size_of(args->x, 0), width = size_of(args->x, 1);
    const pxr_status status = CHECK_TENSORS(
        "rms_norm", {"out", args->out, activations(args->out), ROWS_DENSE, 2, {{"n", rows}, {"D", width}}},
        {"x", args->x, FLOAT32, ROWS_DENSE, 2, {{"n", rows}, {"D", width}}},
        {"weight", args->weight, FLOATS, CONTIGUOUS, 1, {{"D", width}}});
    return status != PXR_OK ? status : check_epsilon("rms_norm", args->epsilon, error);
}

pxr_status pxr_check_rope(const pxr_rope_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t rows = size_of(args->out, 0), head_dim = size_of(args->out, 2), half = head_dim / 2;
    const pxr_status status = CHECK_TENSORS(
        "rope", {"out", args->out, FLOAT32, ROWS_WRITTEN, 3, {{"n", FREE}, {"heads", FREE}, {"head_dim", FREE}}},
        {"cos", args->cos, FLOAT32, ROWS_DENSE, 2, {{"n", rows}, {"head_dim/2", half}}},
        {"sin", args->sin, FLOAT32, ROWS_DENSE, 2, {{"n", rows}, {"head_dim/2", half}}});
    if (status != PXR_OK) return status;
    if (head_dim % 2 != 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "rope: head_dim is %lld, expected an even number",
                        (long long)head_dim);
    return PXR_OK;
}

pxr_status pxr_check_rope_store(const pxr_rope_store_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t rows = size_of(args->q, 0), head_dim = size_of(args->q, 2), half = head_dim / 2;
    const int64_t kv_heads = size_of(args->k, 1), batch = size_of(args->keys, 0), m = size_of(args->keys, 1);
    const unsigned own = args->keys ? FLOATS & 1u << args->keys->dtype : 0;
    const pxr_status status = CHECK_TENSORS(
        "rope_store", {"q", args->q, FLOAT32, ROWS_WRITTEN, 3, {{"n", FREE}, {"heads", FREE}, {"head_dim", FREE}}},
        {"k", args->k, FLOAT32, ROWS_DENSE, 3, {{"n", rows}, {"kv_heads", FREE}, {"head_dim", head_dim}}},
        {"v", args->v, FLOAT32, ROWS_DENSE, 3, {{"n", rows}, {"kv_heads", kv_heads}, {"head_dim", head_dim}}},
        {"cos", args->cos, FLOAT32, ROWS_DENSE, 2, {{"n", rows}, {"head_dim/2", half}}},
        {"sin", args->sin, FLOAT32, ROWS_DENSE, 2, {{"n", rows}, {"head_dim/2", half}}},
        {"keys",
         args->keys,
         FLOATS,
         ROWS_WRITTEN,
         4,
         {{"batch", FREE}, {"m", FREE}, {"kv_heads", kv_heads}, {"head_dim", head_dim}}},
        {"values",
         args->values,
         own,
         ROWS_WRITTEN,
         4,
         {{"batch", batch}, {"m", m}, {"kv_heads", kv_heads}, {"head_dim", head_dim}}},
        {"places", args->places, INT64, CONTIGUOUS, 1, {{"n", rows}}});
    if (status != PXR_OK) return status;
    if (head_dim % 2 != 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "rope_store: head_dim is %lld, expected an even number",
                        (long long)head_dim);
    return PXR_OK;
}

/* Rows begin .. begin + count - 1 of `rows`. */
static bool range_fits(int64_t begin, int64_t count, int64_t rows)
{
    return begin >= 0 && count >= 0 && begin <= rows && count <= rows - begin;
}

static pxr_status check_segment(const pxr_attention_args *args, int64_t index, pxr_error *error)
{
    const pxr_attention_segment *segment = &args->segments[index];
    const bool batched = args->k->rank == 4;
    const int64_t queries = args->q->size[0], keys = args->k->size[batched ? 1 : 0];
    const int64_t batches = batched ? args->k->size[0] : 1;
    const long long number = (long long)index;
    if (!range_fits(segment->query_begin, segment->query_count, queries))
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "attention: segment %lld has %lld queries from row %lld, q has %lld rows", number,
                        (long long)segment->query_count, (long long)segment->query_begin, (long long)queries);
    if (!range_fits(segment->key_begin, segment->key_count, keys))
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "attention: segment %lld has %lld keys from row %lld, k has %lld rows", number,
                        (long long)segment->key_count, (long long)segment->key_begin, (long long)keys);
    if (segment->batch < 0 || segment->batch >= batches)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "attention: segment %lld is of batch %lld, there are %lld", number,
                        (long long)segment->batch, (long long)batches);
    if (index > 0 && segment->query_begin < segment[-1].query_begin + segment[-1].query_count)
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "attention: segment %lld begins at row %lld of q, within or before segment %lld", number,
                        (long long)segment->query_begin, number - 1);
    if (segment->query_count > 0 && segment->key_count < (args->causal ? segment->query_count : 1))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "attention: segment %lld has %lld queries but only %lld keys",
                        number, (long long)segment->query_count, (long long)segment->key_count);
    return PXR_OK;
}

/* What `places` will say is not known here; what they can say is. */
static pxr_status check_places(const pxr_attention_args *args, pxr_device *device, pxr_error *error)
{
    const expectation places = {"places", args->places, INT64, CONTIGUOUS, 1, {{"segments", args->segment_count}}};
    const pxr_status status = check_tensor("attention", &places, &device, error);
    if (status != PXR_OK) return status;
    if (args->k->rank != 4) return pxr_fail(error, PXR_ERROR_ARGUMENT, "attention: places need a k of four dims");
    for (int64_t i = 0; i < args->segment_count; i++)
        if (args->segments[i].query_count != 1 || args->segments[i].key_begin != 0)
            return pxr_fail(
                error, PXR_ERROR_ARGUMENT,
                "attention: segment %lld has %lld queries over keys from %lld on, with places one over keys "
                "from 0 on is expected",
                (long long)i, (long long)args->segments[i].query_count, (long long)args->segments[i].key_begin);
    return PXR_OK;
}

pxr_status pxr_check_attention(const pxr_attention_args *args, pxr_device **device, pxr_error *error)
{
    enum { HEAD_DIM_MAX = 160 };
    const bool batched = args->k && args->k->rank == 4;
    const int64_t rows = size_of(args->q, 0), heads = size_of(args->q, 1), head_dim = size_of(args->q, 2);
    const int64_t first = size_of(args->k, 0), second = size_of(args->k, 1), third = size_of(args->k, 2);
    pxr_status status =
        CHECK_TENSORS("attention",
                      {"out",
                       args->out,
                       activations(args->out),
                       ROWS_DENSE,
                       3,
                       {{"n", rows}, {"heads", heads}, {"head_dim", head_dim}}},
                      {"q", args->q, FLOAT32, ROWS_DENSE, 3, {{"n", FREE}, {"heads", FREE}, {"head_dim", FREE}}});
    if (status != PXR_OK) return status;
    pxr_device *other = *device;
    const unsigned own = args->k ? 1u << args->k->dtype : 0,
                   types = (FLOATS & own) != 0 ? own : FLOAT32; /* v has k's */
    for (int i = 0; status == PXR_OK && i < 2; i++) {
        const expectation plain = {i ? "v" : "k",
                                   i ? args->v : args->k,
                                   types,
                                   ROWS_DENSE,
                                   3,
                                   {{"m", i ? first : FREE}, {"kv_heads", i ? second : FREE}, {"head_dim", head_dim}}};
        const expectation with_batch = {plain.name,
                                        plain.tensor,
                                        types,
                                        ROWS_DENSE,
                                        4,
                                        {{"batch", i ? first : FREE},
                                         {"m", i ? second : FREE},
                                         {"kv_heads", i ? third : FREE},
                                         {"head_dim", head_dim}}};
        status = check_tensor("attention", batched ? &with_batch : &plain, &other, error);
    }
    if (status != PXR_OK) return status;
    const int64_t kv_heads = batched ? third : second;
    if (kv_heads < 1 || heads % kv_heads != 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "attention: %lld heads of q are not a multiple of %lld heads of k",
                        (long long)heads, (long long)kv_heads);
    if (head_dim < 1 || head_dim > HEAD_DIM_MAX)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "attention: head_dim is %lld, expected 1 to %d", (long long)head_dim,
                        HEAD_DIM_MAX);
    if (args->segment_count > 0 && !args->segments)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "attention: segments is missing");
    for (int64_t i = 0; status == PXR_OK && i < args->segment_count; i++) status = check_segment(args, i, error);
    return status == PXR_OK && args->places ? check_places(args, other, error) : status;
}

pxr_status pxr_check_attention_weights(const pxr_attention_weights_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t queries = size_of(args->q, 0), heads = size_of(args->q, 1), head_dim = size_of(args->q, 2);
    const int64_t keys = size_of(args->k, 0), kv_heads = size_of(args->k, 1);
    const pxr_status status = CHECK_TENSORS(
        "attention_weights",
        {"out", args->out, FLOAT32, ROWS_DENSE, 3, {{"heads", heads}, {"n", queries}, {"m", keys}}},
        {"q", args->q, FLOAT32, ROWS_DENSE, 3, {{"n", FREE}, {"heads", FREE}, {"head_dim", FREE}}},
        {"k", args->k, FLOAT32, ROWS_DENSE, 3, {{"m", FREE}, {"kv_heads", FREE}, {"head_dim", head_dim}}});
    if (status != PXR_OK) return status;
    if (kv_heads < 1 || heads % kv_heads != 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "attention_weights: %lld heads of q are not a multiple of %lld heads of k", (long long)heads,
                        (long long)kv_heads);
    if (queries > 0 && keys < (args->causal ? queries : 1))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "attention_weights: %lld queries but only %lld keys",
                        (long long)queries, (long long)keys);
    return PXR_OK;
}

pxr_status pxr_check_silu_mul(const pxr_silu_mul_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t rows = size_of(args->gate, 0), width = size_of(args->gate, 1);
    return CHECK_TENSORS("silu_mul",
                         {"out", args->out, activations(args->out), ROWS_DENSE, 2, {{"n", rows}, {"F", width}}},
                         {"gate", args->gate, activations(args->gate), ROWS_DENSE, 2, {{"n", rows}, {"F", width}}},
                         {"up", args->up, activations(args->up), ROWS_DENSE, 2, {{"n", rows}, {"F", width}}});
}

/* What stands around the products of linears. */
static pxr_status check_around(const pxr_linears_args *args, pxr_error *error)
{
    pxr_device *device = NULL;
    pxr_status status = PXR_OK;
    if (args->norm) {
        status = pxr_check_rms_norm(args->norm, &device, error);
        if (status == PXR_OK && args->norm->out != args->each->x)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "linears: what the norm gives is not the products' x");
    }
    if (status != PXR_OK || !args->silu_mul) return status;
    if (args->count != 2 || args->silu_mul->gate != args->each[0].out || args->silu_mul->up != args->each[1].out)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "linears: silu_mul is of what two products give, there are %lld",
                        (long long)args->count);
    return pxr_check_silu_mul(args->silu_mul, &device, error);
}

pxr_status pxr_check_linears(const pxr_linears_args *args, pxr_device **device, pxr_error *error)
{
    if (args->count < 1 || args->count > PXR_LINEARS_MAX)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "linears: %lld products, expected 1 to %d", (long long)args->count,
                        (int)PXR_LINEARS_MAX);
    for (int64_t i = 0; i < args->count; i++) {
        if (args->each[i].x != args->each->x)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "linears: product %lld is of another x", (long long)i + 1);
        const pxr_status status = pxr_check_linear(&args->each[i], device, error);
        if (status != PXR_OK)
            return args->count > 1 ? pxr_error_prefix(error, "product %lld", (long long)i + 1) : status;
    }
    return check_around(args, error);
}

pxr_status pxr_check_embedding(const pxr_embedding_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t ids = size_of(args->ids, 0), rows = size_of(args->table, 0);
    const int64_t width = args->scales ? size_of(args->out, 1) : size_of(args->table, 1);
    const pxr_status status = CHECK_TENSORS("embedding",
                                            {"out", args->out, FLOAT32, ROWS_DENSE, 2, {{"n", ids}, {"D", width}}},
                                            matrix_of("table", args->table, args->scales, rows, width),
                                            scales_of(args->scales, rows),
                                            {"ids", args->ids, INT64, CONTIGUOUS, 1, {{"n", FREE}}});
    return status == PXR_OK ? check_groups("embedding", args->scales, width, error) : status;
}

pxr_status pxr_check_quantize(const pxr_quantize_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t rows = size_of(args->x, 0), columns = size_of(args->x, 1);
    const bool pairs = args->out && args->out->dtype == PXR_U8;
    const pxr_status status = CHECK_TENSORS(
        "quantize",
        {"out", args->out, INTEGERS, CONTIGUOUS, 2, {{"N", rows}, {"K", pairs ? (columns + 1) / 2 : columns}}},
        {"scales", args->scales, FLOAT16, CONTIGUOUS, 2, {{"N", rows}, {"groups", FREE}}},
        {"x", args->x, FLOATS, ROWS_DENSE, 2, {{"N", FREE}, {"K", FREE}}});
    return status == PXR_OK ? check_groups("quantize", args->scales, columns, error) : status;
}

pxr_status pxr_check_kmeans(const pxr_kmeans_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t count = size_of(args->points, 0), width = size_of(args->points, 1),
                  clusters = size_of(args->start, 0);
    const pxr_status status = CHECK_TENSORS(
        "kmeans", {"out", args->out, FLOAT32, CONTIGUOUS, 2, {{"k", clusters}, {"E", width}}},
        {"points", args->points, FLOAT32, CONTIGUOUS, 2, {{"n", FREE}, {"E", FREE}}},
        {"start", args->start, INT64, CONTIGUOUS, 1, {{"k", FREE}}},
        {"assignment", args->assignment, if_there(args->assignment, INT64), CONTIGUOUS, 1, {{"n", count}}});
    if (status != PXR_OK) return status;
    if (clusters < 1 || clusters > count)
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "kmeans: %lld clusters of %lld points, expected 1 to as many as points", (long long)clusters,
                        (long long)count);
    if (args->rounds < 1)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "kmeans: rounds is %d, expected at least 1", args->rounds);
    return PXR_OK;
}

pxr_status pxr_check_sample(const pxr_sample_args *args, pxr_device **device, pxr_error *error)
{
    const int64_t rows = size_of(args->logits, 0), vocabulary = size_of(args->logits, 1);
    const pxr_status status =
        CHECK_TENSORS("sample", {"out", args->out, INT64, CONTIGUOUS, 1, {{"n", rows}}},
                      {"logits", args->logits, FLOAT32, ROWS_DENSE, 2, {{"n", FREE}, {"V", FREE}}},
                      {"probabilities",
                       args->probabilities,
                       if_there(args->probabilities, FLOAT32),
                       CONTIGUOUS,
                       2,
                       {{"n", rows}, {"V", vocabulary}}});
    if (status != PXR_OK) return status;
    if (vocabulary < 1) return pxr_fail(error, PXR_ERROR_ARGUMENT, "sample: there are no logits in a row");
    if (!(args->temperature >= 0.0f))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "sample: temperature is %g, expected 0 (greedy) or more",
                        (double)args->temperature);
    if (args->top_k < 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "sample: top_k is %lld, expected 0 (off) or more",
                        (long long)args->top_k);
    if (!(args->top_p >= 0.0f && args->top_p <= 1.0f))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "sample: top_p is %g, expected 0 to 1", (double)args->top_p);
    if (!(args->repetition_penalty >= 0.0f))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "sample: repetition_penalty is %g, expected 0 (off) or more",
                        (double)args->repetition_penalty);
    if (!args->generated != !args->generated_count)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "sample: generated and generated_count come together");
    return PXR_OK;
}
