/* The kernels for processors with AVX2, FMA and F16C. */
#if defined(__x86_64__)
#define PXR_KERNELS pxr_kernels_avx2
#include "cpu/kernels_table.h"
#endif
