/* OCI, object-centric infusion (PixelRefer-Lite; the paper's section on the Object-Only framework, REFERENCE 8.7).
 *
 *   x = tokens + MHA_local(LN_local(tokens), local, local)       local: features of the region's own 224 picture
 *   x = x      + MHA_global(LN_global(x), global, global)        global: features of the whole image at 336
 *
 * Both are torch's nn.MultiheadAttention: 8 heads, packed in_proj [3E,E], biases; keys and values are not normed.
 */
#ifndef PXR_MODEL_INFUSION_H
#define PXR_MODEL_INFUSION_H

#include "core/tensor_map.h"

typedef struct pxr_infusion pxr_infusion;

/** OCI over features of width `hidden` from weights `fusion_attention_local.in_proj_weight`, ..., `ln_global.bias`. */
pxr_status pxr_infusion_new(pxr_infusion **infusion, int64_t hidden, const pxr_tensor_map *weights, pxr_device *device,
                            pxr_error *error);

/** Releases it; NULL is fine. */
void pxr_infusion_free(pxr_infusion *infusion);

/** E, and where it computes. */
int64_t pxr_infusion_hidden(const pxr_infusion *infusion);
pxr_device *pxr_infusion_device(const pxr_infusion *infusion);

typedef enum pxr_infusion_step { PXR_INFUSION_LOCAL = 0, PXR_INFUSION_GLOBAL } pxr_infusion_step;

/** One of the two steps: out [k,E] = tokens + MHA(LN(tokens), context, context), context [cells,E]; float32,
 * contiguous; out may be tokens. */
pxr_status pxr_infusion_forward(pxr_infusion *infusion, pxr_infusion_step step, const pxr_tensor *out,
                                const pxr_tensor *tokens, const pxr_tensor *context, pxr_error *error);

#endif
