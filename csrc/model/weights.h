/* Taking weights out of a map of tensors by name, with their shapes checked, onto the device that will use them. */
#ifndef PXR_MODEL_WEIGHTS_H
#define PXR_MODEL_WEIGHTS_H

#include "core/tensor_map.h"
#include "ops/ops.h"

/** The weight called `name...` (a printf format), which must be a float tensor of the given shape; retained (on its
 * own device) or uploaded (from the host) into `weight`. Errors: missing, another shape or type, naming the weight. */
pxr_status pxr_weight(pxr_tensor *weight, const pxr_tensor_map *weights, pxr_device *device, int rank,
                      const int64_t *size, pxr_error *error, const char *name, ...) PXR_PRINTF(7, 8);

/* A linear layer's weight [out,in], its scales (empty unless it is quantised, see ops.h) and its bias [out] (empty when
 * the layer has none). */
typedef struct pxr_linear_weights {
    pxr_tensor weight, scales, bias;
} pxr_linear_weights;

/** The matrix called `name...`, which ends in "weight": floats of that name [out,in], or integers of the name with
 * "qweight" and scales with "scales" in its place. On another device than theirs, integers are widened to bfloat16. */
pxr_status pxr_matrix_take(pxr_linear_weights *layer, const pxr_tensor_map *weights, pxr_device *device, int64_t out,
                           int64_t in, pxr_error *error, const char *name, ...) PXR_PRINTF(7, 8);

/** `prefix.weight`, quantised or not, and, if wanted, `prefix.bias`. */
pxr_status pxr_linear_weights_take(pxr_linear_weights *layer, const pxr_tensor_map *weights, pxr_device *device,
                                   int64_t out, int64_t in, bool bias, pxr_error *error, const char *prefix);

/** Gives them up. */
void pxr_linear_weights_release(pxr_linear_weights *layer);

/** In what type a device wants the rows that a layer with this weight multiplies: bfloat16 where it computes in that and
 * the weight is bfloat16, else float32. */
pxr_dtype pxr_operand_type(const pxr_tensor *weight);

/** out = activation(x weight^T + bias) + residual: pxr_linear with the layer's weights. */
pxr_status pxr_linear_layer(const pxr_tensor *out, const pxr_tensor *x, const pxr_linear_weights *layer,
                            pxr_activation activation, const pxr_tensor *residual, pxr_error *error);

/** out[i] = x layers[i]^T + bias for each of `count` layers, with what stands around them (or NULL): pxr_linears. */
pxr_status pxr_linear_layers(const pxr_tensor *const *out, const pxr_tensor *x, const pxr_linear_weights *const *layers,
                             int64_t count, const pxr_rms_norm_args *norm, const pxr_silu_mul_args *silu_mul,
                             pxr_error *error);

#endif
