/* What the threads of a warp do together: shuffles, votes, matrix products, loads of matrices; and copies in the
 * background. The names are CUDA's and those of gpu.h. */
#ifndef PXR_EMU_COLLECTIVES_H
#define PXR_EMU_COLLECTIVES_H

#include "emu/machine.h"

#include <string.h>

namespace pxr_emu
{

/* ---- shuffles and votes ---------------------------------------------------------------------------------------- */

template <class T> struct Shuffle {
    T value, result;
    int source; /* lane */
    Site site;
};

template <class T> PXR_EMU_UNCHECKED void run_shuffle(unsigned mask, void **arguments)
{
    for (int l = 0; l < WARP; l++) {
        if (!(mask >> l & 1)) continue;
        Shuffle<T> *s = (Shuffle<T> *)arguments[l];
        if (!(mask >> s->source & 1)) fault(s->site, "lane %d shuffles from lane %d outside the mask", l, s->source);
        s->result = ((Shuffle<T> *)arguments[s->source])->value;
    }
}

template <class T> inline T shuffle(unsigned mask, T value, int source, Site site)
{
    Shuffle<T> s = {value, value, source, site};
    meet(mask, run_shuffle<T>, &s, site);
    return s.result;
}

/* The lane that `lane` means within the segment of `width` lanes of the current one. */
inline int in_segment(int lane, int width)
{
    return (machine.current->lane & ~(width - 1)) | (lane & (width - 1));
}

/* The bits of the lanes whose predicate is true. */
unsigned ballot(unsigned mask, bool predicate, Site site);

/* ---- matrices -------------------------------------------------------------------------------------------------- */

/* d[16x8] += a[16xk] b[kx8], k = 8 or 16, held as gpu.h says. */
void matrix_product(float *d, const uint32_t *a, const uint32_t *b, int k, Site site);

/* `count` 8x8 matrices of 16-bit elements, as gpu.h says. */
void load_matrices(uint32_t *r, const void *row, int count, bool transposed, Site site);

/* ---- copies in the background ---------------------------------------------------------------------------------- */

/* The destination is NaN until the copy is waited for. */
void async_copy(void *shared, const void *global, bool valid, Site site);
void async_wait(int pending_groups);

} /* namespace pxr_emu */

#define PXR_EMU_SITE (pxr_emu::Site{file, line})

inline void __syncthreads(PXR_EMU_HERE)
{
    pxr_emu::block_barrier(0, PXR_EMU_SITE);
}

inline int __syncthreads_count(int predicate, PXR_EMU_HERE)
{
    return pxr_emu::block_barrier(predicate != 0, PXR_EMU_SITE);
}

inline int __syncthreads_or(int predicate, PXR_EMU_HERE)
{
    return pxr_emu::block_barrier(predicate != 0, PXR_EMU_SITE) != 0;
}

inline int __syncthreads_and(int predicate, PXR_EMU_HERE)
{
    return pxr_emu::block_barrier(predicate == 0, PXR_EMU_SITE) == 0;
}

inline void __syncwarp(unsigned mask = pxr_emu::FULL, PXR_EMU_HERE)
{
    pxr_emu::meet(mask, nullptr, nullptr, PXR_EMU_SITE);
}

template <class T> inline T __shfl_sync(unsigned mask, T value, int lane, int width = pxr_emu::WARP, PXR_EMU_HERE)
{
    return pxr_emu::shuffle(mask, value, pxr_emu::in_segment(lane, width), PXR_EMU_SITE);
}

template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = pxr_emu::WARP, PXR_EMU_HERE)
{
    const int self = pxr_emu::machine.current->lane, lane = self ^ bits;
    const int source = lane / width > self / width ? self : lane;
    return pxr_emu::shuffle(mask, value, source, PXR_EMU_SITE);
}

template <class T> inline T __shfl_down_sync(unsigned mask, T value, int by, int width = pxr_emu::WARP, PXR_EMU_HERE)
{
    const int self = pxr_emu::machine.current->lane, lane = self + by;
    return pxr_emu::shuffle(mask, value, lane / width > self / width ? self : lane, PXR_EMU_SITE);
}

template <class T> inline T __shfl_up_sync(unsigned mask, T value, int by, int width = pxr_emu::WARP, PXR_EMU_HERE)
{
    const int self = pxr_emu::machine.current->lane, lane = self - by;
    return pxr_emu::shuffle(mask, value, lane < self / width * width ? self : lane, PXR_EMU_SITE);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, PXR_EMU_HERE)
{
    return pxr_emu::ballot(mask, predicate != 0, PXR_EMU_SITE);
}

inline int __any_sync(unsigned mask, int predicate, PXR_EMU_HERE)
{
    return pxr_emu::ballot(mask, predicate != 0, PXR_EMU_SITE) != 0;
}

inline int __all_sync(unsigned mask, int predicate, PXR_EMU_HERE)
{
    return pxr_emu::ballot(mask, predicate == 0, PXR_EMU_SITE) == 0;
}

inline void mma_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], PXR_EMU_HERE)
{
    pxr_emu::matrix_product(d, a, b, 16, PXR_EMU_SITE);
}

inline void mma_1688(float (&d)[4], const uint32_t (&a)[2], uint32_t b, PXR_EMU_HERE)
{
    pxr_emu::matrix_product(d, a, &b, 8, PXR_EMU_SITE);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, PXR_EMU_HERE)
{
    pxr_emu::load_matrices(r, row, 4, false, PXR_EMU_SITE);
}

inline void ldmatrix_x2(uint32_t (&r)[2], const void *row, PXR_EMU_HERE)
{
    pxr_emu::load_matrices(r, row, 2, false, PXR_EMU_SITE);
}

inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row, PXR_EMU_HERE)
{
    pxr_emu::load_matrices(r, row, 2, true, PXR_EMU_SITE);
}

inline void cp_async16(void *shared, const void *global, bool valid, PXR_EMU_HERE)
{
    pxr_emu::async_copy(shared, global, valid, PXR_EMU_SITE);
}

inline void cp_async_commit()
{
    pxr_emu::machine.current->group++;
}

template <int N> inline void cp_async_wait()
{
    pxr_emu::async_wait(N);
}

inline void wait_for_previous_kernel()
{
    pxr_emu::wait_for_previous();
}

inline void let_next_kernel_begin()
{
}

#endif
