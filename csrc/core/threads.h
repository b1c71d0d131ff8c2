/* A pool of worker threads for loops whose iterations are independent.
 *
 * The range is cut into at most `pxr_threads()` contiguous parts, each done by one thread; an iteration's result may
 * not depend on the cut (ARCHITECTURE rule 8). Workers never call Lua and never fail: a loop body that can fail
 * stores its status in its context and the caller reports after the join.
 */
#ifndef PXR_CORE_THREADS_H
#define PXR_CORE_THREADS_H

#include "core/error.h"

#include <stdint.h>

/* Iterations begin .. end-1. */
typedef void (*pxr_range_function)(void *context, int64_t begin, int64_t end);

/** Runs `body` over 0 .. count-1 and returns when all is done. A part has at least `grain` iterations (the last may
 * have fewer); nested calls run serially in the calling worker. */
void pxr_parallel_for(int64_t count, int64_t grain, pxr_range_function body, void *context);

/** Number of threads that pxr_parallel_for uses, the caller's included. At first: the processors this process may run
 * on, or PIXELREFER_THREADS. */
int pxr_threads(void);

/** Sets it (1 .. 256). Takes effect at the next loop. Errors: out of range, a thread that cannot be started. */
pxr_status pxr_threads_set(int threads, pxr_error *error);

#endif
