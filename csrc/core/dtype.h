/* Element types and the one converter of each narrow float. Plain C: also included by kernels/. */
#ifndef PXR_CORE_DTYPE_H
#define PXR_CORE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pxr_dtype {
    PXR_F32 = 0,
    PXR_F16,
    PXR_BF16,
    PXR_I64,
    PXR_I32,
    PXR_I8,
    PXR_U8, /* also masks and the result of comparisons: 0 or 1 */
    PXR_DTYPE_COUNT
} pxr_dtype;

/** Bytes of one element. */
size_t pxr_dtype_size(pxr_dtype dtype);

/** "float32", "bfloat16", "uint8" ...: the names Lua uses. */
const char *pxr_dtype_name(pxr_dtype dtype);

/** The type with that name; false when there is none. */
bool pxr_dtype_parse(const char *name, pxr_dtype *dtype);

/** True for float32, float16 and bfloat16. */
bool pxr_dtype_is_float(pxr_dtype dtype);

/** bfloat16 to float32, exact. */
static inline float pxr_bf16_to_f32(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/** float32 to bfloat16, to nearest even; a NaN stays a (quiet) NaN. */
static inline uint16_t pxr_f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/** float16 to float32, exact. */
static inline float pxr_f16_to_f32(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
    uint32_t wide;
    if (exponent == 0x1fu) {
        wide = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent != 0) {
        wide = sign | ((exponent + 112u) << 23) | (mantissa << 13);
    } else { /* subnormal or zero: mantissa * 2^-24 */
        const float magnitude = (float)mantissa * 5.9604644775390625e-8f;
        memcpy(&wide, &magnitude, sizeof wide);
        wide |= sign;
    }
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/** float32 to float16, to nearest even; overflow gives infinity, a NaN stays a (quiet) NaN. */
static inline uint16_t pxr_f32_to_f16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    if (magnitude < 0x38800000u) {                                   /* below 2^-14: a multiple of 2^-24 */
        float scaled;
        memcpy(&scaled, &magnitude, sizeof scaled);
        scaled += 0.5f; /* adding 2^-1 leaves exactly 24 fraction bits of weight 2^-24, rounded to even */
        memcpy(&bits, &scaled, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13));
}

#ifdef __cplusplus
}
#endif
#endif
