/* Work that goes on beside the caller's, in a thread of its own: reading what will be needed next. */
#ifndef PXR_CORE_BACKGROUND_H
#define PXR_CORE_BACKGROUND_H

typedef struct pxr_background pxr_background;

/** Begins `work(context)`, which is not told of Ctrl-C. Where no thread can be had the work is done before this returns
 * NULL. */
pxr_background *pxr_background_start(void (*work)(void *context), void *context);

/** Waits for the work's end; NULL is fine. */
void pxr_background_finish(pxr_background *background);

#endif
