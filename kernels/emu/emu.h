/* The emulated device as the kernels see it: what gpu.h means where there is no nvcc. */
#ifndef PXR_EMU_EMU_H
#define PXR_EMU_EMU_H

/* CUDA's headers give these to host compilers as attributes that they do not know. A raw __shared__ does not compile. */
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

#define GPU_NAME "emu"

#define GPU_DEV static inline
#define GPU_MEMBER inline

#define GPU_SHARED(T, name, N)                                                                                         \
    static const char name##_id = 0;                                                                                   \
    T(&name)[N] = *reinterpret_cast<T(*)[N]>(pxr_emu::static_shared(&name##_id, sizeof(T[N])))
#define GPU_SHARED2(T, name, A, B)                                                                                     \
    static const char name##_id = 0;                                                                                   \
    T(&name)[A][B] = *reinterpret_cast<T(*)[A][B]>(pxr_emu::static_shared(&name##_id, sizeof(T[A][B])))
#define GPU_DYN_SMEM(T, name) T *name = reinterpret_cast<T *>(pxr_emu::machine.dynamic_shared)

#define GPU_LAUNCH(kernel, grid, block, smem, stream, ...)                                                             \
    pxr_emu::launch(#kernel, false, kernel, grid, block, smem, stream, __VA_ARGS__)
/* Always early: `early` is what a real card can do. */
#define GPU_LAUNCH_EARLY(kernel, early, grid, block, smem, stream, ...)                                                \
    ((void)(early), pxr_emu::launch(#kernel, true, kernel, grid, block, smem, stream, __VA_ARGS__))

#include "emu/machine.h"

#include "emu/collectives.h"
#include "emu/intrinsics.h"
#include "emu/launch.h"

#endif
