/* VL3-SigLIP-NaViT: the vision encoder of both models (REFERENCE section 6).
 *
 *   patches [cells, 3*14*14] -> patch_embedding (the 14 x 14 convolution as a linear layer)
 *   27 x { x += out_proj(attention(LN1(x)));  x += fc2(gelu_tanh(fc1(LN2(x)))) }
 *   post_layernorm -> features [cells, E]
 *
 * Any sizes of pictures, packed one behind the other; attention is full within a picture and never across. There is no
 * position table: 2-D rotary positions turn q and k by (row, column) of their cell.
 *
 * Cells of a picture lie in block order: raster over blocks of `block` x `block` cells, raster within a block.
 */
#ifndef PXR_MODEL_VISION_ENCODER_H
#define PXR_MODEL_VISION_ENCODER_H

#include "core/tensor_map.h"

typedef struct pxr_vision_encoder pxr_vision_encoder;

typedef struct pxr_vision_config {
    int64_t hidden, intermediate, layers, heads; /* E, MLP width, layer count, heads; E / heads is a multiple of 4 */
    int64_t patch_values;                        /* 3*14*14 */
    float epsilon;                               /* of the layer norms */
} pxr_vision_config;

/* The cells of one picture. */
typedef struct pxr_grid {
    int64_t height, width; /* in cells, multiples of block */
    int64_t block;         /* side of a block in cells: 1, or spatial_merge_size for video frames */
} pxr_grid;

/** An encoder on `device` from weights named `embeddings.patch_embedding.weight`, `encoder.layers.0. ...`,
 * `post_layernorm.weight`. */
pxr_status pxr_vision_encoder_new(pxr_vision_encoder **encoder, const pxr_vision_config *config,
                                  const pxr_tensor_map *weights, pxr_device *device, pxr_error *error);

/** Releases it; NULL is fine. */
void pxr_vision_encoder_free(pxr_vision_encoder *encoder);

/** Its sizes. */
const pxr_vision_config *pxr_vision_encoder_config(const pxr_vision_encoder *encoder);

/** The device it computes on. */
pxr_device *pxr_vision_encoder_device(const pxr_vision_encoder *encoder);

/** out [cells,E] = patch embedding of patches [cells,patch_values], float32, contiguous. */
pxr_status pxr_vision_encoder_embed(pxr_vision_encoder *encoder, const pxr_tensor *out, const pxr_tensor *patches,
                                    pxr_error *error);

/** Layers first .. last-1 (0-based) on x [cells,E] float32, contiguous, in place. `grids` describe its pictures. */
pxr_status pxr_vision_encoder_layers(pxr_vision_encoder *encoder, const pxr_tensor *x, const pxr_grid *grids,
                                     int64_t grid_count, int64_t first, int64_t last, pxr_error *error);

/** out = post_layernorm(x); out may be x. */
pxr_status pxr_vision_encoder_norm(pxr_vision_encoder *encoder, const pxr_tensor *out, const pxr_tensor *x,
                                   pxr_error *error);

/** All of it: out [cells,E] from patches [cells,patch_values]. Pictures are worked through in groups, so that memory
 * is bounded by the largest picture, not by the clip. */
pxr_status pxr_vision_encoder_forward(pxr_vision_encoder *encoder, const pxr_tensor *out, const pxr_tensor *patches,
                                      const pxr_grid *grids, int64_t grid_count, pxr_error *error);

#endif
