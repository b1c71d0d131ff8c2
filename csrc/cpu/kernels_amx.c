/* The kernels for processors with AVX-512, its VNNI and its BF16, and tiles of bfloat16 and int8 (AMX). */
#if defined(__x86_64__)
#define PXR_KERNELS pxr_kernels_amx
#define PXR_HAS_TILES
#include "cpu/kernels_table.h"
#endif
