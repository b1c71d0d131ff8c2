/* MT19937 as torch seeds it, and Philox4x32-10; see random.h. */
#include "core/random.h"

enum { N = 624, M = 397 };

void pxr_mt19937_seed(pxr_mt19937 *generator, uint64_t seed)
{
    uint32_t *state = generator->state;
    state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N; i++) state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
    generator->next = N;
}

static uint32_t twist(uint32_t upper, uint32_t lower)
{
    const uint32_t mixed = (upper & 0x80000000u) | (lower & 0x7fffffffu);
    return (mixed >> 1) ^ ((mixed & 1u) ? 0x9908b0dfu : 0u);
}

static void next_block(uint32_t *state)
{
    for (int i = 0; i < N; i++) state[i] = state[(i + M) % N] ^ twist(state[i], state[(i + 1) % N]);
}

uint32_t pxr_mt19937_next(pxr_mt19937 *generator)
{
    if (generator->next >= N) {
        next_block(generator->state);
        generator->next = 0;
    }
    uint32_t word = generator->state[generator->next++];
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
}

void pxr_randperm(pxr_mt19937 *generator, int64_t *permutation, int64_t count)
{
    for (int64_t i = 0; i < count; i++) permutation[i] = i;
    for (int64_t i = 0; i + 1 < count; i++) {
        const int64_t other = i + (int64_t)(pxr_mt19937_next(generator) % (uint64_t)(count - i));
        const int64_t kept = permutation[i];
        permutation[i] = permutation[other];
        permutation[other] = kept;
    }
}

void pxr_philox(uint64_t seed, uint64_t step, uint64_t stream, uint32_t words[4])
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t c[4] = {(uint32_t)step, (uint32_t)(step >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)};
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ key[1],
                                  (uint32_t)a};
        for (int i = 0; i < 4; i++) c[i] = next[i];
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) words[i] = c[i];
}
