/* Checks of op arguments, one function an op: shapes, types, density, devices. Written by hand in check_fused.c and
 * check_primitives.c; called by the entry points in ops.c only. */
#ifndef PXR_OPS_CHECK_H
#define PXR_OPS_CHECK_H

#include "ops/ops.h"

/** pxr_check_NAME: PXR_OK and the device to compute on, or an error that names the op, the argument, what was expected
 * and what was found ("linear: weight is [64x32] float32, expected [Nx48]"). */
#define PXR_OP(name) pxr_status pxr_check_##name(const pxr_##name##_args *args, pxr_device **device, pxr_error *error);
#define PXR_PRIMITIVE(name) PXR_OP(name)
#include "ops/ops.def"
#undef PXR_OP
#undef PXR_PRIMITIVE

#endif
