/* SAOT's first step: cropping and scaling a region; see object_tokenizer.h. Numbers follow REFERENCE 7.1 to 7.4 and
 * 8.1 to 8.4 (the reference's region preprocessing of each framework). */
#include "model/object_tokenizer.h"

#include "media/resize.h"
#include "ops/device.h"

#include <math.h>
#include <string.h>

enum {
    CELL = 14,         /* pixels a side */
    MARGIN = 28,       /* pixels around the tight box */
    LOCAL_SIDE = 224,  /* of OCI's local picture */
    MAX_SIDE = 1 << 15 /* of a scaled crop, pixels */
};

/* Rows and columns first .. last (inclusive) that hold mask pixels; `area` pixels in all. */
typedef struct extent {
    int64_t top, left, bottom, right, area;
} extent;

static extent measure(const pxr_tensor *mask)
{
    const uint8_t *m = pxr_tensor_data(mask);
    const int64_t height = mask->size[0], width = mask->size[1];
    extent e = {.top = height, .left = width, .bottom = -1, .right = -1};
    for (int64_t y = 0; y < height; y++) {
        for (int64_t x = 0; x < width; x++) {
            if (m[y * width + x] != 1) continue;
            if (e.top > y) e.top = y;
            if (e.left > x) e.left = x;
            if (e.right < x) e.right = x;
            e.bottom = y;
            e.area++;
        }
    }
    return e;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* The paper's formula has no ceil; the reference's code does. */
static double adaptive_scale(pxr_saot_variant variant, int64_t mask_num, int64_t area)
{
    const double cell = CELL * CELL, cells = (double)area / cell;
    const double most = variant == PXR_SAOT_OBJECT_ONLY ? 50.0 : 100.0;
    const double scale = ceil(sqrt(cell * (double)mask_num / (double)max64(area, 1)));
    return scale == 1.0 && cells > most ? 1.0 / sqrt(cells / most) : scale;
}

/* Rows top .. end-1 and columns left .. right_end-1 of [h,w(,3)], copied densely. */
static pxr_status crop(pxr_tensor *out, const pxr_tensor *x, int64_t top, int64_t left, int64_t end, int64_t right_end,
                       pxr_error *error)
{
    const int64_t channels = x->rank == 3 ? x->size[2] : 1, size[3] = {end - top, right_end - left, channels};
    const pxr_status status = pxr_tensor_new(out, pxr_cpu_device(), PXR_U8, x->rank, size, error);
    if (status != PXR_OK) return status;
    const uint8_t *from = pxr_tensor_data(x);
    uint8_t *to = pxr_tensor_data(out);
    const size_t row = (size_t)(size[1] * channels);
    for (int64_t y = 0; y < size[0]; y++)
        memcpy(to + (size_t)y * row, from + ((top + y) * x->size[1] + left) * channels, row);
    return PXR_OK;
}

static pxr_status new_u8(pxr_tensor *out, int64_t height, int64_t width, int64_t channels, pxr_error *error)
{
    const int64_t size[3] = {height, width, channels};
    return pxr_tensor_new(out, pxr_cpu_device(), PXR_U8, 3, size, error);
}

static pxr_status new_grid(pxr_tensor *out, int64_t height, int64_t width, pxr_error *error)
{
    const int64_t size[2] = {height, width};
    return pxr_tensor_new(out, pxr_cpu_device(), PXR_F32, 2, size, error);
}

/* Lite's empty region: one black cell that is not in (the reference's placeholder). */
static pxr_status prepare_nothing(pxr_prepared_region *region, pxr_error *error)
{
    pxr_status status = new_u8(&region->picture, CELL, CELL, 3, error);
    if (status == PXR_OK) status = new_u8(&region->local_picture, LOCAL_SIDE, LOCAL_SIDE, 3, error);
    if (status == PXR_OK) status = new_grid(&region->mask_grid, 1, 1, error);
    if (status != PXR_OK) return status;
    memset(region->picture.data, 0, CELL * CELL * 3);
    memset(region->local_picture.data, 0, LOCAL_SIDE * LOCAL_SIDE * 3);
    memset(region->mask_grid.data, 0, sizeof(float));
    return PXR_OK;
}

/* Common part of [begin,end) and [other_begin,other_end). */
static int64_t overlap(int64_t begin, int64_t end, int64_t other_begin, int64_t other_end)
{
    return max64(0, min64(end, other_end) - max64(begin, other_begin));
}

/* Area of the mask under cell (row, column) of a rows x columns grid, in pixels times rows * columns: exact. */
static int64_t mask_share(const pxr_tensor *mask, int64_t rows, int64_t columns, int64_t row, int64_t column)
{
    const uint8_t *m = pxr_tensor_data(mask);
    const int64_t height = mask->size[0], width = mask->size[1];
    int64_t share = 0;
    for (int64_t y = row * height / rows; y < height && y * rows < (row + 1) * height; y++) {
        const int64_t high = overlap(y * rows, (y + 1) * rows, row * height, (row + 1) * height);
        for (int64_t x = column * width / columns; x < width && x * columns < (column + 1) * width; x++)
            if (m[y * width + x])
                share += high * overlap(x * columns, (x + 1) * columns, column * width, (column + 1) * width);
    }
    return share;
}

/* A mask too thin to reach any cell centre would give no token (the reference then crashes or drops the region): the
 * cell that holds the largest share of the mask is taken instead, the first of equals. */
static void keep_largest_cell(const pxr_tensor *mask_grid, const pxr_tensor *mask)
{
    float *grid = pxr_tensor_data(mask_grid);
    const int64_t rows = mask_grid->size[0], columns = mask_grid->size[1];
    int64_t best = 0, best_share = -1;
    for (int64_t cell = 0; cell < rows * columns; cell++)
        if (grid[cell] > 0.0f) return;
    for (int64_t cell = 0; cell < rows * columns; cell++) {
        const int64_t share = mask_share(mask, rows, columns, cell / columns, cell % columns);
        if (share > best_share) {
            best_share = share;
            best = cell;
        }
    }
    grid[best] = 1.0f;
}

/* PixelRefer's masks are resized as 8-bit values, Lite's as float32. */
static pxr_status resize_mask(pxr_tensor *grid, pxr_saot_variant variant, const pxr_tensor *mask, pxr_error *error)
{
    const int64_t count = pxr_tensor_count(grid), mask_count = pxr_tensor_count(mask);
    const uint8_t *bytes = pxr_tensor_data(mask);
    float *values = pxr_tensor_data(grid);
    pxr_tensor other = {0};
    pxr_status status;
    if (variant == PXR_SAOT_OBJECT_ONLY) {
        status = pxr_tensor_new(&other, pxr_cpu_device(), PXR_F32, 2, mask->size, error);
        if (status != PXR_OK) return status;
        float *wide = pxr_tensor_data(&other);
        for (int64_t i = 0; i < mask_count; i++) wide[i] = (float)bytes[i];
        status = pxr_resize_linear_f32(grid, &other, error);
    } else {
        status = pxr_tensor_new(&other, pxr_cpu_device(), PXR_U8, 2, grid->size, error);
        if (status == PXR_OK) status = pxr_resize_torch_u8(&other, mask, error);
        const uint8_t *resized = pxr_tensor_data(&other);
        for (int64_t i = 0; status == PXR_OK && i < count; i++) values[i] = (float)resized[i];
        if (status == PXR_OK) keep_largest_cell(grid, mask);
    }
    pxr_tensor_release(&other);
    return status;
}

static pxr_status resize_crops(pxr_prepared_region *region, pxr_saot_variant variant, const pxr_tensor *picture,
                               const pxr_tensor *mask, double scale, pxr_error *error)
{
    const double high = ceil((double)picture->size[0] * scale / CELL),
                 wide = ceil((double)picture->size[1] * scale / CELL);
    if (high * CELL > MAX_SIDE || wide * CELL > MAX_SIDE || high * wide * (CELL * CELL) > 268435456.0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "a region of few pixels spread over %lld x %lld would be scaled by %g to %.0f x %.0f pixels",
                        (long long)picture->size[1], (long long)picture->size[0], scale, wide * CELL, high * CELL);
    const int64_t rows = (int64_t)high, columns = (int64_t)wide;
    pxr_status status = new_u8(&region->picture, rows * CELL, columns * CELL, 3, error);
    if (status == PXR_OK) status = new_grid(&region->mask_grid, rows, columns, error);
    if (status != PXR_OK) return status;
    const bool grows = region->picture.size[0] >= picture->size[0] || region->picture.size[1] >= picture->size[1];
    if (variant == PXR_SAOT_VISION_OBJECT || grows)
        status = pxr_resize_linear_u8(&region->picture, picture, error);
    else
        status = pxr_resize_area_u8(&region->picture, picture, error);
    if (status == PXR_OK) status = resize_mask(&region->mask_grid, variant, mask, error);
    if (status != PXR_OK || variant == PXR_SAOT_VISION_OBJECT) return status;
    status = new_u8(&region->local_picture, LOCAL_SIDE, LOCAL_SIDE, 3, error);
    return status == PXR_OK ? pxr_resize_area_u8(&region->local_picture, picture, error) : status;
}

/* Where the crop ends (exclusive), and the box that positions are computed from. */
static void choose_box(int64_t box[4], int64_t end[2], pxr_saot_variant variant, const extent *e, int64_t height,
                       int64_t width)
{
    box[0] = max64(0, e->top - MARGIN);
    box[1] = max64(0, e->left - MARGIN);
    if (variant == PXR_SAOT_OBJECT_ONLY) {
        end[0] = min64(height, e->bottom + 1 + MARGIN);
        end[1] = min64(width, e->right + 1 + MARGIN);
        box[2] = min64(height - 1, end[0] - 1);
        box[3] = min64(width - 1, end[1] - 1);
    } else {
        box[2] = min64(height - 1, e->bottom + MARGIN);
        box[3] = min64(width - 1, e->right + MARGIN);
        end[0] = max64(box[2], box[0] + 1); /* the far edge is exclusive here; a side of one pixel keeps it */
        end[1] = max64(box[3], box[1] + 1);
    }
}

static pxr_status check_arguments(const pxr_tensor *image, const pxr_tensor *mask, int64_t mask_num, pxr_error *error)
{
    char image_shape[PXR_SHAPE_TEXT], mask_shape[PXR_SHAPE_TEXT];
    if (!pxr_tensor_device(image)->is_host || !pxr_tensor_device(mask)->is_host)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "image is on %s and mask on %s, expected both on the CPU",
                        pxr_tensor_device(image)->name, pxr_tensor_device(mask)->name);
    if (image->rank != 3 || image->size[2] != 3 || image->dtype != PXR_U8 || !pxr_tensor_is_contiguous(image))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "image is %s %s, expected contiguous uint8 [hxwx3]",
                        pxr_dtype_name(image->dtype), pxr_tensor_shape_text(image, image_shape));
    if (mask->rank != 2 || mask->dtype != PXR_U8 || !pxr_tensor_is_contiguous(mask) ||
        mask->size[0] != image->size[0] || mask->size[1] != image->size[1])
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "mask is %s %s, expected contiguous uint8 [%lldx%lld], the image's size",
                        pxr_dtype_name(mask->dtype), pxr_tensor_shape_text(mask, mask_shape), (long long)image->size[0],
                        (long long)image->size[1]);
    if (mask_num < 1) return pxr_fail(error, PXR_ERROR_ARGUMENT, "mask_num is %lld", (long long)mask_num);
    return PXR_OK;
}

pxr_status pxr_saot_prepare(pxr_prepared_region *region, pxr_saot_variant variant, int64_t mask_num,
                            const pxr_tensor *image, const pxr_tensor *mask, pxr_error *error)
{
    *region = (pxr_prepared_region){0};
    pxr_status status = check_arguments(image, mask, mask_num, error);
    if (status != PXR_OK) return status;
    const extent e = measure(mask);
    if (e.area == 0) {
        if (variant == PXR_SAOT_VISION_OBJECT)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "the mask is empty: no pixel is 1");
        status = prepare_nothing(region, error);
    } else {
        pxr_tensor picture = {0}, part = {0};
        int64_t end[2];
        choose_box(region->box, end, variant, &e, image->size[0], image->size[1]);
        status = crop(&picture, image, region->box[0], region->box[1], end[0], end[1], error);
        if (status == PXR_OK) status = crop(&part, mask, region->box[0], region->box[1], end[0], end[1], error);
        if (status == PXR_OK)
            status = resize_crops(region, variant, &picture, &part, adaptive_scale(variant, mask_num, e.area), error);
        pxr_tensor_release(&picture);
        pxr_tensor_release(&part);
    }
    if (status != PXR_OK) pxr_prepared_region_release(region);
    return status;
}

void pxr_prepared_region_release(pxr_prepared_region *region)
{
    pxr_tensor_release(&region->picture);
    pxr_tensor_release(&region->local_picture);
    pxr_tensor_release(&region->mask_grid);
    *region = (pxr_prepared_region){0};
}
