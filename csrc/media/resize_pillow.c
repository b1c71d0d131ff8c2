/* Pillow's BICUBIC resize of 8-bit pictures, bit for bit (libImaging/Resample.c of Pillow 13).
 *
 * The filter is separable: columns, then rows, with 8 bits in between; for some shapes rows come first, which rounding
 * shows (rows_go_first). A pass whose size does not change is skipped. An
 * output element is sum(weight * element) over its support, weights in fixed point with 22 fraction bits, rounded, then
 * clipped to 0 .. 255; sums are integers, so their order is free. When shrinking, the filter is stretched by the scale.
 */
#include "core/memory.h"
#include "media/limits.h"
#include "media/resize.h"
#include "media/resize_internal.h"

#include <math.h>

enum { PRECISION = 32 - 8 - 2 }; /* fraction bits: 8 for the element, 2 spare for negative lobes */

/* The weights of one direction: output i is made of `count[i]` inputs from `first[i]` on. */
typedef struct taps {
    int64_t stride;  /* elements of `weight` an output: the largest support */
    int32_t *weight; /* [outputs, stride] */
    int32_t *first;  /* [outputs] */
    int32_t *count;  /* [outputs] */
} taps;

/* Keys' cubic convolution kernel with a = -0.5, in the reference's own order of operations. */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static void free_taps(taps *t)
{
    pxr_free(t->weight);
    pxr_free(t->first);
    pxr_free(t->count);
}

/* Weights for `in` to `out` elements (precompute_coeffs and normalize_coeffs_8bpc). */
static pxr_status make_taps(taps *t, int64_t in, int64_t out, pxr_error *error)
{
    const double scale = (double)in / (double)out, filter_scale = fmax(scale, 1.0);
    const double support = 2.0 * filter_scale, inverse = 1.0 / filter_scale;
    t->stride = (int64_t)ceil(support) * 2 + 1;
    const size_t bytes = (size_t)(out * t->stride) * sizeof *t->weight;
    t->weight = pxr_malloc(bytes);
    t->first = pxr_malloc((size_t)out * sizeof *t->first);
    t->count = pxr_malloc((size_t)out * sizeof *t->count);
    double *exact = pxr_malloc((size_t)t->stride * sizeof *exact);
    if (!t->weight || !t->first || !t->count || !exact) {
        pxr_free(exact);
        return pxr_fail_memory(error, bytes, "the weights of a resize");
    }
    for (int64_t i = 0; i < out; i++) {
        const double center = ((double)i + 0.5) * scale;
        int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
        if (first < 0) first = 0;
        if (end > in) end = in;
        double sum = 0;
        for (int64_t k = 0; k < end - first; k++) {
            exact[k] = bicubic(((double)(k + first) - center + 0.5) * inverse);
            sum += exact[k];
        }
        for (int64_t k = 0; k < end - first; k++) {
            const double weight = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << PRECISION);
            t->weight[i * t->stride + k] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
        }
        t->first[i] = (int32_t)first;
        t->count[i] = (int32_t)(end - first);
    }
    pxr_free(exact);
    return PXR_OK;
}

static inline uint8_t clip(int32_t sum)
{
    const int32_t value = sum >> PRECISION;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* One pass. Columns: `from` [height, in width, channels], `to` [height, out width, channels]. Rows: a row is one run of
 * `row` elements, `from` [in height, row], `to` [out height, row]. */
typedef struct pass {
    const uint8_t *from;
    uint8_t *to;
    const taps *weights;
    int64_t in_row, out_row, channels; /* elements, elements, elements a pixel */
} pass;

/* One row, one pixel after the other; inlined for constant channel counts. */
static inline void filter_row(const pass *p, const uint8_t *from, uint8_t *to, int64_t channels)
{
    const int64_t width = p->out_row / channels;
    for (int64_t x = 0; x < width; x++) {
        const int32_t *weight = p->weights->weight + x * p->weights->stride;
        const uint8_t *pixel = from + p->weights->first[x] * channels;
        int32_t sum[4] = {1 << (PRECISION - 1), 1 << (PRECISION - 1), 1 << (PRECISION - 1), 1 << (PRECISION - 1)};
        for (int32_t k = 0; k < p->weights->count[x]; k++, pixel += channels)
            for (int64_t c = 0; c < channels; c++) sum[c] += pixel[c] * weight[k];
        for (int64_t c = 0; c < channels; c++) to[x * channels + c] = clip(sum[c]);
    }
}

static void filter_columns(const void *context, int64_t begin, int64_t end, void *scratch)
{
    const pass *p = context;
    (void)scratch;
    for (int64_t y = begin; y < end; y++) {
        const uint8_t *from = p->from + y * p->in_row;
        uint8_t *to = p->to + y * p->out_row;
        switch (p->channels) {
        case 1:
            filter_row(p, from, to, 1);
            break;
        case 3:
            filter_row(p, from, to, 3);
            break;
        default:
            filter_row(p, from, to, p->channels);
        }
    }
}

/* `scratch`: int32 [out_row], the sums of one output row. */
static void filter_rows(const void *context, int64_t begin, int64_t end, void *scratch)
{
    const pass *p = context;
    int32_t *sum = scratch;
    for (int64_t y = begin; y < end; y++) {
        const int32_t *weight = p->weights->weight + y * p->weights->stride;
        const uint8_t *from = p->from + p->weights->first[y] * p->in_row;
        uint8_t *to = p->to + y * p->out_row;
        for (int64_t x = 0; x < p->out_row; x++) sum[x] = 1 << (PRECISION - 1);
        for (int32_t k = 0; k < p->weights->count[y]; k++, from += p->in_row)
            for (int64_t x = 0; x < p->out_row; x++) sum[x] += from[x] * weight[k];
        for (int64_t x = 0; x < p->out_row; x++) to[x] = clip(sum[x]);
    }
}

/* Filters across: rows of s->in_width pixels to rows of s->out_width, `height` of them. */
static pxr_status pass_columns(const pxr_resize_shape *s, const uint8_t *from, uint8_t *to, int64_t height,
                               pxr_error *error)
{
    const int64_t in_row = s->in_width * s->channels, out_row = s->out_width * s->channels;
    taps weights = {0};
    pxr_status status = make_taps(&weights, s->in_width, s->out_width, error);
    const pass p = {from, to, &weights, in_row, out_row, s->channels};
    if (status == PXR_OK) status = pxr_resize_bands(height, out_row * weights.stride, 0, filter_columns, &p, error);
    free_taps(&weights);
    return status;
}

/* Filters down: s->in_height rows of `width` pixels to s->out_height of them. */
static pxr_status pass_rows(const pxr_resize_shape *s, const uint8_t *from, uint8_t *to, int64_t width,
                            pxr_error *error)
{
    const int64_t row = width * s->channels;
    taps weights = {0};
    pxr_status status = make_taps(&weights, s->in_height, s->out_height, error);
    const pass p = {from, to, &weights, row, row, s->channels};
    if (status == PXR_OK)
        status = pxr_resize_bands(s->out_height, row * weights.stride, (size_t)row * sizeof(int32_t), filter_rows, &p,
                                  error);
    free_taps(&weights);
    return status;
}

/* Pillow 13 starts with the rows where the height shrinks much more than the width (in pixels, not in scale). */
static bool rows_go_first(const pxr_resize_shape *s)
{
    return s->in_height > s->out_height && s->in_height - s->out_height > 2 * (s->in_width - s->out_width);
}

pxr_status pxr_resize_bicubic_u8(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error)
{
    pxr_resize_shape s;
    pxr_status status = pxr_resize_check(&s, out, x, PXR_U8, "bicubic resize", error);
    if (status != PXR_OK) return status;
    const bool columns = s.in_width != s.out_width, rows = s.in_height != s.out_height;
    if (!columns && !rows) {
        pxr_resize_copy(out, x);
        return PXR_OK;
    }
    if (!rows) return pass_columns(&s, x->data, out->data, s.in_height, error);
    if (!columns) return pass_rows(&s, x->data, out->data, s.in_width, error);

    const bool rows_first = rows_go_first(&s);
    const int64_t height = rows_first ? s.out_height : s.in_height, width = rows_first ? s.in_width : s.out_width;
    status = pxr_check_picture_size(height, width, "bicubic resize: the picture between the passes", error);
    if (status != PXR_OK) return status;
    const size_t bytes = (size_t)(height * width * s.channels);
    uint8_t *between = pxr_malloc(bytes); /* [height, width, channels] */
    if (!between) return pxr_fail_memory(error, bytes, "resizing a picture");
    if (rows_first) {
        status = pass_rows(&s, x->data, between, s.in_width, error);
        if (status == PXR_OK) status = pass_columns(&s, between, out->data, s.out_height, error);
    } else {
        status = pass_columns(&s, x->data, between, s.in_height, error);
        if (status == PXR_OK) status = pass_rows(&s, between, out->data, s.out_width, error);
    }
    pxr_free(between);
    return status;
}
