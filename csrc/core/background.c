/* Work beside the caller's; see background.h. */
#include "core/background.h"

#include "core/interrupt.h"
#include "core/memory.h"

#include <pthread.h>

struct pxr_background {
    pthread_t thread;
    void (*work)(void *context);
    void *context;
};

static void *run(void *argument)
{
    const pxr_background *background = argument;
    pxr_interrupt_ignore(true);
    background->work(background->context);
    return NULL;
}

pxr_background *pxr_background_start(void (*work)(void *context), void *context)
{
    pxr_background *background = pxr_malloc(sizeof *background);
    if (background) {
        *background = (pxr_background){.work = work, .context = context};
        if (pthread_create(&background->thread, NULL, run, background) == 0) return background;
        pxr_free(background);
    }
    const bool before = pxr_interrupt_ignore(true);
    work(context);
    pxr_interrupt_ignore(before);
    return NULL;
}

void pxr_background_finish(pxr_background *background)
{
    if (!background) return;
    pthread_join(background->thread, NULL);
    pxr_free(background);
}
