/* Pictures from JPEG and PNG bytes, and PNG bytes from pictures. Files are the caller's (io/). */
#ifndef PXR_MEDIA_IMAGE_H
#define PXR_MEDIA_IMAGE_H

#include "core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Decodes JPEG or PNG bytes to a new uint8 [h,w,3] tensor: EXIF orientation applied, grey widened, a palette resolved,
 * alpha dropped, 16 bits cut to their upper 8 (as PIL does). Errors: another format, cut off or damaged, a coding that
 * is not supported, a size outside limits.h, memory. */
pxr_status pxr_image_decode(pxr_tensor *image, const void *data, size_t length, pxr_error *error);

/** Decodes a mask picture to a new uint8 [h,w] tensor: 1 where the grey value or any colour channel is not 0 (all 16
 * bits count; alpha does not), else 0. Stored pixels, no orientation. Errors as above. */
pxr_status pxr_image_decode_mask(pxr_tensor *mask, const void *data, size_t length, pxr_error *error);

/** Turns a contiguous uint8 [h,w,channels] picture as EXIF orientation 1 .. 8 says into a new tensor. */
pxr_status pxr_image_orient(pxr_tensor *out, const pxr_tensor *image, int orientation, pxr_error *error);

/** Encodes a contiguous uint8 [h,w] (grey) or [h,w,3] picture as PNG, in a new block (pxr_free). */
pxr_status pxr_image_encode_png(const pxr_tensor *image, void **png, size_t *length, pxr_error *error);

#ifdef __cplusplus
}
#endif
#endif
