/* NumPy's .npy format, versions 1 to 3: one array a file. */
#ifndef PXR_IO_NPY_H
#define PXR_IO_NPY_H

#include "core/tensor.h"

/** The array in `file` (uint8 [bytes], see mapped_file.h) as a view; Fortran order becomes strides. Types: f4, f2, i8,
 * i4, i1, u1 and b1 (as uint8), little-endian. Errors: any other type, a header that is not what NumPy writes, more or
 * fewer bytes than the shape needs. */
pxr_status pxr_npy_read(pxr_tensor *tensor, const pxr_tensor *file, pxr_error *error);

/** Writes a tensor of any strides and device, in C order, whole or not at all. bfloat16 is refused: NumPy has none. */
pxr_status pxr_npy_write(const char *path, const pxr_tensor *tensor, pxr_error *error);

#endif
