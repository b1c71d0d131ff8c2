/* Single pictures through FFmpeg: the formats that stb_image is not built for, and the palette indices of a PNG. */
#ifndef PXR_MEDIA_FFMPEG_PICTURE_H
#define PXR_MEDIA_FFMPEG_PICTURE_H

#include "core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Reads a picture (BMP, WebP, TIFF, PNM, JPEG 2000 ...; the first frame of a GIF) into a new uint8 tensor
 * [height,width,3]: RGB, alpha dropped, grey widened, turned upright where its EXIF data says how. Errors: no regular
 * file, no picture format, a clip, sides outside limits.h, broken content. */
pxr_status pxr_ffmpeg_read_picture(const char *path, pxr_tensor *picture, pxr_error *error);

/** Reads an indexed PNG (a mask per index, as segmentation tools write it) without looking its colours up: `indices`
 * is a new uint8 tensor [height,width], `palette` one [256,3], RGB, zero behind the file's own entries. Errors: as
 * above, and a picture that is not indexed. */
pxr_status pxr_read_indexed_png(const char *path, pxr_tensor *indices, pxr_tensor *palette, pxr_error *error);

#ifdef __cplusplus
}
#endif
#endif
