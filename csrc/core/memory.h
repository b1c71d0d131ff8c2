/* Host memory: every allocation of the library goes through here.
 *
 * Blocks are aligned to PXR_ALIGNMENT and counted, because LuaJIT's collector cannot see bytes that lie outside its
 * heap (docs/memory.md), and because a test can make the n-th allocation fail.
 */
#ifndef PXR_CORE_MEMORY_H
#define PXR_CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PXR_ALIGNMENT = 64 }; /* bytes: one cache line, one AVX-512 register */

/** `bytes` bytes, aligned to PXR_ALIGNMENT, contents undefined; NULL when there are none. 0 bytes give a valid block. */
void *pxr_malloc(size_t bytes);

/** `count * size` zeroed bytes; NULL when there are none or the product overflows. */
void *pxr_calloc(size_t count, size_t size);

/** Grows or shrinks a block from this file (NULL acts as pxr_malloc); NULL, with the old block untouched, on failure. */
void *pxr_realloc(void *block, size_t bytes);

/** Releases a block from this file; NULL is fine. */
void pxr_free(void *block);

/** A copy of `length` bytes with a NUL behind them; NULL when there is no memory. */
char *pxr_strndup(const char *text, size_t length);

/** Makes room for `count` elements of `size` bytes in a growable array: doubles `*capacity` (elements) until it holds
 * them. False, with array and capacity untouched, when there is no memory or the size overflows. */
bool pxr_grow(void **array, size_t *capacity, size_t count, size_t size);

/** Bytes handed out by this file and not yet freed. */
size_t pxr_memory_in_use(void);

/** Number of allocations (pxr_malloc, pxr_calloc, pxr_realloc) so far; what pxr_memory_fail_at counts. */
uint64_t pxr_memory_allocations(void);

/** Testing: makes allocation number `allocation` (counted as pxr_memory_allocations does, from 1) return NULL, once.
 * 0 switches it off. */
void pxr_memory_fail_at(uint64_t allocation);

/** `*product = a * b`; false on overflow. */
bool pxr_mul_size(size_t a, size_t b, size_t *product);

/** `*sum = a + b`; false on overflow. */
bool pxr_add_size(size_t a, size_t b, size_t *sum);

#ifdef __cplusplus
}
#endif
#endif
