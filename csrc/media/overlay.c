/* Drawing regions on a picture; see overlay.h. */
#include "media/overlay.h"

#include "core/memory.h"
#include "media/mask.h"

#include <string.h>

enum { GLYPH_WIDTH = 5, GLYPH_HEIGHT = 7, MAX_DIGITS = 6, MAX_CONTOUR = 64, MAX_SCALE = 64, OPAQUE = 255 };

/* Digits 0 to 9 on a 5 x 7 raster: one byte a row, the highest of its five bits leftmost. */
static const uint8_t glyphs[10][GLYPH_HEIGHT] = {
    {0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e}, {0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e},
    {0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f}, {0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e},
    {0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02}, {0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e},
    {0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e}, {0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08},
    {0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e}, {0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c},
};

static pxr_status check(const pxr_tensor *image, const pxr_tensor *mask, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    const pxr_status status = pxr_mask_check(mask, "the mask to draw", error);
    if (status != PXR_OK) return status;
    if (image->dtype != PXR_U8 || image->rank != 3 || image->size[2] != 3 || !pxr_tensor_is_contiguous(image) ||
        !pxr_tensor_device(image)->is_host)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "cannot draw on %s %s, expected a contiguous uint8 [h,w,3]",
                        pxr_tensor_shape_text(image, shape), pxr_dtype_name(image->dtype));
    if (image->size[0] != mask->size[0] || image->size[1] != mask->size[1])
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "a mask of %lld x %lld does not fit a picture of %lld x %lld",
                        (long long)mask->size[0], (long long)mask->size[1], (long long)image->size[0],
                        (long long)image->size[1]);
    return PXR_OK;
}

static void blend(uint8_t *pixel, const uint8_t color[3], int opacity)
{
    for (int c = 0; c < 3; c++)
        pixel[c] = (uint8_t)((pixel[c] * (OPAQUE - opacity) + color[c] * opacity + OPAQUE / 2) / OPAQUE);
}

/* Distance of every inside pixel to the outside (city blocks, the picture's border is no outside), at most MAX_CONTOUR+1,
 * in two sweeps: to [height, width]. */
static void distances(const uint8_t *inside, int64_t height, int64_t width, uint8_t *to)
{
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x++) {
            const int64_t i = y * width + x;
            int d = inside[i] ? MAX_CONTOUR + 1 : 0;
            if (y > 0 && to[i - width] + 1 < d) d = to[i - width] + 1;
            if (x > 0 && to[i - 1] + 1 < d) d = to[i - 1] + 1;
            to[i] = (uint8_t)d;
        }
    for (int64_t y = height; y-- > 0;)
        for (int64_t x = width; x-- > 0;) {
            const int64_t i = y * width + x;
            int d = to[i];
            if (y + 1 < height && to[i + width] + 1 < d) d = to[i + width] + 1;
            if (x + 1 < width && to[i + 1] + 1 < d) d = to[i + 1] + 1;
            to[i] = (uint8_t)d;
        }
}

pxr_status pxr_overlay_region(const pxr_tensor *image, const pxr_tensor *mask, const pxr_overlay_style *style,
                              pxr_error *error)
{
    const pxr_status status = check(image, mask, error);
    if (status != PXR_OK) return status;
    if (style->opacity < 0 || style->opacity > OPAQUE || style->contour < 0 || style->contour > MAX_CONTOUR)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "opacity %d and contour %d, expected 0 to %d and 0 to %d pixels",
                        style->opacity, style->contour, OPAQUE, MAX_CONTOUR);
    const int64_t height = mask->size[0], width = mask->size[1], count = height * width;
    uint8_t *distance = pxr_malloc((size_t)count);
    if (!distance) return pxr_fail_memory(error, (size_t)count, "the contour of a region");
    distances(mask->data, height, width, distance);
    uint8_t *pixel = image->data;
    for (int64_t i = 0; i < count; i++, pixel += 3)
        if (distance[i] > 0) blend(pixel, style->color, distance[i] <= style->contour ? OPAQUE : style->opacity);
    pxr_free(distance);
    return PXR_OK;
}

/* The inside pixel nearest to the centre of mass; false for an empty mask. */
static bool find_middle(const pxr_tensor *mask, int64_t *middle_x, int64_t *middle_y)
{
    const int64_t height = mask->size[0], width = mask->size[1];
    const uint8_t *inside = mask->data;
    int64_t area = 0, sum_x = 0, sum_y = 0, nearest = INT64_MAX; /* sums below 2^44 */
    for (int64_t i = 0; i < height * width; i++)
        if (inside[i]) area++, sum_x += i % width, sum_y += i / width;
    if (area == 0) return false;
    const int64_t center_x = sum_x / area, center_y = sum_y / area;
    for (int64_t i = 0; i < height * width; i++) {
        if (!inside[i]) continue;
        const int64_t dx = i % width - center_x, dy = i / width - center_y, distance = dx * dx + dy * dy;
        if (distance < nearest) nearest = distance, *middle_x = i % width, *middle_y = i / width;
    }
    return true;
}

static void fill(const pxr_tensor *image, int64_t x0, int64_t y0, int64_t columns, int64_t rows, const uint8_t color[3])
{
    const int64_t height = image->size[0], width = image->size[1];
    for (int64_t y = y0 < 0 ? 0 : y0; y < y0 + rows && y < height; y++)
        for (int64_t x = x0 < 0 ? 0 : x0; x < x0 + columns && x < width; x++)
            memcpy((uint8_t *)image->data + (y * width + x) * 3, color, 3);
}

/* Where a span of `length` around `middle` begins so that it lies within 0 .. limit-1, or at 0 if it is longer. */
static int64_t place(int64_t middle, int64_t length, int64_t limit)
{
    int64_t begin = middle - length / 2;
    if (begin + length > limit) begin = limit - length;
    return begin < 0 ? 0 : begin;
}

pxr_status pxr_overlay_label(const pxr_tensor *image, const pxr_tensor *mask, int number, const uint8_t color[3],
                             int scale, pxr_error *error)
{
    static const uint8_t black[3] = {0, 0, 0}, white[3] = {OPAQUE, OPAQUE, OPAQUE};
    const pxr_status status = check(image, mask, error);
    if (status != PXR_OK) return status;
    if (number < 0 || number > 999999 || scale < 1 || scale > MAX_SCALE)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "label %d in scale %d, expected 0 to 999999 and 1 to %d", number,
                        scale, MAX_SCALE);
    int64_t x = 0, y = 0;
    if (!find_middle(mask, &x, &y)) return PXR_OK;

    uint8_t digits[MAX_DIGITS]; /* the last digit first */
    int count = 0;
    do digits[count++] = (uint8_t)(number % 10);
    while ((number /= 10) > 0);

    const int64_t columns = (count * (GLYPH_WIDTH + 1) + 1) * scale, rows = (GLYPH_HEIGHT + 2) * scale;
    const int64_t left = place(x, columns, image->size[1]), top = place(y, rows, image->size[0]);
    const bool bright = 299 * color[0] + 587 * color[1] + 114 * color[2] > 128000;
    fill(image, left, top, columns, rows, color);
    for (int d = 0; d < count; d++)
        for (int64_t row = 0; row < GLYPH_HEIGHT; row++)
            for (int64_t column = 0; column < GLYPH_WIDTH; column++)
                if (glyphs[digits[count - 1 - d]][row] >> (GLYPH_WIDTH - 1 - column) & 1)
                    fill(image, left + (d * (GLYPH_WIDTH + 1) + 1 + column) * scale, top + (row + 1) * scale, scale,
                         scale, bright ? black : white);
    return PXR_OK;
}
