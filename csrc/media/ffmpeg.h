/* A media file opened through FFmpeg's libraries: what video.c and ffmpeg_picture.c share.
 *
 * Hostile files are expected. Bytes come from an open regular file (or from memory) through our own reader, so that no
 * protocol of FFmpeg's takes part; whatever a file asks to be opened beside itself (a playlist's entries, a QuickTime
 * reference) is refused; only the demuxers of an allow-list run; pictures are bounded by limits.h; decoding is single-
 * threaded. FFmpeg's log goes into our errors, never to stderr.
 */
#ifndef PXR_MEDIA_FFMPEG_H
#define PXR_MEDIA_FFMPEG_H

#include "core/tensor.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

#include <stdbool.h>

/* Where the bytes are: a file (descriptor >= 0) or memory (descriptor -1, bytes borrowed). */
typedef struct pxr_media_source {
    char *name; /* the path, for messages; owned */
    int descriptor;
    const uint8_t *bytes; /* [size] when in memory */
    int64_t size, position;
} pxr_media_source;

/* One opened stream of pictures. Zeroed is closed. */
typedef struct pxr_ffmpeg {
    pxr_media_source *source; /* borrowed */
    AVFormatContext *format;
    AVIOContext *io;
    AVCodecContext *decoder;
    AVStream *stream; /* the one that is decoded; the others are discarded */
    AVPacket *packet;
    int64_t packets;    /* of the stream, read so far */
    int64_t skip_until; /* packets numbered below this are read but not decoded */
    bool draining;      /* the file's end was reached and the decoder told */
} pxr_ffmpeg;

/* How a stored picture must be turned to stand upright: transposed first (rows become columns), then mirrored. */
typedef struct pxr_orientation {
    bool transpose, flip_x, flip_y;
} pxr_orientation;

/** Opens a regular file for reading; anything else (a directory, a device, a URL) is an error. `source` is zeroed. */
pxr_status pxr_media_source_open(pxr_media_source *source, const char *path, pxr_error *error);

/** The same over `size` bytes in memory, which must outlive the source. */
pxr_status pxr_media_source_memory(pxr_media_source *source, const char *name, const uint8_t *bytes, size_t size,
                                   pxr_error *error);

/** Copies the bytes offset .. offset + count - 1 into `bytes`, without moving the reading position; returns how many of
 * them there are. */
size_t pxr_media_source_peek(const pxr_media_source *source, int64_t offset, uint8_t *bytes, size_t count);

/** Closes the file; a zeroed source is fine. */
void pxr_media_source_close(pxr_media_source *source);

/** Opens the best video stream of `source` (which must outlive it) from its beginning and a decoder for it. Errors: no
 * such format, a format outside the allow-list, no pictures in it, sides outside limits.h, no decoder. */
pxr_status pxr_ffmpeg_open(pxr_ffmpeg *ffmpeg, pxr_media_source *source, pxr_error *error);

/** Closes everything; a zeroed one is fine. */
void pxr_ffmpeg_close(pxr_ffmpeg *ffmpeg);

/** True when the file holds a single picture (PNG, BMP, WebP, TIFF ...), not a clip. */
bool pxr_ffmpeg_is_picture(const pxr_ffmpeg *ffmpeg);

/** Reads the stream's next packet into ffmpeg->packet; `*found` is false at the file's end. Polls for Ctrl-C. Errors: a
 * file that ends too early or cannot be read. */
pxr_status pxr_ffmpeg_next_packet(pxr_ffmpeg *ffmpeg, bool *found, pxr_error *error);

/** Decodes the next picture, in presentation order, into `frame`; `*found` is false behind the last. Packets that the
 * decoder refuses are passed over. */
pxr_status pxr_ffmpeg_next_frame(pxr_ffmpeg *ffmpeg, AVFrame *frame, bool *found, pxr_error *error);

/** Continues decoding at packet `packet`, a key packet that is not read yet. */
void pxr_ffmpeg_skip_to(pxr_ffmpeg *ffmpeg, int64_t packet);

/** The orientation in the stream's display matrix; upright when there is none. */
pxr_orientation pxr_ffmpeg_stream_orientation(const pxr_ffmpeg *ffmpeg);

/** The orientation that EXIF number 1 .. 8 means; upright for any other. */
pxr_orientation pxr_exif_orientation(int number);

/* The converter from decoded frames to upright RGB; zeroed is empty. */
typedef struct pxr_rgb_converter {
    struct SwsContext *scaler;
    AVFrame *rgb; /* scratch: FFmpeg writes rows in whole vectors, past their end */
} pxr_rgb_converter;

/** Converts `frame` to a new uint8 tensor [height,width,3], RGB, turned upright. The size before turning is `width` x
 * `height` pixels: a frame of another size (streams may change it) is scaled. */
pxr_status pxr_rgb_convert(pxr_rgb_converter *converter, const AVFrame *frame, int width, int height,
                           pxr_orientation orientation, pxr_tensor *picture, pxr_error *error);

/** Frees the converter's scratch; a zeroed one is fine. */
void pxr_rgb_converter_free(pxr_rgb_converter *converter);

/* FFmpeg's log: between begin and end, what this thread makes FFmpeg say is kept for pxr_ffmpeg_fail instead of being
 * printed. Calls nest. */

/** Starts keeping FFmpeg's words. */
void pxr_ffmpeg_quiet_begin(void);

/** Ends what pxr_ffmpeg_quiet_begin started. */
void pxr_ffmpeg_quiet_end(void);

/** As pxr_fail, followed by the text of FFmpeg's error `code` (0: none) and the last error that FFmpeg logged. A `code`
 * that says that memory ran out makes the status PXR_ERROR_MEMORY. */
pxr_status pxr_ffmpeg_fail(pxr_error *error, pxr_status status, int code, const char *format, ...) PXR_PRINTF(4, 5);

#endif
