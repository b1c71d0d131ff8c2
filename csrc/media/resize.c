/* The common part of the resizers, and the choice of the encoder's picture size; see resize.h. */
#include "media/resize.h"

#include "core/memory.h"
#include "core/threads.h"
#include "media/limits.h"
#include "media/resize_internal.h"

#include <math.h>
#include <string.h>

enum { MAX_CHANNELS = 4, WORK_PER_BAND = 1 << 16 /* steps: some ten microseconds */, MAX_RATIO = 200 };

static pxr_status check_picture(const pxr_tensor *tensor, pxr_dtype dtype, const char *name, const char *role,
                                pxr_error *error)
{
    char shape[PXR_SHAPE_TEXT];
    if (tensor->dtype != dtype)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: %s is %s, expected %s", name, role,
                        pxr_dtype_name(tensor->dtype), pxr_dtype_name(dtype));
    if ((tensor->rank != 2 && tensor->rank != 3) ||
        (tensor->rank == 3 && (tensor->size[2] < 1 || tensor->size[2] > MAX_CHANNELS)))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: %s is %s, expected [h,w] or [h,w,channels], 1 to %d channels",
                        name, role, pxr_tensor_shape_text(tensor, shape), MAX_CHANNELS);
    if (!pxr_tensor_device(tensor)->is_host)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s: %s is not in host memory", name, role);
    if (!pxr_tensor_is_contiguous(tensor))
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: %s is not contiguous", name, role);
    if (pxr_check_picture_size(tensor->size[0], tensor->size[1], role, error) != PXR_OK)
        return pxr_error_prefix(error, "%s", name);
    return PXR_OK;
}

pxr_status pxr_resize_check(pxr_resize_shape *shape, const pxr_tensor *out, const pxr_tensor *x, pxr_dtype dtype,
                            const char *name, pxr_error *error)
{
    pxr_status status = check_picture(x, dtype, name, "the picture", error);
    if (status == PXR_OK) status = check_picture(out, dtype, name, "the target", error);
    if (status != PXR_OK) return status;
    const int64_t channels = x->rank == 3 ? x->size[2] : 1;
    if (x->rank != out->rank || channels != (out->rank == 3 ? out->size[2] : 1)) {
        char from[PXR_SHAPE_TEXT], to[PXR_SHAPE_TEXT];
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%s: the picture is %s and the target %s, expected equal channels",
                        name, pxr_tensor_shape_text(x, from), pxr_tensor_shape_text(out, to));
    }
    *shape = (pxr_resize_shape){.in_height = x->size[0],
                                .in_width = x->size[1],
                                .out_height = out->size[0],
                                .out_width = out->size[1],
                                .channels = channels};
    return PXR_OK;
}

void pxr_resize_copy(const pxr_tensor *out, const pxr_tensor *x)
{
    memcpy(out->data, x->data, (size_t)pxr_tensor_count(x) * pxr_dtype_size(x->dtype));
}

typedef struct bands {
    int64_t height, count;
    size_t stride; /* bytes of scratch a band */
    char *scratch;
    pxr_resize_rows rows;
    const void *context;
} bands;

static void run_bands(void *context, int64_t begin, int64_t end)
{
    const bands *all = context;
    for (int64_t band = begin; band < end; band++)
        all->rows(all->context, all->height * band / all->count, all->height * (band + 1) / all->count,
                  all->scratch + (size_t)band * all->stride);
}

pxr_status pxr_resize_bands(int64_t height, int64_t row_work, size_t scratch_bytes, pxr_resize_rows rows,
                            const void *context, pxr_error *error)
{
    int64_t count = height * row_work / WORK_PER_BAND + 1; /* both at most 2^48: no overflow, see limits.h */
    if (count > pxr_threads()) count = pxr_threads();
    if (count > height) count = height;
    bands all = {.height = height, .count = count, .rows = rows, .context = context};
    all.stride = (scratch_bytes + PXR_ALIGNMENT - 1) / PXR_ALIGNMENT * PXR_ALIGNMENT;
    all.scratch = pxr_malloc(all.stride * (size_t)count);
    if (!all.scratch) return pxr_fail_memory(error, all.stride * (size_t)count, "resizing a picture");
    pxr_parallel_for(count, 1, run_bands, &all);
    pxr_free(all.scratch);
    return PXR_OK;
}

/* Python's round(): to nearest, ties to even, whatever the caller's rounding mode. */
static double round_even(double value)
{
    const double below = floor(value), rest = value - below;
    if (rest != 0.5) return rest < 0.5 ? below : below + 1;
    return fmod(below, 2) == 0 ? below : below + 1;
}

pxr_status pxr_smart_resize(int64_t height, int64_t width, int64_t factor, int64_t min_pixels, int64_t max_pixels,
                            int64_t *out_height, int64_t *out_width, pxr_error *error)
{
    enum { MAX_FACTOR = 4096 }; /* with limits.h: sides stay below 2^29, areas below 2^58 */
    if (pxr_check_picture_size(height, width, "a picture", error) != PXR_OK) return PXR_ERROR_ARGUMENT;
    if (factor < 1 || factor > MAX_FACTOR)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "the factor of a picture's sides is %lld, expected 1 to %d",
                        (long long)factor, MAX_FACTOR);
    if (min_pixels < 0 || max_pixels < 1 || min_pixels > PXR_MAX_PIXELS)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "%lld to %lld pixels are no budget of a picture",
                        (long long)min_pixels, (long long)max_pixels);

    /* Every step in double, as Python does it. */
    double h = (double)height, w = (double)width;
    const double step = (double)factor, shorter = fmin(h, w), longer = fmax(h, w);
    if (shorter < step) {
        const double scale = step / shorter;
        h = round_even(h * scale);
        w = round_even(w * scale);
    } else if (longer / shorter > MAX_RATIO) {
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "a picture of %lld x %lld has an aspect ratio above %d",
                        (long long)height, (long long)width, MAX_RATIO);
    }
    int64_t rows = (int64_t)round_even(h / step), columns = (int64_t)round_even(w / step);
    if (rows * factor * columns * factor > max_pixels) {
        const double shrink = sqrt(h * w / (double)max_pixels);
        rows = (int64_t)floor(h / shrink / step);
        columns = (int64_t)floor(w / shrink / step);
    } else if (rows * factor * columns * factor < min_pixels) {
        const double grow = sqrt((double)min_pixels / (h * w));
        rows = (int64_t)ceil(h * grow / step);
        columns = (int64_t)ceil(w * grow / step);
    }
    *out_height = rows * factor;
    *out_width = columns * factor;
    return PXR_OK;
}
