/* Any text as COCO's compressed run lengths: two bytes each of height and width, then the text. What is accepted is
 * drawn and written back, and must be the same runs again. */
#include "bytes.h"
#include "core/memory.h"
#include "media/mask.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void draw_and_return(const pxr_rle *rle)
{
    const int64_t shape[2] = {rle->height, rle->width};
    pxr_tensor mask = {0};
    pxr_rle again = {0};
    pxr_error error = {0};
    char *text = NULL;
    size_t length = 0;
    if (pxr_tensor_new(&mask, pxr_cpu_device(), PXR_U8, 2, shape, &error) == PXR_OK &&
        pxr_rle_draw(rle, &mask, false, &error) == PXR_OK && pxr_rle_from_mask(&again, &mask, &error) == PXR_OK &&
        pxr_rle_text(&again, &text, &length, &error) == PXR_OK) {
        pxr_rle back = {0};
        if (pxr_rle_parse(&back, text, length, rle->height, rle->width, &error) != PXR_OK ||
            back.count != again.count || memcmp(back.counts, again.counts, again.count * sizeof *again.counts) != 0)
            __builtin_trap();
        pxr_rle_free(&back);
    }
    pxr_free(text);
    pxr_rle_free(&again);
    pxr_tensor_release(&mask);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4) return 0;
    const int64_t height = data[0] | data[1] << 8, width = data[2] | data[3] << 8;
    pxr_rle rle = {0};
    pxr_error error = {0};
    const pxr_status status = pxr_rle_parse(&rle, (const char *)data + 4, size - 4, height, width, &error);
    if (status == PXR_OK && height * width <= 1 << 20) draw_and_return(&rle);
    pxr_rle_free(&rle);
    return 0;
}
