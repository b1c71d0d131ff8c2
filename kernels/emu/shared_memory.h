/* Shared memory of the emulated blocks: full of NaN at first, with forbidden bytes behind every array. */
#ifndef PXR_EMU_SHARED_MEMORY_H
#define PXR_EMU_SHARED_MEMORY_H

#include <stddef.h>
#include <stdint.h>

namespace pxr_emu
{

/* Fresh memory for a block of fiber set `set` (0 or 1): *dynamic gets its `dynamic_bytes` bytes of dynamic memory, *order
 * the addresses of Block::order. False when there is none. */
bool begin_shared_memory(size_t set, size_t dynamic_bytes, unsigned char **dynamic, int64_t **order);

/* The block is over. */
void end_shared_memory();

} /* namespace pxr_emu */
#endif
