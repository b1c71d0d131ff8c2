/* COCO run lengths, bit for bit as pycocotools (common/maskApi.c), but distrusting what it reads. */
#include "core/memory.h"
#include "media/limits.h"
#include "media/mask.h"

#include <string.h>

enum {
    FIRST_DIGIT = 48, /* '0': a digit is 6 bits, of which 5 are payload */
    PAYLOAD = 0x1f,   /* bits of a digit */
    SIGN = 0x10,      /* of the last digit's payload */
    MORE = 0x20,      /* another digit follows */
    MAX_DIGITS = 7    /* of a run: 35 bits, more than any permitted difference */
};

void pxr_rle_free(pxr_rle *rle)
{
    pxr_free(rle->counts);
    *rle = (pxr_rle){0};
}

static bool push(pxr_rle *rle, uint32_t run)
{
    void *counts = rle->counts;
    if (!pxr_grow(&counts, &rle->capacity, rle->count + 1, sizeof *rle->counts)) return false;
    rle->counts = counts;
    rle->counts[rle->count++] = run;
    return true;
}

static pxr_status fail_runs(pxr_rle *rle, pxr_error *error)
{
    const size_t bytes = (rle->count + 1) * sizeof *rle->counts;
    pxr_rle_free(rle);
    return pxr_fail_memory(error, bytes, "the runs of a mask");
}

/* Appends run number rle->count, keeping the sum within the mask. */
static pxr_status push_checked(pxr_rle *rle, int64_t run, int64_t *filled, pxr_error *error)
{
    const int64_t pixels = rle->height * rle->width;
    if (run < 0 || run > pixels - *filled)
        return pxr_fail(error, PXR_ERROR_FORMAT,
                        "run %zu of an RLE is %lld, but %lld of the %lld x %lld mask's pixels are left", rle->count + 1,
                        (long long)run, (long long)(pixels - *filled), (long long)rle->height, (long long)rle->width);
    *filled += run;
    if (push(rle, (uint32_t)run)) return PXR_OK;
    return pxr_fail_memory(error, (rle->count + 1) * sizeof *rle->counts, "the runs of a mask");
}

static pxr_status check_filled(const pxr_rle *rle, int64_t filled, pxr_error *error)
{
    if (filled == rle->height * rle->width) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_FORMAT,
                    "the runs of an RLE cover %lld pixels, but the mask has %lld x %lld = %lld", (long long)filled,
                    (long long)rle->height, (long long)rle->width, (long long)(rle->height * rle->width));
}

/* One number of the compressed text at *at, which moves behind it. */
static pxr_status parse_number(const char *text, size_t length, size_t *at, int64_t *number, pxr_error *error)
{
    int64_t value = 0;
    for (int digit = 0;; digit++) {
        if (*at == length)
            return pxr_fail(error, PXR_ERROR_FORMAT, "the compressed RLE ends within a run, at byte %zu", length);
        const int c = (unsigned char)text[*at] - FIRST_DIGIT;
        if (c < 0 || c > (PAYLOAD | MORE))
            return pxr_fail(error, PXR_ERROR_FORMAT, "byte %zu of the compressed RLE is 0x%02x, expected '0' to 'o'",
                            *at + 1, (unsigned char)text[*at]);
        if (digit == MAX_DIGITS)
            return pxr_fail(error, PXR_ERROR_FORMAT, "the run at byte %zu of the compressed RLE has too many digits",
                            *at + 1);
        (*at)++;
        value |= (int64_t)(c & PAYLOAD) << (5 * digit);
        if (c & MORE) continue;
        if (c & SIGN) value -= (int64_t)1 << (5 * (digit + 1));
        *number = value;
        return PXR_OK;
    }
}

pxr_status pxr_rle_parse(pxr_rle *rle, const char *text, size_t length, int64_t height, int64_t width, pxr_error *error)
{
    *rle = (pxr_rle){.height = height, .width = width};
    pxr_status status = pxr_check_picture_size(height, width, "a mask", error);
    int64_t filled = 0;
    for (size_t at = 0; status == PXR_OK && at < length;) {
        int64_t run = 0;
        status = parse_number(text, length, &at, &run, error);
        if (rle->count > 2) run += rle->counts[rle->count - 2]; /* stored as the difference to the run before last */
        if (status == PXR_OK) status = push_checked(rle, run, &filled, error);
    }
    if (status == PXR_OK) status = check_filled(rle, filled, error);
    if (status != PXR_OK) pxr_rle_free(rle);
    return status;
}

pxr_status pxr_rle_from_counts(pxr_rle *rle, const int64_t *counts, size_t count, int64_t height, int64_t width,
                               pxr_error *error)
{
    *rle = (pxr_rle){.height = height, .width = width};
    pxr_status status = pxr_check_picture_size(height, width, "a mask", error);
    int64_t filled = 0;
    for (size_t i = 0; status == PXR_OK && i < count; i++) status = push_checked(rle, counts[i], &filled, error);
    if (status == PXR_OK) status = check_filled(rle, filled, error);
    if (status != PXR_OK) pxr_rle_free(rle);
    return status;
}

pxr_status pxr_rle_from_mask(pxr_rle *rle, const pxr_tensor *mask, pxr_error *error)
{
    *rle = (pxr_rle){0};
    const pxr_status status = pxr_mask_check(mask, "the mask", error);
    if (status != PXR_OK) return status;
    const int64_t height = mask->size[0], width = mask->size[1];
    *rle = (pxr_rle){.height = height, .width = width};
    bool inside = false;
    uint32_t run = 0;
    for (int64_t x = 0; x < width; x++) {
        const uint8_t *pixel = (const uint8_t *)mask->data + x;
        for (int64_t y = 0; y < height; y++, pixel += width) {
            if ((*pixel != 0) != inside) {
                if (!push(rle, run)) return fail_runs(rle, error);
                inside = !inside;
                run = 0;
            }
            run++;
        }
    }
    return push(rle, run) ? PXR_OK : fail_runs(rle, error);
}

pxr_status pxr_rle_text(const pxr_rle *rle, char **text, size_t *length, pxr_error *error)
{
    *text = NULL;
    char *made = pxr_malloc(rle->count * MAX_DIGITS + 1); /* counts fit an allocated array of 4-byte runs */
    if (!made) return pxr_fail_memory(error, rle->count * MAX_DIGITS + 1, "a compressed RLE");
    size_t at = 0;
    for (size_t i = 0; i < rle->count; i++) {
        int64_t value = rle->counts[i];
        if (i > 2) value -= rle->counts[i - 2];
        for (bool more = true; more;) {
            int digit = (int)(value & PAYLOAD);
            value = (value - digit) / (PAYLOAD + 1); /* exact: an arithmetic shift by 5 */
            more = digit & SIGN ? value != -1 : value != 0;
            if (more) digit |= MORE;
            made[at++] = (char)(digit + FIRST_DIGIT);
        }
    }
    made[at] = '\0';
    *text = made;
    *length = at;
    return PXR_OK;
}

pxr_status pxr_rle_draw(const pxr_rle *rle, const pxr_tensor *mask, bool unite, pxr_error *error)
{
    const pxr_status status = pxr_mask_check(mask, "the mask", error);
    if (status != PXR_OK) return status;
    if (mask->size[0] != rle->height || mask->size[1] != rle->width)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "an RLE of %lld x %lld does not fit a mask of %lld x %lld",
                        (long long)rle->height, (long long)rle->width, (long long)mask->size[0],
                        (long long)mask->size[1]);
    const int64_t height = rle->height, width = rle->width;
    uint8_t *pixels = mask->data;
    if (!unite) memset(pixels, 0, (size_t)(height * width));
    int64_t at = 0; /* column-major */
    for (size_t i = 0; i < rle->count; i++) {
        const int64_t end = at + rle->counts[i];
        if (i % 2 == 1) {
            int64_t x = at / height, y = at % height;
            for (int64_t k = at; k < end; k++) {
                pixels[y * width + x] = 1;
                if (++y == height) y = 0, x++;
            }
        }
        at = end;
    }
    return PXR_OK;
}
