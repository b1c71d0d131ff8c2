/* stb_image, built for JPEG and PNG in memory only, over the library's allocator. */
#ifndef PXR_MEDIA_STB_DECODER_H
#define PXR_MEDIA_STB_DECODER_H

#include <stdint.h>

typedef struct pxr_stb_picture {
    void *samples; /* [height, width, channels], uint8 or (16-bit) uint16; pxr_free */
    int height, width, channels;
    const char *reason; /* why there are no samples; static text */
} pxr_stb_picture;

/** Decodes `length` bytes to samples of 8 or 16 bits (`depth`) with `channels` channels, 0: as many as there are. `samples`
 * is NULL on failure; "Out of memory" is the reason when it is that. */
pxr_stb_picture pxr_stb_decode(const void *data, int length, int depth, int channels);

#endif
