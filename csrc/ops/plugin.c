/* Finding, loading and checking a backend's shared object; see plugin.h. */
#include "ops/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef const pxr_backend *(*entry_point)(void);

/* The folder of the shared object that holds this function, as it was when that was loaded. */
static pxr_status own_folder(char folder[PATH_MAX], pxr_error *error)
{
    static const char inside;
    Dl_info info;
    struct link_map *object = NULL;
    if (!dladdr1(&inside, &info, (void **)&object, RTLD_DL_LINKMAP) || dlinfo(object, RTLD_DI_ORIGIN, folder) != 0)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "the folder of the module cannot be found out");
    return PXR_OK;
}

static pxr_status find(const char *kind, char path[PATH_MAX], pxr_error *error)
{
    const char *given = strcmp(kind, "cuda") == 0 ? getenv("PIXELREFER_CUDA_PLUGIN") : NULL;
    char folder[PATH_MAX];
    if (!given || !*given) {
        if (own_folder(folder, error) != PXR_OK) return error->status;
        const int length = snprintf(path, PATH_MAX, "%s/libpixelrefer_%s.so", folder, kind);
        if (length >= PATH_MAX) return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s: the path is too long", folder);
        return PXR_OK;
    }
    if (!realpath(given, path)) return pxr_fail_errno(error, "PIXELREFER_CUDA_PLUGIN names %s", given);
    return PXR_OK;
}

/* A plugin is of the module's own version: nothing but `abi` is read before that is known. */
static pxr_status check(const pxr_backend *backend, const char *kind, const char *path, pxr_error *error)
{
    if (!backend) return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s: pxr_backend_v1 gives no backend", path);
    if (backend->abi != PXR_BACKEND_ABI || backend->struct_size != sizeof *backend)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                        "%s is of another version (ABI %u, this module's is %d, or another size): build both from the "
                        "same sources",
                        path, backend->abi, (int)PXR_BACKEND_ABI);
    if (strcmp(backend->name, kind) != 0)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s is the plugin of \"%s\"", path, backend->name);
    return PXR_OK;
}

pxr_status pxr_plugin_load(const char *kind, const pxr_backend **backend, pxr_error *error)
{
    pxr_error unwanted;
    if (!error) error = &unwanted;
    char path[PATH_MAX];
    if (find(kind, path, error) != PXR_OK) return error->status;
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object) return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "its plugin cannot be loaded: %s", dlerror());
    entry_point entry;
    *(void **)&entry = dlsym(object, "pxr_backend_v1");
    if (!entry) return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s is no plugin: it has no pxr_backend_v1", path);
    *backend = entry();
    return check(*backend, kind, path, error);
}
