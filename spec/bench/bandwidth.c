/* How fast this machine reads memory: the yardstick of everything that streams weights.
 *
 * Each thread sums its share of one block, larger than any cache, in eight 64-bit lanes; what counts is the slowest
 * thread. Built by spec/bench/bandwidth.lua with plain -O3, so the sums become vector loads of the base instruction set,
 * which on every machine tried is enough to saturate memory.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LANES = 8, MAX_THREADS = 256 };

typedef struct share {
    const uint64_t *words;
    size_t count; /* a multiple of LANES */
    uint64_t sum;
} share;

static void *read_share(void *argument)
{
    share *part = argument;
    uint64_t sums[LANES] = {0};
    for (size_t i = 0; i < part->count; i += LANES) {
        for (int lane = 0; lane < LANES; lane++) sums[lane] += part->words[i + (size_t)lane];
    }
    for (int lane = 0; lane < LANES; lane++) part->sum += sums[lane];
    return NULL;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* One pass over the block with `threads` threads: seconds, or a negative number when a thread could not be started. */
static double pass(const uint64_t *words, size_t count, int threads)
{
    pthread_t handles[MAX_THREADS];
    share parts[MAX_THREADS];
    const size_t each = count / (size_t)threads / LANES * LANES;
    const double begin = now();
    for (int i = 0; i < threads; i++) {
        parts[i] = (share){words + each * (size_t)i, each, 0};
        if (pthread_create(&handles[i], NULL, read_share, &parts[i]) != 0) return -1.0;
    }
    uint64_t sum = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(handles[i], NULL);
        sum += parts[i].sum;
    }
    const double seconds = now() - begin;
    return sum == 42 ? seconds + 1e-12 : seconds; /* the sum is used, so the reads stay */
}

/* Bytes per second of the fastest of `repeats` passes over a block of `bytes` bytes; 0 when there is no memory. */
double read_bandwidth(size_t bytes, int threads, int repeats)
{
    if (threads < 1 || threads > MAX_THREADS) return 0.0;
    const size_t count = bytes / sizeof(uint64_t);
    uint64_t *words = malloc(count * sizeof(uint64_t));
    if (!words) return 0.0;
    memset(words, 1, count * sizeof(uint64_t)); /* touched, so that every page is its own */
    double best = 0.0;
    for (int i = 0; i <= repeats; i++) { /* the first pass warms up */
        const double seconds = pass(words, count, threads);
        const double rate = (double)(count / (size_t)threads / LANES * LANES * (size_t)threads * 8) / seconds;
        if (i > 0 && seconds > 0 && rate > best) best = rate;
    }
    free(words);
    return best;
}
