/* The choice of an instruction set, and the pool's tasks of unequal size; see cpu.h and kernels.h. */
#include "cpu/kernels.h"

#include "core/threads.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static const struct {
    const char *name;
    const pxr_kernels *kernels;
} sets[PXR_ISA_COUNT] = {
    [PXR_ISA_SCALAR] = {"scalar", &pxr_kernels_scalar},
#if defined(__x86_64__)
    [PXR_ISA_AVX2] = {"avx2", &pxr_kernels_avx2},
    [PXR_ISA_AVX512] = {"avx512", &pxr_kernels_avx512},
    [PXR_ISA_AVX512_VNNI] = {"avx512_vnni", &pxr_kernels_avx512_vnni},
    [PXR_ISA_AVX512_BF16] = {"avx512_bf16", &pxr_kernels_avx512_bf16},
    [PXR_ISA_AMX] = {"amx", &pxr_kernels_amx},
#else
    [PXR_ISA_AVX2] = {"avx2", NULL},
    [PXR_ISA_AVX512] = {"avx512", NULL},
    [PXR_ISA_AVX512_VNNI] = {"avx512_vnni", NULL},
    [PXR_ISA_AVX512_BF16] = {"avx512_bf16", NULL},
    [PXR_ISA_AMX] = {"amx", NULL},
#endif
};

static _Atomic int in_use = -1; /* a pxr_isa; -1: not chosen yet */

const char *pxr_isa_name(pxr_isa isa)
{
    return sets[isa].name;
}

#if defined(__x86_64__)

/* Whether there are tiles of bfloat16 and int8, and the system lets this process use them: it asks for permission. */
static bool may_use_tiles(void)
{
#if defined(PXR_AMX_EMULATED)
    return true;
#elif defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    unsigned a, b, c, features;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &features)) return false;
    const unsigned wanted = 1u << 22 | 1u << 24 | 1u << 25; /* AMX-BF16, AMX-TILE, AMX-INT8 */
    return (features & wanted) == wanted && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

#endif

bool pxr_isa_available(pxr_isa isa)
{
    if (isa == PXR_ISA_SCALAR) return true;
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (isa == PXR_ISA_AVX2) return avx2;
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (isa == PXR_ISA_AVX512) return avx512;
    const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    if (isa == PXR_ISA_AVX512_VNNI) return vnni;
    const bool bf16 = vnni && __builtin_cpu_supports("avx512bf16");
    if (isa == PXR_ISA_AVX512_BF16) return bf16;
    if (isa == PXR_ISA_AMX) return bf16 && may_use_tiles();
#endif
    return false;
}

pxr_status pxr_cpu_isa_set(const char *name, pxr_error *error)
{
    for (int isa = 0; isa < PXR_ISA_COUNT; isa++) {
        if (strcmp(name, sets[isa].name) != 0) continue;
        if (!pxr_isa_available((pxr_isa)isa))
            return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "this processor has no %s", name);
        atomic_store(&in_use, isa);
        return PXR_OK;
    }
    return pxr_fail(error, PXR_ERROR_ARGUMENT,
                    "no such instruction set: \"%s\" (scalar, avx2, avx512, avx512_vnni, avx512_bf16, amx)", name);
}

pxr_isa pxr_cpu_isa(void)
{
    const int chosen = atomic_load_explicit(&in_use, memory_order_relaxed);
    if (chosen >= 0) return (pxr_isa)chosen;
    const char *asked = getenv("PIXELREFER_CPU_ISA");
    if (!asked || pxr_cpu_isa_set(asked, NULL) != PXR_OK) {
        int best = PXR_ISA_COUNT - 1;
        while (!pxr_isa_available((pxr_isa)best)) best--;
        atomic_store(&in_use, best);
    }
    return (pxr_isa)atomic_load(&in_use);
}

const pxr_kernels *pxr_cpu_kernels(void)
{
    return sets[pxr_cpu_isa()].kernels;
}

/* ---- tasks ----------------------------------------------------------------------------------------------------- */

typedef struct task_loop {
    void (*work)(void *context, int64_t task);
    void *context;
    int64_t count;
    _Atomic int64_t next;
} task_loop;

static void take_tasks(void *context, int64_t begin, int64_t end)
{
    (void)begin, (void)end;
    task_loop *loop = context;
    for (;;) {
        const int64_t task = atomic_fetch_add_explicit(&loop->next, 1, memory_order_relaxed);
        if (task >= loop->count) return;
        loop->work(loop->context, task);
    }
}

void pxr_parallel_tasks(int64_t count, void (*work)(void *context, int64_t task), void *context)
{
    task_loop loop = {.work = work, .context = context, .count = count};
    const int64_t threads = pxr_threads();
    pxr_parallel_for(count < threads ? count : threads, 1, take_tasks, &loop);
}
