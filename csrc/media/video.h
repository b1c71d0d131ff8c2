/* Video clips: any frame by its number, and which frame is shown when.
 *
 * Frame i is the i-th in presentation order from the file's start. A clip is first read through once without decoding
 * (its index: when each frame is shown and where decoding can start); then frames are decoded one at a time as they
 * are asked for, so memory is bounded by the index (32 bytes a frame) and by the pictures that the caller keeps.
 * Asking in ascending order reads the file once; groups of pictures in between are passed over undecoded.
 *
 *     pxr_video *video = NULL;
 *     pxr_tensor picture = {0};
 *     if (pxr_video_open(&video, "clip.mp4", error) == PXR_OK && pxr_video_read(video, 12, &picture, error) == PXR_OK)
 *         show(&picture);
 *     pxr_tensor_release(&picture);
 *     pxr_video_close(video);
 *
 * One thread at a time may use a video. FFmpeg is kept out of this header.
 */
#ifndef PXR_MEDIA_VIDEO_H
#define PXR_MEDIA_VIDEO_H

#include "core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pxr_video pxr_video;

typedef struct pxr_video_info {
    int width, height;  /* pixels of a picture that stands upright */
    int rotation;       /* degrees clockwise by which stored pictures are turned: 0, 90, 180, 270 */
    int64_t frames;     /* counted */
    double fps;         /* average frame rate: frames a second */
    double duration;    /* seconds, as the file says, else as counted */
    double start;       /* seconds at which the stream starts on the file's clock; mostly 0 */
    bool is_picture;    /* one picture (PNG, BMP, WebP ...), not a clip */
    char codec[32];     /* "h264", "vp9", "gif" ... */
    char container[64]; /* FFmpeg's name: "mov,mp4,m4a,3gp,3g2,mj2", "gif" ... */
} pxr_video_info;

/* How a clip is sampled in time. Negative start or end: from the beginning, to the end. */
typedef struct pxr_video_clock {
    double fps;        /* ticks a second; 0 makes every frame a tick */
    double start, end; /* seconds from the file's start: start <= time < end */
} pxr_video_clock;

/** Opens a clip and reads its index. Errors: no regular file, a format that is not among those opened here, no pictures
 * in it, sides outside limits.h, no decoder, a file that was cut off. */
pxr_status pxr_video_open(pxr_video **video, const char *path, pxr_error *error);

/** The same over `size` bytes in memory, which must outlive the video; `name` is for messages. */
pxr_status pxr_video_open_memory(pxr_video **video, const char *name, const uint8_t *bytes, size_t size,
                                 pxr_error *error);

/** Closes the clip; NULL is fine. */
void pxr_video_close(pxr_video *video);

/** What is known of the clip, borrowed. */
const pxr_video_info *pxr_video_get_info(const pxr_video *video);

/** Seconds from the file's start at which `frame` is shown; frames out of range count as the nearest one. */
double pxr_video_time(const pxr_video *video, int64_t frame);

/** The number of ticks of a clock over the clip: with a rate, what FFmpeg's `-ss start -t (end - start)` and
 * `fps=fps:round=down` give, but one at least (there FFmpeg gives nothing for a clip of less than one tick); without,
 * the frames from start to end. Errors: a rate that is no number, negative or above 2^20, end not behind start, no
 * frame in that range. */
pxr_status pxr_video_ticks(const pxr_video *video, const pxr_video_clock *clock, int64_t *ticks, pxr_error *error);

/** The frame that is shown at `tick` (0-based) of such a clock. */
pxr_status pxr_video_frame_at(const pxr_video *video, const pxr_video_clock *clock, int64_t tick, int64_t *frame,
                              pxr_error *error);

/** Decodes frame `frame` into a new uint8 tensor [height,width,3], RGB, upright. Ascending frames are fast, an earlier
 * frame starts over. Polls for Ctrl-C. Errors: a frame out of range (naming the count), one that cannot be decoded. */
pxr_status pxr_video_read(pxr_video *video, int64_t frame, pxr_tensor *picture, pxr_error *error);

#ifdef __cplusplus
}
#endif
#endif
