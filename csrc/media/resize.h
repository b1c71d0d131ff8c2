/* Resizing pictures and masks, each function bit for bit like one library: the reference mixes three of them, and the
 * weights were trained on what each really computes (REFERENCE sections 4, 7, 8, 12).
 *
 * All take `out` and `x`, contiguous host tensors [h,w] or [h,w,channels] (1 to 4 channels, the same for both) that do
 * not overlap; the size of `out` is the target. Sides are bounded by limits.h. Rows are shared among threads, which
 * changes no bit. Errors: shapes, types, sizes, memory; `out` is undefined then.
 */
#ifndef PXR_MEDIA_RESIZE_H
#define PXR_MEDIA_RESIZE_H

#include "core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Pillow 13's BICUBIC on 8 bits: a = -0.5, the filter widened when shrinking, 22-bit weights; two passes, each rounded
 * to 8 bits. What the image processor does before the encoder. */
pxr_status pxr_resize_bicubic_u8(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error);

/** OpenCV's INTER_LINEAR on 8 bits: 11-bit weights. Shrinking by exactly 2 both ways is the 2x2 mean, as there. */
pxr_status pxr_resize_linear_u8(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error);

/** OpenCV's INTER_LINEAR on float32. */
pxr_status pxr_resize_linear_f32(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error);

/** OpenCV's INTER_AREA on 8 bits: area means when both directions shrink (or stay), else a linear resize with
 * INTER_AREA's own coefficients. */
pxr_status pxr_resize_area_u8(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error);

/** torch.nn.functional.interpolate(mode = "bilinear", align_corners = false, antialias = false) on 8 bits: columns
 * first, then rows, each rounded to 8 bits (on a 0/1 mask not the same as the rounded product). */
pxr_status pxr_resize_torch_u8(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error);

/** The size at which a picture of `height` x `width` goes to the encoder (REFERENCE section 4): both sides multiples of
 * `factor`, the area within min_pixels .. max_pixels as far as that allows. A budget below one block gives a side of 0,
 * as in the reference; resizing to that is the error. Errors: sides outside limits.h, arguments out of range, an aspect
 * ratio above 200. */
pxr_status pxr_smart_resize(int64_t height, int64_t width, int64_t factor, int64_t min_pixels, int64_t max_pixels,
                            int64_t *out_height, int64_t *out_width, pxr_error *error);

#ifdef __cplusplus
}
#endif
#endif
