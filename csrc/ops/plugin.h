/* Backends in shared objects beside the module. */
#ifndef PXR_OPS_PLUGIN_H
#define PXR_OPS_PLUGIN_H

#include "ops/backend.h"

/** The backend of the devices `kind` ("cuda", "emu"): libpixelrefer_KIND.so beside the module, or for CUDA what
 * PIXELREFER_CUDA_PLUGIN names; loaded once, never unloaded. Errors: the loader's own words, a file that is no plugin,
 * one of another version or for other devices. */
pxr_status pxr_plugin_load(const char *kind, const pxr_backend **backend, pxr_error *error);

#endif
