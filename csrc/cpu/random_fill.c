/* Random elements. Element i in row-major order comes from word i % 4 of Philox(seed, i / 4), so that the numbers do not
 * depend on strides, threads or device. Semantics: ops/ops.h. */
#include "cpu/cpu.h"
#include "cpu/elements.h"
#include "cpu/walk.h"

#include "core/random.h"
#include "core/threads.h"

#include <math.h>

typedef struct drawing {
    const pxr_random_fill_args *args;
    const pxr_walk *walk;
    int64_t next; /* element that comes next, in row-major order */
} drawing;

/* The bits of a word of which a uniform number is made: as many as the type holds, else the largest would round to 1. */
static uint32_t uniform_bits(pxr_dtype dtype)
{
    return dtype == PXR_BF16 ? 0xff000000u : dtype == PXR_F16 ? 0xffe00000u : 0xffffffffu;
}

/* Box-Muller: words 0 and 1 give numbers 0 and 1, words 2 and 3 the others. The radius takes 1 - u, which is never 0. */
static void four_numbers(const pxr_random_fill_args *args, int64_t block, float numbers[4])
{
    uint32_t words[4];
    pxr_philox(args->seed, (uint64_t)block, 0, words);
    const bool uniform = args->kind == PXR_RANDOM_UNIFORM;
    const uint32_t bits = uniform ? uniform_bits(args->out->dtype) : 0xffffffffu;
    for (int i = 0; i < 4; i++) numbers[i] = pxr_unit_float(words[i] & bits);
    if (uniform) return;
    for (int i = 0; i < 4; i += 2) {
        const float radius = sqrtf(-2.0f * logf(1.0f - numbers[i])), angle = 6.28318530717958648f * numbers[i + 1];
        numbers[i] = radius * cosf(angle);
        numbers[i + 1] = radius * sinf(angle);
    }
}

static void draw_row(void *context, int64_t count, char *const *data, const int64_t *stride)
{
    drawing *draw = context;
    float numbers[4];
    four_numbers(draw->args, draw->next / 4, numbers);
    for (int64_t i = 0; i < count; i++, draw->next++) {
        if (draw->next % 4 == 0) four_numbers(draw->args, draw->next / 4, numbers);
        pxr_store_floats(draw->args->out->dtype, data[0] + i * stride[0], stride[0], 1, &numbers[draw->next % 4]);
    }
}

static void draw_range(void *context, int64_t begin, int64_t end)
{
    drawing draw = *(const drawing *)context;
    draw.next = begin;
    pxr_walk_range(draw.walk, begin, end, draw_row, &draw);
}

pxr_status pxr_cpu_random_fill(pxr_device *device, const pxr_random_fill_args *args, pxr_error *error)
{
    (void)device;
    (void)error;
    pxr_walk walk;
    drawing draw = {.args = args, .walk = &walk};
    pxr_walk_plan(&walk, 1, &args->out);
    pxr_parallel_for(walk.count, PXR_WALK_GRAIN / 16, draw_range, &draw);
    return PXR_OK;
}
