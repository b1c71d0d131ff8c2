/* An arena for activations: planned once for a call's worst case, then tensors are cut from it without allocating.
 *
 * The same function that cuts the tensors also plans them: with a zeroed arena, pxr_arena_tensor only adds up.
 *
 *     pxr_arena arena = {0};
 *     cut_buffers(&buffers, &arena, cells);            // plans: tensors have no data yet
 *     pxr_arena_reserve(&arena, device, error);        // one allocation
 *     cut_buffers(&buffers, &arena, cells);            // cuts
 *     ...
 *     pxr_arena_free(&arena);
 */
#ifndef PXR_CORE_ARENA_H
#define PXR_CORE_ARENA_H

#include "core/tensor.h"

typedef struct pxr_arena {
    pxr_tensor block; /* uint8 [capacity]; empty while planning */
    size_t used;      /* bytes cut or planned so far, a multiple of PXR_ALIGNMENT */
    bool overflow;    /* a planned size did not fit size_t, or a cut did not fit the block: reported by reserve/check */
} pxr_arena;

/** A contiguous tensor from the arena. It is a borrowed view (do not release it) that ends with the arena. While
 * planning its data is NULL. */
pxr_tensor pxr_arena_tensor(pxr_arena *arena, pxr_dtype dtype, int rank, const int64_t *size);

/** Ends planning: makes sure the block holds what was planned (a block that is large enough is kept) and rewinds. */
pxr_status pxr_arena_reserve(pxr_arena *arena, pxr_device *device, pxr_error *error);

/** Starts planning anew, keeping the block for reuse by the next pxr_arena_reserve. */
void pxr_arena_plan(pxr_arena *arena);

/** Frees the block; the arena is zeroed and can be planned again. */
void pxr_arena_free(pxr_arena *arena);

#endif
