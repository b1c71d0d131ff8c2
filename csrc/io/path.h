/* What stands at a path, and what a directory holds. */
#ifndef PXR_IO_PATH_H
#define PXR_IO_PATH_H

#include "core/error.h"

typedef enum pxr_path_kind {
    PXR_PATH_NOTHING = 0, /* or nothing that may be looked at */
    PXR_PATH_FILE,        /* a regular file, links followed */
    PXR_PATH_DIRECTORY,
    PXR_PATH_OTHER /* a device, a fifo, a socket */
} pxr_path_kind;

/** What stands at a path. */
pxr_path_kind pxr_path_kind_of(const char *path);

typedef struct pxr_names {
    char **names; /* [count] of [capacity], sorted by bytes */
    size_t count, capacity;
} pxr_names;

/** The names in a directory, without "." and "..". Errors: not a directory, not readable. Free the names in any case. */
pxr_status pxr_directory_read(pxr_names *names, const char *path, pxr_error *error);

/** Releases the names; the struct is zeroed. */
void pxr_names_free(pxr_names *names);

#endif
