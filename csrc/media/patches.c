/* From a picture to the encoder's input; see patches.h. */
#include "media/patches.h"

#include "core/threads.h"
#include "media/limits.h"

#include <math.h>

typedef struct cut {
    float value[3][256];         /* of each channel's 8-bit values */
    const uint8_t *image;        /* [grid_w*patch pixels a row, 3] */
    float *out;                  /* [cells, 3*patch*patch] */
    int64_t patch, block;        /* pixels, cells */
    int64_t blocks_x, row_bytes; /* blocks of a row of blocks; bytes of a row of pixels */
} cut;

/* Rows of blocks begin .. end-1. */
static void cut_block_rows(void *context, int64_t begin, int64_t end)
{
    const cut *c = context;
    const int64_t p = c->patch, block = c->block, features = 3 * p * p;
    float *to = c->out + begin * c->blocks_x * block * block * features;
    for (int64_t cell = begin * c->blocks_x * block * block; cell < end * c->blocks_x * block * block; cell++) {
        const int64_t inside = cell % (block * block), number = cell / (block * block);
        const int64_t row = number / c->blocks_x * block + inside / block;
        const int64_t column = number % c->blocks_x * block + inside % block;
        const uint8_t *from = c->image + row * p * c->row_bytes + column * p * 3;
        for (int channel = 0; channel < 3; channel++)
            for (int64_t y = 0; y < p; y++)
                for (int64_t x = 0; x < p; x++) *to++ = c->value[channel][from[y * c->row_bytes + x * 3 + channel]];
    }
}

/* Shapes, types, density. */
static pxr_status check(const pxr_tensor *out, const pxr_tensor *image, int64_t patch, int64_t block, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (image->dtype != PXR_U8 || image->rank != 3 || image->size[2] != 3)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "patches: the picture is %s %s, expected [H,W,3] uint8",
                        pxr_tensor_shape_text(image, shape), pxr_dtype_name(image->dtype));
    if (patch < 1 || block < 1 || patch > PXR_MAX_SIDE || block > PXR_MAX_SIDE)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "patches: %lld pixels a patch and %lld cells a block make no sense",
                        (long long)patch, (long long)block);
    const int64_t height = image->size[0], width = image->size[1];
    if (pxr_check_picture_size(height, width, "patches: the picture", error) != PXR_OK) return PXR_ERROR_ARGUMENT;
    if (height % (patch * block) != 0 || width % (patch * block) != 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "patches: the picture is %lld x %lld, expected multiples of %lld",
                        (long long)height, (long long)width, (long long)(patch * block));
    const int64_t cells = (height / patch) * (width / patch);
    if (out->dtype != PXR_F32 || out->rank != 2 || out->size[0] != cells || out->size[1] != 3 * patch * patch)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "patches: the target is %s %s, expected [%lldx%lld] float32",
                        pxr_tensor_shape_text(out, shape), pxr_dtype_name(out->dtype), (long long)cells,
                        (long long)(3 * patch * patch));
    if (!pxr_tensor_is_contiguous(image) || !pxr_tensor_is_contiguous(out) || !pxr_tensor_device(image)->is_host ||
        !pxr_tensor_device(out)->is_host)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "patches: picture and target must be contiguous, in host memory");
    return PXR_OK;
}

pxr_status pxr_patches(const pxr_tensor *out, const pxr_tensor *image, int64_t patch, int64_t block,
                       const float mean[3], const float std[3], pxr_error *error)
{
    const pxr_status status = check(out, image, patch, block, error);
    if (status != PXR_OK) return status;
    cut c = {.image = image->data,
             .out = out->data,
             .patch = patch,
             .block = block,
             .blocks_x = image->size[1] / (patch * block),
             .row_bytes = image->size[1] * 3};
    for (int channel = 0; channel < 3; channel++) {
        if (!isfinite(mean[channel]) || !isfinite(std[channel]) || std[channel] == 0)
            return pxr_fail(error, PXR_ERROR_ARGUMENT, "patches: channel %d has mean %g and std %g", channel + 1,
                            (double)mean[channel], (double)std[channel]);
        for (int value = 0; value < 256; value++) /* numpy rescales in double, then stores float32 */
            c.value[channel][value] = ((float)((double)value * 0.00392156862745098) - mean[channel]) / std[channel];
    }
    pxr_parallel_for(image->size[0] / (patch * block), 4, cut_block_rows, &c);
    return PXR_OK;
}

int64_t pxr_budget_max_pixels(int64_t mm_max_length, int64_t merge, int64_t downsampling, int64_t num_images)
{
    enum { PATCH = 14, MAX_LENGTH = 1 << 30, MAX_SMALL = 1 << 10 }; /* far above any model; keeps integers exact */
    if (mm_max_length < 1 || merge < 1 || downsampling < 1 || num_images < 1) return 0;
    if (mm_max_length > MAX_LENGTH || merge > MAX_SMALL || downsampling > MAX_SMALL) return 0;
    const double base = (double)(mm_max_length * (merge * PATCH) * (merge * PATCH));
    const double ratio = (double)merge / (double)downsampling;
    return (int64_t)floor(base / (ratio * ratio)) / num_images;
}
