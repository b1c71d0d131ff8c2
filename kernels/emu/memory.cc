/* Memory of the emulated device; see memory.h. */
#include "emu/memory.h"

#include "emu/sanitizers.h"

#include <map>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

namespace pxr_emu
{

namespace
{

constexpr size_t ALIGNMENT = 256, PAGE = 4096;
constexpr size_t ADDRESS_SPACE = (size_t)1 << 38; /* reserved, not used */
constexpr size_t DEFAULT_TOTAL = (size_t)8 << 30;

typedef std::map<uintptr_t, size_t> Blocks; /* address -> bytes */

Blocks device_blocks, pinned_blocks, gaps;
size_t used;    /* bytes of all device blocks */
int open_count; /* OpenMemory that live */
int key = -1;   /* the processor's protection key of device memory */
uintptr_t base; /* of the reserved address space */
size_t backed;  /* bytes from `base` that blocks have been in */

bool within(const Blocks &blocks, const void *pointer, size_t bytes)
{
    const uintptr_t at = (uintptr_t)pointer;
    Blocks::const_iterator block = blocks.upper_bound(at);
    if (block == blocks.begin()) return false;
    --block;
    return at - block->first <= block->second && bytes <= block->second - (at - block->first);
}

size_t rounded(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

/* Gives the reserved address space up to `end` its memory. */
bool back(uintptr_t end)
{
    if (end - base <= backed) return true;
    const size_t bytes = rounded(end - base, PAGE);
    const int access = PROT_READ | PROT_WRITE;
    if ((key >= 0 ? pkey_mprotect((void *)base, bytes, access, key) : mprotect((void *)base, bytes, access)) != 0)
        return false;
    backed = bytes;
    return true;
}

/* The first gap that is large enough. */
void *take_gap(size_t bytes)
{
    if (base == 0) {
        void *space = mmap(nullptr, ADDRESS_SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (space == MAP_FAILED) return nullptr;
        base = (uintptr_t)space;
        gaps[base] = ADDRESS_SPACE;
        key = pkey_alloc(0, open_count > 0 ? 0 : PKEY_DISABLE_ACCESS);
    }
    for (Blocks::iterator gap = gaps.begin(); gap != gaps.end(); ++gap) {
        if (gap->second < bytes) continue;
        const uintptr_t at = gap->first;
        if (!back(at + bytes)) return nullptr;
        const size_t left = gap->second - bytes;
        gaps.erase(gap);
        if (left > 0) gaps[at + bytes] = left;
        return (void *)at;
    }
    return nullptr;
}

/* Joins the freed bytes with the gaps beside them. */
void give_gap(uintptr_t at, size_t bytes)
{
    Blocks::iterator next = gaps.lower_bound(at);
    if (next != gaps.end() && next->first == at + bytes) {
        bytes += next->second;
        next = gaps.erase(next);
    }
    if (next != gaps.begin()) {
        Blocks::iterator previous = std::prev(next);
        if (previous->first + previous->second == at) {
            previous->second += bytes;
            return;
        }
    }
    gaps[at] = bytes;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool UNDER_SANITIZER = true;
#else
constexpr bool UNDER_SANITIZER = false;
#endif

} /* namespace */

OpenMemory::OpenMemory()
{
    if (open_count++ == 0 && key >= 0) pkey_set(key, 0);
}

OpenMemory::~OpenMemory()
{
    if (--open_count == 0 && key >= 0) pkey_set(key, PKEY_DISABLE_ACCESS);
}

size_t device_memory_total()
{
    const char *text = getenv("PIXELREFER_EMU_MEMORY");
    return text ? strtoull(text, nullptr, 10) : DEFAULT_TOTAL;
}

size_t device_memory_used()
{
    return used;
}

void *allocate_device(size_t bytes)
{
    const size_t total = device_memory_total();
    if (used > total || bytes > total - used) return nullptr;
    void *block = nullptr;
    if (!UNDER_SANITIZER)
        block = take_gap(rounded(bytes, ALIGNMENT));
    else if (posix_memalign(&block, ALIGNMENT, bytes))
        return nullptr;
    if (!block) return nullptr;
    device_blocks[(uintptr_t)block] = bytes;
    used += bytes;
    const OpenMemory open;
    memset(block, 0xff, bytes);
    return block;
}

bool free_device(void *block)
{
    const Blocks::iterator found = device_blocks.find((uintptr_t)block);
    if (found == device_blocks.end()) return false;
    used -= found->second;
    if (UNDER_SANITIZER)
        free(block);
    else
        give_gap(found->first, rounded(found->second, ALIGNMENT));
    device_blocks.erase(found);
    return true;
}

void *allocate_pinned(size_t bytes)
{
    void *block = nullptr;
    if (posix_memalign(&block, PAGE, bytes)) return nullptr;
    pinned_blocks[(uintptr_t)block] = bytes;
    return block;
}

bool free_pinned(void *block)
{
    if (pinned_blocks.erase((uintptr_t)block) == 0) return false;
    free(block);
    return true;
}

bool is_device(const void *pointer, size_t bytes)
{
    return within(device_blocks, pointer, bytes);
}

bool is_pinned(const void *pointer, size_t bytes)
{
    return within(pinned_blocks, pointer, bytes);
}

} /* namespace pxr_emu */
