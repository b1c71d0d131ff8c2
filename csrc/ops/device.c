/* Opening devices by name; see device.h. */
#include "ops/device.h"

#include "cpu/cpu.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static pxr_device cpu;

pxr_device *pxr_cpu_device(void)
{
    if (!cpu.backend) {
        const pxr_backend *backend = pxr_cpu_backend();
        backend->open(&cpu, 0, NULL);
        cpu.backend = backend;
    }
    return &cpu;
}

pxr_status pxr_device_open(const char *name, pxr_device **device, pxr_error *error)
{
    *device = NULL;
    if (strcmp(name, "cpu") == 0) {
        *device = pxr_cpu_device();
        return PXR_OK;
    }
    return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "this build has no device \"%s\": only \"cpu\"", name);
}

static const struct {
    const char *name;
    size_t slot; /* offset of the function pointer in pxr_backend */
} ops[] = {
#define PXR_OP(name) {#name, offsetof(pxr_backend, name)},
#define PXR_PRIMITIVE(name) PXR_OP(name)
#include "ops/ops.def"
#undef PXR_OP
#undef PXR_PRIMITIVE
};

int pxr_op_count(void)
{
    return (int)(sizeof ops / sizeof *ops);
}

const char *pxr_op_name(int index)
{
    return ops[index].name;
}

bool pxr_device_supports(const pxr_device *device, int index)
{
    void (*function)(void);
    memcpy(&function, (const char *)device->backend + ops[index].slot, sizeof function);
    return function != NULL;
}
