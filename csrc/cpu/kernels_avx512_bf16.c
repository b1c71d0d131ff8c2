/* The kernels for processors with AVX-512, its VNNI and its BF16. */
#if defined(__x86_64__)
#define PXR_KERNELS pxr_kernels_avx512_bf16
#include "cpu/kernels_table.h"
#endif
