/* Single pictures through FFmpeg; see ffmpeg_picture.h. */
#include "media/ffmpeg_picture.h"

#include "core/memory.h"
#include "media/ffmpeg.h"
#include "media/limits.h"
#include "ops/device.h"

#include <libavutil/intreadwrite.h>

#include <stdlib.h>
#include <string.h>

/* A picture's file and its one decoded frame. */
typedef struct opened_picture {
    pxr_media_source source;
    pxr_ffmpeg ffmpeg;
    AVFrame *frame;
} opened_picture;

static void close_picture(opened_picture *picture)
{
    av_frame_free(&picture->frame);
    pxr_ffmpeg_close(&picture->ffmpeg);
    pxr_media_source_close(&picture->source);
}

static pxr_status open_picture(opened_picture *picture, const char *path, pxr_error *error)
{
    *picture = (opened_picture){0};
    pxr_status status = pxr_media_source_open(&picture->source, path, error);
    if (status != PXR_OK) return status;
    status = pxr_ffmpeg_open(&picture->ffmpeg, &picture->source, error);
    if (status != PXR_OK) return status;
    const char *container = picture->ffmpeg.format->iformat->name;
    if (!pxr_ffmpeg_is_picture(&picture->ffmpeg) && strcmp(container, "gif") != 0 && strcmp(container, "apng") != 0)
        return pxr_fail(error, PXR_ERROR_FORMAT, "%s is a video ('%s'), a picture expected", path, container);
    picture->frame = av_frame_alloc();
    if (!picture->frame) return pxr_fail_memory(error, sizeof *picture->frame, "a picture");
    bool found;
    status = pxr_ffmpeg_next_frame(&picture->ffmpeg, picture->frame, &found, error);
    if (status != PXR_OK) return status;
    if (!found || picture->frame->decode_error_flags != 0 || (picture->frame->flags & AV_FRAME_FLAG_CORRUPT))
        return pxr_ffmpeg_fail(error, PXR_ERROR_FORMAT, 0, "%s cannot be decoded: damaged or truncated", path);
    return pxr_check_picture_size(picture->frame->height, picture->frame->width, path, error);
}

/* TIFF keeps EXIF's number in its first directory (TIFF 6.0, section 8, tag 274), which FFmpeg passes over. Returns 1,
 * upright, when it is not there. */
static int tiff_orientation(const pxr_media_source *source)
{
    enum { ORIENTATION = 274, ENTRY = 12 /* bytes: tag, type, count, value */ };
    uint8_t head[8], entry[ENTRY];
    if (pxr_media_source_peek(source, 0, head, sizeof head) < sizeof head) return 1;
    const bool little = head[0] == 'I';
    int64_t at = little ? AV_RL32(head + 4) : AV_RB32(head + 4);
    if (pxr_media_source_peek(source, at, entry, 2) < 2) return 1;
    const int entries = little ? AV_RL16(entry) : AV_RB16(entry);
    at += 2;
    for (int i = 0; i < entries; i++, at += ENTRY) {
        if (pxr_media_source_peek(source, at, entry, ENTRY) < ENTRY) return 1;
        if ((little ? AV_RL16(entry) : AV_RB16(entry)) == ORIENTATION)
            return little ? AV_RL16(entry + 8) : AV_RB16(entry + 8);
    }
    return 1;
}

/* The orientation in the picture's EXIF data, which FFmpeg keeps as text. */
static pxr_orientation picture_orientation(const opened_picture *picture)
{
    if (picture->ffmpeg.decoder->codec_id == AV_CODEC_ID_TIFF)
        return pxr_exif_orientation(tiff_orientation(&picture->source));
    const AVDictionaryEntry *entry = av_dict_get(picture->frame->metadata, "Orientation", NULL, 0);
    if (entry) return pxr_exif_orientation((int)strtol(entry->value, NULL, 10));
    return pxr_ffmpeg_stream_orientation(&picture->ffmpeg);
}

static pxr_status convert(const opened_picture *picture, pxr_tensor *out, pxr_error *error)
{
    pxr_rgb_converter converter = {0};
    const pxr_status status = pxr_rgb_convert(&converter, picture->frame, picture->frame->width, picture->frame->height,
                                              picture_orientation(picture), out, error);
    pxr_rgb_converter_free(&converter);
    return status;
}

pxr_status pxr_ffmpeg_read_picture(const char *path, pxr_tensor *out, pxr_error *error)
{
    opened_picture picture;
    pxr_ffmpeg_quiet_begin();
    pxr_status status = open_picture(&picture, path, error);
    if (status == PXR_OK) status = convert(&picture, out, error);
    close_picture(&picture);
    pxr_ffmpeg_quiet_end();
    return status;
}

static pxr_status copy_indices(const AVFrame *frame, pxr_tensor *indices, pxr_tensor *palette, pxr_error *error)
{
    const int64_t size[2] = {frame->height, frame->width}, colours[2] = {256, 3};
    pxr_status status = pxr_tensor_new(indices, pxr_cpu_device(), PXR_U8, 2, size, error);
    if (status == PXR_OK) status = pxr_tensor_new(palette, pxr_cpu_device(), PXR_U8, 2, colours, error);
    if (status != PXR_OK) return status;
    uint8_t *row = pxr_tensor_data(indices), *colour = pxr_tensor_data(palette);
    for (int y = 0; y < frame->height; y++, row += frame->width)
        memcpy(row, frame->data[0] + (ptrdiff_t)y * frame->linesize[0], (size_t)frame->width);
    for (int i = 0; i < 256; i++, colour += 3) {
        uint32_t argb; /* in this machine's byte order */
        memcpy(&argb, frame->data[1] + 4 * i, sizeof argb);
        colour[0] = (uint8_t)(argb >> 16);
        colour[1] = (uint8_t)(argb >> 8);
        colour[2] = (uint8_t)argb;
    }
    return PXR_OK;
}

pxr_status pxr_read_indexed_png(const char *path, pxr_tensor *indices, pxr_tensor *palette, pxr_error *error)
{
    opened_picture picture;
    pxr_ffmpeg_quiet_begin();
    pxr_status status = open_picture(&picture, path, error);
    if (status == PXR_OK && picture.ffmpeg.decoder->codec_id != AV_CODEC_ID_PNG)
        status = pxr_fail(error, PXR_ERROR_FORMAT, "%s is no PNG but '%s'", path,
                          avcodec_get_name(picture.ffmpeg.decoder->codec_id));
    if (status == PXR_OK && picture.frame->format != AV_PIX_FMT_PAL8)
        status = pxr_fail(error, PXR_ERROR_FORMAT, "%s is not an indexed PNG (it has no palette)", path);
    if (status == PXR_OK) status = copy_indices(picture.frame, indices, palette, error);
    if (status != PXR_OK) {
        pxr_tensor_release(indices);
        pxr_tensor_release(palette);
    }
    close_picture(&picture);
    pxr_ffmpeg_quiet_end();
    return status;
}
