/* Opening devices by name; see device.h. */
#include "ops/device.h"

#include "cpu/cpu.h"
#include "ops/plugin.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEVICES = 16 };

static pxr_device cpu;

/* The others that are open. They live as long as the process. */
static struct {
    const char *kind; /* "cuda", "emu" */
    pxr_device device;
} opened[MAX_DEVICES];
static int opened_count;

pxr_device *pxr_cpu_device(void)
{
    if (!cpu.backend) {
        const pxr_backend *backend = pxr_cpu_backend();
        backend->open(&cpu, 0, NULL);
        cpu.backend = backend;
    }
    return &cpu;
}

/* "cuda:1" is kind "cuda" and ordinal 1, "cuda" is "cuda:0"; NULL when there are no such devices. */
static const char *parse(const char *name, int *ordinal)
{
    static const char *const kinds[] = {"cuda", "emu"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const size_t length = strlen(kinds[i]);
        if (strncmp(name, kinds[i], length) != 0) continue;
        const char *rest = name + length;
        *ordinal = 0;
        if (!*rest) return kinds[i];
        if (rest[0] != ':' || !rest[1] || strlen(rest) > 3 || rest[1 + strspn(rest + 1, "0123456789")]) return NULL;
        *ordinal = (int)strtol(rest + 1, NULL, 10);
        return kinds[i];
    }
    return NULL;
}

static pxr_status open_plugin_device(const char *kind, int ordinal, pxr_device *device, pxr_error *error)
{
    const pxr_backend *backend = NULL;
    pxr_status status = pxr_plugin_load(kind, &backend, error);
    if (status == PXR_OK) status = backend->open(device, ordinal, error);
    device->backend = backend;
    device->ordinal = ordinal;
    return status;
}

pxr_status pxr_device_open(const char *name, pxr_device **device, pxr_error *error)
{
    *device = NULL;
    if (strcmp(name, "cpu") == 0) {
        *device = pxr_cpu_device();
        return PXR_OK;
    }
    int ordinal = 0;
    const char *kind = parse(name, &ordinal);
    if (!kind)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "there is no device \"%s\": \"cpu\", \"cuda\", \"cuda:1\", \"emu\"",
                        name);
    for (int i = 0; i < opened_count; i++) {
        if (strcmp(opened[i].kind, kind) == 0 && opened[i].device.ordinal == ordinal) {
            *device = &opened[i].device;
            return PXR_OK;
        }
    }
    if (opened_count == MAX_DEVICES)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "device \"%s\": %d others are open", name, (int)MAX_DEVICES);
    pxr_device *fresh = &opened[opened_count].device;
    if (open_plugin_device(kind, ordinal, fresh, error) != PXR_OK) {
        memset(fresh, 0, sizeof *fresh);
        return pxr_error_prefix(error, "device \"%s\"", name);
    }
    opened[opened_count].kind = kind;
    opened_count++;
    *device = fresh;
    return PXR_OK;
}

pxr_status pxr_device_synchronize(pxr_device *device, pxr_error *error)
{
    return device->backend->synchronize(device, error);
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
