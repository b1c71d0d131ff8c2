/* The emulated multiprocessor: one fiber for each CUDA thread of the block that runs.
 *
 * Blocks run one after the other, threads in an order that PIXELREFER_EMU_ORDER chooses (0 forward, 1 backward, else
 * shuffled by that seed). A thread runs until it must wait for others. Barriers and warp collectives are rendezvous:
 * the last thread to arrive does the work for all, then everybody goes on.
 *
 * What a kernel may not do (threads at different barriers, a lane missing from a collective, an unaligned copy) ends
 * the launch as a fault of the device: every later call of the CUDA runtime returns cudaErrorLaunchFailure, whose
 * string says what happened, and where.
 *
 * Under ThreadSanitizer each thread is a fiber of its own to it, and only what orders memory on a GPU does so here:
 * launches, __syncthreads, __syncwarp, acquire and release. Two sets of fibers take turns, so that blocks are not
 * ordered among themselves either.
 *
 * A kernel that begins early runs until its first thread waits for the kernel before; that one runs then, on fibers of a
 * second level, and the first goes on. Where it reads what the other writes before it waits, it reads what was there.
 */
#ifndef PXR_EMU_MACHINE_H
#define PXR_EMU_MACHINE_H

#include <cuda_runtime_api.h>
#include <functional>
#include <stddef.h>
#include <stdint.h>
#include <vector_functions.h>
#include <vector>

/* Code of the emulator itself that runs on a kernel's fiber. */
#define PXR_EMU_UNCHECKED __attribute__((no_sanitize("thread", "address", "undefined")))

/* The last two parameters of whatever can fault: where the kernel called it. */
#define PXR_EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace pxr_emu
{

constexpr size_t STATIC_SHARED_LIMIT = 48 << 10;  /* bytes a block, every architecture */
constexpr size_t DYNAMIC_SHARED_LIMIT = 99 << 10; /* bytes a block with the opt-in: the least, of sm_86 and sm_89 */
constexpr int WARP = 32, MAX_THREADS = 1024;      /* of a block */
constexpr unsigned FULL = ~0u;

struct Site {
    const char *file;
    int line;
    bool operator==(const Site &other) const
    {
        return file == other.file && line == other.line;
    }
};

enum class State : uint8_t { READY, AT_BARRIER, IN_COLLECTIVE, POLLING, DONE };

struct Block;

/* A copy from global to shared memory that its thread has not waited for. */
struct AsyncCopy {
    uint4 *to;
    uint4 value;
    int group;
};

struct Fiber {
    void *stack_pointer; /* while it does not run */
    char *stack;         /* lowest address */
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's */
    void *tsan;       /* ThreadSanitizer's */
    Fiber *next;      /* ring in the order of running */
    Block *block;
    uint3 thread; /* threadIdx */
    int lane, warp;
    State state;
    bool waited; /* for the kernel before */
    Site site;   /* where it waits */
    std::vector<AsyncCopy> copies;
    int group;       /* groups of copies committed so far */
    uint64_t launch; /* that it ran in last */
};

/* What a collective does once all its lanes are there: `arguments[lane]` for each lane of the mask. */
typedef void (*Collective)(unsigned mask, void **arguments);

struct Rendezvous {
    unsigned mask, arrived;
    Collective collective;
    void *arguments[WARP];
    Fiber *lanes[WARP];
};

struct Warp {
    unsigned live;            /* lanes that have not returned */
    Rendezvous rendezvous[4]; /* of different masks, after the warp has diverged */
};

struct Block {
    uint3 index; /* blockIdx */
    int live, at_barrier;
    int barrier_sum, barrier_result; /* of __syncthreads_count */
    Site barrier;
    Warp warps[MAX_THREADS / WARP];
    /* Addresses for ThreadSanitizer's happens-before: the block's, then each warp's. */
    int64_t *order;
};

struct Machine {
    dim3 grid, block; /* of the launch */
    const char *kernel;
    bool early;                  /* each thread must wait for the kernel before */
    void (*body)(void *context); /* runs the kernel for the current fiber */
    void *context;
    Block current_block;
    uint64_t launch;    /* number of this one */
    size_t blocks_left; /* behind the current one */
    Fiber host, *current;
    int alive; /* threads of the block that have not returned */
    long polls;
    unsigned order;
    unsigned char *dynamic_shared; /* of the block */
    size_t dynamic_bytes;
    cudaError_t fault; /* not cudaSuccess: the device is dead */
    char message[512]; /* why */
};

extern Machine machine;

/* Runs a kernel on the whole grid; `body(context)` is called once a thread, on its fiber. */
cudaError_t run_grid(const char *kernel, bool early, dim3 grid, dim3 block, size_t dynamic_bytes, void (*body)(void *),
                     void *context);

/* Runs two launches, of which the second begins before the first. */
void run_early(const std::function<void()> &before, const std::function<void()> &early);

/* What the kernel before wrote is there for the current thread. */
void wait_for_previous();

/* Ends the launch and kills the device. Called on a fiber, with the place in the kernel. */
[[noreturn]] void fault(Site site, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* __syncthreads by the current thread; the sum of every thread's `add`. */
int block_barrier(int add, Site site);

/* Meets the other lanes of `mask` in `collective`; the last one to come runs it. Without a collective it is __syncwarp. */
void meet(unsigned mask, Collective collective, void *argument, Site site);

/* Lets every other thread run before the current one goes on: for loops that wait for a value. */
void poll(Site site);

/* The block's static shared array that is known by `id`, filled with NaN. */
void *static_shared(const void *id, size_t bytes);

} /* namespace pxr_emu */
#endif
