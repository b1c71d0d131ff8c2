/* The flag behind Ctrl-C; see interrupt.h. */
#include "core/interrupt.h"

#include <stdatomic.h>

static atomic_int requested;
static _Thread_local bool ignores;

void pxr_interrupt(void)
{
    atomic_store_explicit(&requested, 1, memory_order_relaxed);
}

bool pxr_interrupt_ignore(bool ignore)
{
    const bool before = ignores;
    ignores = ignore;
    return before;
}

bool pxr_interrupt_pending(void)
{
    return !ignores && atomic_load_explicit(&requested, memory_order_relaxed);
}

bool pxr_interrupt_take(void)
{
    return pxr_interrupt_pending() && atomic_exchange(&requested, 0);
}

pxr_status pxr_interrupt_check(pxr_error *error)
{
    if (!pxr_interrupt_take()) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_INTERRUPTED, "interrupted");
}
