/* Decoding pictures and masks; see image.h. The codec is stb_image, the checks around it are picture_header's. */
#include "media/image.h"

#include "core/memory.h"
#include "media/limits.h"
#include "media/picture_header.h"
#include "media/stb_decoder.h"
#include "ops/device.h"

#include <limits.h>
#include <string.h>

static pxr_status fail_decode(const pxr_picture_header *header, const char *reason, pxr_error *error)
{
    const char *format = header->format == PXR_PICTURE_PNG ? "PNG" : "JPEG";
    if (reason && strcmp(reason, "Out of memory") == 0)
        return pxr_fail(error, PXR_ERROR_MEMORY, "out of memory for a %s of %lld x %lld pixels", format,
                        (long long)header->height, (long long)header->width);
    return pxr_fail(error, PXR_ERROR_FORMAT, "the %s cannot be decoded: %s", format, reason ? reason : "damaged");
}

/* Reads the header and makes sure that the decoder can count the bytes. */
static pxr_status open_picture(pxr_picture_header *header, const void *data, size_t length, pxr_error *error)
{
    const pxr_status status = pxr_picture_header_read(header, data, length, error);
    if (status != PXR_OK) return status;
    if (header->length > INT_MAX)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "a picture of %zu bytes is too large a file", header->length);
    return PXR_OK;
}

/* Decodes to samples of `depth` 8 or 16 bits; `channels` asks for a number of them, 0 takes what there is. */
static pxr_status decode(void **samples, int *channels, int depth, const pxr_picture_header *header, const void *data,
                         pxr_error *error)
{
    const pxr_stb_picture picture = pxr_stb_decode(data, (int)header->length, depth, *channels);
    if (!picture.samples) return fail_decode(header, picture.reason, error);
    if (picture.width != header->width || picture.height != header->height) {
        pxr_free(picture.samples);
        return pxr_fail(error, PXR_ERROR_FORMAT, "the picture has %d x %d pixels where its header says %lld x %lld",
                        picture.height, picture.width, (long long)header->height, (long long)header->width);
    }
    *samples = picture.samples;
    *channels = picture.channels;
    return PXR_OK;
}

/* Upper bytes of 16-bit samples, in place. */
static void keep_upper(void *samples, int64_t count)
{
    const uint16_t *from = samples;
    uint8_t *to = samples;
    for (int64_t i = 0; i < count; i++) to[i] = (uint8_t)(from[i] >> 8);
}

pxr_status pxr_image_decode(pxr_tensor *image, const void *data, size_t length, pxr_error *error)
{
    pxr_picture_header header;
    void *samples = NULL;
    int channels = 3;
    *image = (pxr_tensor){0};
    pxr_status status = open_picture(&header, data, length, error);
    const int depth = header.depth == 16 ? 16 : 8;
    if (status == PXR_OK) status = decode(&samples, &channels, depth, &header, data, error);
    if (status != PXR_OK) return status;
    if (depth == 16) keep_upper(samples, header.height * header.width * 3);

    pxr_tensor stored;
    const int64_t size[3] = {header.height, header.width, 3};
    status = pxr_tensor_wrap(&stored, pxr_cpu_device(), PXR_U8, 3, size, samples, pxr_free, samples, error);
    if (status != PXR_OK) {
        pxr_free(samples);
        return status;
    }
    if (header.orientation == 1) {
        *image = stored;
        return PXR_OK;
    }
    status = pxr_image_orient(image, &stored, header.orientation, error);
    pxr_tensor_release(&stored);
    return status;
}

pxr_status pxr_image_decode_mask(pxr_tensor *mask, const void *data, size_t length, pxr_error *error)
{
    pxr_picture_header header;
    void *samples = NULL;
    int channels = 0;
    *mask = (pxr_tensor){0};
    pxr_status status = open_picture(&header, data, length, error);
    const int depth = header.depth == 16 ? 16 : 8;
    if (status == PXR_OK) status = decode(&samples, &channels, depth, &header, data, error);
    if (status != PXR_OK) return status;

    const int64_t size[2] = {header.height, header.width}, count = header.height * header.width;
    status = pxr_tensor_new(mask, pxr_cpu_device(), PXR_U8, 2, size, error);
    if (status == PXR_OK) {
        const int colours = channels < 3 ? 1 : 3; /* the rest is alpha */
        uint8_t *pixel = mask->data;
        for (int64_t i = 0; i < count; i++) {
            unsigned any = 0;
            for (int c = 0; c < colours; c++)
                any |= depth == 16 ? ((const uint16_t *)samples)[i * channels + c]
                                   : ((const uint8_t *)samples)[i * channels + c];
            pixel[i] = any != 0;
        }
    }
    pxr_free(samples);
    return status;
}

pxr_status pxr_image_orient(pxr_tensor *out, const pxr_tensor *image, int orientation, pxr_error *error)
{
    *out = (pxr_tensor){0};
    if (image->dtype != PXR_U8 || image->rank != 3 || !pxr_tensor_is_contiguous(image) || orientation < 1 ||
        orientation > 8)
        return pxr_fail(error, PXR_ERROR_ARGUMENT,
                        "orientation %d of a picture of rank %d, expected 1 to 8 and a "
                        "contiguous uint8 [h,w,channels]",
                        orientation, image->rank);
    const int64_t height = image->size[0], width = image->size[1], channels = image->size[2];
    const bool swap = orientation >= 5; /* rows become columns */
    /* Whether the stored picture's columns and rows are read backwards. */
    const bool mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const int64_t size[3] = {swap ? width : height, swap ? height : width, channels};
    const pxr_status status = pxr_tensor_new(out, pxr_cpu_device(), PXR_U8, 3, size, error);
    if (status != PXR_OK) return status;
    uint8_t *to = out->data;
    for (int64_t y = 0; y < size[0]; y++)
        for (int64_t x = 0; x < size[1]; x++) {
            const int64_t column = swap ? y : x, row = swap ? x : y;
            const int64_t from = (mirror_y ? height - 1 - row : row) * width + (mirror_x ? width - 1 - column : column);
            for (int64_t c = 0; c < channels; c++) *to++ = ((const uint8_t *)image->data)[from * channels + c];
        }
    return PXR_OK;
}
