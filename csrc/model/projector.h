/* The projector into the decoder's space: Linear, GELU (erf), Linear, ... as `mlp2x_gelu` names it.
 *
 * Both the visual tokens' projector (`readout.0`, `readout.2`) and the object tokens' (`feat_linear.0`, `.2`) are one.
 */
#ifndef PXR_MODEL_PROJECTOR_H
#define PXR_MODEL_PROJECTOR_H

#include "core/tensor_map.h"

typedef struct pxr_projector pxr_projector;

/** A projector of `depth` linear layers, in -> out -> ... -> out, from weights `PREFIX.0.weight`, `PREFIX.0.bias`,
 * `PREFIX.2.weight`, ... (the odd indices are the activations). */
pxr_status pxr_projector_new(pxr_projector **projector, int64_t in, int64_t out, int64_t depth, const char *prefix,
                             const pxr_tensor_map *weights, pxr_device *device, pxr_error *error);

/** Releases it; NULL is fine. */
void pxr_projector_free(pxr_projector *projector);

/** Width of its inputs and of its outputs, and where it computes. */
int64_t pxr_projector_in(const pxr_projector *projector);
int64_t pxr_projector_out(const pxr_projector *projector);
pxr_device *pxr_projector_device(const pxr_projector *projector);

/** out [n,out] from x [n,in], float32, rows dense. */
pxr_status pxr_projector_forward(pxr_projector *projector, const pxr_tensor *out, const pxr_tensor *x,
                                 pxr_error *error);

#endif
