/* Counted, aligned host memory; see memory.h.
 *
 * A block is preceded by one cache line that holds its size: accounting then needs no allocator-specific call, and the
 * alignment of the block is the header's.
 */
#include "core/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 /* bytes */ };

typedef struct header {
    size_t bytes; /* of the block behind the header */
} header;

static atomic_size_t in_use;
static _Atomic uint64_t allocations;
static _Atomic uint64_t failing_allocation;

static header *header_of(void *block)
{
    return (header *)(void *)((char *)block - PXR_ALIGNMENT);
}

/* Asks for huge pages where a block covers them whole, so that it takes no more memory than it has: products and attention
 * walk over rows that lie pages apart, and fresh memory comes in far fewer faults. A hint, which systems may lack. */
static void ask_for_huge_pages(const void *block, size_t bytes)
{
#if defined(MADV_HUGEPAGE)
    const uintptr_t begin = ((uintptr_t)block + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    const uintptr_t end = ((uintptr_t)block + bytes) / HUGE_PAGE * HUGE_PAGE;
    if (begin < end) (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#else
    (void)block, (void)bytes;
#endif
}

void *pxr_malloc(size_t bytes)
{
    const uint64_t number = atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed) + 1;
    if (number == atomic_load_explicit(&failing_allocation, memory_order_relaxed)) return NULL;
    size_t total;
    if (!pxr_add_size(bytes, 2 * PXR_ALIGNMENT - 1, &total)) return NULL;
    header *block = aligned_alloc(PXR_ALIGNMENT, total / PXR_ALIGNMENT * PXR_ALIGNMENT);
    if (!block) return NULL;
    ask_for_huge_pages(block, bytes);
    block->bytes = bytes;
    atomic_fetch_add_explicit(&in_use, bytes, memory_order_relaxed);
    return (char *)block + PXR_ALIGNMENT;
}

void *pxr_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (!pxr_mul_size(count, size, &bytes)) return NULL;
    void *block = pxr_malloc(bytes);
    return block ? memset(block, 0, bytes) : NULL;
}

void *pxr_realloc(void *block, size_t bytes)
{
    void *grown = pxr_malloc(bytes);
    if (!grown || !block) return grown;
    const size_t old = header_of(block)->bytes;
    memcpy(grown, block, old < bytes ? old : bytes);
    pxr_free(block);
    return grown;
}

void pxr_free(void *block)
{
    if (!block) return;
    atomic_fetch_sub_explicit(&in_use, header_of(block)->bytes, memory_order_relaxed);
    free(header_of(block));
}

char *pxr_strndup(const char *text, size_t length)
{
    char *copy = pxr_malloc(length + 1);
    if (!copy) return NULL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

bool pxr_grow(void **array, size_t *capacity, size_t count, size_t size)
{
    if (count <= *capacity) return true;
    size_t wanted = *capacity ? *capacity : 16, bytes;
    while (wanted < count)
        if (!pxr_mul_size(wanted, 2, &wanted)) return false;
    if (!pxr_mul_size(wanted, size, &bytes)) return false;
    void *grown = pxr_realloc(*array, bytes);
    if (!grown) return false;
    *array = grown;
    *capacity = wanted;
    return true;
}

size_t pxr_memory_in_use(void)
{
    return atomic_load_explicit(&in_use, memory_order_relaxed);
}

uint64_t pxr_memory_allocations(void)
{
    return atomic_load_explicit(&allocations, memory_order_relaxed);
}

void pxr_memory_fail_at(uint64_t allocation)
{
    atomic_store_explicit(&failing_allocation, allocation, memory_order_relaxed);
}

bool pxr_mul_size(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

bool pxr_add_size(size_t a, size_t b, size_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}
