/* A pool of worker threads; see threads.h.
 *
 * A loop's parts are claimed one by one by whoever is free, the caller included, so that a loop never waits for a worker
 * that the system has not scheduled yet: on a busy machine the caller does everything itself. What each part computes
 * is fixed beforehand; who computes it is not.
 *
 * The loop's number, its parts and the next part to claim share one atomic word. A claim is a compare-and-swap on it, so
 * it can only succeed while that loop is current, and the caller does not begin the next loop before every claimed
 * part is finished: the loop's plain fields are stable for whoever holds a part.
 *
 * Workers spin for a short while after a loop (the next one usually follows at once), then sleep.
 */
#include "core/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { MAX_THREADS = 256, SPINS = 20000 /* about 50 us */ };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t threads[MAX_THREADS];
    int wanted;  /* threads to use, the caller's included; 0: not asked for yet */
    int started; /* worker threads running, at most wanted - 1 */

    _Atomic uint64_t word;   /* loop number (upper 32 bits), parts (16), next part to claim (16) */
    uint32_t loop_at_start;  /* the loop's number when the newest workers were started */
    _Atomic int finished;    /* parts of the current loop that are done */
    _Atomic int sleepers;    /* workers that sleep or are about to */
    int64_t count;           /* iterations of the current loop */
    pxr_range_function body; /* of the current loop; NULL tells workers to leave */
    void *context;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static atomic_flag busy = ATOMIC_FLAG_INIT;

static uint32_t loop_of(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static int parts_of(uint64_t word)
{
    return (int)((word >> 16) & 0xffff);
}

static int next_of(uint64_t word)
{
    return (int)(word & 0xffff);
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Claims and runs parts of loop `loop` until none is left. False when the loop tells workers to leave. */
static bool take_part(uint32_t loop)
{
    uint64_t word = atomic_load_explicit(&pool.word, memory_order_acquire);
    while (loop_of(word) == loop && next_of(word) < parts_of(word)) {
        if (!atomic_compare_exchange_weak_explicit(&pool.word, &word, word + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        const int part = next_of(word), parts = parts_of(word);
        const pxr_range_function body = pool.body;
        if (body)
            body(pool.context, (int64_t)((__int128)pool.count * part / parts),
                 (int64_t)((__int128)pool.count * (part + 1) / parts));
        atomic_fetch_add_explicit(&pool.finished, 1, memory_order_release);
        if (!body) return false;
        word = atomic_load_explicit(&pool.word, memory_order_acquire);
    }
    return true;
}

static bool is_current(uint32_t loop)
{
    return loop_of(atomic_load(&pool.word)) == loop;
}

static void *work(void *argument)
{
    uint32_t seen = pool.loop_at_start;
    (void)argument;
    for (;;) {
        for (int spin = 0; spin < SPINS && is_current(seen); spin++) relax();
        if (is_current(seen)) {
            pthread_mutex_lock(&pool.lock);
            atomic_fetch_add(&pool.sleepers, 1);
            while (is_current(seen)) pthread_cond_wait(&pool.wake, &pool.lock);
            atomic_fetch_sub(&pool.sleepers, 1);
            pthread_mutex_unlock(&pool.lock);
        }
        seen = loop_of(atomic_load(&pool.word));
        if (!take_part(seen)) return NULL;
    }
}

/* Makes a new loop current and wakes who sleeps: a worker counts itself a sleeper before it looks at the word for the
 * last time, and the word changes before the sleepers are counted, so no worker sleeps through it. */
static uint32_t begin_loop(int parts, int64_t count, pxr_range_function body, void *context)
{
    const uint32_t loop = loop_of(atomic_load_explicit(&pool.word, memory_order_relaxed)) + 1;
    pool.count = count;
    pool.body = body;
    pool.context = context;
    atomic_store_explicit(&pool.finished, 0, memory_order_relaxed);
    atomic_store(&pool.word, (uint64_t)loop << 32 | (uint64_t)parts << 16);
    if (atomic_load(&pool.sleepers) > 0) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    return loop;
}

static void stop_workers(void)
{
    if (pool.started == 0) return;
    begin_loop(pool.started, 0, NULL, NULL); /* one part for each worker: each takes one and leaves */
    for (int i = 0; i < pool.started; i++) pthread_join(pool.threads[i], NULL);
    pool.started = 0;
}

static int default_threads(void)
{
    const char *text = getenv("PIXELREFER_THREADS");
    const long asked = text ? strtol(text, NULL, 10) : 0;
    if (asked >= 1 && asked <= MAX_THREADS) return (int)asked;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
    const int available = CPU_COUNT(&allowed);
    return available < 1 ? 1 : available > MAX_THREADS ? MAX_THREADS : available;
}

/* A child of fork has no workers. */
static void forget_workers(void)
{
    pool.started = 0;
    atomic_store(&pool.sleepers, 0);
    atomic_flag_clear(&busy);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
}

static void start_workers(void)
{
    static bool registered;
    if (pool.started >= pool.wanted - 1) return;
    if (!registered) {
        pthread_atfork(NULL, NULL, forget_workers);
        registered = true;
    }
    pool.loop_at_start = loop_of(atomic_load(&pool.word));
    while (pool.started < pool.wanted - 1) {
        if (pthread_create(&pool.threads[pool.started], NULL, work, NULL) != 0) {
            pool.wanted = pool.started + 1; /* fewer threads give the same results */
            return;
        }
        pool.started++;
    }
}

int pxr_threads(void)
{
    if (pool.wanted == 0) pool.wanted = default_threads();
    return pool.wanted;
}

pxr_status pxr_threads_set(int threads, pxr_error *error)
{
    if (threads < 1 || threads > MAX_THREADS)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "threads must be 1 to %d, not %d", MAX_THREADS, threads);
    if (threads != pool.wanted) {
        stop_workers();
        pool.wanted = threads;
    }
    return PXR_OK;
}

void pxr_parallel_for(int64_t count, int64_t grain, pxr_range_function body, void *context)
{
    if (count <= 0) return;
    if (grain < 1) grain = 1;
    int64_t parts = (count + grain - 1) / grain;
    if (parts > pxr_threads()) parts = pxr_threads();
    if (parts <= 1 || atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) {
        body(context, 0, count);
        return;
    }
    start_workers();
    take_part(begin_loop((int)parts, count, body, context));
    for (int spin = 0; atomic_load_explicit(&pool.finished, memory_order_acquire) != (int)parts; spin++) {
        if (spin < SPINS)
            relax();
        else
            sched_yield(); /* a worker with a part may need this very processor */
    }
    atomic_flag_clear_explicit(&busy, memory_order_release);
}
