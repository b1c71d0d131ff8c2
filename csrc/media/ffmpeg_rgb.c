/* From a decoded frame to upright RGB; see ffmpeg.h. */
#include "media/ffmpeg.h"

#include "core/memory.h"
#include "media/limits.h"
#include "ops/device.h"

#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>

#include <string.h>

/* ---- orientation ----------------------------------------------------------------------------------------------- */

pxr_orientation pxr_exif_orientation(int number)
{
    static const pxr_orientation table[9] = {
        [2] = {false, true, false}, [3] = {false, true, true}, [4] = {false, false, true}, [5] = {true, false, false},
        [6] = {true, true, false},  [7] = {true, true, true},  [8] = {true, false, true},
    };
    return number >= 1 && number <= 8 ? table[number] : (pxr_orientation){false, false, false};
}

/* A display matrix maps stored pixels to shown ones: x' = a x + c y, y' = b x + d y, as 16.16 numbers a b . c d at 0 1
 * 3 4. Quarter turns and mirrors have one number in each row; anything else (a free angle) stays as stored. */
static pxr_orientation matrix_orientation(const int32_t matrix[9])
{
    const int32_t a = matrix[0], b = matrix[1], c = matrix[3], d = matrix[4];
    if (b == 0 && c == 0) return (pxr_orientation){false, a < 0, d < 0};
    if (a == 0 && d == 0) return (pxr_orientation){true, c < 0, b < 0};
    return (pxr_orientation){false, false, false};
}

pxr_orientation pxr_ffmpeg_stream_orientation(const pxr_ffmpeg *ffmpeg)
{
    const uint8_t *bytes = NULL;
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 100)
    const AVCodecParameters *codec = ffmpeg->stream->codecpar;
    const AVPacketSideData *side = av_packet_side_data_get(codec->coded_side_data, codec->nb_coded_side_data,
                                                           AV_PKT_DATA_DISPLAYMATRIX);
    if (side && side->size >= 9 * sizeof(int32_t)) bytes = side->data;
#elif LIBAVFORMAT_VERSION_MAJOR >= 59
    size_t size = 0;
    bytes = av_stream_get_side_data(ffmpeg->stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
    if (size < 9 * sizeof(int32_t)) bytes = NULL;
#else
    int size = 0;
    bytes = av_stream_get_side_data(ffmpeg->stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
    if (size < (int)(9 * sizeof(int32_t))) bytes = NULL;
#endif
    if (!bytes) return (pxr_orientation){false, false, false};
    int32_t matrix[9];
    memcpy(matrix, bytes, sizeof matrix);
    return matrix_orientation(matrix);
}

/* ---- conversion ------------------------------------------------------------------------------------------------ */

/* The table of the colours that a frame says to have; what FFmpeg's own scale filter takes when it says nothing. */
static const int *color_table(enum AVColorSpace space)
{
    if (space < 1 || space > 10 || space == 8) space = AVCOL_SPC_BT470BG;
    return sws_getCoefficients((int)space);
}

static pxr_status prepare(pxr_rgb_converter *converter, const AVFrame *frame, int width, int height, pxr_error *error)
{
    converter->scaler = sws_getCachedContext(converter->scaler, frame->width, frame->height,
                                             (enum AVPixelFormat)frame->format, width, height, AV_PIX_FMT_RGB24,
                                             SWS_BICUBIC, NULL, NULL, NULL);
    if (!converter->scaler)
        return pxr_ffmpeg_fail(error, PXR_ERROR_UNSUPPORTED, 0, "pixel format %d cannot become RGB", frame->format);
    int *inverse, *table, full_in, full_out, brightness, contrast, saturation;
    if (sws_getColorspaceDetails(converter->scaler, &inverse, &full_in, &table, &full_out, &brightness, &contrast,
                                 &saturation) >= 0) {
        if (frame->color_range != AVCOL_RANGE_UNSPECIFIED) full_in = frame->color_range == AVCOL_RANGE_JPEG;
        sws_setColorspaceDetails(converter->scaler, color_table(frame->colorspace), full_in, table, full_out,
                                 brightness, contrast, saturation);
    }
    AVFrame *rgb = converter->rgb;
    if (rgb && rgb->width == width && rgb->height == height) return PXR_OK;
    av_frame_free(&converter->rgb);
    rgb = converter->rgb = av_frame_alloc();
    if (!rgb) return pxr_fail_memory(error, sizeof *rgb, "a picture");
    rgb->format = AV_PIX_FMT_RGB24;
    rgb->width = width;
    rgb->height = height;
    const int code = av_frame_get_buffer(rgb, 0);
    if (code >= 0) return PXR_OK;
    av_frame_free(&converter->rgb);
    return pxr_ffmpeg_fail(error, PXR_ERROR_MEMORY, code, "a picture of %dx%d pixels", width, height);
}

/* Copies rows of the scratch picture to `out`, turning it. */
static void turn(uint8_t *out, const AVFrame *rgb, pxr_orientation orientation)
{
    const ptrdiff_t width = orientation.transpose ? rgb->height : rgb->width;
    const ptrdiff_t height = orientation.transpose ? rgb->width : rgb->height;
    const ptrdiff_t line = rgb->linesize[0];
    /* bytes between neighbours in the stored picture, walking along a shown row and down a shown column */
    const ptrdiff_t along = (orientation.transpose ? line : 3) * (orientation.flip_x ? -1 : 1);
    const ptrdiff_t down = (orientation.transpose ? 3 : line) * (orientation.flip_y ? -1 : 1);
    const uint8_t *corner = rgb->data[0];
    if (orientation.flip_x) corner -= along * (width - 1);
    if (orientation.flip_y) corner -= down * (height - 1);
    for (ptrdiff_t y = 0; y < height; y++, out += width * 3) {
        const uint8_t *from = corner + y * down;
        if (along == 3) {
            memcpy(out, from, (size_t)width * 3);
            continue;
        }
        for (ptrdiff_t x = 0; x < width; x++, from += along) memcpy(out + x * 3, from, 3);
    }
}

pxr_status pxr_rgb_convert(pxr_rgb_converter *converter, const AVFrame *frame, int width, int height,
                           pxr_orientation orientation, pxr_tensor *picture, pxr_error *error)
{
    pxr_status status = pxr_check_picture_size(frame->height, frame->width, "a frame", error);
    if (status == PXR_OK) status = prepare(converter, frame, width, height, error);
    if (status != PXR_OK) return status;
    const int rows = sws_scale(converter->scaler, (const uint8_t *const *)frame->data, frame->linesize, 0,
                               frame->height, converter->rgb->data, converter->rgb->linesize);
    if (rows != height)
        return pxr_ffmpeg_fail(error, PXR_ERROR_FORMAT, rows < 0 ? rows : 0, "a frame could not become RGB");
    const int64_t size[3] = {orientation.transpose ? width : height, orientation.transpose ? height : width, 3};
    status = pxr_tensor_new(picture, pxr_cpu_device(), PXR_U8, 3, size, error);
    if (status == PXR_OK) turn(pxr_tensor_data(picture), converter->rgb, orientation);
    return status;
}

void pxr_rgb_converter_free(pxr_rgb_converter *converter)
{
    sws_freeContext(converter->scaler);
    av_frame_free(&converter->rgb);
    *converter = (pxr_rgb_converter){0};
}
