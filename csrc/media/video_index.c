/* A clip's index, and the clocks by which it is sampled; see video.h. */
#include "media/video_internal.h"

#include "core/memory.h"

#include <libavutil/avutil.h>
#include <libavutil/mathematics.h>

#include <math.h>
#include <stdlib.h>

/* ---- reading the index ----------------------------------------------------------------------------------------- */

static pxr_status append(pxr_video_entry **entries, size_t *count, size_t *capacity, pxr_video_entry entry,
                         pxr_error *error)
{
    void *array = *entries;
    if (!pxr_grow(&array, capacity, *count + 1, sizeof entry))
        return pxr_fail_memory(error, (*count + 1) * sizeof entry, "a video's index");
    *entries = array;
    (*entries)[(*count)++] = entry;
    return PXR_OK;
}

static pxr_status append_frame(pxr_video_index *index, pxr_video_entry entry, pxr_error *error)
{
    return append(&index->frames, &index->frame_count, &index->frame_capacity, entry, error);
}

/* A packet that gives no picture: outside the file's edit list, empty (AVI repeats a frame so), or one of VP8's frames
 * that is only there to be referred to (RFC 6386, 9.1: show_frame is bit 4). */
static bool is_hidden(const pxr_video *video, const AVPacket *packet)
{
    if ((packet->flags & AV_PKT_FLAG_DISCARD) || packet->size <= 0) return true;
    return video->ffmpeg.decoder->codec_id == AV_CODEC_ID_VP8 && !(packet->data[0] & 0x10);
}

static int by_time(const void *a, const void *b)
{
    const pxr_video_entry *left = a, *right = b;
    return (left->pts > right->pts) - (left->pts < right->pts);
}

/* Reads all packets; `*complete` is false when their times do not tell the frames' order. */
static pxr_status index_packets(pxr_video *video, bool *complete, pxr_error *error)
{
    pxr_video_index *index = &video->index;
    const AVPacket *packet = video->ffmpeg.packet;
    *complete = true;
    for (;;) {
        bool found;
        pxr_status status = pxr_ffmpeg_next_packet(&video->ffmpeg, &found, error);
        if (status != PXR_OK) return status;
        if (!found) break;
        if (packet->pts == AV_NOPTS_VALUE && !is_hidden(video, packet)) {
            *complete = false;
            return PXR_OK;
        }
        const pxr_video_entry entry = {packet->pts, video->ffmpeg.packets - 1, packet->duration};
        if (packet->flags & AV_PKT_FLAG_KEY) {
            status = append(&index->keys, &index->key_count, &index->key_capacity, entry, error);
            if (status != PXR_OK) return status;
        }
        if (!is_hidden(video, packet)) status = append_frame(index, entry, error);
        if (status != PXR_OK) return status;
    }
    if (index->frame_count > 1) qsort(index->frames, index->frame_count, sizeof *index->frames, by_time);
    for (size_t i = 1; i < index->frame_count; i++)
        if (index->frames[i].pts == index->frames[i - 1].pts) *complete = false;
    return PXR_OK;
}

/* One frame's duration in the time base, where nothing better is known. */
static int64_t nominal_duration(const pxr_video *video)
{
    const double ticks = 1 / (video->info.fps * av_q2d(video->time_base));
    return ticks >= 1 && ticks < 1e15 ? (int64_t)ticks : 1;
}

/* Decodes everything, from the file's start. */
static pxr_status index_frames(pxr_video *video, pxr_error *error)
{
    pxr_video_index *index = &video->index;
    index->frame_count = index->key_count = 0;
    index->by_decoding = true;
    for (;;) {
        bool found;
        pxr_status status = pxr_ffmpeg_next_frame(&video->ffmpeg, video->frame, &found, error);
        if (status != PXR_OK || !found) return status;
        const pxr_video_entry *last = index->frame_count ? &index->frames[index->frame_count - 1] : NULL;
        pxr_video_entry entry = {video->frame->best_effort_timestamp, (int64_t)index->frame_count,
                                 nominal_duration(video)};
        const int64_t expected = last ? last->pts + entry.duration : 0;
        if (entry.pts == AV_NOPTS_VALUE || (last && entry.pts <= last->pts)) entry.pts = expected;
        status = append_frame(index, entry, error);
        av_frame_unref(video->frame);
        if (status != PXR_OK) return status;
    }
}

pxr_status pxr_video_index_build(pxr_video *video, pxr_error *error)
{
    bool complete;
    pxr_status status = index_packets(video, &complete, error);
    if (status == PXR_OK && !complete) {
        pxr_ffmpeg_close(&video->ffmpeg);
        status = pxr_ffmpeg_open(&video->ffmpeg, &video->source, error);
        if (status == PXR_OK) status = index_frames(video, error);
    }
    if (status == PXR_OK && video->index.frame_count == 0)
        return pxr_ffmpeg_fail(error, PXR_ERROR_FORMAT, 0, "%s holds no frame that can be decoded", video->source.name);
    return status;
}

int64_t pxr_video_index_find(const pxr_video_index *index, int64_t pts)
{
    const pxr_video_entry key = {.pts = pts};
    const pxr_video_entry *found = index->frame_count
                                       ? bsearch(&key, index->frames, index->frame_count, sizeof key, by_time)
                                       : NULL;
    return found ? found - index->frames : -1;
}

void pxr_video_index_free(pxr_video_index *index)
{
    pxr_free(index->frames);
    pxr_free(index->keys);
    *index = (pxr_video_index){0};
}

/* ---- clocks ---------------------------------------------------------------------------------------------------- */

static const AVRational MICROSECONDS = {1, AV_TIME_BASE};

/* A clock over the index: frames first .. last are in range, time is counted from `origin`. */
typedef struct clock_range {
    AVRational tick; /* seconds of one tick; {0, 1} when every frame is one */
    int64_t origin;  /* in the time base */
    int64_t end;     /* in the time base, behind the last frame, seen from origin */
    int64_t first, last;
} clock_range;

/* As the fps filter with round=down: the tick at which a time falls. */
static int64_t tick_of(const pxr_video *video, const clock_range *range, int64_t pts)
{
    return av_rescale_q_rnd(pts, video->time_base, range->tick, AV_ROUND_DOWN | AV_ROUND_PASS_MINMAX);
}

static int64_t since(const pxr_video *video, const clock_range *range, int64_t frame)
{
    return video->index.frames[frame].pts - range->origin;
}

/* Where the last frame ends, through microseconds as the ffmpeg command counts. */
static int64_t end_of_last(const pxr_video *video, const clock_range *range)
{
    const pxr_video_entry *last = &video->index.frames[range->last];
    const int64_t duration = last->duration > 0 ? last->duration : nominal_duration(video);
    const int64_t microseconds = av_rescale_q(last->pts - range->origin, video->time_base, MICROSECONDS) +
                                 av_rescale_q(duration, video->time_base, MICROSECONDS);
    return av_rescale_q(microseconds, MICROSECONDS, video->time_base);
}

/* The trim filter's rule: from the first frame at or behind `start`, while less than end - start has passed since. */
static void trim(const pxr_video *video, const pxr_video_clock *clock, clock_range *range)
{
    while (range->first <= range->last && since(video, range, range->first) < 0) range->first++;
    if (clock->end < 0 || range->first > range->last) return;
    const double length = clock->end - (clock->start > 0 ? clock->start : 0);
    const int64_t limit = av_rescale_q(llrint(length * AV_TIME_BASE), MICROSECONDS, video->time_base);
    const int64_t begin = since(video, range, range->first);
    int64_t stop = range->first;
    while (stop <= range->last && since(video, range, stop) - begin < limit) stop++;
    if (stop > range->last) return;
    range->end = since(video, range, stop); /* the fps filter hears of the end by the first frame behind it */
    range->last = stop - 1;
}

static pxr_status find_range(const pxr_video *video, const pxr_video_clock *clock, clock_range *range, pxr_error *error)
{
    const char *name = video->source.name;
    const double start = clock->start > 0 ? clock->start : 0;
    enum { MAX_RATE = 1 << 20 };
    if (!(clock->fps >= 0 && clock->fps <= MAX_RATE))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: fps must be from 0 to %d, got %g", name, MAX_RATE, clock->fps);
    if (isnan(clock->start) || isnan(clock->end) || start > 1e9 || clock->end > 1e9 ||
        (clock->end >= 0 && clock->end <= start))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: the end must lie behind the start, got %g .. %g seconds", name,
                        start, clock->end);
    const int64_t origin = video->container_start + llrint(start * AV_TIME_BASE);
    *range = (clock_range){
        .tick = clock->fps > 0 ? av_inv_q(av_d2q(clock->fps, INT_MAX)) : (AVRational){0, 1},
        .origin = av_rescale_q(origin, MICROSECONDS, video->time_base),
        .first = 0,
        .last = video->info.frames - 1,
    };
    if (clock->fps > 0 && (range->tick.num <= 0 || range->tick.den <= 0))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: fps is too small: %g", name, clock->fps);
    range->end = end_of_last(video, range);
    if (clock->start > 0 || clock->end >= 0) trim(video, clock, range);
    if (range->first <= range->last) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: no frame from %g seconds on: the last of %lld is shown at %.3f",
                    name, start, (long long)video->info.frames, pxr_video_time(video, video->info.frames - 1));
}

double pxr_video_time(const pxr_video *video, int64_t frame)
{
    const int64_t count = video->info.frames;
    const int64_t nearest = frame < 0 ? 0 : frame >= count ? count - 1 : frame;
    const int64_t start = av_rescale_q(video->container_start, MICROSECONDS, video->time_base);
    return (double)(video->index.frames[nearest].pts - start) * av_q2d(video->time_base);
}

static int64_t count_ticks(const pxr_video *video, const clock_range *range)
{
    if (range->tick.num == 0) return range->last - range->first + 1;
    const int64_t ticks = tick_of(video, range, range->end);
    return ticks > 1 ? ticks : 1;
}

pxr_status pxr_video_ticks(const pxr_video *video, const pxr_video_clock *clock, int64_t *ticks, pxr_error *error)
{
    clock_range range;
    const pxr_status status = find_range(video, clock, &range, error);
    if (status == PXR_OK) *ticks = count_ticks(video, &range);
    return status;
}

pxr_status pxr_video_frame_at(const pxr_video *video, const pxr_video_clock *clock, int64_t tick, int64_t *frame,
                              pxr_error *error)
{
    clock_range range;
    const pxr_status status = find_range(video, clock, &range, error);
    if (status != PXR_OK) return status;
    const int64_t ticks = count_ticks(video, &range);
    if (tick < 0 || tick >= ticks)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: tick %lld is out of range, there are %lld", video->source.name,
                        (long long)tick, (long long)ticks);
    if (range.tick.num == 0) {
        *frame = range.first + tick;
        return PXR_OK;
    }
    /* the last frame whose own tick is not behind this one; before the first, the first */
    int64_t low = range.first, high = range.last;
    while (low < high) {
        const int64_t middle = low + (high - low + 1) / 2;
        if (tick_of(video, &range, since(video, &range, middle)) <= tick)
            low = middle;
        else
            high = middle - 1;
    }
    *frame = low;
    return PXR_OK;
}
