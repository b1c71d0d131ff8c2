/* Tensors: strided views over reference-counted storage.
 *
 * A pxr_tensor is a small value (a view); copying the struct does not count, pxr_tensor_retain does. Whoever holds a
 * view in a struct of its own retains it and later releases it. Strides are in elements and may be 0 (expanded dims).
 * Rank 0 is a scalar of one element. All functions here are about shape and ownership and run on any device;
 * arithmetic is in ops/ops.h.
 *
 *     pxr_tensor x;
 *     if (pxr_tensor_new(&x, pxr_cpu_device(), PXR_F32, 2, (const int64_t[]){3, 4}, error) != PXR_OK) return ...;
 *     float *data = pxr_tensor_data(&x);
 *     pxr_tensor_release(&x);
 */
#ifndef PXR_CORE_TENSOR_H
#define PXR_CORE_TENSOR_H

#include "core/device.h"
#include "core/dtype.h"
#include "core/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PXR_MAX_RANK = 6 };

typedef struct pxr_storage pxr_storage;

typedef struct pxr_tensor {
    void *data; /* of the element at index 0,0,...; on the storage's device; may be at any byte of a mapped file */
    pxr_dtype dtype;
    int rank;
    int64_t size[PXR_MAX_RANK];
    int64_t stride[PXR_MAX_RANK]; /* elements */
    pxr_storage *storage;         /* keeps the bytes alive; NULL in an empty (zeroed) view */
} pxr_tensor;

/** A new contiguous tensor, contents undefined. Errors: rank above PXR_MAX_RANK, negative size, overflow, no memory. */
pxr_status pxr_tensor_new(pxr_tensor *tensor, pxr_device *device, pxr_dtype dtype, int rank, const int64_t *size,
                          pxr_error *error);

/** A contiguous host tensor over bytes that somebody else owns (a mapped file, an FFmpeg frame). When the last view is
 * released, `release(context)` is called (if not NULL). On failure `release` is not called. */
pxr_status pxr_tensor_wrap(pxr_tensor *tensor, pxr_device *device, pxr_dtype dtype, int rank, const int64_t *size,
                           void *data, void (*release)(void *context), void *context, pxr_error *error);

/** Counts one more holder of the view's storage. */
void pxr_tensor_retain(const pxr_tensor *tensor);

/** Gives the view up and zeroes it; the storage goes with its last holder. A zeroed view is fine. */
void pxr_tensor_release(pxr_tensor *tensor);

/** Typed access: the data pointer as void *, so that it assigns to `float *` and the like. */
static inline void *pxr_tensor_data(const pxr_tensor *tensor)
{
    return tensor->data;
}

/** The device that holds the storage. */
pxr_device *pxr_tensor_device(const pxr_tensor *tensor);

/** Bytes of the whole storage behind a view. */
size_t pxr_tensor_storage_bytes(const pxr_tensor *tensor);

/** True when the bytes were wrapped with this `release`: how whoever wrapped them knows them again. */
bool pxr_tensor_wraps(const pxr_tensor *tensor, void (*release)(void *context));

/** Bytes of all storages that are not in host memory. */
size_t pxr_tensor_device_bytes(void);

/** Number of views that hold the storage (testing, printing). */
int64_t pxr_tensor_holders(const pxr_tensor *tensor);

/** Product of the sizes; 1 for rank 0. */
int64_t pxr_tensor_count(const pxr_tensor *tensor);

/** True when elements lie densely in row-major order. */
bool pxr_tensor_is_contiguous(const pxr_tensor *tensor);

/** True when the last dim has stride 1 (or at most one element): what row kernels demand of their operands. */
bool pxr_tensor_rows_are_dense(const pxr_tensor *tensor);

/** True when ranks and sizes agree. */
bool pxr_tensor_same_shape(const pxr_tensor *a, const pxr_tensor *b);

/* Views. `out` receives a new retained view of the same storage; dims are 0-based here (1-based in Lua). `out` may
 * not be `tensor`. Errors name the sizes. */

/** Elements start .. start + length - 1 of `dim`. */
pxr_status pxr_tensor_narrow(pxr_tensor *out, const pxr_tensor *tensor, int dim, int64_t start, int64_t length,
                             pxr_error *error);

/** Every `step`-th element of `dim`, step > 0, from `start` up to and excluding `end`. */
pxr_status pxr_tensor_slice(pxr_tensor *out, const pxr_tensor *tensor, int dim, int64_t start, int64_t end,
                            int64_t step, pxr_error *error);

/** Element `index` of `dim`; the dim vanishes. */
pxr_status pxr_tensor_select(pxr_tensor *out, const pxr_tensor *tensor, int dim, int64_t index, pxr_error *error);

/** Dims `a` and `b` exchanged. */
pxr_status pxr_tensor_transpose(pxr_tensor *out, const pxr_tensor *tensor, int a, int b, pxr_error *error);

/** Dims in the order `order[rank]`, a permutation of 0 .. rank-1. */
pxr_status pxr_tensor_permute(pxr_tensor *out, const pxr_tensor *tensor, const int *order, pxr_error *error);

/** Another shape with as many elements; one size may be -1 (inferred). Works without a copy wherever strides allow,
 * else PXR_ERROR_ARGUMENT (make it contiguous first). */
pxr_status pxr_tensor_view(pxr_tensor *out, const pxr_tensor *tensor, int rank, const int64_t *size, pxr_error *error);

/** Windows of `window` elements along a dim, `step` apart, as a new last dim. */
pxr_status pxr_tensor_unfold(pxr_tensor *out, const pxr_tensor *tensor, int dim, int64_t window, int64_t step,
                             pxr_error *error);

/** Sizes of 1 grown to `size` by stride 0; new dims may be added in front; -1 keeps a size. */
pxr_status pxr_tensor_expand(pxr_tensor *out, const pxr_tensor *tensor, int rank, const int64_t *size,
                             pxr_error *error);

/** A dim of size 1 put in front of `dim` (0 .. rank). */
pxr_status pxr_tensor_unsqueeze(pxr_tensor *out, const pxr_tensor *tensor, int dim, pxr_error *error);

/** Without the dim `dim`, which must have size 1; dim -1: without all dims of size 1. */
pxr_status pxr_tensor_squeeze(pxr_tensor *out, const pxr_tensor *tensor, int dim, pxr_error *error);

/** The same view, retained. */
void pxr_tensor_alias(pxr_tensor *out, const pxr_tensor *tensor);

/** "[3x4x5]", for messages; `text` holds at least PXR_SHAPE_TEXT bytes. Returns `text`. */
enum { PXR_SHAPE_TEXT = 160 };
const char *pxr_tensor_shape_text(const pxr_tensor *tensor, char *text);

#ifdef __cplusplus
}
#endif
#endif
