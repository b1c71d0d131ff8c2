/* Files mapped into memory: a mapped file is a uint8 tensor, and what lies in it are views of that tensor.
 *
 * The tensor's storage owns the mapping and counts its holders, so a weight keeps its file mapped and nobody else has
 * to. Every reader of this room takes such a tensor, which is also how a test or a fuzzer feeds it bytes from memory
 * (pxr_tensor_wrap).
 */
#ifndef PXR_IO_MAPPED_FILE_H
#define PXR_IO_MAPPED_FILE_H

#include "core/tensor.h"

/** Maps a regular file whole: `file` is uint8 [bytes]. Pages come from the page cache and are shared until somebody
 * writes into a view, which copies the page and never reaches the file. Errors: not there, not readable, a directory
 * or another non-regular file, empty. A file that somebody truncates while it is mapped cannot be defended against:
 * touching the lost pages raises SIGBUS. */
pxr_status pxr_mapped_file_open(pxr_tensor *file, const char *path, pxr_error *error);

/** A view over `file` that begins at byte `offset` (any byte: kernels load unaligned). `stride` in elements, none
 * negative; NULL: dense, row-major. Errors: rank, negative sizes or strides, bytes outside `file` (one past the end is
 * fine for a tensor without elements). */
pxr_status pxr_mapped_file_view(pxr_tensor *view, const pxr_tensor *file, size_t offset, pxr_dtype dtype, int rank,
                                const int64_t *size, const int64_t *stride, pxr_error *error);

/** Gives the memory of a contiguous view's whole pages back to the system, which reads them from the file again when
 * they are next touched: for weights that have been converted. What was written into them is lost. Nothing happens to a
 * tensor that is not mapped. */
void pxr_mapped_file_forget(const pxr_tensor *view);

#endif
