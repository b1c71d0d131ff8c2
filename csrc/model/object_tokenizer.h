/* SAOT, the scale-adaptive object tokenizer (REFERENCE sections 7 and 8; the paper's section on it).
 *
 *   prepare   image, mask -> the region's crop, scaled so that it spans about mask_num .. 100 (Lite: 50) cells; the
 *             mask on that crop's cell grid; the crop's box
 *   (encode)  the crop goes through the vision encoder like any picture: features [fh*fw,E]
 *   pool      features + pos_linear(where each cell lies in the image) -> cells under the mask -> at most mask_num
 *             tokens by k-means (Lite: always mask_num, zero rows fill up)
 *   project   feat_linear into the decoder's space: a pxr_projector of its own
 *
 * The two frameworks differ in small ways (far edges, thresholds, resizes), named by pxr_saot_variant.
 */
#ifndef PXR_MODEL_OBJECT_TOKENIZER_H
#define PXR_MODEL_OBJECT_TOKENIZER_H

#include "core/random.h"
#include "core/tensor_map.h"

typedef enum pxr_saot_variant {
    PXR_SAOT_VISION_OBJECT = 0, /* PixelRefer */
    PXR_SAOT_OBJECT_ONLY        /* PixelRefer-Lite */
} pxr_saot_variant;

/* A region as the encoder will see it. All on the host. */
typedef struct pxr_prepared_region {
    int64_t box[4];           /* pixels of the image: top, left, bottom, right, as positions use them */
    pxr_tensor picture;       /* uint8 [H,W,3], H and W multiples of 14: the scaled crop, before the budget's resize */
    pxr_tensor local_picture; /* uint8 [224,224,3]: the crop for OCI's local context; empty in PXR_SAOT_VISION_OBJECT */
    pxr_tensor mask_grid;     /* float32 [H/14,W/14]: a cell is in when > 0 */
} pxr_prepared_region;

/** Prepares the region of `mask` (uint8 [h,w], 0 or 1) in `image` (uint8 [h,w,3]). Errors: sizes that differ; an empty
 * mask (an empty black crop in Lite instead); a region so sparse and wide that its scaled crop would not fit. */
pxr_status pxr_saot_prepare(pxr_prepared_region *region, pxr_saot_variant variant, int64_t mask_num,
                            const pxr_tensor *image, const pxr_tensor *mask, pxr_error *error);

/** Gives its tensors up and zeroes it. */
void pxr_prepared_region_release(pxr_prepared_region *region);

typedef struct pxr_object_tokenizer pxr_object_tokenizer;

/** A pooling stage for features of width `hidden` from weights `pos_linear.weight`, `pos_linear.bias`. */
pxr_status pxr_object_tokenizer_new(pxr_object_tokenizer **tokenizer, pxr_saot_variant variant, int64_t hidden,
                                    int64_t mask_num, const pxr_tensor_map *weights, pxr_device *device,
                                    pxr_error *error);

/** Releases it; NULL is fine. */
void pxr_object_tokenizer_free(pxr_object_tokenizer *tokenizer);

/* What pool yields; tensors on the tokenizer's device. */
typedef struct pxr_pooled_region {
    pxr_tensor tokens;     /* [k,E] float32 */
    pxr_tensor cells;      /* [n,E] float32: the features under the mask, position added */
    pxr_tensor assignment; /* [n] int64: the token (0-based) that each cell went into */
} pxr_pooled_region;

/** Pools the features [fh*fw,E] (raster order) of a region's encoded picture. `generator` serves all regions of a
 * call, in order; only a region with more than mask_num cells draws from it. */
pxr_status pxr_object_tokenizer_pool(pxr_object_tokenizer *tokenizer, pxr_pooled_region *pooled,
                                     const pxr_tensor *features, int64_t grid_height, int64_t grid_width,
                                     const pxr_tensor *mask_grid, const int64_t box[4], int64_t image_height,
                                     int64_t image_width, pxr_mt19937 *generator, pxr_error *error);

/** Gives its tensors up and zeroes it. */
void pxr_pooled_region_release(pxr_pooled_region *pooled);

/** The framework it serves, mask_num, E, and where it computes. */
pxr_saot_variant pxr_object_tokenizer_variant(const pxr_object_tokenizer *tokenizer);
int64_t pxr_object_tokenizer_mask_num(const pxr_object_tokenizer *tokenizer);
int64_t pxr_object_tokenizer_hidden(const pxr_object_tokenizer *tokenizer);
pxr_device *pxr_object_tokenizer_device(const pxr_object_tokenizer *tokenizer);

#endif
