/* OpenCV's INTER_LINEAR and INTER_AREA, bit for bit (modules/imgproc/src/resize.cpp; REFERENCE section 12).
 *
 * A linear resize makes each needed source row once (columns first), as integers with 11 fraction bits or as float32,
 * and blends two of them into an output row. INTER_AREA takes means over boxes; where one direction grows, OpenCV
 * silently does a linear resize with other coefficients, and so do we.
 */
#include "core/memory.h"
#include "media/resize.h"
#include "media/resize_internal.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { LINEAR_ONE = 1 << 11 /* fixed-point weight 1 */ };

/* ---- linear ---------------------------------------------------------------------------------------------------- */

/* Where output `i` of one direction lies: between inputs `low[i]` and `high[i]`, weights as float32 and fixed point. */
typedef struct linear_axis {
    int32_t *low, *high; /* [out] */
    float (*weight)[2];  /* [out] */
    int16_t (*fixed)[2]; /* [out]: weight * 2048 rounded to even */
} linear_axis;

typedef struct linear {
    pxr_resize_shape shape;
    linear_axis columns, rows;
    const void *from; /* uint8 or float32 */
    void *to;
} linear;

/* Nearest integer, ties to even, of a value far inside int range: cvRound. */
static inline int round_even(double value)
{
    const double below = floor(value), rest = value - below;
    const int low = (int)below;
    if (rest != 0.5) return rest < 0.5 ? low : low + 1;
    return low % 2 == 0 ? low : low + 1;
}

static void free_axis(linear_axis *axis)
{
    pxr_free(axis->low);
    pxr_free(axis->high);
    pxr_free(axis->weight);
    pxr_free(axis->fixed);
}

/* Where an output element lies: in float32 for 8-bit pictures; in double, with one rounding, for float32 ones (on a 0/1
 * mask that decides whether a weight is 0 or tiny, hence whether a cell is inside); and as INTER_AREA has it when it
 * cannot shrink. */
typedef enum position_kind { POSITION_U8, POSITION_F32, POSITION_AREA } position_kind;

/* The input below output `i` (it may lie outside) and the weight of the one above it. */
static int position(position_kind kind, int64_t i, double scale, double inverse, float *fraction)
{
    if (kind == POSITION_AREA) {
        const int low = (int)floor((double)i * scale);
        const float f = (float)((double)(i + 1) - (double)(low + 1) * inverse);
        *fraction = f <= 0 ? 0.0f : f - floorf(f);
        return low;
    }
    if (kind == POSITION_F32) {
        const double exact = fma((double)i + 0.5, scale, -0.5), low = floor(exact);
        *fraction = (float)(exact - low);
        return (int)low;
    }
    const float rounded = (float)(((double)i + 0.5) * scale - 0.5), low = floorf(rounded);
    *fraction = rounded - low;
    return (int)low;
}

/* `reset`: an index outside gets weights (1, 0), as OpenCV does for columns; rows are only clamped. */
static pxr_status make_axis(linear_axis *axis, int64_t in, int64_t out, bool reset, position_kind kind,
                            pxr_error *error)
{
    const size_t count = (size_t)out;
    axis->low = pxr_malloc(count * sizeof *axis->low);
    axis->high = pxr_malloc(count * sizeof *axis->high);
    axis->weight = pxr_malloc(count * sizeof *axis->weight);
    axis->fixed = pxr_malloc(count * sizeof *axis->fixed);
    if (!axis->low || !axis->high || !axis->weight || !axis->fixed)
        return pxr_fail_memory(error, count * sizeof *axis->weight, "the weights of a resize");
    const double inverse = (double)out / (double)in;
    const double scale = kind == POSITION_F32 ? (double)in / (double)out : 1.0 / inverse;
    const int last = (int)in - 1;
    for (int64_t i = 0; i < out; i++) {
        float f;
        int low = position(kind, i, scale, inverse, &f);
        if (reset && (low < 0 || low >= last)) f = 0;
        if (reset) low = low < 0 ? 0 : low > last ? last : low;
        axis->low[i] = low < 0 ? 0 : low > last ? last : low;
        axis->high[i] = low + 1 < 0 ? 0 : low + 1 > last ? last : low + 1;
        axis->weight[i][0] = 1.0f - f;
        axis->weight[i][1] = f;
        for (int k = 0; k < 2; k++) axis->fixed[i][k] = (int16_t)round_even(axis->weight[i][k] * (float)LINEAR_ONE);
    }
    return PXR_OK;
}

/* Source row `y` across, 11 fraction bits: to [out_width, channels]. */
static void linear_row_u8(const linear *l, int64_t y, int32_t *to)
{
    const int64_t channels = l->shape.channels;
    const uint8_t *from = (const uint8_t *)l->from + y * l->shape.in_width * channels;
    for (int64_t x = 0; x < l->shape.out_width; x++) {
        const uint8_t *low = from + l->columns.low[x] * channels, *high = from + l->columns.high[x] * channels;
        const int32_t a = l->columns.fixed[x][0], b = l->columns.fixed[x][1];
        for (int64_t c = 0; c < channels; c++) to[x * channels + c] = low[c] * a + high[c] * b;
    }
}

static void linear_row_f32(const linear *l, int64_t y, float *to)
{
    const int64_t channels = l->shape.channels;
    const float *from = (const float *)l->from + y * l->shape.in_width * channels;
    for (int64_t x = 0; x < l->shape.out_width; x++) {
        const float *low = from + l->columns.low[x] * channels, *high = from + l->columns.high[x] * channels;
        const float a = l->columns.weight[x][0], b = l->columns.weight[x][1];
        for (int64_t c = 0; c < channels; c++) to[x * channels + c] = low[c] * a + high[c] * b;
    }
}

static void blend_u8(const int32_t *low, const int32_t *high, const int16_t weight[2], int64_t count, uint8_t *to)
{
    const int32_t a = weight[0], b = weight[1];
    for (int64_t i = 0; i < count; i++)
        to[i] = (uint8_t)((((a * (low[i] >> 4)) >> 16) + ((b * (high[i] >> 4)) >> 16) + 2) >> 2);
}

static void blend_f32(const float *low, const float *high, const float weight[2], int64_t count, float *to)
{
    const float a = weight[0], b = weight[1];
    for (int64_t i = 0; i < count; i++) to[i] = low[i] * a + high[i] * b;
}

/* Output rows begin .. end-1; `scratch` holds two rows of 4-byte elements, [2, out_width, channels]. A source row stays
 * while the next output row needs it: with `made` the rows they hold, slot k is kept if it is wanted. */
#define LINEAR_ROWS(name, type, element, weights)                                                                      \
    static void linear_rows_##name(const void *context, int64_t begin, int64_t end, void *scratch)                     \
    {                                                                                                                  \
        const linear *l = context;                                                                                     \
        const int64_t row = l->shape.out_width * l->shape.channels;                                                    \
        type *slot[2] = {scratch, (type *)scratch + row};                                                              \
        int32_t made[2] = {-1, -1};                                                                                    \
        for (int64_t y = begin; y < end; y++) {                                                                        \
            const int32_t low = l->rows.low[y], high = l->rows.high[y];                                                \
            if (made[1] == low) { /* the usual step down: what was below is now above */                               \
                type *const kept = slot[1];                                                                            \
                slot[1] = slot[0], made[1] = made[0];                                                                  \
                slot[0] = kept, made[0] = low;                                                                         \
            }                                                                                                          \
            if (made[0] != low) linear_row_##name(l, made[0] = low, slot[0]);                                          \
            if (high != low && made[1] != high) linear_row_##name(l, made[1] = high, slot[1]);                         \
            blend_##name(slot[0], high == low ? slot[0] : slot[1], l->rows.weights[y], row,                            \
                         (element *)l->to + y * row);                                                                  \
        }                                                                                                              \
    }

LINEAR_ROWS(u8, int32_t, uint8_t, fixed)
LINEAR_ROWS(f32, float, float, weight)

static pxr_status resize_linear(const pxr_resize_shape *shape, const pxr_tensor *out, const pxr_tensor *x,
                                position_kind kind, pxr_error *error)
{
    linear l = {.shape = *shape, .from = x->data, .to = out->data};
    const int64_t row = shape->out_width * shape->channels;
    pxr_status status = make_axis(&l.columns, shape->in_width, shape->out_width, true, kind, error);
    if (status == PXR_OK) status = make_axis(&l.rows, shape->in_height, shape->out_height, false, kind, error);
    if (status == PXR_OK)
        status = pxr_resize_bands(shape->out_height, row * 3, (size_t)row * 2 * 4,
                                  x->dtype == PXR_U8 ? linear_rows_u8 : linear_rows_f32, &l, error);
    free_axis(&l.columns);
    free_axis(&l.rows);
    return status;
}

/* ---- area ------------------------------------------------------------------------------------------------------ */

/* One direction's means: output i is the sum of weight[k] * input (from[k]), k = begin[i] .. begin[i+1]-1. */
typedef struct area_axis {
    int32_t *begin; /* [out + 1] */
    int32_t *from;  /* [at most in + 2 * out] */
    float *weight;
} area_axis;

typedef struct area {
    pxr_resize_shape shape;
    area_axis columns, rows;
    int step_x, step_y; /* whole scales, for the fast path */
    const uint8_t *from;
    uint8_t *to;
} area;

static void free_area_axis(area_axis *axis)
{
    pxr_free(axis->begin);
    pxr_free(axis->from);
    pxr_free(axis->weight);
}

/* computeResizeAreaTab. Shares below a thousandth of an input are left out, as there. */
static pxr_status make_area_axis(area_axis *axis, int64_t in, int64_t out, double scale, pxr_error *error)
{
    const size_t room = (size_t)(in + 2 * out);
    axis->begin = pxr_malloc((size_t)(out + 1) * sizeof *axis->begin);
    axis->from = pxr_malloc(room * sizeof *axis->from);
    axis->weight = pxr_malloc(room * sizeof *axis->weight);
    if (!axis->begin || !axis->from || !axis->weight)
        return pxr_fail_memory(error, room * sizeof *axis->from, "the weights of a resize");
    int32_t k = 0;
    for (int64_t i = 0; i < out; i++) {
        const double left = (double)i * scale, right = left + scale, width = fmin(scale, (double)in - left);
        int64_t first = (int64_t)ceil(left), end = (int64_t)floor(right);
        if (end > in - 1) end = in - 1;
        if (first > end) first = end;
        axis->begin[i] = k;
        if ((double)first - left > 1e-3) {
            axis->from[k] = (int32_t)(first - 1);
            axis->weight[k++] = (float)(((double)first - left) / width);
        }
        for (int64_t from = first; from < end; from++) {
            axis->from[k] = (int32_t)from;
            axis->weight[k++] = (float)(1.0 / width);
        }
        if (right - (double)end > 1e-3) {
            axis->from[k] = (int32_t)end;
            axis->weight[k++] = (float)(fmin(fmin(right - (double)end, 1.0), width) / width);
        }
    }
    axis->begin[out] = k;
    return PXR_OK;
}

/* saturate_cast<uchar>: to nearest even, clipped. */
static inline uint8_t to_u8(float value)
{
    const int rounded = round_even(value);
    return (uint8_t)(rounded < 0 ? 0 : rounded > 255 ? 255 : rounded);
}

/* Output rows begin .. end-1; `scratch` is float32 [2, out_width, channels]: one source row across, and the sum. */
static void area_rows(const void *context, int64_t begin, int64_t end, void *scratch)
{
    const area *a = context;
    const int64_t channels = a->shape.channels, row = a->shape.out_width * channels;
    float *across = scratch, *sum = across + row;
    for (int64_t y = begin; y < end; y++) {
        for (int32_t j = a->rows.begin[y]; j < a->rows.begin[y + 1]; j++) {
            const uint8_t *from = a->from + a->rows.from[j] * a->shape.in_width * channels;
            const float share = a->rows.weight[j];
            memset(across, 0, (size_t)row * sizeof *across);
            for (int64_t x = 0; x < a->shape.out_width; x++)
                for (int32_t k = a->columns.begin[x]; k < a->columns.begin[x + 1]; k++)
                    for (int64_t c = 0; c < channels; c++)
                        across[x * channels + c] += (float)from[a->columns.from[k] * channels + c] *
                                                    a->columns.weight[k];
            if (j == a->rows.begin[y])
                for (int64_t i = 0; i < row; i++) sum[i] = share * across[i];
            else
                for (int64_t i = 0; i < row; i++) sum[i] += share * across[i];
        }
        for (int64_t i = 0; i < row; i++) a->to[y * row + i] = to_u8(sum[i]);
    }
}

enum { AREA_BOX = 1 << 24 /* pixels whose sum fits 32 bits */ };

/* Whole scales in both directions: integer sums of step_y x step_x boxes; 2 x 2 rounds up at a half, others to even. */
static void area_boxes(const void *context, int64_t begin, int64_t end, void *scratch)
{
    const area *a = context;
    const int64_t channels = a->shape.channels, row = a->shape.out_width * channels;
    const bool halves = a->step_x == 2 && a->step_y == 2 && channels != 2;
    const float share = 1.0f / (float)(a->step_x * a->step_y);
    uint32_t *sum = scratch; /* [out_width, channels]; a box has at most AREA_BOX pixels */
    for (int64_t y = begin; y < end; y++) {
        memset(sum, 0, (size_t)row * sizeof *sum);
        for (int64_t j = 0; j < a->step_y; j++) {
            const uint8_t *from = a->from + (y * a->step_y + j) * a->shape.in_width * channels;
            for (int64_t x = 0; x < a->shape.out_width; x++)
                for (int64_t k = 0; k < a->step_x; k++, from += channels)
                    for (int64_t c = 0; c < channels; c++) sum[x * channels + c] += from[c];
        }
        for (int64_t i = 0; i < row; i++)
            a->to[y * row + i] = halves ? (uint8_t)((sum[i] + 2) >> 2) : to_u8((float)sum[i] * share);
    }
}

static pxr_status resize_area(const pxr_resize_shape *shape, const pxr_tensor *out, const pxr_tensor *x, double scale_x,
                              double scale_y, pxr_error *error)
{
    area a = {.shape = *shape, .from = x->data, .to = out->data};
    const int64_t row = shape->out_width * shape->channels;
    const int64_t work = shape->in_width * shape->channels * (shape->in_height / shape->out_height + 1);
    const size_t scratch = (size_t)row * 2 * sizeof(float);
    a.step_x = round_even(scale_x);
    a.step_y = round_even(scale_y);
    const bool is_whole = fabs(scale_x - a.step_x) < DBL_EPSILON && fabs(scale_y - a.step_y) < DBL_EPSILON;
    if (is_whole && (int64_t)a.step_x * a.step_y <= AREA_BOX)
        return pxr_resize_bands(shape->out_height, work, scratch, area_boxes, &a, error);
    pxr_status status = make_area_axis(&a.columns, shape->in_width, shape->out_width, scale_x, error);
    if (status == PXR_OK) status = make_area_axis(&a.rows, shape->in_height, shape->out_height, scale_y, error);
    if (status == PXR_OK) status = pxr_resize_bands(shape->out_height, work, scratch, area_rows, &a, error);
    free_area_axis(&a.columns);
    free_area_axis(&a.rows);
    return status;
}

/* ---- entry points ---------------------------------------------------------------------------------------------- */

/* OpenCV's scale: the reciprocal of out / in, which is not always in / out to the last bit. */
static double scale_of(int64_t in, int64_t out)
{
    return 1.0 / ((double)out / (double)in);
}

static bool same_size(const pxr_resize_shape *s)
{
    return s->in_height == s->out_height && s->in_width == s->out_width;
}

pxr_status pxr_resize_linear_u8(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error)
{
    pxr_resize_shape s;
    const pxr_status status = pxr_resize_check(&s, out, x, PXR_U8, "linear resize", error);
    if (status != PXR_OK) return status;
    if (same_size(&s)) {
        pxr_resize_copy(out, x);
        return PXR_OK;
    }
    const double scale_x = scale_of(s.in_width, s.out_width), scale_y = scale_of(s.in_height, s.out_height);
    if (fabs(scale_x - 2) < DBL_EPSILON && fabs(scale_y - 2) < DBL_EPSILON)
        return resize_area(&s, out, x, scale_x, scale_y, error);
    return resize_linear(&s, out, x, POSITION_U8, error);
}

pxr_status pxr_resize_linear_f32(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error)
{
    pxr_resize_shape s;
    const pxr_status status = pxr_resize_check(&s, out, x, PXR_F32, "linear resize", error);
    if (status != PXR_OK) return status;
    if (same_size(&s)) {
        pxr_resize_copy(out, x);
        return PXR_OK;
    }
    /* Shrinking by 2 needs no path of its own: the four weights are exactly a half each way. */
    return resize_linear(&s, out, x, POSITION_F32, error);
}

pxr_status pxr_resize_area_u8(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error)
{
    pxr_resize_shape s;
    const pxr_status status = pxr_resize_check(&s, out, x, PXR_U8, "area resize", error);
    if (status != PXR_OK) return status;
    if (same_size(&s)) {
        pxr_resize_copy(out, x);
        return PXR_OK;
    }
    const double scale_x = scale_of(s.in_width, s.out_width), scale_y = scale_of(s.in_height, s.out_height);
    if (scale_x >= 1 && scale_y >= 1) return resize_area(&s, out, x, scale_x, scale_y, error);
    return resize_linear(&s, out, x, POSITION_AREA, error);
}
