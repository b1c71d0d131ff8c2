/* Elements of any type as blocks of float32 or int64: the one place where the CPU primitives convert.
 *
 * A primitive computes in one of two types only, float32 for the float types and int64 for the integer types, on
 * blocks of at most PXR_BLOCK elements. Loading and storing widens, narrows and gathers strided elements; dense and
 * aligned float32 (int64) memory is used where it lies. Data may start at any byte (mapped files).
 */
#ifndef PXR_CPU_ELEMENTS_H
#define PXR_CPU_ELEMENTS_H

#include "core/dtype.h"

enum { PXR_BLOCK = 256 }; /* elements: 1 KiB of float32, 2 KiB of int64 */

/** `count` <= PXR_BLOCK elements of a float type, `stride` bytes apart, as float32: `block` filled, or `data` itself. */
const float *pxr_load_floats(pxr_dtype dtype, const char *data, int64_t stride, int64_t count, float *block);

/** Where to compute `count` elements that pxr_store_floats will store: `data` itself, or `block`. */
float *pxr_floats_target(pxr_dtype dtype, char *data, int64_t stride, int64_t count, float *block);

/** Stores float32 values as a float type (rounded to nearest even) or an integer type (truncated, saturated, NaN gives
 * 0). Nothing is to be done when `values` is `data`. */
void pxr_store_floats(pxr_dtype dtype, char *data, int64_t stride, int64_t count, const float *values);

/** As pxr_load_floats, for the integer types. */
const int64_t *pxr_load_integers(pxr_dtype dtype, const char *data, int64_t stride, int64_t count, int64_t *block);

/** As pxr_floats_target, for int64. */
int64_t *pxr_integers_target(pxr_dtype dtype, char *data, int64_t stride, int64_t count, int64_t *block);

/** Stores int64 values as an integer type (the low bits) or a float type (rounded to float32 first). */
void pxr_store_integers(pxr_dtype dtype, char *data, int64_t stride, int64_t count, const int64_t *values);

/** Moves one element of `size` bytes (1, 2, 4 or 8) as it is: constant sizes let the compiler make each copy one move. */
static inline void pxr_move_element(size_t size, char *to, const char *from)
{
    switch (size) {
    case 1:
        *to = *from;
        break;
    case 2:
        memcpy(to, from, 2);
        break;
    case 4:
        memcpy(to, from, 4);
        break;
    default:
        memcpy(to, from, 8);
    }
}

/** Moves `count` elements of `size` bytes (1, 2, 4 or 8) as they are; `from` may have stride 0. */
void pxr_move_elements(size_t size, char *to, int64_t to_stride, const char *from, int64_t from_stride, int64_t count);

#endif
