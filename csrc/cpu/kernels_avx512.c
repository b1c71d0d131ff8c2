/* The kernels for processors with AVX-512 (F, BW, VL, DQ). */
#if defined(__x86_64__)
#define PXR_KERNELS pxr_kernels_avx512
#include "cpu/kernels_table.h"
#endif
