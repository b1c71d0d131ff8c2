/* The checked entry points of the op API; see ops.h. Each calls its check and then the backend's slot. */
#include "ops/ops.h"

#include "ops/backend.h"
#include "ops/check.h"

int pxr_group_shift(int64_t columns, int64_t groups)
{
    for (int shift = PXR_GROUP_SHIFT_MIN; groups > 0 && shift <= PXR_GROUP_SHIFT_MAX; shift++)
        if ((columns + ((int64_t)1 << shift) - 1) >> shift == groups) return shift;
    return -1;
}

#define PXR_OP(op)                                                                                                     \
    pxr_status pxr_##op(const pxr_##op##_args *args, pxr_error *error)                                                 \
    {                                                                                                                  \
        pxr_device *device = NULL;                                                                                     \
        const pxr_status status = pxr_check_##op(args, &device, error);                                                \
        if (status != PXR_OK) return status;                                                                           \
        if (!device->backend->op) return pxr_fail(error, PXR_ERROR_UNSUPPORTED, #op " is not on %s", device->name);    \
        return device->backend->op(device, args, error);                                                               \
    }
#define PXR_PRIMITIVE(op) PXR_OP(op)
#include "ops/ops.def"
