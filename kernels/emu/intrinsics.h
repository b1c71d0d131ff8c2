/* CUDA's device functions of one thread, for the emulated device: those that the kernels use. Approximate ones are exact
 * here, so what depends on the approximation shows in a tolerance, not here. */
#ifndef PXR_EMU_INTRINSICS_H
#define PXR_EMU_INTRINSICS_H

#include "emu/machine.h"

#include <algorithm>
#include <math.h>
#include <string.h>

using std::max;
using std::min;

static constexpr int warpSize = pxr_emu::WARP;

#define threadIdx (pxr_emu::machine.current->thread)
#define blockIdx (pxr_emu::machine.current_block.index)
#define blockDim (pxr_emu::machine.block)
#define gridDim (pxr_emu::machine.grid)

inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

inline float __expf(float x)
{
    return expf(x);
}

inline float __logf(float x)
{
    return logf(x);
}

inline float __fdividef(float a, float b)
{
    return a / b;
}

inline float __frcp_rn(float x)
{
    return 1.0f / x;
}

inline float __fmul_rn(float a, float b)
{
    return a * b;
}

inline float __fadd_rn(float a, float b)
{
    return a + b;
}

inline float __fsub_rn(float a, float b)
{
    return a - b;
}

inline float __fdiv_rn(float a, float b)
{
    return a / b;
}

inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}

inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}

inline float __uint_as_float(unsigned bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline unsigned __float_as_uint(float value)
{
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __int_as_float(int bits)
{
    return __uint_as_float((unsigned)bits);
}

inline int __float_as_int(float value)
{
    return (int)__float_as_uint(value);
}

inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}

inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

inline unsigned __brev(unsigned x)
{
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1u) << (31 - bit);
    return reversed;
}

inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}

template <class T> inline T __ldg(const T *p)
{
    return *p;
}

inline void __threadfence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Atomics on integers; they order nothing but themselves. */
template <class T> inline T atomicAdd(T *p, T value)
{
    static_assert(!(T(0.5f) > T(0)), "atomics on floats have no fixed order");
    return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}

template <class T> inline T atomicOr(T *p, T value)
{
    return __atomic_fetch_or(p, value, __ATOMIC_RELAXED);
}

template <class T> inline T atomicExch(T *p, T value)
{
    return __atomic_exchange_n(p, value, __ATOMIC_RELAXED);
}

template <class T> inline T atomicCAS(T *p, T expected, T value)
{
    __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

template <class T> inline T atomicMax(T *p, T value)
{
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (old < value && !__atomic_compare_exchange_n(p, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

template <class T> inline T atomicMin(T *p, T value)
{
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (old > value && !__atomic_compare_exchange_n(p, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

/* ---- gpu.h's own ----------------------------------------------------------------------------------------------- */

inline float fast_exp2(float x)
{
    const float y = exp2f(x);
    return y < 1.17549435e-38f ? 0.0f : y;
}

inline uint4 load_once16(const void *global)
{
    return *(const uint4 *)global;
}

inline unsigned ld_acquire(const unsigned *p, PXR_EMU_HERE)
{
    pxr_emu::poll(pxr_emu::Site{file, line});
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

inline unsigned add_release(unsigned *p, unsigned value)
{
    return __atomic_fetch_add(p, value, __ATOMIC_ACQ_REL);
}

#endif
