/* The kernels for any processor. */
#define PXR_KERNELS pxr_kernels_scalar
#include "cpu/kernels_table.h"
