/* Walking several strided tensors together, element by element, in rows.
 *
 *     pxr_walk walk;
 *     pxr_walk_plan(&walk, 3, (const pxr_tensor *const[]){out, a, b});   // a and b broadcast to out
 *     pxr_walk_run(&walk, 1, row, &context);                             // on all threads when it is large
 */
#ifndef PXR_CPU_WALK_H
#define PXR_CPU_WALK_H

#include "core/tensor.h"

enum {
    PXR_WALK_OPERANDS = 4,
    PXR_WALK_GRAIN = 16384 /* simple operations that a thread takes at least: about 10 us */
};

typedef struct pxr_walk {
    int operands;
    int rank;      /* 1 .. PXR_MAX_RANK: dims that lie densely in all operands are merged */
    int64_t count; /* elements in all */
    int64_t size[PXR_MAX_RANK];
    int64_t stride[PXR_WALK_OPERANDS][PXR_MAX_RANK]; /* bytes; 0 where an operand is broadcast */
    char *data[PXR_WALK_OPERANDS];
} pxr_walk;

/* `count` elements of each operand from data[k] on, stride[k] bytes apart. May run on any thread, in any order. */
typedef void (*pxr_row_function)(void *context, int64_t count, char *const *data, const int64_t *stride);

/** Plans a walk over the shape of tensors[0]; the others have that shape or broadcast to it (checked by the caller). */
void pxr_walk_plan(pxr_walk *walk, int operands, const pxr_tensor *const *tensors);

/** Calls `row` until every element was visited once. `cost`: the work for one element, in simple operations. */
void pxr_walk_run(const pxr_walk *walk, int64_t cost, pxr_row_function row, void *context);

/** The view of `tensor` (borrowed) without dim `dim`: where its lanes along that dim begin. */
pxr_tensor pxr_walk_lanes(const pxr_tensor *tensor, int dim);

/** As pxr_walk_run in the calling thread and for elements begin .. end-1 of the row-major order of the planned shape. */
void pxr_walk_range(const pxr_walk *walk, int64_t begin, int64_t end, pxr_row_function row, void *context);

#endif
