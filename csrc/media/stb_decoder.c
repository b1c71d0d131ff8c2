/* The one place where stb_image is compiled; see stb_decoder.h. Its warnings are its own. */
#include "media/stb_decoder.h"

#include "core/memory.h"

#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_FAILURE_USERMSG
#define STBI_MAX_DIMENSIONS 65535
/* Zeroed: where a broken JPEG leaves tables or components undefined, the picture must not show old memory. */
#define STBI_MALLOC(bytes) pxr_calloc(1, bytes)
#define STBI_REALLOC(block, bytes) pxr_realloc(block, bytes)
#define STBI_FREE(block) pxr_free(block)
#define STBI_ASSERT(condition) ((void)0) /* a library does not abort */
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION

#pragma GCC diagnostic ignored "-Wunused-function" /* reported at the file's end */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#include <stb_image.h>
#pragma GCC diagnostic pop

pxr_stb_picture pxr_stb_decode(const void *data, int length, int depth, int channels)
{
    pxr_stb_picture picture = {0};
    int found = 0;
    if (depth == 16)
        picture.samples = stbi_load_16_from_memory(data, length, &picture.width, &picture.height, &found, channels);
    else
        picture.samples = stbi_load_from_memory(data, length, &picture.width, &picture.height, &found, channels);
    picture.channels = channels == 0 ? found : channels;
    if (!picture.samples) picture.reason = stbi_failure_reason();
    return picture;
}
