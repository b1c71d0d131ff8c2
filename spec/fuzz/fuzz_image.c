/* Any bytes as a JPEG or PNG picture, and as a mask picture. */
#include "core/memory.h"
#include "core/tensor.h"
#include "media/image.h"
#include "media/picture_header.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { PIXELS = 1 << 18 }; /* larger ones only cost time */
    pxr_picture_header header;
    pxr_error error = {0};
    pxr_tensor picture;
    if (pxr_picture_header_read(&header, data, size, &error) != PXR_OK) return 0;
    if (header.height * header.width > PIXELS) return 0;
    if (pxr_image_decode(&picture, data, size, &error) == PXR_OK) {
        void *png;
        size_t length;
        if (pxr_tensor_count(&picture) != header.height * header.width * 3) __builtin_trap();
        if (pxr_image_encode_png(&picture, &png, &length, &error) == PXR_OK) {
            pxr_tensor again;
            if (pxr_image_decode(&again, png, length, &error) != PXR_OK) __builtin_trap();
            if (memcmp(again.data, picture.data, (size_t)pxr_tensor_count(&picture)) != 0) __builtin_trap();
            pxr_tensor_release(&again);
            pxr_free(png);
        }
    }
    pxr_tensor_release(&picture);
    pxr_image_decode_mask(&picture, data, size, &error);
    pxr_tensor_release(&picture);
    return 0;
}
