/* The kernels for processors with AVX-512 and its VNNI. */
#if defined(__x86_64__)
#define PXR_KERNELS pxr_kernels_avx512_vnni
#include "cpu/kernels_table.h"
#endif
