/* Frames decoded ahead; see video_ahead.h. */
#include "media/video_ahead.h"

#include "core/background.h"
#include "core/interrupt.h"
#include "core/memory.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

struct pxr_video_ahead {
    pxr_background *reader; /* NULL when it is over */
    pxr_video *video;
    int64_t *frames;      /* [count] */
    pxr_tensor *pictures; /* [count]: the reader's until it is over */
    size_t count, bytes;  /* bytes: of pictures, at most one of them more */
    atomic_bool stop, over;
};

static void read_frames(void *context)
{
    pxr_video_ahead *ahead = context;
    size_t bytes = 0;
    for (size_t i = 0; i < ahead->count && bytes < ahead->bytes && !atomic_load(&ahead->stop); i++) {
        pxr_error error = {0};
        if (pxr_video_read(ahead->video, ahead->frames[i], &ahead->pictures[i], &error) != PXR_OK) break;
        bytes += pxr_tensor_storage_bytes(&ahead->pictures[i]);
    }
    atomic_store(&ahead->over, true);
}

pxr_status pxr_video_ahead_start(pxr_video_ahead **ahead, pxr_video *video, const int64_t *frames, size_t count,
                                 size_t bytes, pxr_error *error)
{
    pxr_video_ahead *made = pxr_calloc(1, sizeof *made);
    *ahead = NULL;
    if (made) {
        made->frames = pxr_calloc(count, sizeof *made->frames);
        made->pictures = pxr_calloc(count, sizeof *made->pictures);
    }
    if (!made || !made->frames || !made->pictures) {
        pxr_video_ahead_free(made);
        return pxr_fail_memory(error, count * sizeof *made->pictures, "frames to be read ahead");
    }
    made->video = video;
    if (count > 0) memcpy(made->frames, frames, count * sizeof *frames);
    made->count = count;
    made->bytes = bytes;
    *ahead = made;
    made->reader = pxr_background_start(read_frames, made);
    return PXR_OK;
}

static void finish(pxr_video_ahead *ahead)
{
    pxr_background_finish(ahead->reader);
    ahead->reader = NULL;
}

pxr_status pxr_video_ahead_wait(pxr_video_ahead *ahead, pxr_error *error)
{
    const struct timespec moment = {.tv_nsec = 500 * 1000};
    pxr_status status = PXR_OK;
    while (ahead->reader && status == PXR_OK && !atomic_load(&ahead->over)) {
        nanosleep(&moment, NULL);
        status = pxr_interrupt_check(error);
    }
    if (status != PXR_OK) atomic_store(&ahead->stop, true);
    finish(ahead);
    return status;
}

bool pxr_video_ahead_take(pxr_video_ahead *ahead, int64_t frame, pxr_tensor *picture)
{
    for (size_t i = 0; i < ahead->count; i++) {
        if (ahead->frames[i] != frame || !ahead->pictures[i].storage) continue;
        *picture = ahead->pictures[i];
        ahead->pictures[i] = (pxr_tensor){0};
        return true;
    }
    return false;
}

void pxr_video_ahead_free(pxr_video_ahead *ahead)
{
    if (!ahead) return;
    atomic_store(&ahead->stop, true);
    finish(ahead);
    for (size_t i = 0; ahead->pictures && i < ahead->count; i++) pxr_tensor_release(&ahead->pictures[i]);
    pxr_free(ahead->frames);
    pxr_free(ahead->pictures);
    pxr_free(ahead);
}
