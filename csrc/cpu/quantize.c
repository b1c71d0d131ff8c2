/* quantize on the CPU: rows for the pool; the arithmetic is quantize_kernel.h. */
#include "cpu/kernels.h"

#include "core/threads.h"

#include <stdatomic.h>

pxr_scales pxr_cpu_scales_of(const pxr_tensor *scales, int64_t columns)
{
    if (!scales) return (pxr_scales){0};
    return (pxr_scales){.data = scales->data,
                        .stride = scales->stride[0] * (int64_t)sizeof(uint16_t),
                        .group_shift = pxr_group_shift(columns, scales->size[1])};
}

typedef struct quantize_work {
    const pxr_quantize_args *args;
    int group_shift;
    atomic_llong first_bad; /* the first row that is not finite, or the number of rows */
} quantize_work;

static void quantize_rows(void *context, int64_t begin, int64_t end)
{
    quantize_work *work = context;
    const pxr_tensor *out = work->args->out, *x = work->args->x, *scales = work->args->scales;
    const pxr_kernels *kernels = pxr_cpu_kernels();
    for (int64_t row = begin; row < end; row++) {
        const pxr_any_row values = {.data = (const char *)x->data +
                                            row * x->stride[0] * (int64_t)pxr_dtype_size(x->dtype),
                                    .dtype = x->dtype};
        if (kernels->quantize((char *)out->data + row * out->size[1], out->dtype,
                              (uint16_t *)scales->data + row * scales->size[1], work->group_shift, values, x->size[1]))
            continue;
        long long first = atomic_load(&work->first_bad);
        while (row < first && !atomic_compare_exchange_weak(&work->first_bad, &first, row)) {
        }
        return;
    }
}

pxr_status pxr_cpu_quantize(pxr_device *device, const pxr_quantize_args *args, pxr_error *error)
{
    (void)device;
    const int64_t rows = args->x->size[0];
    quantize_work work = {.args = args, .group_shift = pxr_group_shift(args->x->size[1], args->scales->size[1])};
    atomic_init(&work.first_bad, rows);
    pxr_parallel_for(rows, 1, quantize_rows, &work);
    const long long bad = atomic_load(&work.first_bad);
    if (bad == rows) return PXR_OK;
    return pxr_fail(error, PXR_ERROR_ARGUMENT, "quantize: row %lld of %lld holds a weight that is not finite", bad + 1,
                    (long long)rows);
}
