/* Taking weights out of a map of tensors by name; see weights.h. */
#include "model/weights.h"

#include "model/views.h"
#include "ops/device.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAME_MAX_BYTES = 256 };

static pxr_status upload(pxr_tensor *weight, const pxr_tensor *host, pxr_device *device, pxr_error *error)
{
    pxr_status status = pxr_tensor_new(weight, device, host->dtype, host->rank, host->size, error);
    if (status != PXR_OK) return status;
    const size_t bytes = (size_t)pxr_tensor_count(host) * pxr_dtype_size(host->dtype);
    status = device->upload(device, weight->data, host->data, bytes, error);
    if (status != PXR_OK) pxr_tensor_release(weight);
    return status;
}

/* Checks a weight that is there and retains or uploads it. */
static pxr_status take(pxr_tensor *weight, const pxr_tensor *found, const char *name, pxr_device *device, int rank,
                       const int64_t *size, bool is_type, const char *types, pxr_error *error)
{
    char found_shape[PXR_SHAPE_TEXT], expected_shape[PXR_SHAPE_TEXT];
    pxr_tensor expected = {.rank = rank};
    for (int dim = 0; dim < rank; dim++) expected.size[dim] = size[dim];
    if (!pxr_tensor_same_shape(found, &expected) || !is_type)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "weight \"%s\" is %s %s, expected %s and %s", name,
                        pxr_tensor_shape_text(found, found_shape), pxr_dtype_name(found->dtype), types,
                        pxr_tensor_shape_text(&expected, expected_shape));
    if (!pxr_tensor_is_contiguous(found))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "weight \"%s\" is not contiguous", name);
    if (pxr_tensor_device(found) == device) {
        pxr_tensor_alias(weight, found);
        return PXR_OK;
    }
    if (!pxr_tensor_device(found)->is_host)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "weight \"%s\" is on %s, the model on %s", name,
                        pxr_tensor_device(found)->name, device->name);
    return upload(weight, found, device, error);
}

static pxr_status fail_missing(const char *name, int rank, const int64_t *size, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    pxr_tensor expected = {.rank = rank};
    for (int dim = 0; dim < rank; dim++) expected.size[dim] = size[dim];
    return pxr_fail(error, PXR_ERROR_ARGUMENT, "weight \"%s\" %s is missing", name,
                    pxr_tensor_shape_text(&expected, shape));
}

pxr_status pxr_weight(pxr_tensor *weight, const pxr_tensor_map *weights, pxr_device *device, int rank,
                      const int64_t *size, pxr_error *error, const char *name, ...)
{
    char full_name[NAME_MAX_BYTES];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(full_name, sizeof full_name, name, arguments);
    va_end(arguments);
    const pxr_tensor *found = pxr_tensor_map_find(weights, full_name);
    if (!found) return fail_missing(full_name, rank, size, error);
    return take(weight, found, full_name, device, rank, size, pxr_dtype_is_float(found->dtype), "a float type", error);
}

/* ---- matrices, quantised or not -------------------------------------------------------------------------------- */

/* "a.weight" with another last word. */
static void other_name(char *other, const char *name, const char *last)
{
    const size_t length = strlen(name), word = strlen("weight");
    snprintf(other, NAME_MAX_BYTES, "%.*s%s", (int)(length - word), name, last);
}

/* Rows of integers become bfloat16 on `device`, some at a time. */
static pxr_status widen_to_device(pxr_tensor *weight, const pxr_linear_weights *host, int64_t out, int64_t in,
                                  pxr_device *device, pxr_error *error)
{
    enum { ROWS = 256 };
    pxr_device *cpu = pxr_tensor_device(&host->weight);
    const int64_t size[2] = {out, in}, some[2] = {ROWS, in}, count = ROWS;
    pxr_tensor ids = {0}, wide = {0}, narrow = {0};
    pxr_status status = pxr_tensor_new(weight, device, PXR_BF16, 2, size, error);
    if (status == PXR_OK) status = pxr_tensor_new(&ids, cpu, PXR_I64, 1, &count, error);
    if (status == PXR_OK) status = pxr_tensor_new(&wide, cpu, PXR_F32, 2, some, error);
    if (status == PXR_OK) status = pxr_tensor_new(&narrow, cpu, PXR_BF16, 2, some, error);
    for (int64_t row = 0; status == PXR_OK && row < out; row += ROWS) {
        const int64_t rows = out - row < ROWS ? out - row : ROWS;
        const pxr_tensor its_ids = pxr_rows(&ids, 0, rows), its_wide = pxr_rows(&wide, 0, rows);
        const pxr_tensor its_narrow = pxr_rows(&narrow, 0, rows);
        for (int64_t i = 0; i < rows; i++) ((int64_t *)ids.data)[i] = row + i;
        status = pxr_embedding(&(pxr_embedding_args){.out = &its_wide,
                                                     .table = &host->weight,
                                                     .scales = &host->scales,
                                                     .ids = &its_ids},
                               error);
        if (status == PXR_OK) status = pxr_copy(&(pxr_copy_args){.out = &its_narrow, .x = &its_wide}, error);
        if (status == PXR_OK)
            status = device->upload(device, (uint16_t *)weight->data + row * in, narrow.data,
                                    (size_t)(rows * in) * sizeof(uint16_t), error);
    }
    pxr_tensor_release(&ids);
    pxr_tensor_release(&wide);
    pxr_tensor_release(&narrow);
    if (status != PXR_OK) pxr_tensor_release(weight);
    return status;
}

static pxr_status take_quantised(pxr_linear_weights *layer, const pxr_tensor *integers, const pxr_tensor *scales,
                                 const char *name, pxr_device *device, int64_t out, int64_t in, pxr_error *error)
{
    char scales_name[NAME_MAX_BYTES];
    other_name(scales_name, name, "scales");
    const bool pairs = integers->dtype == PXR_U8;
    const int64_t size[2] = {out, pairs ? in / 2 + in % 2 : in};
    if (!scales || scales->rank != 2)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "weight \"%s\", a matrix of %lld rows, is missing", scales_name,
                        (long long)out);
    const int64_t groups[2] = {out, scales->size[1]};
    pxr_linear_weights host = {0};
    pxr_device *cpu = pxr_tensor_device(integers);
    pxr_status status = take(&host.weight, integers, name, cpu, 2, size, pairs || integers->dtype == PXR_I8,
                             "int8 or uint8", error);
    if (status == PXR_OK)
        status = take(&host.scales, scales, scales_name, cpu, 2, groups, scales->dtype == PXR_F16, "float16", error);
    if (status == PXR_OK && pxr_group_shift(in, groups[1]) < 0)
        status = pxr_fail(error, PXR_ERROR_ARGUMENT,
                          "weight \"%s\" has %lld scales for %lld columns: groups of 16 to 1024,"
                          " a power of two, expected",
                          scales_name, (long long)groups[1], (long long)in);
    if (status == PXR_OK && cpu != device) {
        status = widen_to_device(&layer->weight, &host, out, in, device, error);
    } else if (status == PXR_OK) {
        pxr_tensor_alias(&layer->weight, &host.weight);
        pxr_tensor_alias(&layer->scales, &host.scales);
    }
    pxr_linear_weights_release(&host);
    return status;
}

pxr_status pxr_matrix_take(pxr_linear_weights *layer, const pxr_tensor_map *weights, pxr_device *device, int64_t out,
                           int64_t in, pxr_error *error, const char *name, ...)
{
    char full_name[NAME_MAX_BYTES], other[NAME_MAX_BYTES];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(full_name, sizeof full_name, name, arguments);
    va_end(arguments);
    other_name(other, full_name, "scales");
    const pxr_tensor *scales = pxr_tensor_map_find(weights, other);
    other_name(other, full_name, "qweight");
    const pxr_tensor *integers = pxr_tensor_map_find(weights, other);
    const pxr_status status = integers ? take_quantised(layer, integers, scales, other, device, out, in, error)
                                       : pxr_weight(&layer->weight, weights, device, 2, (const int64_t[]){out, in},
                                                    error, "%s", full_name);
    return status == PXR_OK ? pxr_device_synchronize(device, error) : status; /* products call the weights constant */
}

pxr_status pxr_linear_weights_take(pxr_linear_weights *layer, const pxr_tensor_map *weights, pxr_device *device,
                                   int64_t out, int64_t in, bool bias, pxr_error *error, const char *prefix)
{
    const pxr_status status = pxr_matrix_take(layer, weights, device, out, in, error, "%s.weight", prefix);
    if (status != PXR_OK || !bias) return status;
    return pxr_weight(&layer->bias, weights, device, 1, &out, error, "%s.bias", prefix);
}

void pxr_linear_weights_release(pxr_linear_weights *layer)
{
    pxr_tensor_release(&layer->weight);
    pxr_tensor_release(&layer->scales);
    pxr_tensor_release(&layer->bias);
}

pxr_dtype pxr_operand_type(const pxr_tensor *weight)
{
    const pxr_device *device = pxr_tensor_device(weight); /* the CPU rounds rows itself, where it multiplies them */
    const bool rounds = weight->dtype == PXR_BF16 && device->compute == PXR_COMPUTE_BF16 && !device->is_host;
    return rounds ? PXR_BF16 : PXR_F32;
}

static pxr_linear_args args_of(const pxr_tensor *out, const pxr_tensor *x, const pxr_linear_weights *layer)
{
    return (pxr_linear_args){.out = out,
                             .x = x,
                             .weight = &layer->weight,
                             .scales = layer->scales.storage ? &layer->scales : NULL,
                             .bias = layer->bias.storage ? &layer->bias : NULL,
                             .constant = true};
}

pxr_status pxr_linear_layer(const pxr_tensor *out, const pxr_tensor *x, const pxr_linear_weights *layer,
                            pxr_activation activation, const pxr_tensor *residual, pxr_error *error)
{
    pxr_linear_args args = args_of(out, x, layer);
    args.activation = activation;
    args.residual = residual;
    return pxr_linear(&args, error);
}

pxr_status pxr_linear_layers(const pxr_tensor *const *out, const pxr_tensor *x, const pxr_linear_weights *const *layers,
                             int64_t count, const pxr_rms_norm_args *norm, const pxr_silu_mul_args *silu_mul,
                             pxr_error *error)
{
    pxr_linear_args each[PXR_LINEARS_MAX];
    for (int64_t i = 0; i < count && i < PXR_LINEARS_MAX; i++) each[i] = args_of(out[i], x, layers[i]);
    return pxr_linears(&(pxr_linears_args){.each = each, .count = count, .norm = norm, .silu_mul = silu_mul}, error);
}
