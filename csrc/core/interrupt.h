/* Stopping long work: a flag that Ctrl-C sets and that loops poll between layers and tokens. */
#ifndef PXR_CORE_INTERRUPT_H
#define PXR_CORE_INTERRUPT_H

#include "core/error.h"

#include <stdbool.h>

/** Asks running work to stop. Async-signal-safe: this is what the binding's SIGINT handler calls. */
void pxr_interrupt(void);

/** True, once, when somebody asked since this was last true: whoever is told has to act on it. */
bool pxr_interrupt_take(void);

/** PXR_ERROR_INTERRUPTED with the message "interrupted" when somebody asked (which is thereby done with), else PXR_OK. */
pxr_status pxr_interrupt_check(pxr_error *error);

#endif
