/* The float multiply-add rate of one core: independent FMA chains over registers, as wide as the processor has them. */
#include <immintrin.h>
#include <time.h>

enum { CHAINS = 12, ROUNDS = 2000000 };

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#define RUN(name, isa, vector, set, multiply_add, lanes)                                                               \
    __attribute__((target(isa))) static double name(void)                                                              \
    {                                                                                                                  \
        vector chain[CHAINS], factor = set(0.5f);                                                                      \
        for (int i = 0; i < CHAINS; i++) chain[i] = set((float)i);                                                     \
        const double start = seconds();                                                                                \
        for (int round = 0; round < ROUNDS; round++) {                                                                 \
            _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++)                                                  \
                chain[i] = multiply_add(chain[i], factor, factor);                                                     \
            __asm__ volatile("" : "+v"(factor));                                                                       \
        }                                                                                                              \
        const double elapsed = seconds() - start;                                                                      \
        for (int i = 0; i < CHAINS; i++) __asm__ volatile("" ::"v"(chain[i]));                                         \
        return 2.0 * (lanes)*CHAINS * ROUNDS / elapsed;                                                                \
    }
RUN(run_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)
RUN(run_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)

/** Operations a second (two for each multiply-add of each lane), the best of `repeats`; 0 where there is no FMA. */
double fma_peak(int repeats);

double fma_peak(int repeats)
{
    double best = 0.0;
    for (int i = 0; i < repeats; i++) {
        double rate = 0.0;
        if (__builtin_cpu_supports("avx512f"))
            rate = run_avx512();
        else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
            rate = run_avx2();
        if (rate > best) best = rate;
    }
    return best;
}
