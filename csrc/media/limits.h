/* How large a picture or a mask may be, and the one check of it. Files lie about sizes; these bounds keep every product
 * of sides, channels and element size far inside 64 bits. */
#ifndef PXR_MEDIA_LIMITS_H
#define PXR_MEDIA_LIMITS_H

#include "core/error.h"

#include <stdint.h>

enum {
    PXR_MAX_SIDE = 65535,    /* pixels: what JPEG can say */
    PXR_MAX_PIXELS = 1 << 28 /* of one picture: 768 MiB as 8-bit RGB */
};

/** Checks a picture's sides: each 1 .. PXR_MAX_SIDE, together at most PXR_MAX_PIXELS. `what` begins the message ("a
 * picture", "the target of a resize"). */
pxr_status pxr_check_picture_size(int64_t height, int64_t width, const char *what, pxr_error *error);

#endif
