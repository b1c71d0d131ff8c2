/* Opening devices by name. */
#ifndef PXR_OPS_DEVICE_H
#define PXR_OPS_DEVICE_H

#include "core/device.h"

/** The CPU: always there, opened once. */
pxr_device *pxr_cpu_device(void);

/** The device called `name`: "cpu", "cuda", "cuda:1", "emu". Opened once, then shared. Errors carry the loader's or the
 * driver's own words. Not thread-safe. */
pxr_status pxr_device_open(const char *name, pxr_device **device, pxr_error *error);

/** Waits until everything asked of the device is done; reports errors of that work. */
pxr_status pxr_device_synchronize(pxr_device *device, pxr_error *error);

/** Number of ops, and the name of op `index` (0-based): the list the parity test must cover. */
int pxr_op_count(void);
const char *pxr_op_name(int index);

/** True when the device's backend has op `index`. */
bool pxr_device_supports(const pxr_device *device, int index);

#endif
