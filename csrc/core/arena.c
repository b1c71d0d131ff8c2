/* An arena for activations; see arena.h. */
#include "core/arena.h"

#include "core/memory.h"

pxr_tensor pxr_arena_tensor(pxr_arena *arena, pxr_dtype dtype, int rank, const int64_t *size)
{
    pxr_tensor tensor = {.dtype = dtype, .rank = rank};
    size_t bytes = pxr_dtype_size(dtype), padded;
    int64_t stride = 1;
    for (int dim = rank - 1; dim >= 0; dim--) {
        tensor.size[dim] = size[dim];
        tensor.stride[dim] = stride;
        stride *= size[dim];
        if (!pxr_mul_size(bytes, (size_t)size[dim], &bytes)) arena->overflow = true;
    }
    const size_t begin = arena->used;
    if (arena->overflow || !pxr_add_size(bytes, PXR_ALIGNMENT - 1, &padded) ||
        !pxr_add_size(arena->used, padded / PXR_ALIGNMENT * PXR_ALIGNMENT, &arena->used))
        arena->overflow = true;
    if (arena->block.data && !arena->overflow && arena->used <= (size_t)arena->block.size[0]) {
        tensor.data = (char *)arena->block.data + begin;
        tensor.storage = arena->block.storage;
    }
    return tensor;
}

pxr_status pxr_arena_reserve(pxr_arena *arena, pxr_device *device, pxr_error *error)
{
    if (arena->overflow || arena->used > INT64_MAX)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "activations of that size do not fit the address space");
    const int64_t bytes = (int64_t)arena->used;
    arena->used = 0;
    if (arena->block.data && arena->block.size[0] >= bytes) return PXR_OK;
    pxr_tensor_release(&arena->block);
    return pxr_tensor_new(&arena->block, device, PXR_U8, 1, &bytes, error);
}

void pxr_arena_plan(pxr_arena *arena)
{
    arena->used = 0;
    arena->overflow = false;
}

void pxr_arena_free(pxr_arena *arena)
{
    pxr_tensor_release(&arena->block);
    *arena = (pxr_arena){0};
}
