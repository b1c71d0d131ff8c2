/* Walks JPEG segments and PNG chunks; see picture_header.h. */
#include "media/picture_header.h"

#include "media/exif.h"
#include "media/limits.h"

#include <string.h>
#include <zlib.h>

static const uint8_t png_signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

pxr_picture_format pxr_picture_sniff(const uint8_t *data, size_t length)
{
    if (length >= 3 && data[0] == 0xff && data[1] == 0xd8 && data[2] == 0xff) return PXR_PICTURE_JPEG;
    if (length >= sizeof png_signature && memcmp(data, png_signature, sizeof png_signature) == 0)
        return PXR_PICTURE_PNG;
    return PXR_PICTURE_OTHER;
}

/* ---- JPEG (ITU T.81, annex B) ---------------------------------------------------------------------------------- */

enum { SOF0 = 0xc0, DHT = 0xc4, RST0 = 0xd0, RST7 = 0xd7, EOI = 0xd9, SOS = 0xda, APP1 = 0xe1, SOF_LAST = 0xcf };

static pxr_status fail_cut(const char *format, size_t length, pxr_error *error)
{
    return pxr_fail(error, PXR_ERROR_FORMAT, "the %s is cut off after %zu bytes", format, length);
}

static bool is_frame(int marker)
{
    return marker >= SOF0 && marker <= SOF_LAST && marker != DHT && marker != 0xc8 && marker != 0xcc;
}

/* A frame header's `size` bytes behind its length: bits, rows, columns. */
static pxr_status read_frame(pxr_picture_header *header, int marker, const uint8_t *segment, size_t size,
                             pxr_error *error)
{
    if (marker > SOF0 + 2)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                        "the JPEG's coding (SOF%d) is not supported: only baseline and "
                        "progressive Huffman",
                        marker - SOF0);
    if (size < 6) return pxr_fail(error, PXR_ERROR_FORMAT, "the JPEG's frame header has %zu bytes, expected 6", size);
    header->depth = segment[0];
    header->height = segment[1] << 8 | segment[2];
    header->width = segment[3] << 8 | segment[4];
    if (header->depth != 8)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "the JPEG has %d bits a sample, only 8 are supported",
                        header->depth);
    return pxr_check_picture_size(header->height, header->width, "the JPEG", error);
}

/* Huffman tables of more symbols than there are bytes overrun the decoder's memory: its own check comes too late. */
static pxr_status check_huffman(const uint8_t *segment, size_t size, pxr_error *error)
{
    enum { LENGTHS = 16, MAX_SYMBOLS = 256 };
    while (size > LENGTHS) {
        size_t symbols = 0;
        for (int i = 1; i <= LENGTHS; i++) symbols += segment[i];
        if (symbols > MAX_SYMBOLS || symbols > size - LENGTHS - 1)
            return pxr_fail(error, PXR_ERROR_FORMAT, "the JPEG is damaged: a Huffman table of %zu symbols", symbols);
        segment += LENGTHS + 1 + symbols;
        size -= LENGTHS + 1 + symbols;
    }
    if (size == 0) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_FORMAT, "the JPEG is damaged: a Huffman table is cut off");
}

/* The position of the next marker's 0xff from `at` on, past entropy-coded data with its stuffed zeros and restarts. */
static size_t skip_entropy(const uint8_t *data, size_t length, size_t at)
{
    while (at + 1 < length) {
        const uint8_t *found = memchr(data + at, 0xff, length - 1 - at);
        if (!found) return length;
        at = (size_t)(found - data);
        const int next = data[at + 1];
        if (next != 0 && next != 0xff && !(next >= RST0 && next <= RST7)) return at;
        at += next == 0xff ? 1 : 2;
    }
    return length;
}

static pxr_status read_jpeg(pxr_picture_header *header, const uint8_t *data, size_t length, pxr_error *error)
{
    static const uint8_t exif[6] = {'E', 'x', 'i', 'f', 0, 0};
    bool framed = false, scanned = false, oriented = false;
    for (size_t at = 2; at < length;) {
        if (data[at] != 0xff || at + 1 == length || data[at + 1] == 0xff) { /* fill bytes, stray ones */
            at++;
            continue;
        }
        const int marker = data[at + 1];
        at += 2;
        if (marker == EOI) {
            if (!framed || !scanned) return pxr_fail(error, PXR_ERROR_FORMAT, "the JPEG holds no picture");
            header->length = at;
            return PXR_OK;
        }
        if (marker <= 1 || (marker >= RST0 && marker <= 0xd8)) continue; /* no segment */
        if (length - at < 2) break;
        const size_t size = (size_t)(data[at] << 8 | data[at + 1]);
        if (size < 2) return pxr_fail(error, PXR_ERROR_FORMAT, "a segment of the JPEG has length %zu", size);
        if (size > length - at) break;
        const uint8_t *segment = data + at + 2;
        at += size;
        if (marker == APP1 && !oriented && size >= 8 && memcmp(segment, exif, sizeof exif) == 0) {
            header->orientation = pxr_exif_read_orientation(segment + 6, size - 8);
            oriented = true;
        } else if (is_frame(marker)) {
            const pxr_status status = read_frame(header, marker, segment, size - 2, error);
            if (status != PXR_OK) return status;
            framed = true;
        } else if (marker == DHT) {
            const pxr_status status = check_huffman(segment, size - 2, error);
            if (status != PXR_OK) return status;
        } else if (marker == SOS) {
            scanned = true;
            at = skip_entropy(data, length, at);
        }
    }
    return fail_cut("JPEG", length, error);
}

/* ---- PNG (ISO 15948) ------------------------------------------------------------------------------------------- */

static uint32_t read32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

static pxr_status read_png(pxr_picture_header *header, const uint8_t *data, size_t length, pxr_error *error)
{
    enum { FRAME = 12 /* bytes of a chunk beside its content */, INDEXED = 3 };
    bool first = true;
    for (size_t at = sizeof png_signature; length - at >= FRAME;) {
        const size_t size = read32(data + at);
        const uint8_t *type = data + at + 4, *content = type + 4;
        if (size > length - at - FRAME) break;
        const bool critical = (type[0] & 0x20) == 0, is_exif = memcmp(type, "eXIf", 4) == 0;
        if ((critical || is_exif) &&
            (uint32_t)crc32(0, type, (uInt)(size + 4)) != read32(content + size)) /* size below 2^32 - 12 */
            return pxr_fail(error, PXR_ERROR_FORMAT, "the PNG is damaged: chunk %.4s at byte %zu has a wrong checksum",
                            (const char *)type, at);
        if (first) {
            if (memcmp(type, "IHDR", 4) != 0 || size != 13)
                return pxr_fail(error, PXR_ERROR_FORMAT, "the PNG does not begin with its header");
            header->width = read32(content);
            header->height = read32(content + 4);
            header->depth = content[8];
            header->indexed = content[9] == INDEXED;
            const pxr_status status = pxr_check_picture_size(header->height, header->width, "the PNG", error);
            if (status != PXR_OK) return status;
            first = false;
        } else if (is_exif) {
            header->orientation = pxr_exif_read_orientation(content, size);
        }
        at += size + FRAME;
        if (memcmp(type, "IEND", 4) == 0) {
            header->length = at;
            return PXR_OK;
        }
    }
    return fail_cut("PNG", length, error);
}

pxr_status pxr_picture_header_read(pxr_picture_header *header, const uint8_t *data, size_t length, pxr_error *error)
{
    *header = (pxr_picture_header){.format = pxr_picture_sniff(data, length), .orientation = 1};
    switch (header->format) {
    case PXR_PICTURE_JPEG:
        return read_jpeg(header, data, length, error);
    case PXR_PICTURE_PNG:
        return read_png(header, data, length, error);
    default:
        return pxr_fail(error, PXR_ERROR_FORMAT, "this is neither a JPEG nor a PNG picture");
    }
}
