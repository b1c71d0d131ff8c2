/* Names and sizes of the element types; see dtype.h. */
#include "core/dtype.h"

static const struct {
    const char *name;
    size_t size;
} types[PXR_DTYPE_COUNT] = {
    [PXR_F32] = {"float32", 4}, [PXR_F16] = {"float16", 2}, [PXR_BF16] = {"bfloat16", 2}, [PXR_I64] = {"int64", 8},
    [PXR_I32] = {"int32", 4},   [PXR_I8] = {"int8", 1},     [PXR_U8] = {"uint8", 1},
};

size_t pxr_dtype_size(pxr_dtype dtype)
{
    return types[dtype].size;
}

const char *pxr_dtype_name(pxr_dtype dtype)
{
    return types[dtype].name;
}

bool pxr_dtype_parse(const char *name, pxr_dtype *dtype)
{
    for (int i = 0; i < PXR_DTYPE_COUNT; i++) {
        if (strcmp(types[i].name, name) == 0) {
            *dtype = (pxr_dtype)i;
            return true;
        }
    }
    return false;
}

bool pxr_dtype_is_float(pxr_dtype dtype)
{
    return dtype == PXR_F32 || dtype == PXR_F16 || dtype == PXR_BF16;
}
