/* A backend: one function for each op of ops.def, and the devices it computes on.
 *
 * The CPU backend is linked in and is the reference; others are shared objects with one exported symbol,
 * `pxr_backend_v1`, loaded on demand (ops/device.c). An empty slot means that the backend cannot do the op.
 */
#ifndef PXR_OPS_BACKEND_H
#define PXR_OPS_BACKEND_H

#include "ops/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PXR_BACKEND_ABI = 1 };

typedef struct pxr_backend {
    uint32_t abi;         /* PXR_BACKEND_ABI: checked before anything else is read */
    uint32_t struct_size; /* sizeof(pxr_backend) */
    const char *name;     /* "cpu", "cuda", "emu" */

    /** Opens device `ordinal`: fills name, memory functions and state of `device`. */
    pxr_status (*open)(pxr_device *device, int ordinal, pxr_error *error);

    /** Waits until everything asked of the device is done; reports errors of earlier asynchronous work. */
    pxr_status (*synchronize)(pxr_device *device, pxr_error *error);

    /** Bytes of the device's memory that are free, and all of them. NULL: as the process's own. */
    pxr_status (*memory)(pxr_device *device, size_t *available, size_t *total, pxr_error *error);

    /* Recorded work (ops/recording.h), where devices have `records`; else NULL. */
    pxr_status (*record)(pxr_device *device, pxr_error *error);
    pxr_status (*end_record)(pxr_device *device, void **work, pxr_error *error);
    pxr_status (*play)(pxr_device *device, const void *work, bool *played, pxr_error *error);
    void (*forget)(pxr_device *device, void *work);

#define PXR_OP(name) pxr_status (*name)(pxr_device * device, const pxr_##name##_args *args, pxr_error *error);
#define PXR_PRIMITIVE(name) PXR_OP(name)
#include "ops/ops.def"
#undef PXR_OP
#undef PXR_PRIMITIVE
} pxr_backend;

#ifdef __cplusplus
}
#endif
#endif
