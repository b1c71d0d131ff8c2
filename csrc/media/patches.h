/* From a picture to the encoder's input: the budget of pixels, normalisation and the cut into patches. */
#ifndef PXR_MEDIA_PATCHES_H
#define PXR_MEDIA_PATCHES_H

#include "core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Fills `out` [cells, 3*patch*patch] float32 from `image` [H,W,3] uint8, both contiguous on the host; H and W are
 * multiples of patch*block, cells = (H/patch)*(W/patch). A row is one patch, channel-major; rows go in raster order over
 * blocks of `block` x `block` cells, raster inside a block. Values are float32(double(x) * 0.00392156862745098), minus
 * mean, divided by std, per channel. Errors: shapes, types, block or patch below 1, a std that is 0 or no number. */
pxr_status pxr_patches(const pxr_tensor *out, const pxr_tensor *image, int64_t patch, int64_t block,
                       const float mean[3], const float std[3], pxr_error *error);

/** max_pixels of pxr_smart_resize for each of `num_images` pictures that are encoded together (REFERENCE section 4):
 * floor(floor(mm_max_length * (merge*14)^2 / (merge/downsampling)^2) / num_images). Arguments below 1 give 0. */
int64_t pxr_budget_max_pixels(int64_t mm_max_length, int64_t merge, int64_t downsampling, int64_t num_images);

#ifdef __cplusplus
}
#endif
#endif
