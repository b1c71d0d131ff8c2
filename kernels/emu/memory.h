/* Memory of the emulated device.
 *
 * It is full of NaN at first. Nobody but kernels and the runtime's copies may touch it: where the processor has
 * protection keys it is locked between them, so that host code which follows a device pointer dies here as it would
 * beside a GPU. Under a sanitizer blocks come from malloc instead, whose ends the sanitizer watches.
 *
 * PIXELREFER_EMU_MEMORY is what the device has, in bytes: allocations beyond it fail. It is read at every allocation,
 * so that a test can forbid further ones.
 */
#ifndef PXR_EMU_MEMORY_H
#define PXR_EMU_MEMORY_H

#include <stddef.h>

namespace pxr_emu
{

/* 256-byte aligned; null when the device has no room. */
void *allocate_device(size_t bytes);
/* False when no such block is there. */
bool free_device(void *block);

/* Host memory that the device can reach. */
void *allocate_pinned(size_t bytes);
bool free_pinned(void *block);

/* True when `bytes` bytes from `pointer` lie within one block of the device. */
bool is_device(const void *pointer, size_t bytes);
bool is_pinned(const void *pointer, size_t bytes);

size_t device_memory_total();
size_t device_memory_used();

/* The device's memory is reachable while one of these lives. */
struct OpenMemory {
    OpenMemory();
    ~OpenMemory();
};

} /* namespace pxr_emu */
#endif
