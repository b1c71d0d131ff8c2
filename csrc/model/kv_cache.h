/* Keys and values of a decoder's past, for several sequences (rows) side by side.
 *
 * Row r holds `length` positions; a forward pass writes the next ones layer by layer and the caller then advances, so
 * that a pass that failed or was interrupted leaves the timeline as it was.
 */
#ifndef PXR_MODEL_KV_CACHE_H
#define PXR_MODEL_KV_CACHE_H

#include "core/tensor.h"

typedef struct pxr_kv_cache {
    pxr_device *device;
    int64_t layers, rows, capacity; /* capacity: positions a row can hold */
    int64_t kv_heads, head_dim;
    pxr_dtype dtype;
    pxr_tensor keys, values; /* [layers,rows,capacity,kv_heads,head_dim] */
    int64_t *length;         /* [rows] positions in use */
} pxr_kv_cache;

/** An empty cache of float32 or float16; of bfloat16 where the device computes in it. Errors: sizes below 1, another
 * type, no memory. */
pxr_status pxr_kv_cache_new(pxr_kv_cache **cache, pxr_device *device, pxr_dtype dtype, int64_t layers, int64_t rows,
                            int64_t capacity, int64_t kv_heads, int64_t head_dim, pxr_error *error);

/** Releases it; NULL is fine. */
void pxr_kv_cache_free(pxr_kv_cache *cache);

/** Grows to at least `capacity` positions a row, keeping what is there. */
pxr_status pxr_kv_cache_reserve(pxr_kv_cache *cache, int64_t capacity, pxr_error *error);

/** Makes the first `length` positions of `row` those of another cache's row (0-based rows; same sizes of layers and
 * heads; the target grows as needed). */
pxr_status pxr_kv_cache_copy(pxr_kv_cache *to, int64_t to_row, const pxr_kv_cache *from, int64_t from_row,
                             int64_t length, pxr_error *error);

/** Keys (or values) of one layer, borrowed: [rows,capacity,kv_heads,head_dim]. */
pxr_tensor pxr_kv_cache_layer(const pxr_tensor *keys_or_values, int64_t layer);

#endif
