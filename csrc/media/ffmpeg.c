/* Opening a media file through FFmpeg, its packets and its decoded frames; see ffmpeg.h. */
#include "media/ffmpeg.h"

#include "core/interrupt.h"
#include "core/memory.h"
#include "media/limits.h"

#include <libavutil/avstring.h>
#include <libavutil/opt.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Demuxers that may run. Nothing that opens further files (concat, hls, dash, imf, image2) or runs code (avisynth). */
static const char CLIPS[] = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,ogg,gif,"
                            "apng,asf";
static const char PICTURES[] = "png_pipe,jpeg_pipe,bmp_pipe,webp_pipe,tiff_pipe,gif_pipe,pam_pipe,pbm_pipe,pgm_pipe,"
                               "ppm_pipe,pcx_pipe,sgi_pipe,sunrast_pipe,j2k_pipe,jpegls_pipe,jpegxl_pipe,psd_pipe,"
                               "exr_pipe,qoi_pipe,xbm_pipe,xpm_pipe";

enum {
    IO_BUFFER = 1 << 16, /* bytes */
    MAX_DELAY = 64       /* frames that a decoder may hold back at the end: H.264 has 16 */
};

/* ---- bytes ----------------------------------------------------------------------------------------------------- */

static pxr_status name_source(pxr_media_source *source, const char *name, pxr_error *error)
{
    source->name = pxr_strndup(name, strlen(name));
    return source->name ? PXR_OK : pxr_fail_memory(error, strlen(name) + 1, "a path");
}

pxr_status pxr_media_source_open(pxr_media_source *source, const char *path, pxr_error *error)
{
    *source = (pxr_media_source){.descriptor = -1};
    /* O_NONBLOCK: opening a pipe that nobody writes to must not wait; regular files do not know it */
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) {
        const bool url = errno == ENOENT && strstr(path, "://");
        return pxr_fail_errno(error, "cannot open %s%s", path, url ? " (only files are read, no addresses)" : "");
    }
    struct stat status;
    pxr_status result = PXR_OK;
    if (fstat(descriptor, &status) != 0)
        result = pxr_fail_errno(error, "cannot read %s", path);
    else if (!S_ISREG(status.st_mode))
        result = pxr_fail(error, PXR_ERROR_IO, "%s is %s, a file expected", path,
                          S_ISDIR(status.st_mode) ? "a directory" : "no regular file");
    else if (status.st_size == 0)
        result = pxr_fail(error, PXR_ERROR_FORMAT, "%s is empty", path);
    else
        result = name_source(source, path, error);
    if (result != PXR_OK) {
        close(descriptor);
        return result;
    }
    source->descriptor = descriptor;
    source->size = status.st_size;
    return PXR_OK;
}

pxr_status pxr_media_source_memory(pxr_media_source *source, const char *name, const uint8_t *bytes, size_t size,
                                   pxr_error *error)
{
    *source = (pxr_media_source){.descriptor = -1};
    if (size == 0 || size > INT64_MAX) return pxr_fail(error, PXR_ERROR_FORMAT, "%s is empty", name);
    source->bytes = bytes;
    source->size = (int64_t)size;
    return name_source(source, name, error);
}

void pxr_media_source_close(pxr_media_source *source)
{
    if (source->name && source->descriptor >= 0) close(source->descriptor);
    pxr_free(source->name);
    *source = (pxr_media_source){.descriptor = -1};
}

/* As pread: how many bytes, or -1 with errno. */
static ssize_t read_at(const pxr_media_source *source, int64_t offset, uint8_t *bytes, size_t count)
{
    if (offset < 0 || offset >= source->size) return 0;
    const int64_t left = source->size - offset;
    if ((uint64_t)left < count) count = (size_t)left;
    if (source->descriptor >= 0) return pread(source->descriptor, bytes, count, offset);
    memcpy(bytes, source->bytes + offset, count);
    return (ssize_t)count;
}

size_t pxr_media_source_peek(const pxr_media_source *source, int64_t offset, uint8_t *bytes, size_t count)
{
    const ssize_t got = read_at(source, offset, bytes, count);
    return got > 0 ? (size_t)got : 0;
}

/* Called by FFmpeg. No bytes: the end, also of a file that shrank meanwhile. */
static int read_source(void *opaque, uint8_t *buffer, int wanted)
{
    pxr_media_source *source = opaque;
    const ssize_t count = read_at(source, source->position, buffer, wanted > 0 ? (size_t)wanted : 0);
    if (count < 0) return AVERROR(errno);
    if (count == 0) return AVERROR_EOF;
    source->position += count;
    return (int)count;
}

static int64_t seek_source(void *opaque, int64_t offset, int whence)
{
    pxr_media_source *source = opaque;
    int64_t base = 0;
    switch (whence & ~AVSEEK_FORCE) {
    case AVSEEK_SIZE:
        return source->size;
    case SEEK_SET:
        break;
    case SEEK_CUR:
        base = source->position;
        break;
    case SEEK_END:
        base = source->size;
        break;
    default:
        return AVERROR(EINVAL);
    }
    if (offset < -base || offset > INT64_MAX - base) return AVERROR(EINVAL);
    return source->position = base + offset;
}

/* What a demuxer calls to open a further file. */
static int refuse_to_open(AVFormatContext *format, AVIOContext **io, const char *url, int flags, AVDictionary **options)
{
    (void)format, (void)io, (void)url, (void)flags, (void)options;
    return AVERROR(EPERM);
}

/* Asked by FFmpeg inside long reads, which it then breaks off, now and then as if there were no more to read. */
static int is_interrupted(void *opaque)
{
    (void)opaque;
    return pxr_interrupt_pending();
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static bool is_listed(const char *name, const char *list)
{
    return av_match_list(name, list, ',') > 0;
}

static pxr_status fail_open(const pxr_ffmpeg *ffmpeg, int code, const char *what, pxr_error *error)
{
    return pxr_ffmpeg_fail(error, PXR_ERROR_FORMAT, code, "%s: %s", ffmpeg->source->name, what);
}

static pxr_status open_format(pxr_ffmpeg *ffmpeg, pxr_error *error)
{
#if LIBAVFORMAT_VERSION_MAJOR >= 59
    const AVInputFormat *demuxer = NULL;
#else
    AVInputFormat *demuxer = NULL;
#endif
    uint8_t *buffer = av_malloc(IO_BUFFER);
    if (buffer) ffmpeg->io = avio_alloc_context(buffer, IO_BUFFER, 0, ffmpeg->source, read_source, NULL, seek_source);
    if (!ffmpeg->io) {
        av_free(buffer);
        return pxr_fail_memory(error, IO_BUFFER, "reading a media file");
    }
    int code = av_probe_input_buffer2(ffmpeg->io, &demuxer, "", NULL, 0, 0);
    if (code < 0) return fail_open(ffmpeg, 0, "no picture or video format that is known here", error);
    if (!is_listed(demuxer->name, CLIPS) && !is_listed(demuxer->name, PICTURES))
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s is %s ('%s'), which is not among the formats that are opened",
                        ffmpeg->source->name, demuxer->long_name ? demuxer->long_name : "something else",
                        demuxer->name);
    ffmpeg->format = avformat_alloc_context();
    if (!ffmpeg->format) return pxr_fail_memory(error, sizeof *ffmpeg->format, "reading a media file");
    ffmpeg->format->pb = ffmpeg->io;
    ffmpeg->format->io_open = refuse_to_open;
    ffmpeg->format->interrupt_callback.callback = is_interrupted;
    code = avformat_open_input(&ffmpeg->format, "", demuxer, NULL); /* frees the context on failure */
    if (code < 0) return fail_open(ffmpeg, code, "damaged or truncated", error);
    return PXR_OK;
}

/* Reads as far as the streams' sizes and rates are known; its own decoders are bounded like ours. */
static pxr_status find_streams(pxr_ffmpeg *ffmpeg, pxr_error *error)
{
    AVFormatContext *format = ffmpeg->format;
    const unsigned count = format->nb_streams; /* options go to these; streams found later get none */
    AVDictionary **options = pxr_calloc(count ? count : 1, sizeof *options);
    if (!options) return pxr_fail_memory(error, count * sizeof *options, "a media file's streams");
    for (unsigned i = 0; i < count; i++) av_dict_set_int(&options[i], "max_pixels", PXR_MAX_PIXELS, 0);
    const int code = avformat_find_stream_info(format, options);
    for (unsigned i = 0; i < count; i++) av_dict_free(&options[i]);
    pxr_free(options);
    if (code < 0) return fail_open(ffmpeg, code, "damaged or truncated", error);
    const int best = av_find_best_stream(format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    /* the cover picture of a song is no clip */
    if (best < 0 || (format->streams[best]->disposition & AV_DISPOSITION_ATTACHED_PIC))
        return pxr_fail(error, PXR_ERROR_FORMAT, "%s holds no pictures: none of its %u streams is video",
                        ffmpeg->source->name, format->nb_streams);
    ffmpeg->stream = format->streams[best];
    for (unsigned i = 0; i < format->nb_streams; i++)
        format->streams[i]->discard = (int)i == best ? AVDISCARD_DEFAULT : AVDISCARD_ALL;
    return PXR_OK;
}

static uint64_t big_endian(const uint8_t *bytes, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count; i++) value = value << 8 | bytes[i];
    return value;
}

/* Bytes of an EBML number (RFC 8794, section 4): its leading zero bits count the bytes that follow the first. */
static int ebml_length(uint8_t first)
{
    int length = 1;
    while (length < 8 && !(first & (0x80 >> (length - 1)))) length++;
    return length;
}

/* Where a container that states its own size ends: Matroska's segment, behind the EBML header; AVI's RIFF chunk. 0 when
 * it does not say (a live recording). */
static int64_t stated_end(const pxr_ffmpeg *ffmpeg)
{
    static const uint8_t SEGMENT[4] = {0x18, 0x53, 0x80, 0x67};
    uint8_t head[4096];
    const size_t count = pxr_media_source_peek(ffmpeg->source, 0, head, sizeof head);
    if (count < 16) return 0;
    if (memcmp(head, "RIFF", 4) == 0) {
        const uint64_t size = big_endian((const uint8_t[]){head[7], head[6], head[5], head[4]}, 4);
        return size > 0 ? (int64_t)size + 8 : 0;
    }
    if (!is_listed(ffmpeg->format->iformat->name, "matroska")) return 0;
    const uint8_t *at = memmem(head, count, SEGMENT, sizeof SEGMENT);
    if (!at || head + count - at < 4 + 8) return 0;
    at += sizeof SEGMENT;
    const int length = ebml_length(*at);
    const uint64_t unknown = (UINT64_C(1) << (7 * length)) - 1, size = big_endian(at, length) & unknown;
    if (size == unknown || size > INT64_MAX / 2) return 0;
    return (at - head) + length + (int64_t)size;
}

/* QuickTime says where every frame lies, some others where they end: a file that was cut off is known by that before it
 * is read. */
static pxr_status check_extent(const pxr_ffmpeg *ffmpeg, pxr_error *error)
{
    const pxr_media_source *source = ffmpeg->source;
    if (!is_listed(ffmpeg->format->iformat->name, "mov")) {
        const int64_t end = stated_end(ffmpeg);
        if (end <= source->size) return PXR_OK;
        return pxr_fail(error, PXR_ERROR_FORMAT, "%s is truncated: %lld bytes expected, %lld found", source->name,
                        (long long)end, (long long)source->size);
    }
    int missing = 0;
#if LIBAVFORMAT_VERSION_MAJOR >= 59
    const int count = avformat_index_get_entries_count(ffmpeg->stream);
    for (int i = 0; i < count; i++) {
        const AVIndexEntry *entry = avformat_index_get_entry(ffmpeg->stream, i);
        if (entry->pos > source->size - entry->size) missing++;
    }
#else
    const int count = ffmpeg->stream->nb_index_entries;
    for (int i = 0; i < count; i++) {
        const AVIndexEntry *entry = &ffmpeg->stream->index_entries[i];
        if (entry->pos > source->size - entry->size) missing++;
    }
#endif
    if (missing == 0) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_FORMAT, "%s is truncated: %d of its %d frames lie behind its end at byte %lld",
                    source->name, missing, count, (long long)source->size);
}

static pxr_status open_decoder(pxr_ffmpeg *ffmpeg, pxr_error *error)
{
    const AVCodecParameters *parameters = ffmpeg->stream->codecpar;
    const char *name = ffmpeg->source->name;
    if (parameters->width <= 0 || parameters->height <= 0)
        return pxr_ffmpeg_fail(error, PXR_ERROR_FORMAT, 0, "%s: '%s' holds no picture that can be decoded", name,
                               avcodec_get_name(parameters->codec_id));
    const pxr_status status = pxr_check_picture_size(parameters->height, parameters->width, name, error);
    if (status != PXR_OK) return status;
    const AVCodec *codec = avcodec_find_decoder(parameters->codec_id);
    if (!codec)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s: this FFmpeg has no decoder for '%s'", name,
                        avcodec_get_name(parameters->codec_id));
    AVCodecContext *decoder = ffmpeg->decoder = avcodec_alloc_context3(codec);
    if (!decoder) return pxr_fail_memory(error, sizeof *decoder, "a decoder");
    int code = avcodec_parameters_to_context(decoder, parameters);
    if (code >= 0) {
        decoder->pkt_timebase = ffmpeg->stream->time_base;
        decoder->thread_count = 1;
        decoder->max_pixels = PXR_MAX_PIXELS;
        code = avcodec_open2(decoder, codec, NULL);
    }
    if (code < 0) return pxr_ffmpeg_fail(error, PXR_ERROR_FORMAT, code, "%s: cannot decode '%s'", name, codec->name);
    return PXR_OK;
}

pxr_status pxr_ffmpeg_open(pxr_ffmpeg *ffmpeg, pxr_media_source *source, pxr_error *error)
{
    *ffmpeg = (pxr_ffmpeg){.source = source};
    source->position = 0;
    ffmpeg->packet = av_packet_alloc();
    pxr_status status = ffmpeg->packet ? PXR_OK : pxr_fail_memory(error, sizeof *ffmpeg->packet, "a packet");
    if (status == PXR_OK) status = open_format(ffmpeg, error);
    if (status == PXR_OK) status = find_streams(ffmpeg, error);
    if (status == PXR_OK) status = check_extent(ffmpeg, error);
    if (status == PXR_OK) status = open_decoder(ffmpeg, error);
    if (pxr_interrupt_check(error) != PXR_OK) status = PXR_ERROR_INTERRUPTED; /* whatever FFmpeg made of it */
    if (status != PXR_OK) pxr_ffmpeg_close(ffmpeg);
    return status;
}

void pxr_ffmpeg_close(pxr_ffmpeg *ffmpeg)
{
    av_packet_free(&ffmpeg->packet);
    avcodec_free_context(&ffmpeg->decoder);
    avformat_close_input(&ffmpeg->format);
    if (ffmpeg->io) av_freep(&ffmpeg->io->buffer); /* FFmpeg may have replaced the one it was given */
    avio_context_free(&ffmpeg->io);
    *ffmpeg = (pxr_ffmpeg){0};
}

bool pxr_ffmpeg_is_picture(const pxr_ffmpeg *ffmpeg)
{
    return is_listed(ffmpeg->format->iformat->name, PICTURES);
}

/* ---- packets and frames ---------------------------------------------------------------------------------------- */

/* Broadcasts lose packets as a matter of course; in any other container a short packet means a file that was cut. */
static bool may_have_gaps(const pxr_ffmpeg *ffmpeg)
{
    return is_listed(ffmpeg->format->iformat->name, "mpegts,mpeg,mpegvideo,m4v,h264,hevc");
}

pxr_status pxr_ffmpeg_next_packet(pxr_ffmpeg *ffmpeg, bool *found, pxr_error *error)
{
    AVPacket *packet = ffmpeg->packet;
    *found = false;
    for (;;) {
        av_packet_unref(packet);
        const pxr_status status = pxr_interrupt_check(error);
        if (status != PXR_OK) return status;
        const int code = av_read_frame(ffmpeg->format, packet);
        if (code < 0 && pxr_interrupt_check(error) != PXR_OK) return PXR_ERROR_INTERRUPTED;
        if (code == AVERROR_EOF && !(ffmpeg->io->error < 0 && ffmpeg->io->error != AVERROR_EOF)) return PXR_OK;
        const bool ours = code >= 0 && packet->stream_index == ffmpeg->stream->index;
        if (code < 0 || (ours && (packet->flags & AV_PKT_FLAG_CORRUPT) && !may_have_gaps(ffmpeg)))
            return pxr_ffmpeg_fail(error, PXR_ERROR_FORMAT, code < 0 ? code : 0,
                                   "%s is truncated or damaged after frame %lld", ffmpeg->source->name,
                                   (long long)ffmpeg->packets);
        if (!ours) continue;
        ffmpeg->packets++;
        *found = true;
        return PXR_OK;
    }
}

/* Gives the decoder its next packet, or tells it that there are no more. */
static pxr_status feed(pxr_ffmpeg *ffmpeg, pxr_error *error)
{
    bool found = true;
    do {
        const pxr_status status = pxr_ffmpeg_next_packet(ffmpeg, &found, error);
        if (status != PXR_OK) return status;
    } while (found && ffmpeg->packets <= ffmpeg->skip_until);
    ffmpeg->draining = !found;
    const int code = avcodec_send_packet(ffmpeg->decoder, found ? ffmpeg->packet : NULL);
    if (code == AVERROR(ENOMEM))
        return pxr_ffmpeg_fail(error, PXR_ERROR_MEMORY, code, "%s: cannot decode", ffmpeg->source->name);
    return PXR_OK;
}

pxr_status pxr_ffmpeg_next_frame(pxr_ffmpeg *ffmpeg, AVFrame *frame, bool *found, pxr_error *error)
{
    int broken = 0;
    *found = false;
    for (;;) {
        const int code = avcodec_receive_frame(ffmpeg->decoder, frame);
        if (code == 0) {
            *found = true;
            return PXR_OK;
        }
        if (code == AVERROR(ENOMEM))
            return pxr_ffmpeg_fail(error, PXR_ERROR_MEMORY, code, "%s: cannot decode", ffmpeg->source->name);
        if (ffmpeg->draining) {
            if (code == AVERROR_EOF || code == AVERROR(EAGAIN) || ++broken > MAX_DELAY) return PXR_OK;
            continue; /* a broken frame; the next may be whole */
        }
        const pxr_status status = feed(ffmpeg, error);
        if (status != PXR_OK) return status;
    }
}

void pxr_ffmpeg_skip_to(pxr_ffmpeg *ffmpeg, int64_t packet)
{
    avcodec_flush_buffers(ffmpeg->decoder);
    ffmpeg->skip_until = packet;
}
