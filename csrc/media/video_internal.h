/* A clip's index and its place in the file: what video.c and video_index.c share. */
#ifndef PXR_MEDIA_VIDEO_INTERNAL_H
#define PXR_MEDIA_VIDEO_INTERNAL_H

#include "media/ffmpeg.h"
#include "media/video.h"

/* One frame, or one key packet. */
typedef struct pxr_video_entry {
    int64_t pts;      /* presentation time in the stream's time base */
    int64_t packet;   /* which of the stream's packets holds it, in file order from 0 */
    int64_t duration; /* in the time base; 0 when the file does not say */
} pxr_video_entry;

typedef struct pxr_video_index {
    pxr_video_entry *frames; /* [frame_count] in presentation order */
    pxr_video_entry *keys;   /* [key_count] in file order: packets at which decoding can start */
    size_t frame_count, frame_capacity, key_count, key_capacity;
    /* The packets did not say when they are shown (or said it twice): the frames were counted by decoding them all, and
     * frame i is the i-th that the decoder gives. */
    bool by_decoding;
} pxr_video_index;

struct pxr_video {
    pxr_media_source source;
    pxr_ffmpeg ffmpeg;
    pxr_video_index index;
    pxr_video_info info;
    AVRational time_base;          /* of the stream */
    int64_t container_start;       /* of the file, microseconds */
    int coded_width, coded_height; /* pixels, before turning */
    pxr_orientation orientation;
    pxr_rgb_converter converter;
    AVFrame *frame; /* the frame that was decoded last */
    int64_t shown;  /* its number; -1 before the first */
};

/** Reads the opened stream to its end and fills video->index; leaves the stream at its end. */
pxr_status pxr_video_index_build(pxr_video *video, pxr_error *error);

/** The frame with that presentation time; -1 when there is none. */
int64_t pxr_video_index_find(const pxr_video_index *index, int64_t pts);

/** Frees the index. */
void pxr_video_index_free(pxr_video_index *index);

#endif
