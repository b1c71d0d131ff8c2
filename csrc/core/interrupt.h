/* Stopping long work: a flag that Ctrl-C sets and that loops poll between layers and tokens. */
#ifndef PXR_CORE_INTERRUPT_H
#define PXR_CORE_INTERRUPT_H

#include "core/error.h"

#include <stdbool.h>

/** Asks running work to stop. Async-signal-safe: this is what the binding's SIGINT handler calls. */
void pxr_interrupt(void);

/** From now on the calling thread is never told that somebody asked (or told again): for work beside the main thread's,
 * which is the one to act. Returns what held before. */
bool pxr_interrupt_ignore(bool ignore);

/** True while somebody has asked and nobody has taken it: for callbacks that only stop somebody else's work. */
bool pxr_interrupt_pending(void);

/** True, once, when somebody asked since this was last true: whoever is told has to act on it. */
bool pxr_interrupt_take(void);

/** PXR_ERROR_INTERRUPTED with the message "interrupted" when somebody asked (which is thereby done with), else PXR_OK. */
pxr_status pxr_interrupt_check(pxr_error *error);

#endif
