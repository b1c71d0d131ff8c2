/* What the resizers share: geometry of a call, and loops over rows in bands that own scratch memory. */
#ifndef PXR_MEDIA_RESIZE_INTERNAL_H
#define PXR_MEDIA_RESIZE_INTERNAL_H

#include "core/tensor.h"

/* One call's shapes. A row is width * channels elements. */
typedef struct pxr_resize_shape {
    int64_t in_height, in_width, out_height, out_width; /* pixels */
    int64_t channels;                                   /* 1 for a [h,w] tensor */
} pxr_resize_shape;

/** Checks a resize's tensors (type, rank, channels, density, sizes, host memory) and reads their shapes. `name` begins
 * messages. */
pxr_status pxr_resize_check(pxr_resize_shape *shape, const pxr_tensor *out, const pxr_tensor *x, pxr_dtype dtype,
                            const char *name, pxr_error *error);

/** Copies `x` to `out` (same shape and type). */
void pxr_resize_copy(const pxr_tensor *out, const pxr_tensor *x);

/* Output rows begin .. end-1; `scratch` belongs to this band alone. */
typedef void (*pxr_resize_rows)(const void *context, int64_t begin, int64_t end, void *scratch);

/** Runs `rows` over `height` output rows of about `row_work` basic steps each, in bands on several threads; every band
 * has `scratch_bytes` of its own. */
pxr_status pxr_resize_bands(int64_t height, int64_t row_work, size_t scratch_bytes, pxr_resize_rows rows,
                            const void *context, pxr_error *error);

#endif
