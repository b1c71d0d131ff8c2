/* Random numbers: torch's CPU generator for k-means starts, Philox for sampling. */
#ifndef PXR_CORE_RANDOM_H
#define PXR_CORE_RANDOM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* MT19937, as torch.manual_seed(seed) leaves it: the state is the reference's global CPU generator. */
typedef struct pxr_mt19937 {
    uint32_t state[624];
    int next; /* index of the next word to temper, 624: a new block is due */
} pxr_mt19937;

/** Seeds with the low 32 bits of `seed`, as torch does. */
void pxr_mt19937_seed(pxr_mt19937 *generator, uint64_t seed);

/** The next 32 bits. */
uint32_t pxr_mt19937_next(pxr_mt19937 *generator);

/** torch.randperm(count): a permutation of 0 .. count-1 (REFERENCE section 12), count below 2^32. */
void pxr_randperm(pxr_mt19937 *generator, int64_t *permutation, int64_t count);

/** Philox4x32-10 (Salmon et al. 2011): four words for key = seed, counter = (step, stream); the same on every device. */
void pxr_philox(uint64_t seed, uint64_t step, uint64_t stream, uint32_t words[4]);

/** A float32 in [0, 1) from the upper 24 bits of a word. */
static inline float pxr_unit_float(uint32_t word)
{
    return (float)(word >> 8) * 5.9604644775390625e-8f; /* 2^-24 */
}

#ifdef __cplusplus
}
#endif
#endif
