/* The one thing of EXIF that a picture's pixels depend on: which way up it is. */
#ifndef PXR_MEDIA_EXIF_H
#define PXR_MEDIA_EXIF_H

#include <stddef.h>
#include <stdint.h>

/** The orientation, 1 to 8, in an EXIF block of `length` bytes that begins with the TIFF header ("II*" or "MM"). 1 (as
 * it lies) when the block has none or is broken: a wrong tag does not make a picture unreadable. */
int pxr_exif_read_orientation(const uint8_t *tiff, size_t length);

#endif
