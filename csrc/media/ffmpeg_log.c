/* FFmpeg's log and error codes, turned into our messages; see ffmpeg.h. */
#include "media/ffmpeg.h"

#include <libavutil/error.h>
#include <libavutil/log.h>

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The callback is one per process. What FFmpeg says on behalf of somebody else goes on to its default. */
static _Thread_local int depth;
static _Thread_local char said[256]; /* the last error that FFmpeg logged for this thread's outermost call */

static void keep(void *object, int level, const char *format, va_list arguments)
{
    if (depth == 0) {
        av_log_default_callback(object, level, format, arguments);
        return;
    }
    if (level > AV_LOG_ERROR) return;
    char line[sizeof said];
    if (vsnprintf(line, sizeof line, format, arguments) < 0) return;
    size_t length = strlen(line);
    while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == ' ' || line[length - 1] == '.')) length--;
    if (length == 0) return;
    line[length] = '\0';
    for (char *byte = line; *byte; byte++) /* a file's own bytes may be quoted in it */
        if ((unsigned char)*byte < 0x20 || (unsigned char)*byte > 0x7e) *byte = '?';
    memcpy(said, line, length + 1);
}

static void install(void)
{
    av_log_set_callback(keep);
}

void pxr_ffmpeg_quiet_begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    if (depth++ == 0) said[0] = '\0';
}

void pxr_ffmpeg_quiet_end(void)
{
    depth--;
}

pxr_status pxr_ffmpeg_fail(pxr_error *error, pxr_status status, int code, const char *format, ...)
{
    char what[512], reason[AV_ERROR_MAX_STRING_SIZE] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    if (code == AVERROR(ENOMEM)) status = PXR_ERROR_MEMORY;
    if (code != 0) av_strerror(code, reason, sizeof reason);
    return pxr_fail(error, status, "%s%s%s%s%s%s", what, code != 0 ? ": " : "", reason, said[0] ? " (FFmpeg: " : "",
                    said, said[0] ? ")" : "");
}
