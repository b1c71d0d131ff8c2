/* Opening a clip and decoding its frames by number; see video.h. */
#include "media/video_internal.h"

#include "core/memory.h"

#include <libavutil/avstring.h>

#include <stdio.h>

/* ---- opening --------------------------------------------------------------------------------------------------- */

static double rate_of(const AVStream *stream)
{
    if (stream->avg_frame_rate.num > 0 && stream->avg_frame_rate.den > 0) return av_q2d(stream->avg_frame_rate);
    if (stream->r_frame_rate.num > 0 && stream->r_frame_rate.den > 0) return av_q2d(stream->r_frame_rate);
    return 25; /* FFmpeg's own guess for a stream without times */
}

/* Degrees clockwise of an orientation; a mirror image counts as what is left when it is mirrored back. */
static int degrees(pxr_orientation orientation)
{
    if (orientation.transpose) return orientation.flip_x ? 90 : 270;
    return orientation.flip_y ? 180 : 0;
}

/* Everything but the count, from the opened stream. */
static void describe(pxr_video *video)
{
    const AVFormatContext *format = video->ffmpeg.format;
    const AVStream *stream = video->ffmpeg.stream;
    pxr_video_info *info = &video->info;
    video->time_base = stream->time_base;
    video->container_start = format->start_time != AV_NOPTS_VALUE ? format->start_time : 0;
    video->coded_width = stream->codecpar->width;
    video->coded_height = stream->codecpar->height;
    video->orientation = pxr_ffmpeg_stream_orientation(&video->ffmpeg);
    info->width = video->orientation.transpose ? video->coded_height : video->coded_width;
    info->height = video->orientation.transpose ? video->coded_width : video->coded_height;
    info->rotation = degrees(video->orientation);
    info->fps = rate_of(stream);
    info->start = stream->start_time != AV_NOPTS_VALUE ? (double)stream->start_time * av_q2d(stream->time_base) : 0;
    info->duration = format->duration != AV_NOPTS_VALUE ? (double)format->duration / AV_TIME_BASE : 0;
    info->is_picture = pxr_ffmpeg_is_picture(&video->ffmpeg);
    snprintf(info->codec, sizeof info->codec, "%s", avcodec_get_name(stream->codecpar->codec_id));
    snprintf(info->container, sizeof info->container, "%s", format->iformat->name);
}

/* From a source to a video, which takes the source over even on failure. */
static pxr_status open_source(pxr_video **result, pxr_media_source *source, pxr_error *error)
{
    pxr_video *video = pxr_calloc(1, sizeof *video);
    if (!video) {
        pxr_media_source_close(source);
        return pxr_fail_memory(error, sizeof *video, "a video");
    }
    video->source = *source;
    video->shown = -1;
    video->frame = av_frame_alloc();
    pxr_status status = video->frame ? PXR_OK : pxr_fail_memory(error, sizeof *video->frame, "a frame");
    if (status == PXR_OK) status = pxr_ffmpeg_open(&video->ffmpeg, &video->source, error);
    if (status == PXR_OK) {
        describe(video);
        status = pxr_video_index_build(video, error);
    }
    if (status != PXR_OK) {
        pxr_video_close(video);
        return status;
    }
    video->info.frames = (int64_t)video->index.frame_count;
    if (!(video->info.duration > 0))
        video->info.duration = pxr_video_time(video, video->info.frames - 1) + 1 / video->info.fps;
    pxr_ffmpeg_close(&video->ffmpeg); /* opened again, at its start, by the first read */
    *result = video;
    return PXR_OK;
}

pxr_status pxr_video_open(pxr_video **video, const char *path, pxr_error *error)
{
    pxr_media_source source;
    *video = NULL;
    pxr_status status = pxr_media_source_open(&source, path, error);
    if (status != PXR_OK) return status;
    pxr_ffmpeg_quiet_begin();
    status = open_source(video, &source, error);
    pxr_ffmpeg_quiet_end();
    return status;
}

pxr_status pxr_video_open_memory(pxr_video **video, const char *name, const uint8_t *bytes, size_t size,
                                 pxr_error *error)
{
    pxr_media_source source;
    *video = NULL;
    pxr_status status = pxr_media_source_memory(&source, name, bytes, size, error);
    if (status != PXR_OK) return status;
    pxr_ffmpeg_quiet_begin();
    status = open_source(video, &source, error);
    pxr_ffmpeg_quiet_end();
    return status;
}

void pxr_video_close(pxr_video *video)
{
    if (!video) return;
    pxr_ffmpeg_quiet_begin();
    pxr_ffmpeg_close(&video->ffmpeg);
    pxr_rgb_converter_free(&video->converter);
    av_frame_free(&video->frame);
    pxr_ffmpeg_quiet_end();
    pxr_video_index_free(&video->index);
    pxr_media_source_close(&video->source);
    pxr_free(video);
}

const pxr_video_info *pxr_video_get_info(const pxr_video *video)
{
    return &video->info;
}

/* ---- reading frames -------------------------------------------------------------------------------------------- */

static pxr_status rewind_file(pxr_video *video, pxr_error *error)
{
    video->shown = -1;
    av_frame_unref(video->frame);
    pxr_ffmpeg_close(&video->ffmpeg);
    return pxr_ffmpeg_open(&video->ffmpeg, &video->source, error);
}

/* The packet at which decoding must start for `frame` to come out whole: the last key packet that neither lies behind
 * it in the file nor is shown after it (frames between are an open group's, which lean on the group before). */
static int64_t key_packet(const pxr_video *video, int64_t frame)
{
    const pxr_video_index *index = &video->index;
    if (index->by_decoding) return 0;
    const pxr_video_entry *wanted = &index->frames[frame];
    size_t low = 0, high = index->key_count; /* keys before `high` lie at or before the frame in the file */
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (index->keys[middle].packet <= wanted->packet)
            low = middle + 1;
        else
            high = middle;
    }
    while (low > 0 && index->keys[low - 1].pts > wanted->pts) low--;
    return low > 0 ? index->keys[low - 1].packet : 0;
}

/* Decodes up to `frame` into video->frame; `*found` is false when the decoder passed it by. */
static pxr_status decode_until(pxr_video *video, int64_t frame, bool *found, pxr_error *error)
{
    while (video->shown < frame) {
        const pxr_status status = pxr_ffmpeg_next_frame(&video->ffmpeg, video->frame, found, error);
        if (status != PXR_OK || !*found) {
            video->shown = -1;
            return status;
        }
        const AVFrame *decoded = video->frame;
        if (video->index.by_decoding)
            video->shown++;
        else {
            const int64_t pts = decoded->pts != AV_NOPTS_VALUE ? decoded->pts : decoded->best_effort_timestamp;
            const int64_t number = pxr_video_index_find(&video->index, pts);
            if (number >= 0) video->shown = number;
        }
    }
    *found = video->shown == frame;
    return PXR_OK;
}

/* Brings video->frame to `frame`, passing over groups of pictures that are not needed; what does not come out so is
 * tried again from the file's start. */
static pxr_status seek_frame(pxr_video *video, int64_t frame, pxr_error *error)
{
    if (video->shown == frame) return PXR_OK;
    bool found = false;
    for (int attempt = 0; attempt < 2; attempt++) {
        pxr_status status = PXR_OK;
        const bool lost = video->shown < 0 && video->ffmpeg.packets > 0; /* somewhere behind a failed read */
        if (!video->ffmpeg.format || video->shown > frame || lost || attempt > 0) status = rewind_file(video, error);
        if (status != PXR_OK) return status;
        const int64_t key = attempt == 0 ? key_packet(video, frame) : 0;
        if (key > video->ffmpeg.packets) pxr_ffmpeg_skip_to(&video->ffmpeg, key);
        status = decode_until(video, frame, &found, error);
        if (status != PXR_OK || found) return status;
    }
    return pxr_ffmpeg_fail(error, PXR_ERROR_FORMAT, 0, "%s: frame %lld of %lld cannot be decoded", video->source.name,
                           (long long)frame, (long long)video->info.frames);
}

pxr_status pxr_video_read(pxr_video *video, int64_t frame, pxr_tensor *picture, pxr_error *error)
{
    if (frame < 0 || frame >= video->info.frames)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: frame %lld is out of range: it has %lld frames, 0 to %lld",
                        video->source.name, (long long)frame, (long long)video->info.frames,
                        (long long)video->info.frames - 1);
    pxr_ffmpeg_quiet_begin();
    pxr_status status = seek_frame(video, frame, error);
    if (status == PXR_OK)
        status = pxr_rgb_convert(&video->converter, video->frame, video->coded_width, video->coded_height,
                                 video->orientation, picture, error);
    pxr_ffmpeg_quiet_end();
    return status;
}
