/* Along one dim: reduce, cumsum, softmax. Semantics: ops/ops.h.
 *
 * A lane is the run of elements along the dim. Whatever its strides, a lane is read in blocks of PXR_BLOCK elements; a
 * block is summed in 16 partial sums and the blocks' sums are combined pairwise as a binary counter counts. So a sum's
 * order depends on the lane's length alone, and its error grows with the logarithm of the length.
 */
#include "cpu/cpu.h"
#include "cpu/elements.h"
#include "cpu/walk.h"

#include <math.h>

enum {
    PARTIALS = 16, /* partial sums of a block: one AVX-512 register */
    LEVELS = 56,   /* 2^55 blocks exceed what any tensor holds */
    PANEL = 16     /* neighbouring lanes reduced together, so that a cache line of a strided tensor is used whole */
};

/* ---- sums in a fixed order --------------------------------------------------------------------------------------- */

typedef struct total {
    float level[LEVELS]; /* level[k]: the total of 2^k blocks, where bit k of `blocks` is set */
    uint64_t blocks;
    bool product;
} total;

static float combine(const total *sum, float a, float b)
{
    return sum->product ? a * b : a + b;
}

static float block_total(const float *x, int64_t count, bool product)
{
    float partial[PARTIALS];
    for (int i = 0; i < PARTIALS; i++) partial[i] = product ? 1.0f : 0.0f;
    if (product) {
        for (int64_t i = 0; i < count; i++) partial[i % PARTIALS] *= x[i];
    } else {
        int64_t i = 0;
        for (; i + PARTIALS <= count; i += PARTIALS)
            for (int k = 0; k < PARTIALS; k++) partial[k] += x[i + k];
        for (int k = 0; i + k < count; k++) partial[k] += x[i + k];
    }
    for (int half = PARTIALS / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            partial[k] = product ? partial[k] * partial[k + half] : partial[k] + partial[k + half];
    return partial[0];
}

static void total_add(total *sum, const float *x, int64_t count)
{
    float carry = block_total(x, count, sum->product);
    int k = 0;
    for (; sum->blocks >> k & 1; k++) carry = combine(sum, sum->level[k], carry);
    sum->level[k] = carry;
    sum->blocks++;
}

static float total_of(const total *sum)
{
    float result = 0;
    bool any = false;
    for (int k = 0; k < LEVELS; k++) {
        if (!(sum->blocks >> k & 1)) continue;
        result = any ? combine(sum, sum->level[k], result) : sum->level[k];
        any = true;
    }
    return any ? result : sum->product ? 1.0f : 0.0f;
}

/* ---- reduce ------------------------------------------------------------------------------------------------------ */

/* One lane's reduction so far. */
typedef struct state {
    total sum;
    uint64_t integer; /* integers' sum or product, wrapping */
    float extremum;   /* of floats */
    int64_t integer_extremum;
    int64_t index; /* of the first extremum */
    bool found;    /* an element was seen */
    bool any, all;
} state;

typedef struct reduction {
    pxr_reduce_kind kind;
    pxr_dtype out, in;
    int64_t length, stride; /* of a lane: elements, bytes between them */
} reduction;

static bool wants_max(pxr_reduce_kind kind)
{
    return kind == PXR_REDUCE_MAX || kind == PXR_REDUCE_ARGMAX;
}

static bool is_total(pxr_reduce_kind kind)
{
    return kind == PXR_REDUCE_SUM || kind == PXR_REDUCE_PROD || kind == PXR_REDUCE_MEAN;
}

/* `first` is the place of x[0] in the lane; the first of equal elements stays. */
static void extremum_of_floats(state *lane, bool max, const float *x, int64_t count, int64_t first)
{
    float best = lane->found || count == 0 ? lane->extremum : x[0];
    if (!lane->found) lane->index = first;
    for (int64_t i = 0; i < count; i++) {
        const bool better = max ? x[i] > best : x[i] < best;
        if ((better || isnan(x[i])) && !isnan(best)) {
            best = x[i];
            lane->index = first + i;
        }
    }
    lane->extremum = best;
    lane->found = true;
}

static void extremum_of_integers(state *lane, bool max, const int64_t *x, int64_t count, int64_t first)
{
    int64_t best = lane->found || count == 0 ? lane->integer_extremum : x[0];
    if (!lane->found) lane->index = first;
    for (int64_t i = 0; i < count; i++) {
        if (max ? x[i] <= best : x[i] >= best) continue;
        best = x[i];
        lane->index = first + i;
    }
    lane->integer_extremum = best;
    lane->found = true;
}

static void consume_floats(const reduction *op, state *lane, const char *data, int64_t count, int64_t first)
{
    float block[PXR_BLOCK];
    const float *x = pxr_load_floats(op->in, data, op->stride, count, block);
    if (is_total(op->kind)) {
        total_add(&lane->sum, x, count);
    } else if (op->kind == PXR_REDUCE_ANY || op->kind == PXR_REDUCE_ALL) {
        for (int64_t i = 0; i < count; i++) {
            lane->any |= x[i] != 0.0f;
            lane->all &= x[i] != 0.0f;
        }
    } else {
        extremum_of_floats(lane, wants_max(op->kind), x, count, first);
    }
}

static void consume_integers(const reduction *op, state *lane, const char *data, int64_t count, int64_t first)
{
    int64_t block[PXR_BLOCK];
    const int64_t *x = pxr_load_integers(op->in, data, op->stride, count, block);
    if (op->kind == PXR_REDUCE_SUM) {
        for (int64_t i = 0; i < count; i++) lane->integer += (uint64_t)x[i];
    } else if (op->kind == PXR_REDUCE_PROD) {
        for (int64_t i = 0; i < count; i++) lane->integer *= (uint64_t)x[i];
    } else if (op->kind == PXR_REDUCE_ANY || op->kind == PXR_REDUCE_ALL) {
        for (int64_t i = 0; i < count; i++) {
            lane->any |= x[i] != 0;
            lane->all &= x[i] != 0;
        }
    } else {
        extremum_of_integers(lane, wants_max(op->kind), x, count, first);
    }
}

static void store_result(const reduction *op, const state *lane, char *to)
{
    const bool is_float = pxr_dtype_is_float(op->in);
    float value = lane->extremum;
    int64_t integer = lane->integer_extremum;
    switch (op->kind) {
    case PXR_REDUCE_SUM:
    case PXR_REDUCE_PROD:
        value = total_of(&lane->sum);
        integer = (int64_t)lane->integer;
        break;
    case PXR_REDUCE_MEAN:
        value = total_of(&lane->sum) / (float)op->length;
        break;
    case PXR_REDUCE_ARGMAX:
    case PXR_REDUCE_ARGMIN:
        integer = lane->index;
        break;
    case PXR_REDUCE_ANY:
        integer = lane->any;
        break;
    case PXR_REDUCE_ALL:
        integer = lane->all;
        break;
    default:
        break;
    }
    if (is_float && pxr_dtype_is_float(op->out))
        pxr_store_floats(op->out, to, 0, 1, &value);
    else
        pxr_store_integers(op->out, to, 0, 1, &integer);
}

/* `count` lanes: data[0] are the outputs, data[1] where the lanes begin. */
static void reduce_lanes(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    const reduction *op = context;
    state lanes[PANEL];
    for (int64_t panel = 0, width; panel < count; panel += width) {
        width = count - panel < PANEL ? count - panel : PANEL;
        for (int64_t j = 0; j < width; j++) {
            lanes[j].sum.blocks = 0;
            lanes[j].sum.product = op->kind == PXR_REDUCE_PROD;
            lanes[j].integer = op->kind == PXR_REDUCE_PROD;
            lanes[j].extremum = 0;
            lanes[j].integer_extremum = lanes[j].index = 0;
            lanes[j].found = lanes[j].any = false;
            lanes[j].all = true;
        }
        for (int64_t at = 0; at < op->length; at += PXR_BLOCK) {
            const int64_t n = op->length - at < PXR_BLOCK ? op->length - at : PXR_BLOCK;
            for (int64_t j = 0; j < width; j++) {
                const char *from = data[1] + (panel + j) * stride[1] + at * op->stride;
                if (pxr_dtype_is_float(op->in))
                    consume_floats(op, &lanes[j], from, n, at);
                else
                    consume_integers(op, &lanes[j], from, n, at);
            }
        }
        for (int64_t j = 0; j < width; j++) store_result(op, &lanes[j], data[0] + (panel + j) * stride[0]);
    }
}

pxr_status pxr_cpu_reduce(pxr_device *device, const pxr_reduce_args *args, pxr_error *error)
{
    (void)device;
    (void)error;
    const pxr_tensor out = pxr_walk_lanes(args->out, args->dim), x = pxr_walk_lanes(args->x, args->dim);
    reduction op = {args->kind, args->out->dtype, args->x->dtype, args->x->size[args->dim],
                    args->x->stride[args->dim] * (int64_t)pxr_dtype_size(args->x->dtype)};
    pxr_walk walk;
    pxr_walk_plan(&walk, 2, (const pxr_tensor *const[]){&out, &x});
    pxr_walk_run(&walk, op.length, reduce_lanes, &op);
    return PXR_OK;
}

/* ---- cumsum ------------------------------------------------------------------------------------------------------ */

typedef struct running {
    pxr_dtype out, in;
    int64_t length, out_stride, stride; /* of a lane: elements, bytes between them */
} running;

static void sum_lane(const running *op, char *to, const char *from)
{
    float sum = 0;
    uint64_t integer = 0;
    for (int64_t at = 0, n; at < op->length; at += n, from += n * op->stride, to += n * op->out_stride) {
        n = op->length - at < PXR_BLOCK ? op->length - at : PXR_BLOCK;
        if (pxr_dtype_is_float(op->in)) {
            float in[PXR_BLOCK], out[PXR_BLOCK];
            const float *x = pxr_load_floats(op->in, from, op->stride, n, in);
            for (int64_t i = 0; i < n; i++) out[i] = sum += x[i];
            pxr_store_floats(op->out, to, op->out_stride, n, out);
        } else {
            int64_t in[PXR_BLOCK], out[PXR_BLOCK];
            const int64_t *x = pxr_load_integers(op->in, from, op->stride, n, in);
            for (int64_t i = 0; i < n; i++) out[i] = (int64_t)(integer += (uint64_t)x[i]);
            pxr_store_integers(op->out, to, op->out_stride, n, out);
        }
    }
}

static void sum_lanes(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    for (int64_t j = 0; j < count; j++) sum_lane(context, data[0] + j * stride[0], data[1] + j * stride[1]);
}

pxr_status pxr_cpu_cumsum(pxr_device *device, const pxr_cumsum_args *args, pxr_error *error)
{
    (void)device;
    (void)error;
    const pxr_tensor out = pxr_walk_lanes(args->out, args->dim), x = pxr_walk_lanes(args->x, args->dim);
    running op = {args->out->dtype, args->x->dtype, args->x->size[args->dim],
                  args->out->stride[args->dim] * (int64_t)pxr_dtype_size(args->out->dtype),
                  args->x->stride[args->dim] * (int64_t)pxr_dtype_size(args->x->dtype)};
    pxr_walk walk;
    pxr_walk_plan(&walk, 2, (const pxr_tensor *const[]){&out, &x});
    pxr_walk_run(&walk, op.length, sum_lanes, &op);
    return PXR_OK;
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

typedef struct softmax {
    running lane;
    bool logarithm;
} softmax;

/* A lane is passed over three times. */
typedef enum softmax_pass { FIND_LARGEST, ADD_UP, WRITE, PASSES } softmax_pass;

/* What is known of a lane between the passes. */
typedef struct softmax_lane {
    state largest; /* its extremum is the largest element */
    total sum;     /* of exp(x - largest) */
    float divisor; /* that sum, or its logarithm */
} softmax_lane;

/* One pass over `count` elements from number `first` of a lane. exp is computed twice rather than kept: a lane
 * needs no memory then, whatever the output's type. */
static void softmax_block(const softmax *op, softmax_pass pass, softmax_lane *lane, char *to, const char *from,
                          int64_t count, int64_t first)
{
    float in[PXR_BLOCK], out[PXR_BLOCK];
    const running *run = &op->lane;
    const float *x = pxr_load_floats(run->in, from + first * run->stride, run->stride, count, in);
    if (pass == FIND_LARGEST) {
        extremum_of_floats(&lane->largest, true, x, count, first);
        return;
    }
    const float max = lane->largest.extremum;
    if (pass == WRITE && op->logarithm)
        for (int64_t i = 0; i < count; i++) out[i] = x[i] - max - lane->divisor;
    else
        for (int64_t i = 0; i < count; i++) out[i] = expf(x[i] - max);
    if (pass == ADD_UP) {
        total_add(&lane->sum, out, count);
        return;
    }
    if (!op->logarithm)
        for (int64_t i = 0; i < count; i++) out[i] /= lane->divisor;
    pxr_store_floats(run->out, to + first * run->out_stride, run->out_stride, count, out);
}

/* `count` lanes: data[0] are the outputs', data[1] the inputs' beginnings. */
static void softmax_lanes(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    const softmax *op = context;
    softmax_lane lanes[PANEL];
    for (int64_t panel = 0, width; panel < count; panel += width) {
        width = count - panel < PANEL ? count - panel : PANEL;
        for (int64_t j = 0; j < width; j++) {
            lanes[j].largest = (state){.found = false};
            lanes[j].sum.blocks = 0;
            lanes[j].sum.product = false;
        }
        for (softmax_pass pass = FIND_LARGEST; pass < PASSES; pass++) {
            for (int64_t at = 0; at < op->lane.length; at += PXR_BLOCK) {
                const int64_t n = op->lane.length - at < PXR_BLOCK ? op->lane.length - at : PXR_BLOCK;
                for (int64_t j = panel; j < panel + width; j++)
                    softmax_block(op, pass, &lanes[j - panel], data[0] + j * stride[0], data[1] + j * stride[1], n, at);
            }
            for (int64_t j = 0; pass == ADD_UP && j < width; j++) {
                const float sum = total_of(&lanes[j].sum);
                lanes[j].divisor = op->logarithm ? logf(sum) : sum;
            }
        }
    }
}

pxr_status pxr_cpu_softmax(pxr_device *device, const pxr_softmax_args *args, pxr_error *error)
{
    (void)device;
    (void)error;
    const pxr_tensor out = pxr_walk_lanes(args->out, args->dim), x = pxr_walk_lanes(args->x, args->dim);
    const int64_t bytes = (int64_t)pxr_dtype_size(args->x->dtype);
    softmax op = {.lane = {args->out->dtype, args->x->dtype, args->x->size[args->dim],
                           args->out->stride[args->dim] * bytes, args->x->stride[args->dim] * bytes},
                  .logarithm = args->logarithm};
    pxr_walk walk;
    pxr_walk_plan(&walk, 2, (const pxr_tensor *const[]){&out, &x});
    pxr_walk_run(&walk, 16 * op.lane.length, softmax_lanes, &op);
    return PXR_OK;
}
