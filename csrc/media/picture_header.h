/* What a JPEG or PNG file says of itself, and whether it is whole, found by walking its segments or chunks.
 *
 * The decoder (stb_image) is lenient: it fills what a cut-off file lacks with grey and does not look at checksums. Here
 * such a file is an error, as it is to the reference's loader.
 */
#ifndef PXR_MEDIA_PICTURE_HEADER_H
#define PXR_MEDIA_PICTURE_HEADER_H

#include "core/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum pxr_picture_format {
    PXR_PICTURE_OTHER = 0, /* FFmpeg's business */
    PXR_PICTURE_JPEG,
    PXR_PICTURE_PNG
} pxr_picture_format;

typedef struct pxr_picture_header {
    pxr_picture_format format;
    int64_t height, width; /* as stored, before the orientation is applied */
    int depth;             /* bits a sample (PNG: or a palette index) */
    bool indexed;          /* PNG with a palette */
    int orientation;       /* EXIF, 1 to 8 */
    size_t length;         /* bytes of the picture itself; whatever follows is not part of it */
} pxr_picture_header;

/** What the first bytes say. */
pxr_picture_format pxr_picture_sniff(const uint8_t *data, size_t length);

/** Reads the header and walks the file to its end marker. Errors: neither JPEG nor PNG, cut off, a wrong checksum, a
 * coding that cannot be decoded (12 bits, arithmetic, lossless), a size outside limits.h. */
pxr_status pxr_picture_header_read(pxr_picture_header *header, const uint8_t *data, size_t length, pxr_error *error);

#endif
