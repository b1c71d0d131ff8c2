/* Frames of a clip that are decoded beside what else is done, because they will be asked for.
 *
 *     pxr_video_ahead *ahead = NULL;
 *     if (pxr_video_ahead_start(&ahead, video, frames, count, 1 << 29, error) == PXR_OK) ...
 *     ... something else; the video is the reader's ...
 *     if (pxr_video_ahead_wait(ahead, error) == PXR_OK && !pxr_video_ahead_take(ahead, frames[0], &picture))
 *         pxr_video_read(video, frames[0], &picture, error);
 *     pxr_video_ahead_free(ahead);
 */
#ifndef PXR_MEDIA_VIDEO_AHEAD_H
#define PXR_MEDIA_VIDEO_AHEAD_H

#include "media/video.h"

typedef struct pxr_video_ahead pxr_video_ahead;

/** Begins to decode `frames` (best in ascending order), until their pictures have `bytes` bytes or one cannot be decoded:
 * who asks for that one is told why. Nobody else may use the video before pxr_video_ahead_wait has returned. */
pxr_status pxr_video_ahead_start(pxr_video_ahead **ahead, pxr_video *video, const int64_t *frames, size_t count,
                                 size_t bytes, pxr_error *error);

/** Waits until that is over. Ctrl-C ends it early and is PXR_ERROR_INTERRUPTED. */
pxr_status pxr_video_ahead_wait(pxr_video_ahead *ahead, pxr_error *error);

/** Gives the picture of `frame` away, once; false when it was not read. Behind pxr_video_ahead_wait. */
bool pxr_video_ahead_take(pxr_video_ahead *ahead, int64_t frame, pxr_tensor *picture);

/** Ends it early and frees what nobody took; NULL is fine. Before the video is closed. */
void pxr_video_ahead_free(pxr_video_ahead *ahead);

#endif
