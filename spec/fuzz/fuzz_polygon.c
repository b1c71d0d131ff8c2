/* Any bytes as a polygon: one byte each of height and width, then doubles. */
#include "core/memory.h"
#include "media/mask.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    const size_t numbers = (size - 2) / sizeof(double);
    double *xy = pxr_malloc(numbers * sizeof *xy);
    if (numbers > 0) memcpy(xy, data + 2, numbers * sizeof *xy);
    pxr_rle rle = {0};
    pxr_error error = {0};
    if (pxr_rle_from_polygon(&rle, xy, numbers / 2, data[0], data[1], &error) == PXR_OK) {
        uint64_t covered = 0;
        for (size_t i = 0; i < rle.count; i++) covered += rle.counts[i];
        if (covered != (uint64_t)data[0] * data[1]) __builtin_trap();
    }
    pxr_rle_free(&rle);
    pxr_free(xy);
    return 0;
}
