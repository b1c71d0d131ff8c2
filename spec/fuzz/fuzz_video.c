/* Any bytes as a clip: opened, indexed, and its first and last frames decoded. */
#include "media/video.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pxr_video *video = NULL;
    pxr_error error = {0};
    if (pxr_video_open_memory(&video, "input", data, size, &error) == PXR_OK) {
        const pxr_video_info *info = pxr_video_get_info(video);
        const int64_t last = info->frames - 1;
        if ((int64_t)info->width * info->height <= 1 << 22) {
            pxr_tensor picture = {0};
            if (pxr_video_read(video, 0, &picture, &error) == PXR_OK) pxr_tensor_release(&picture);
            if (last > 0 && pxr_video_read(video, last, &picture, &error) == PXR_OK) pxr_tensor_release(&picture);
        }
    }
    pxr_video_close(video);
    return 0;
}
