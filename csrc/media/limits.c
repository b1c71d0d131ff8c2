/* The one check of a picture's size; see limits.h. */
#include "media/limits.h"

pxr_status pxr_check_picture_size(int64_t height, int64_t width, const char *what, pxr_error *error)
{
    if (height < 1 || width < 1 || height > PXR_MAX_SIDE || width > PXR_MAX_SIDE)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s has %lld rows and %lld columns, expected 1 to %d of each", what,
                        (long long)height, (long long)width, PXR_MAX_SIDE);
    if (height * width > PXR_MAX_PIXELS)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s has %lld x %lld pixels, expected at most %d together", what,
                        (long long)height, (long long)width, PXR_MAX_PIXELS);
    return PXR_OK;
}
