/* Rows of floats as integers and scales; what the numbers mean is in ops.h. Included by kernels_*.c only.
 *
 * Four bits reach from -8 to 7, so the extreme of a group is mapped to -8 or somewhat beside it, whichever of four
 * scales leaves the least squared error (a small search, as llama.cpp's quantisers make it).
 */
#ifndef PXR_CPU_QUANTIZE_KERNEL_H
#define PXR_CPU_QUANTIZE_KERNEL_H

#include "cpu/kernels.h"
#include "cpu/v16_math.h"

enum { GROUP_MAX = 1 << PXR_GROUP_SHIFT_MAX };

/* A scale as it is kept: finite and float16. */
static float kept_scale(float scale, uint16_t *bits)
{
    const float largest = 65504.0f;
    *bits = pxr_f32_to_f16(scale > largest ? largest : scale < -largest ? -largest : scale);
    return pxr_f16_to_f32(*bits);
}

static float inverse(float scale)
{
    return scale == 0.0f ? 0.0f : 1.0f / scale;
}

/* The values' integers, as bytes. */
static void store_integers(int8_t *out, const float *values, int64_t count, float scale, float low, float high)
{
    const v16 factor = v16_set(inverse(scale));
    for (int64_t i = 0; i < count; i += LANES)
        v16_store_i8(out + i, v16_clamp(v16_mul(v16_load(values + i), factor), low, high));
}

static float four_bit_scale(const float *values, int64_t count, float extreme, uint16_t *kept)
{
    static const float steps[] = {-8.0f, -7.25f, -8.25f, -8.5f}; /* what the extreme is mapped to */
    enum { STEPS = sizeof steps / sizeof *steps };
    float scales[STEPS], errors[STEPS];
    uint16_t bits[STEPS];
    v16 factors[STEPS], back[STEPS], sums[STEPS];
    for (int i = 0; i < STEPS; i++) {
        scales[i] = kept_scale(extreme / steps[i], &bits[i]);
        factors[i] = v16_set(inverse(scales[i]));
        back[i] = v16_set(-scales[i]);
        sums[i] = v16_set(0.0f);
    }
    for (int64_t k = 0; k < count; k += LANES) {
        const v16 value = v16_load(values + k);
#pragma GCC unroll 4
        for (int i = 0; i < STEPS; i++) {
            const v16 rounded = v16_round(v16_clamp(v16_mul(value, factors[i]), -8.0f, 7.0f));
            const v16 rest = v16_fma(rounded, back[i], value);
            sums[i] = v16_fma(rest, rest, sums[i]);
        }
    }
    v16_sum_four(sums[0], sums[1], sums[2], sums[3], errors);
    int best = 0;
    for (int i = 1; i < STEPS; i++)
        if (errors[i] < errors[best]) best = i;
    *kept = bits[best];
    return scales[best];
}

static bool quantize(char *out, pxr_dtype dtype, uint16_t *scales, int group_shift, pxr_any_row row, int64_t count)
{
    const int64_t group = (int64_t)1 << group_shift, size = row.dtype == PXR_F32 ? 4 : 2;
    float values[GROUP_MAX];
    int8_t integers[GROUP_MAX];
    for (int64_t begin = 0; begin < count; begin += group, scales++) {
        const int64_t length = count - begin < group ? count - begin : group;
        v16 most = v16_set(0.0f), least = v16_set(0.0f), zeros = v16_set(0.0f);
        for (int64_t i = 0; i < length; i += LANES) { /* lanes behind the row's end are zero */
            const v16 value = v16_load_some_as(row.data + (begin + i) * size, row.dtype, length - i);
            v16_store(values + i, value);
            most = v16_max(most, value);
            least = v16_min(least, value);
            zeros = v16_fma(value, v16_set(0.0f), zeros); /* NaN where one is infinite or NaN */
        }
        if (v16_sum(zeros) != 0.0f) return false;
        const float high = v16_largest(most), low = -v16_largest(v16_sub(v16_set(0.0f), least));
        const float extreme = high > -low ? high : low;
        if (dtype == PXR_I8) {
            const float scale = kept_scale(fabsf(extreme) / 127.0f, scales);
            store_integers(integers, values, length, scale, -127.0f, 127.0f);
            memcpy(out + begin, integers, (size_t)length);
        } else {
            store_integers(integers, values, length, four_bit_scale(values, length, extreme, scales), -8.0f, 7.0f);
            for (int64_t i = 0; i < length; i += 2)
                out[(begin + i) / 2] = (char)((integers[i] + 8) | (integers[i + 1] + 8) << 4);
        }
    }
    return true;
}

#endif
