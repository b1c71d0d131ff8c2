/* Shared memory of the emulated blocks: full of NaN at first, with forbidden bytes behind every array. */
#ifndef PXR_EMU_SHARED_MEMORY_H
#define PXR_EMU_SHARED_MEMORY_H

#include <stddef.h>
#include <stdint.h>

namespace pxr_emu
{

/* Fresh memory for a block of fiber set `set` (0 to 3): *dynamic gets its `dynamic_bytes` bytes of dynamic memory, *order
 * the addresses of Block::order. False when there is none. */
bool begin_shared_memory(size_t set, size_t dynamic_bytes, unsigned char **dynamic, int64_t **order);

/* The block is over. */
void end_shared_memory();

constexpr size_t MAX_SHARED_ARRAYS = 32;

/* The memory of the block that runs. */
struct SharedMemory {
    unsigned char *memory;        /* static arrays, the dynamic part, addresses of order */
    size_t used, arrays, counted; /* of the static arrays: bytes with gaps, number, bytes without gaps */
    struct {
        const void *id;
        void *memory;
    } array[MAX_SHARED_ARRAYS];
};

/* Around a block of another kernel that runs within this one. */
SharedMemory keep_shared_memory();
void return_shared_memory(const SharedMemory &kept);

} /* namespace pxr_emu */
#endif
