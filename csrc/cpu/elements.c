/* Converting blocks of elements; see elements.h. */
#include "cpu/elements.h"

#include "core/memory.h"

#include <math.h>

/* ---- single elements at any byte -------------------------------------------------------------------------------- */

static float load_f32(const char *data)
{
    float value;
    memcpy(&value, data, sizeof value);
    return value;
}

static uint16_t load_u16(const char *data)
{
    uint16_t value;
    memcpy(&value, data, sizeof value);
    return value;
}

static int32_t load_i32(const char *data)
{
    int32_t value;
    memcpy(&value, data, sizeof value);
    return value;
}

static int64_t load_i64(const char *data)
{
    int64_t value;
    memcpy(&value, data, sizeof value);
    return value;
}

static void store_u16(char *data, uint16_t value)
{
    memcpy(data, &value, sizeof value);
}

/* Towards zero, clamped to low .. high; NaN gives 0. */
static int64_t saturate(float value, int64_t low, int64_t high)
{
    if (isnan(value)) return 0;
    if (value <= (float)low) return low;
    if (value >= (float)high) return high;
    return (int64_t)value;
}

static bool in_place(const char *data, int64_t stride, int64_t size)
{
    return stride == size && (uintptr_t)data % (uintptr_t)size == 0;
}

/* ---- floats ----------------------------------------------------------------------------------------------------- */

const float *pxr_load_floats(pxr_dtype dtype, const char *data, int64_t stride, int64_t count, float *block)
{
    switch (dtype) {
    case PXR_F16:
        for (int64_t i = 0; i < count; i++) block[i] = pxr_f16_to_f32(load_u16(data + i * stride));
        return block;
    case PXR_BF16:
        for (int64_t i = 0; i < count; i++) block[i] = pxr_bf16_to_f32(load_u16(data + i * stride));
        return block;
    default: /* PXR_F32 */
        if (in_place(data, stride, sizeof(float))) return (const float *)(const void *)data;
        for (int64_t i = 0; i < count; i++) block[i] = load_f32(data + i * stride);
        return block;
    }
}

float *pxr_floats_target(pxr_dtype dtype, char *data, int64_t stride, int64_t count, float *block)
{
    (void)count;
    return dtype == PXR_F32 && in_place(data, stride, sizeof(float)) ? (float *)(void *)data : block;
}

void pxr_store_floats(pxr_dtype dtype, char *data, int64_t stride, int64_t count, const float *values)
{
    if ((const void *)values == (const void *)data) return;
    switch (dtype) {
    case PXR_F32:
        for (int64_t i = 0; i < count; i++) memcpy(data + i * stride, &values[i], sizeof values[i]);
        break;
    case PXR_F16:
        for (int64_t i = 0; i < count; i++) store_u16(data + i * stride, pxr_f32_to_f16(values[i]));
        break;
    case PXR_BF16:
        for (int64_t i = 0; i < count; i++) store_u16(data + i * stride, pxr_f32_to_bf16(values[i]));
        break;
    case PXR_I64:
        for (int64_t i = 0; i < count; i++) {
            const int64_t value = saturate(values[i], INT64_MIN, INT64_MAX);
            memcpy(data + i * stride, &value, sizeof value);
        }
        break;
    case PXR_I32:
        for (int64_t i = 0; i < count; i++) {
            const int32_t value = (int32_t)saturate(values[i], INT32_MIN, INT32_MAX);
            memcpy(data + i * stride, &value, sizeof value);
        }
        break;
    case PXR_I8:
        for (int64_t i = 0; i < count; i++) data[i * stride] = (char)saturate(values[i], INT8_MIN, INT8_MAX);
        break;
    default: /* PXR_U8 */
        for (int64_t i = 0; i < count; i++) data[i * stride] = (char)(uint8_t)saturate(values[i], 0, UINT8_MAX);
    }
}

/* ---- integers --------------------------------------------------------------------------------------------------- */

const int64_t *pxr_load_integers(pxr_dtype dtype, const char *data, int64_t stride, int64_t count, int64_t *block)
{
    switch (dtype) {
    case PXR_I32:
        for (int64_t i = 0; i < count; i++) block[i] = load_i32(data + i * stride);
        return block;
    case PXR_I8:
        for (int64_t i = 0; i < count; i++) block[i] = (int8_t)data[i * stride];
        return block;
    case PXR_U8:
        for (int64_t i = 0; i < count; i++) block[i] = (uint8_t)data[i * stride];
        return block;
    default: /* PXR_I64 */
        if (in_place(data, stride, sizeof(int64_t))) return (const int64_t *)(const void *)data;
        for (int64_t i = 0; i < count; i++) block[i] = load_i64(data + i * stride);
        return block;
    }
}

int64_t *pxr_integers_target(pxr_dtype dtype, char *data, int64_t stride, int64_t count, int64_t *block)
{
    (void)count;
    return dtype == PXR_I64 && in_place(data, stride, sizeof(int64_t)) ? (int64_t *)(void *)data : block;
}

void pxr_store_integers(pxr_dtype dtype, char *data, int64_t stride, int64_t count, const int64_t *values)
{
    if ((const void *)values == (const void *)data) return;
    switch (dtype) {
    case PXR_I64:
        for (int64_t i = 0; i < count; i++) memcpy(data + i * stride, &values[i], sizeof values[i]);
        break;
    case PXR_I32:
        for (int64_t i = 0; i < count; i++) {
            const uint32_t low = (uint32_t)(uint64_t)values[i];
            memcpy(data + i * stride, &low, sizeof low);
        }
        break;
    case PXR_I8:
    case PXR_U8:
        for (int64_t i = 0; i < count; i++) data[i * stride] = (char)(uint8_t)(uint64_t)values[i];
        break;
    default:
        for (int64_t i = 0; i < count; i++) {
            const float value = (float)values[i];
            pxr_store_floats(dtype, data + i * stride, stride, 1, &value);
        }
    }
}

/* ---- any type, as it is ----------------------------------------------------------------------------------------- */

void pxr_move_elements(size_t size, char *to, int64_t to_stride, const char *from, int64_t from_stride, int64_t count)
{
    if (to_stride == (int64_t)size && from_stride == (int64_t)size) {
        memcpy(to, from, (size_t)count * size);
        return;
    }
    switch (size) { /* constant sizes let the compiler make each memcpy one move */
    case 1:
        for (int64_t i = 0; i < count; i++) to[i * to_stride] = from[i * from_stride];
        break;
    case 2:
        for (int64_t i = 0; i < count; i++) memcpy(to + i * to_stride, from + i * from_stride, 2);
        break;
    case 4:
        for (int64_t i = 0; i < count; i++) memcpy(to + i * to_stride, from + i * from_stride, 4);
        break;
    default:
        for (int64_t i = 0; i < count; i++) memcpy(to + i * to_stride, from + i * from_stride, 8);
    }
}
