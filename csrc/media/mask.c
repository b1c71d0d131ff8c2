/* Measures of binary masks; see mask.h. Run lengths are in mask_rle.c, polygons in mask_polygon.c. */
#include "media/mask.h"

#include "media/limits.h"

#include <string.h>

pxr_status pxr_mask_check(const pxr_tensor *mask, const char *what, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (mask->dtype != PXR_U8 || mask->rank != 2)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s is %s %s, expected [h,w] uint8", what,
                        pxr_tensor_shape_text(mask, shape), pxr_dtype_name(mask->dtype));
    if (!pxr_tensor_device(mask)->is_host || !pxr_tensor_is_contiguous(mask))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s must be contiguous, in host memory", what);
    return pxr_check_picture_size(mask->size[0], mask->size[1], what, error);
}

int64_t pxr_mask_area(const pxr_tensor *mask)
{
    const uint8_t *pixel = mask->data;
    const int64_t count = pxr_tensor_count(mask);
    int64_t area = 0;
    for (int64_t i = 0; i < count; i++) area += pixel[i] != 0;
    return area;
}

bool pxr_mask_bounds(const pxr_tensor *mask, int64_t box[4])
{
    const int64_t height = mask->size[0], width = mask->size[1];
    box[0] = width, box[1] = height, box[2] = 0, box[3] = 0;
    for (int64_t y = 0; y < height; y++) {
        const uint8_t *row = (const uint8_t *)mask->data + y * width;
        int64_t first = 0, end = width;
        while (first < width && row[first] == 0) first++;
        if (first == width) continue;
        while (row[end - 1] == 0) end--;
        if (first < box[0]) box[0] = first;
        if (end > box[2]) box[2] = end;
        if (y < box[1]) box[1] = y;
        box[3] = y + 1;
    }
    return box[3] > 0;
}

pxr_status pxr_mask_binarize(const pxr_tensor *mask, const pxr_tensor *from, pxr_error *error)
{
    const pxr_status status = pxr_mask_check(mask, "the mask", error);
    if (status != PXR_OK) return status;
    if (from->dtype != PXR_U8 || (from->rank != 2 && from->rank != 3) || from->size[0] != mask->size[0] ||
        from->size[1] != mask->size[1] || !pxr_tensor_device(from)->is_host || !pxr_tensor_is_contiguous(from)) {
        char shape[PXR_SHAPE_TEXT];
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "a mask cannot be made from a tensor %s %s",
                        pxr_tensor_shape_text(from, shape), pxr_dtype_name(from->dtype));
    }
    const int64_t channels = from->rank == 3 ? from->size[2] : 1, count = pxr_tensor_count(mask);
    const uint8_t *value = from->data;
    uint8_t *pixel = mask->data;
    for (int64_t i = 0; i < count; i++, value += channels) {
        uint8_t any = 0;
        for (int64_t c = 0; c < channels; c++) any |= value[c];
        pixel[i] = any != 0;
    }
    return PXR_OK;
}
