/* Shared memory of the emulated blocks; see shared_memory.h.
 *
 * Each set of fibers has its pages. ThreadSanitizer must forget what earlier blocks did there, which fresh
 * pages make it do; other builds keep the pages.
 */
#include "emu/shared_memory.h"

#include "emu/machine.h"
#include "emu/sanitizers.h"

#include <string.h>
#include <sys/mman.h>

namespace pxr_emu
{

namespace
{

constexpr size_t ALIGNMENT = 128, RED_ZONE = 128;
constexpr size_t STATIC_BYTES = STATIC_SHARED_LIMIT + MAX_SHARED_ARRAYS * (ALIGNMENT + RED_ZONE);
constexpr size_t ORDER_BYTES = (1 + MAX_THREADS / WARP) * sizeof(int64_t);
constexpr size_t BYTES = STATIC_BYTES + DYNAMIC_SHARED_LIMIT + RED_ZONE + ORDER_BYTES;

unsigned char *pages[4];
SharedMemory shared;

} /* namespace */

bool begin_shared_memory(size_t set, size_t dynamic_bytes, unsigned char **dynamic, int64_t **order)
{
    if (pages[set] && UNDER_TSAN) {
        munmap(pages[set], BYTES);
        pages[set] = nullptr;
    }
    if (!pages[set]) {
        void *fresh = mmap(nullptr, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fresh == MAP_FAILED) return false;
        pages[set] = (unsigned char *)fresh;
    }
    shared.memory = pages[set];
    shared.used = shared.arrays = shared.counted = 0;
    *dynamic = shared.memory + STATIC_BYTES;
    *order = (int64_t *)(shared.memory + BYTES - ORDER_BYTES);
    forbid(shared.memory, BYTES - ORDER_BYTES);
    permit(*dynamic, dynamic_bytes);
    memset(*dynamic, 0xff, dynamic_bytes);
    return true;
}

void end_shared_memory()
{
    permit(shared.memory, BYTES);
}

SharedMemory keep_shared_memory()
{
    return shared;
}

void return_shared_memory(const SharedMemory &kept)
{
    shared = kept;
}

PXR_EMU_UNCHECKED void *static_shared(const void *id, size_t bytes)
{
    for (size_t i = 0; i < shared.arrays; i++)
        if (shared.array[i].id == id) return shared.array[i].memory;
    shared.counted += bytes;
    if (shared.arrays == MAX_SHARED_ARRAYS || shared.counted > STATIC_SHARED_LIMIT)
        fault({nullptr, 0}, "%zu bytes of static shared memory (at most %zu)", shared.counted, STATIC_SHARED_LIMIT);
    unsigned char *memory = shared.memory + shared.used;
    shared.array[shared.arrays++] = {id, memory};
    shared.used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + RED_ZONE;
    permit(memory, bytes);
    for (size_t i = 0; i < bytes; i++) ((volatile unsigned char *)memory)[i] = 0xff; /* no memset: TSan would see it */
    return memory;
}

} /* namespace pxr_emu */
