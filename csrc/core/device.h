/* What the core must know of a device: how its memory is had, filled and read. Computing is the backend's (ops/). */
#ifndef PXR_CORE_DEVICE_H
#define PXR_CORE_DEVICE_H

#include "core/error.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pxr_backend;

/* In what the products of a device's models are computed. Sums are float32 in all. */
typedef enum pxr_compute {
    PXR_COMPUTE_F32 = 0, /* float32 operands */
    PXR_COMPUTE_BF16,    /* operands rounded to bfloat16 (float16 where the weights are): for tensor cores; on the CPU
                            where the weights are bfloat16 */
    PXR_COMPUTE_INT8     /* operands rounded to eight bits where weights have eight or four, those of attention to
                            bfloat16: on the CPU alone */
} pxr_compute;

/* One opened device. Lives as long as the process; made by ops/device.c, filled by the backend. */
typedef struct pxr_device {
    char name[16]; /* "cpu", "cuda", "cuda:1", "emu": what Lua calls it */
    int ordinal;   /* of the card, 0 on the CPU */
    bool is_host;  /* its memory can be read and written by the CPU */
    bool records;  /* its work can be recorded (ops/recording.h) */
    pxr_compute compute;
    const struct pxr_backend *backend;
    void *state; /* the backend's own */

    /* `bytes` bytes aligned to PXR_ALIGNMENT; contents undefined. */
    pxr_status (*allocate)(struct pxr_device *device, size_t bytes, void **block, pxr_error *error);
    void (*release)(struct pxr_device *device, void *block, size_t bytes);
    /* Blocking copies between host memory and the device's. */
    pxr_status (*upload)(struct pxr_device *device, void *to, const void *from_host, size_t bytes, pxr_error *error);
    pxr_status (*download)(struct pxr_device *device, void *to_host, const void *from, size_t bytes, pxr_error *error);
} pxr_device;

#ifdef __cplusplus
}
#endif
#endif
