/* Taking weights out of a map of tensors by name; see weights.h. */
#include "model/weights.h"

#include <stdarg.h>
#include <stdio.h>

static pxr_status upload(pxr_tensor *weight, const pxr_tensor *host, pxr_device *device, pxr_error *error)
{
    pxr_status status = pxr_tensor_new(weight, device, host->dtype, host->rank, host->size, error);
    if (status != PXR_OK) return status;
    const size_t bytes = (size_t)pxr_tensor_count(host) * pxr_dtype_size(host->dtype);
    status = device->upload(device, weight->data, host->data, bytes, error);
    if (status != PXR_OK) pxr_tensor_release(weight);
    return status;
}

pxr_status pxr_weight(pxr_tensor *weight, const pxr_tensor_map *weights, pxr_device *device, int rank,
                      const int64_t *size, pxr_error *error, const char *name, ...)
{
    char full_name[256], found_shape[PXR_SHAPE_TEXT], expected_shape[PXR_SHAPE_TEXT];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(full_name, sizeof full_name, name, arguments);
    va_end(arguments);

    pxr_tensor expected = {.rank = rank};
    for (int dim = 0; dim < rank; dim++) expected.size[dim] = size[dim];
    const pxr_tensor *found = pxr_tensor_map_find(weights, full_name);
    if (!found)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "weight \"%s\" %s is missing", full_name,
                        pxr_tensor_shape_text(&expected, expected_shape));
    if (!pxr_tensor_same_shape(found, &expected) || !pxr_dtype_is_float(found->dtype))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "weight \"%s\" is %s %s, expected a float type and %s", full_name,
                        pxr_tensor_shape_text(found, found_shape), pxr_dtype_name(found->dtype),
                        pxr_tensor_shape_text(&expected, expected_shape));
    if (!pxr_tensor_is_contiguous(found))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "weight \"%s\" is not contiguous", full_name);
    if (pxr_tensor_device(found) == device) {
        pxr_tensor_alias(weight, found);
        return PXR_OK;
    }
    if (!pxr_tensor_device(found)->is_host)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "weight \"%s\" is on %s, the model on %s", full_name,
                        pxr_tensor_device(found)->name, device->name);
    return upload(weight, found, device, error);
}

pxr_status pxr_linear_weights_take(pxr_linear_weights *layer, const pxr_tensor_map *weights, pxr_device *device,
                                   int64_t out, int64_t in, bool bias, pxr_error *error, const char *prefix)
{
    const int64_t size[2] = {out, in};
    const pxr_status status = pxr_weight(&layer->weight, weights, device, 2, size, error, "%s.weight", prefix);
    if (status != PXR_OK || !bias) return status;
    return pxr_weight(&layer->bias, weights, device, 1, size, error, "%s.bias", prefix);
}

void pxr_linear_weights_release(pxr_linear_weights *layer)
{
    pxr_tensor_release(&layer->weight);
    pxr_tensor_release(&layer->bias);
}

pxr_dtype pxr_operand_type(const pxr_tensor *weight)
{
    const bool rounds = weight->dtype == PXR_BF16 && pxr_tensor_device(weight)->compute == PXR_COMPUTE_BF16;
    return rounds ? PXR_BF16 : PXR_F32;
}

pxr_status pxr_linear_layer(const pxr_tensor *out, const pxr_tensor *x, const pxr_linear_weights *layer,
                            pxr_activation activation, const pxr_tensor *residual, pxr_error *error)
{
    return pxr_linear(&(pxr_linear_args){.out = out,
                                         .x = x,
                                         .weight = &layer->weight,
                                         .bias = layer->bias.storage ? &layer->bias : NULL,
                                         .activation = activation,
                                         .residual = residual},
                      error);
}
