/* A plugin that is not as it should be; device_spec.lua compiles it with ABI, SIZE, NAME and GIVEN of its choice. */
#include "ops/backend.h"

#ifndef ABI
#define ABI PXR_BACKEND_ABI
#endif
#ifndef SIZE
#define SIZE sizeof(pxr_backend)
#endif
#ifndef NAME
#define NAME "cuda"
#endif
#ifndef GIVEN
#define GIVEN &backend
#endif

static pxr_status open_device(pxr_device *device, int ordinal, pxr_error *error)
{
    static const char words[] = "no card today";
    (void)device, (void)ordinal;
    for (size_t i = 0; i < sizeof words; i++) error->message[i] = words[i];
    return error->status = PXR_ERROR_UNSUPPORTED;
}

const pxr_backend backend = {.abi = ABI, .struct_size = SIZE, .name = NAME, .open = open_device};

#ifndef NO_SYMBOL
const pxr_backend *pxr_backend_v1(void)
{
    return GIVEN;
}
#endif
