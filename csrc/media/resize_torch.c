/* torch's bilinear interpolation of 8-bit pictures, bit for bit (ATen UpSampleKernel.cpp, since 2.1; align_corners and
 * antialias false): columns first, then rows, each with fixed-point weights and rounded to 8 bits. */
#include "core/memory.h"
#include "media/limits.h"
#include "media/resize.h"
#include "media/resize_internal.h"

#include <math.h>

/* One direction: output i = (first * weight[i][0] + second * weight[i][1] + half) >> precision. */
typedef struct torch_axis {
    int32_t *low, *high;  /* [out]: the two inputs; equal at an edge, where the weights were added up */
    int16_t (*weight)[2]; /* [out] */
    int precision;        /* fraction bits, of all weights of this direction */
} torch_axis;

static void free_axis(torch_axis *axis)
{
    pxr_free(axis->low);
    pxr_free(axis->high);
    pxr_free(axis->weight);
}

/* The two inputs and exact weights of output `i`. */
static void torch_weights(int64_t i, int64_t in, double scale, int64_t *low, double weight[2])
{
    const double position = fmax(scale * ((double)i + 0.5) - 0.5, 0.0);
    *low = (int64_t)position;
    if (*low > in - 1) *low = in - 1;
    const double fraction = fmin(fmax(position - (double)*low, 0.0), 1.0);
    weight[0] = 1.0 - fraction;
    weight[1] = 1.0 - fabs(1.0 - fraction); /* the triangle filter at 1 - fraction, rounded as there */
    if (*low == in - 1) {                   /* the second input lies outside: its weight goes to the first */
        weight[0] += weight[1];
        weight[1] = 0;
    }
}

static pxr_status make_axis(torch_axis *axis, int64_t in, int64_t out, pxr_error *error)
{
    const size_t count = (size_t)out;
    axis->low = pxr_malloc(count * sizeof *axis->low);
    axis->high = pxr_malloc(count * sizeof *axis->high);
    axis->weight = pxr_malloc(count * sizeof *axis->weight);
    if (!axis->low || !axis->high || !axis->weight)
        return pxr_fail_memory(error, count * sizeof *axis->low, "the weights of a resize");
    const double scale = (double)in / (double)out;
    double largest = 0, weight[2];
    int64_t low;
    for (int64_t i = 0; i < out; i++) {
        torch_weights(i, in, scale, &low, weight);
        largest = fmax(largest, fmax(weight[0], weight[1]));
    }
    for (axis->precision = 0; axis->precision < 22; axis->precision++)
        if ((int)(0.5 + largest * (double)(1 << (axis->precision + 1))) >= 1 << 15) break;
    for (int64_t i = 0; i < out; i++) {
        torch_weights(i, in, scale, &low, weight);
        axis->low[i] = (int32_t)low;
        axis->high[i] = (int32_t)(low + 1 < in ? low + 1 : low);
        for (int k = 0; k < 2; k++) axis->weight[i][k] = (int16_t)(0.5 + weight[k] * (double)(1 << axis->precision));
    }
    return PXR_OK;
}

static inline uint8_t mix(uint8_t low, uint8_t high, const int16_t weight[2], int precision)
{
    const int32_t value = ((1 << (precision - 1)) + low * weight[0] + high * weight[1]) >> precision;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

typedef struct torch_pass {
    const uint8_t *from;
    uint8_t *to;
    const torch_axis *axis;
    int64_t in_row, out_row, channels; /* elements, elements, elements a pixel */
} torch_pass;

static void torch_columns(const void *context, int64_t begin, int64_t end, void *scratch)
{
    const torch_pass *p = context;
    const torch_axis *axis = p->axis;
    (void)scratch;
    for (int64_t y = begin; y < end; y++) {
        const uint8_t *from = p->from + y * p->in_row;
        uint8_t *to = p->to + y * p->out_row;
        for (int64_t x = 0; x < p->out_row / p->channels; x++)
            for (int64_t c = 0; c < p->channels; c++)
                *to++ = mix(from[axis->low[x] * p->channels + c], from[axis->high[x] * p->channels + c],
                            axis->weight[x], axis->precision);
    }
}

static void torch_rows(const void *context, int64_t begin, int64_t end, void *scratch)
{
    const torch_pass *p = context;
    (void)scratch;
    for (int64_t y = begin; y < end; y++) {
        const uint8_t *low = p->from + p->axis->low[y] * p->in_row, *high = p->from + p->axis->high[y] * p->in_row;
        uint8_t *to = p->to + y * p->out_row;
        for (int64_t x = 0; x < p->out_row; x++) to[x] = mix(low[x], high[x], p->axis->weight[y], p->axis->precision);
    }
}

pxr_status pxr_resize_torch_u8(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error)
{
    pxr_resize_shape s;
    pxr_status status = pxr_resize_check(&s, out, x, PXR_U8, "torch resize", error);
    if (status != PXR_OK) return status;
    const bool columns = s.in_width != s.out_width, rows = s.in_height != s.out_height;
    if (!columns && !rows) {
        pxr_resize_copy(out, x);
        return PXR_OK;
    }
    const int64_t in_row = s.in_width * s.channels, out_row = s.out_width * s.channels;
    torch_axis across = {0}, down = {0};
    uint8_t *between = NULL; /* [in_height, out_width, channels]: what lies between the passes */
    if (columns) status = make_axis(&across, s.in_width, s.out_width, error);
    if (status == PXR_OK && rows) status = make_axis(&down, s.in_height, s.out_height, error);
    if (status == PXR_OK && columns && rows)
        status = pxr_check_picture_size(s.in_height, s.out_width, "torch resize: the picture between the passes",
                                        error);
    if (status == PXR_OK && columns && rows) {
        between = pxr_malloc((size_t)(s.in_height * out_row));
        if (!between) status = pxr_fail_memory(error, (size_t)(s.in_height * out_row), "resizing a picture");
    }
    if (status == PXR_OK && columns) {
        const torch_pass p = {x->data, rows ? between : out->data, &across, in_row, out_row, s.channels};
        status = pxr_resize_bands(s.in_height, out_row * 2, 0, torch_columns, &p, error);
    }
    if (status == PXR_OK && rows) {
        const torch_pass p = {columns ? between : x->data, out->data, &down, out_row, out_row, s.channels};
        status = pxr_resize_bands(s.out_height, out_row * 2, 0, torch_rows, &p, error);
    }
    pxr_free(between);
    free_axis(&across);
    free_axis(&down);
    return status;
}
