/* What the fuzz targets of the file formats share: the input as a mapped file, and a look at what was read from it. */
#ifndef PXR_FUZZ_BYTES_H
#define PXR_FUZZ_BYTES_H

#include "core/tensor_map.h"
#include "ops/device.h"

/* The input as a file's bytes, without a copy: reading outside of it is what the sanitizer sees. */
static inline pxr_tensor fuzz_file(const uint8_t *data, size_t size)
{
    pxr_tensor file;
    pxr_error error;
    pxr_tensor_wrap(&file, pxr_cpu_device(), PXR_U8, 1, &(int64_t){(int64_t)size}, (void *)(uintptr_t)data, NULL, NULL,
                    &error);
    return file;
}

/* Reads the first and the last byte of a tensor: strides are never negative, so these bound all others. */
static inline void fuzz_touch(const pxr_tensor *tensor)
{
    static volatile uint8_t sink;
    const uint8_t *first = tensor->data, *last = first;
    const int64_t element = (int64_t)pxr_dtype_size(tensor->dtype);
    if (pxr_tensor_count(tensor) == 0) return;
    for (int dim = 0; dim < tensor->rank; dim++) last += (tensor->size[dim] - 1) * tensor->stride[dim] * element;
    sink = (uint8_t)(first[0] + last[element - 1]);
    (void)sink;
}

/* Touches every tensor of a map. */
static inline void fuzz_touch_all(const pxr_tensor_map *tensors)
{
    for (size_t i = 0; i < pxr_tensor_map_count(tensors); i++) {
        const char *name;
        fuzz_touch(pxr_tensor_map_at(tensors, i, &name));
    }
}

#endif
