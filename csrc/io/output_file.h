/* Files written whole or not at all: bytes go to a new file beside the target, which takes its name at the end.
 *
 * A full disk, an interrupted run or a failed check in between leaves the target as it was and nothing beside it (after
 * a crash of the process, a file named `<target>.<process>.tmp` can remain).
 */
#ifndef PXR_IO_OUTPUT_FILE_H
#define PXR_IO_OUTPUT_FILE_H

#include "core/tensor.h"

typedef struct pxr_output_file {
    int descriptor;
    char *target;    /* links followed */
    char *temporary; /* NULL when nothing is open */
} pxr_output_file;

/** Begins a file that will be called `path`, and reserves `bytes` for it where the file system can (0: unknown). A
 * zeroed struct is what a failure leaves. Errors: no such directory, not writable, full; a target that is there but no
 * regular file (a device, a directory). */
pxr_status pxr_output_file_create(pxr_output_file *file, const char *path, uint64_t bytes, pxr_error *error);

/** Writes `bytes` bytes at `offset`. */
pxr_status pxr_output_file_write(pxr_output_file *file, uint64_t offset, const void *data, size_t bytes,
                                 pxr_error *error);

/** Writes the elements of a tensor, any strides and device, densely in row-major order from `offset`. */
pxr_status pxr_output_file_write_tensor(pxr_output_file *file, uint64_t offset, const pxr_tensor *tensor,
                                        pxr_error *error);

/** Brings the bytes to the disk and gives the file its name. Closes it in any case; on failure nothing remains. */
pxr_status pxr_output_file_commit(pxr_output_file *file, pxr_error *error);

/** Removes what was written. A zeroed struct is fine. */
void pxr_output_file_abandon(pxr_output_file *file);

#endif
