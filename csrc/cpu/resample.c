/* Bilinear resizing and sampling of maps [h,w,C]. Semantics: ops/ops.h. */
#include "cpu/cpu.h"
#include "cpu/elements.h"

#include "core/threads.h"

#include <math.h>

/* One direction of a bilinear sample: two cells and their weights. */
typedef struct taps {
    int64_t cell[2];
    float weight[2];
} taps;

/* out[0..C) = the weighted sum of the four cells of x: rows first, then columns. */
static void blend(const pxr_tensor *x, const taps *rows, const taps *columns, char *out, int64_t out_stride)
{
    const int64_t channels = x->size[2], stride = x->stride[2] * 4;
    for (int64_t at = 0, n; at < channels; at += n) {
        float block[4][PXR_BLOCK], result[PXR_BLOCK];
        const float *corner[4];
        n = channels - at < PXR_BLOCK ? channels - at : PXR_BLOCK;
        for (int i = 0; i < 4; i++) {
            const int64_t element = rows->cell[i / 2] * x->stride[0] + columns->cell[i % 2] * x->stride[1];
            const char *from = (const char *)x->data + element * 4 + at * stride;
            corner[i] = pxr_load_floats(PXR_F32, from, stride, n, block[i]);
        }
        for (int64_t i = 0; i < n; i++)
            result[i] = rows->weight[0] * (columns->weight[0] * corner[0][i] + columns->weight[1] * corner[1][i]) +
                        rows->weight[1] * (columns->weight[0] * corner[2][i] + columns->weight[1] * corner[3][i]);
        pxr_store_floats(PXR_F32, out + at * out_stride, out_stride, n, result);
    }
}

/* ---- resize_bilinear --------------------------------------------------------------------------------------------- */

/* Where cell `index` of a dim resized from `from` to `to` cells comes from, in torch's float32 arithmetic: its builds
 * contract the multiplication and the subtraction into one rounding. */
static taps resize_taps(int64_t index, int64_t from, int64_t to)
{
    const float scale = (float)from / (float)to;
    float source = fmaf(scale, (float)index + 0.5f, -0.5f);
    if (source < 0.0f) source = 0.0f;
    int64_t first = (int64_t)source;
    if (first > from - 1) first = from - 1;
    const float weight = source - (float)first;
    return (taps){{first, first < from - 1 ? first + 1 : first}, {1.0f - weight, weight}};
}

static void resize_rows(void *context, int64_t begin, int64_t end)
{
    const pxr_resize_bilinear_args *args = context;
    const pxr_tensor *out = args->out, *x = args->x;
    for (int64_t i = begin; i < end; i++) {
        const taps rows = resize_taps(i, x->size[0], out->size[0]);
        for (int64_t j = 0; j < out->size[1]; j++) {
            const taps columns = resize_taps(j, x->size[1], out->size[1]);
            char *to = (char *)out->data + (i * out->stride[0] + j * out->stride[1]) * 4;
            blend(x, &rows, &columns, to, out->stride[2] * 4);
        }
    }
}

pxr_status pxr_cpu_resize_bilinear(pxr_device *device, const pxr_resize_bilinear_args *args, pxr_error *error)
{
    (void)device;
    (void)error;
    pxr_resize_bilinear_args copy = *args;
    const int64_t cost = 8 * args->out->size[1] * args->out->size[2] + 1;
    pxr_parallel_for(args->out->size[0], 16384 / cost, resize_rows, &copy);
    return PXR_OK;
}

/* ---- grid_sample ------------------------------------------------------------------------------------------------- */

/* A coordinate in units of cells; outside either clamped to the border, or cells outside weigh 0. A NaN is outside. */
static taps sample_taps(float at, int64_t size, bool zeros)
{
    const float last = (float)(size - 1);
    if (!zeros) at = at > 0.0f ? at < last ? at : last : 0.0f;
    if (!(at > -1.0f && at < (float)size)) return (taps){{0, 0}, {0.0f, 0.0f}};
    const float floor_at = floorf(at), weight = at - floor_at;
    const int64_t first = (int64_t)floor_at;
    taps result = {{first, first + 1}, {1.0f - weight, weight}};
    for (int i = 0; i < 2; i++) {
        if (result.cell[i] >= 0 && result.cell[i] < size) continue;
        result.cell[i] = 0;
        result.weight[i] = 0.0f;
    }
    return result;
}

static float coordinate(const pxr_tensor *points, int64_t row, int64_t column)
{
    float value;
    memcpy(&value, (const char *)points->data + (row * points->stride[0] + column * points->stride[1]) * 4,
           sizeof value);
    return value;
}

static void sample_points(void *context, int64_t begin, int64_t end)
{
    const pxr_grid_sample_args *args = context;
    const pxr_tensor *out = args->out, *x = args->x;
    for (int64_t i = begin; i < end; i++) {
        const taps rows = sample_taps(coordinate(args->points, i, 0), x->size[0], args->zeros);
        const taps columns = sample_taps(coordinate(args->points, i, 1), x->size[1], args->zeros);
        blend(x, &rows, &columns, (char *)out->data + i * out->stride[0] * 4, out->stride[1] * 4);
    }
}

pxr_status pxr_cpu_grid_sample(pxr_device *device, const pxr_grid_sample_args *args, pxr_error *error)
{
    (void)device;
    (void)error;
    pxr_grid_sample_args copy = *args;
    pxr_parallel_for(args->out->size[0], 16384 / (8 * args->out->size[1] + 1), sample_points, &copy);
    return PXR_OK;
}
