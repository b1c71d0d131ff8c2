/* PNG out: 8-bit grey or RGB, each row with the filter that leaves the smallest differences, deflated by zlib. */
#include "core/memory.h"
#include "media/image.h"
#include "media/limits.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    FILTERS = 5,
    CHUNK = 12 /* bytes beside a chunk's content */,
    HEADER = 13,
    LEVEL = 6,
    BEGIN = 8 + CHUNK + HEADER
};

/* zlib's allocations go through core/memory; a product that overflows is refused there. */
static voidpf allocate(voidpf opaque, uInt count, uInt size)
{
    (void)opaque;
    return pxr_calloc(count, size);
}

static void release(voidpf opaque, voidpf block)
{
    (void)opaque;
    pxr_free(block);
}

static void write32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Frames a chunk whose content already lies at `at + 8`; returns the position behind it. */
static uint8_t *finish_chunk(uint8_t *at, const char *type, uint32_t size)
{
    write32(at, size);
    memcpy(at + 4, type, 4);
    write32(at + 8 + size, (uint32_t)crc32(0, at + 4, size + 4));
    return at + CHUNK + size;
}

static int paeth(int left, int up, int corner)
{
    const int estimate = left + up - corner;
    const int to_left = abs(estimate - left), to_up = abs(estimate - up), to_corner = abs(estimate - corner);
    if (to_left <= to_up && to_left <= to_corner) return left;
    return to_up <= to_corner ? up : corner;
}

/* Filters a row of `bytes` bytes, pixels `step` apart, `above` the row before it or zeros. Returns the sum of absolute
 * differences, by which the filter is chosen. */
static inline uint64_t filter_as(int kind, const uint8_t *row, const uint8_t *above, int64_t bytes, int64_t step,
                                 uint8_t *to)
{
    uint64_t sum = 0;
    for (int64_t i = 0; i < bytes; i++) {
        const int left = i >= step ? row[i - step] : 0, up = above[i], corner = i >= step ? above[i - step] : 0;
        const int guess = kind == 0   ? 0
                          : kind == 1 ? left
                          : kind == 2 ? up
                          : kind == 3 ? (left + up) / 2
                                      : paeth(left, up, corner);
        to[i] = (uint8_t)(row[i] - guess);
        sum += (uint64_t)abs((int8_t)to[i]);
    }
    return sum;
}

/* One loop a kind, the choice made outside of it. */
static uint64_t filter(int kind, const uint8_t *row, const uint8_t *above, int64_t bytes, int64_t step, uint8_t *to)
{
    switch (kind) {
    case 0:
        return filter_as(0, row, above, bytes, step, to);
    case 1:
        return filter_as(1, row, above, bytes, step, to);
    case 2:
        return filter_as(2, row, above, bytes, step, to);
    case 3:
        return filter_as(3, row, above, bytes, step, to);
    default:
        return filter_as(4, row, above, bytes, step, to);
    }
}

/* Deflates all rows into `room` bytes at z->next_out; `scratch` holds a row of zeros and one filtered row a kind. */
static int deflate_rows(z_stream *z, const uint8_t *pixels, int64_t height, int64_t bytes, int64_t step,
                        uint8_t *scratch)
{
    uint8_t *zeros = scratch, *filtered = scratch + bytes; /* FILTERS rows of 1 + bytes */
    memset(zeros, 0, (size_t)bytes);
    for (int64_t y = 0; y < height; y++) {
        const uint8_t *row = pixels + y * bytes, *above = y > 0 ? row - bytes : zeros;
        uint64_t least = UINT64_MAX;
        uint8_t *best = filtered;
        for (int kind = 0; kind < FILTERS; kind++) {
            uint8_t *to = filtered + kind * (bytes + 1);
            to[0] = (uint8_t)kind;
            const uint64_t sum = filter(kind, row, above, bytes, step, to + 1);
            if (sum < least) least = sum, best = to;
        }
        z->next_in = best;
        z->avail_in = (uInt)(bytes + 1);
        const int result = deflate(z, y + 1 < height ? Z_NO_FLUSH : Z_FINISH);
        if (result != (y + 1 < height ? Z_OK : Z_STREAM_END)) return Z_BUF_ERROR;
    }
    return Z_OK;
}

static pxr_status check(const pxr_tensor *image, pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (image->dtype != PXR_U8 || !(image->rank == 2 || (image->rank == 3 && image->size[2] == 3)))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "a tensor %s %s cannot be a PNG, expected uint8 [h,w] or [h,w,3]",
                        pxr_tensor_shape_text(image, shape), pxr_dtype_name(image->dtype));
    if (!pxr_tensor_is_contiguous(image) || !pxr_tensor_device(image)->is_host)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "a picture to encode must be contiguous, in host memory");
    return pxr_check_picture_size(image->size[0], image->size[1], "the picture", error);
}

pxr_status pxr_image_encode_png(const pxr_tensor *image, void **png, size_t *length, pxr_error *error)
{
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    *png = NULL;
    const pxr_status status = check(image, error);
    if (status != PXR_OK) return status;
    const int64_t height = image->size[0], width = image->size[1], step = image->rank == 3 ? 3 : 1;
    const int64_t bytes = width * step;

    z_stream z = {.zalloc = allocate, .zfree = release};
    if (deflateInit(&z, LEVEL) != Z_OK) return pxr_fail_memory(error, 1 << 18, "deflate");
    const size_t room = deflateBound(&z, (uLong)(height * (bytes + 1))); /* at most 2^30: one IDAT, one avail_out */
    uint8_t *scratch = pxr_malloc((size_t)(bytes + FILTERS * (bytes + 1)));
    uint8_t *made = pxr_malloc(room + BEGIN + 2 * CHUNK);
    int result = Z_MEM_ERROR;
    if (scratch && made) {
        z.next_out = made + BEGIN + 8;
        z.avail_out = (uInt)room;
        result = deflate_rows(&z, image->data, height, bytes, step, scratch);
    }
    const size_t deflated = z.total_out;
    deflateEnd(&z);
    pxr_free(scratch);
    if (result != Z_OK) {
        pxr_free(made);
        return pxr_fail_memory(error, room, "a PNG");
    }
    memcpy(made, signature, sizeof signature);
    uint8_t *header = made + sizeof signature;
    write32(header + 8, (uint32_t)width);
    write32(header + 12, (uint32_t)height);
    const uint8_t rest[5] = {8, step == 3 ? 2 : 0, 0, 0, 0}; /* depth, colour type, methods, not interlaced */
    memcpy(header + 16, rest, sizeof rest);
    uint8_t *at = finish_chunk(header, "IHDR", HEADER);
    at = finish_chunk(at, "IDAT", (uint32_t)deflated);
    at = finish_chunk(at, "IEND", 0);
    *png = made;
    *length = (size_t)(at - made);
    return PXR_OK;
}
