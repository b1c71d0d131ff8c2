/* The CPU backend's table and its memory; see cpu.h. */
#include "cpu/cpu.h"

#include "core/memory.h"

#include <stdio.h>
#include <string.h>

static pxr_status allocate(pxr_device *device, size_t bytes, void **block, pxr_error *error)
{
    (void)device;
    *block = pxr_malloc(bytes);
    return *block ? PXR_OK : pxr_fail_memory(error, bytes, "a tensor");
}

static void release(pxr_device *device, void *block, size_t bytes)
{
    (void)device;
    (void)bytes;
    pxr_free(block);
}

static pxr_status copy_bytes(pxr_device *device, void *to, const void *from, size_t bytes, pxr_error *error)
{
    (void)device;
    (void)error;
    memcpy(to, from, bytes);
    return PXR_OK;
}

static pxr_status open_cpu(pxr_device *device, int ordinal, pxr_error *error)
{
    if (ordinal != 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "there is one cpu device, cpu:%d does not exist", ordinal);
    snprintf(device->name, sizeof device->name, "cpu");
    device->is_host = true;
    device->allocate = allocate;
    device->release = release;
    device->upload = copy_bytes;
    device->download = copy_bytes;
    return PXR_OK;
}

static pxr_status synchronize(pxr_device *device, pxr_error *error)
{
    (void)device;
    (void)error;
    return PXR_OK;
}

static const pxr_backend backend = {
    .abi = PXR_BACKEND_ABI,
    .struct_size = sizeof backend,
    .name = "cpu",
    .open = open_cpu,
    .synchronize = synchronize,
#define PXR_OP(name) .name = pxr_cpu_##name,
#define PXR_PRIMITIVE(name) PXR_OP(name)
#include "ops/ops.def"
#undef PXR_OP
#undef PXR_PRIMITIVE
};

const pxr_backend *pxr_cpu_backend(void)
{
    return &backend;
}
