/* Drawing regions on a picture: translucent fill, contour, number. */
#ifndef PXR_MEDIA_OVERLAY_H
#define PXR_MEDIA_OVERLAY_H

#include "core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pxr_overlay_style {
    uint8_t color[3]; /* red, green, blue */
    int opacity;      /* of the fill, 0 .. 255 */
    int contour;      /* thickness of the contour inside the mask, pixels; 0: none */
} pxr_overlay_style;

/** Draws the region `mask` (uint8 [h,w]) into `image` (uint8 [h,w,3]), both contiguous on the host. Errors: shapes,
 * types, a style out of range, memory. */
pxr_status pxr_overlay_region(const pxr_tensor *image, const pxr_tensor *mask, const pxr_overlay_style *style,
                              pxr_error *error);

/** Writes `number` (0 .. 999999), in black or white on a plate of `color`, digits 7 * scale pixels high, into `image`:
 * centred on the pixel of `mask` that is nearest to the mask's centre of mass, moved inside the picture, cut off where
 * the picture is too small. An empty mask gets none. */
pxr_status pxr_overlay_label(const pxr_tensor *image, const pxr_tensor *mask, int number, const uint8_t color[3],
                             int scale, pxr_error *error);

#ifdef __cplusplus
}
#endif
#endif
