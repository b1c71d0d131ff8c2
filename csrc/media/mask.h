/* Binary masks: uint8 [h,w] tensors of 0 and 1, and COCO's ways of writing them.
 *
 * COCO's run lengths go down the columns: counts[0] pixels outside, counts[1] inside, and so on, column after column.
 * All functions take contiguous host tensors; sizes are bounded by limits.h.
 */
#ifndef PXR_MEDIA_MASK_H
#define PXR_MEDIA_MASK_H

#include "core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Run lengths of a mask; owned, ended by pxr_rle_free. A zeroed struct is empty. */
typedef struct pxr_rle {
    int64_t height, width;
    uint32_t *counts; /* outside, inside, outside, ...: pixels, column-major */
    size_t count;     /* number of runs */
    size_t capacity;
} pxr_rle;

/** Frees the runs and zeroes the struct; a zeroed one is fine. */
void pxr_rle_free(pxr_rle *rle);

/** Reads COCO's compressed text of `length` bytes (pycocotools rleFrString) for a mask of height x width. Errors: sizes,
 * a byte that is no digit of it, a run cut off or out of range, runs that do not fill the mask exactly. */
pxr_status pxr_rle_parse(pxr_rle *rle, const char *text, size_t length, int64_t height, int64_t width,
                         pxr_error *error);

/** Takes uncompressed counts (copied). Errors: sizes, a negative run, runs that do not fill the mask exactly. */
pxr_status pxr_rle_from_counts(pxr_rle *rle, const int64_t *counts, size_t count, int64_t height, int64_t width,
                               pxr_error *error);

/** The runs of a mask (0: outside, anything else: inside), as pycocotools encodes it. */
pxr_status pxr_rle_from_mask(pxr_rle *rle, const pxr_tensor *mask, pxr_error *error);

/** COCO's compressed text of the runs (rleToString), in a new NUL-terminated block (pxr_free). */
pxr_status pxr_rle_text(const pxr_rle *rle, char **text, size_t *length, pxr_error *error);

/** Sets the mask's pixels (uint8 [height,width]) from the runs: 1 inside; outside 0, or untouched if `unite`. */
pxr_status pxr_rle_draw(const pxr_rle *rle, const pxr_tensor *mask, bool unite, pxr_error *error);

/** The runs of one polygon's inside, `points` pairs (x, y) in pixels, exactly as pycocotools (rleFrPoly: the outline is
 * walked on a grid five times as fine). Points may lie outside the mask. Errors: fewer than three points, a coordinate
 * that is no number or beyond 1e6, an outline of more than 2^28 fifths of a pixel. */
pxr_status pxr_rle_from_polygon(pxr_rle *rle, const double *xy, size_t points, int64_t height, int64_t width,
                                pxr_error *error);

/** Checks that `mask` is a contiguous uint8 [h,w] host tensor of permitted size; `what` begins the message. */
pxr_status pxr_mask_check(const pxr_tensor *mask, const char *what, pxr_error *error);

/** Number of pixels that are not 0. */
int64_t pxr_mask_area(const pxr_tensor *mask);

/** The tight box {x0, y0, x1, y1}, half-open, of the pixels that are not 0; false when there are none. */
bool pxr_mask_bounds(const pxr_tensor *mask, int64_t box[4]);

/** Makes every pixel that is not 0 a 1, from `from` uint8 [h,w] or [h,w,channels] (any channel) into `mask` [h,w]. */
pxr_status pxr_mask_binarize(const pxr_tensor *mask, const pxr_tensor *from, pxr_error *error);

#ifdef __cplusplus
}
#endif
#endif
