/* Fibers and rendezvous of the emulated multiprocessor; see machine.h. */
#include "emu/machine.h"

#include "emu/sanitizers.h"
#include "emu/shared_memory.h"

#include <memory>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

namespace pxr_emu
{

Machine machine;

namespace
{

constexpr size_t STACK_BYTES = 256 << 10, GUARD_BYTES = 4 << 10;
constexpr long MAX_POLLS = 50 * 1000 * 1000; /* without any thread having something else to do */

/* The fibers of a block, made when first needed and kept: under ThreadSanitizer two sets that take turns. */
constexpr size_t SETS = UNDER_TSAN ? 2 : 1, LEVELS = 2;
Fiber fibers[LEVELS][SETS][MAX_THREADS];
size_t level;                          /* 1 while a kernel runs within one that began before it */
const std::function<void()> *previous; /* the kernel that the one running waits for, not begun */
/* Addresses for ThreadSanitizer: host before threads, threads before host, threads before those that wait for them. */
char launch_order, end_order, previous_order;

} /* namespace */

/* ---- switching ------------------------------------------------------------------------------------------------ */

#ifndef __x86_64__
#error "the emulated device switches its fibers on x86-64 only"
#endif

/* Saves the registers that a call preserves, leaves the stack pointer in *from, and goes on where `to` was left. */
extern "C" void pxr_emu_swap(void **from, void *to) __attribute__((visibility("hidden")));
asm(R"(
.pushsection .text
.globl pxr_emu_swap
.hidden pxr_emu_swap
.type pxr_emu_swap,@function
pxr_emu_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size pxr_emu_swap,.-pxr_emu_swap
.popsection
)");

PXR_EMU_UNCHECKED static void switch_to(Fiber *to)
{
    Fiber *from = machine.current;
    if (to == from) return;
    machine.current = to;
    sanitizers_before_switch(&from->fake_stack, to->stack, to->stack_bytes, to->tsan);
    pxr_emu_swap(&from->stack_pointer, to->stack_pointer);
    sanitizers_after_switch(from->fake_stack);
}

/* The fault of thread `at`. */
[[noreturn]] static void fault_of(const Fiber *at, Site site, const char *what)
{
    const uint3 b = machine.current_block.index, t = at->thread;
    char where[128] = "";
    if (site.file) snprintf(where, sizeof where, ", %s:%d", site.file, site.line);
    snprintf(machine.message, sizeof machine.message, "%s: kernel %s, block (%u,%u,%u), thread (%u,%u,%u)%s", what,
             machine.kernel, b.x, b.y, b.z, t.x, t.y, t.z, where);
    machine.fault = cudaErrorLaunchFailure;
    switch_to(&machine.host); /* nobody comes back: the device is dead */
    __builtin_unreachable();
}

[[noreturn]] void fault(Site site, const char *format, ...)
{
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    fault_of(machine.current, site, what);
}

/* The current thread waits: runs the next one that need not. */
PXR_EMU_UNCHECKED static void run_others()
{
    Fiber *self = machine.current;
    if (machine.alive == 0) return switch_to(&machine.host);
    for (Fiber *f = self->next;; f = f->next) {
        if (f->state == State::READY) return switch_to(f);
        if (f == self) break;
    }
    for (Fiber *f = self->next;; f = f->next) {
        if (f->state == State::POLLING) {
            if (++machine.polls > MAX_POLLS) fault(f->site, "threads wait for a value that nobody writes");
            f->state = State::READY;
            return switch_to(f);
        }
        if (f == self) break;
    }
    Fiber *waiting = self; /* one whose collective lacks lanes tells more than one at a barrier */
    for (Fiber *f = self;; f = f->next) {
        if (f->state == State::IN_COLLECTIVE) waiting = f;
        if (waiting->state == State::DONE) waiting = f;
        if (f->next == self) break;
    }
    fault_of(waiting, waiting->site,
             waiting->state == State::AT_BARRIER ? "deadlock: other threads of the block do not reach this barrier"
                                                 : "deadlock: lanes are missing from this warp collective");
}

/* ---- rendezvous ------------------------------------------------------------------------------------------------ */

PXR_EMU_UNCHECKED static void open_barrier(Block *block)
{
    block->at_barrier = 0;
    block->barrier_result = block->barrier_sum;
    block->barrier_sum = 0;
    Fiber *self = machine.current;
    for (Fiber *f = self->next;; f = f->next) {
        if (f->state == State::AT_BARRIER) f->state = State::READY;
        if (f == self) break;
    }
}

PXR_EMU_UNCHECKED int block_barrier(int add, Site site)
{
    Fiber *self = machine.current;
    Block *block = self->block;
    order_release(&block->order[0]);
    if (block->at_barrier && !(block->barrier == site))
        fault(site, "threads of one block wait at different barriers, the other at line %d", block->barrier.line);
    block->barrier = site;
    block->barrier_sum += add;
    if (++block->at_barrier == block->live) {
        open_barrier(block);
    } else {
        self->state = State::AT_BARRIER;
        self->site = site;
        run_others();
    }
    order_acquire(&block->order[0]);
    return block->barrier_result;
}

/* The rendezvous of `mask`, begun by another lane or free. */
PXR_EMU_UNCHECKED static Rendezvous *find_rendezvous(Warp *warp, unsigned mask, Site site)
{
    Rendezvous *free_one = nullptr;
    for (Rendezvous &r : warp->rendezvous) {
        if (!r.arrived) {
            if (!free_one) free_one = &r;
        } else if (r.mask == mask) {
            return &r;
        }
    }
    if (!free_one) fault(site, "a warp has diverged into too many collectives");
    return free_one;
}

PXR_EMU_UNCHECKED void meet(unsigned mask, Collective collective, void *argument, Site site)
{
    Fiber *self = machine.current;
    Warp *warp = &self->block->warps[self->warp];
    if (!(mask >> self->lane & 1)) fault(site, "lane %d calls with the mask %08x", self->lane, mask);
    if (mask & ~warp->live) fault(site, "the mask %08x names lanes that have returned or never were", mask);
    Rendezvous *r = find_rendezvous(warp, mask, site);
    if (!r->arrived) {
        r->mask = mask;
        r->collective = collective;
    } else if (r->collective != collective) {
        fault(site, "lanes of one warp meet in different collectives");
    }
    r->arrived |= 1u << self->lane;
    r->arguments[self->lane] = argument;
    r->lanes[self->lane] = self;
    int64_t *order = &self->block->order[1 + self->warp];
    if (!collective) order_release(order); /* shuffles and matrix products order no memory */
    if (r->arrived == mask) {
        r->arrived = 0;
        if (collective) collective(mask, r->arguments);
        for (int l = 0; l < WARP; l++)
            if (mask >> l & 1) r->lanes[l]->state = State::READY;
    } else {
        self->state = State::IN_COLLECTIVE;
        self->site = site;
        run_others();
    }
    if (!collective) order_acquire(order);
}

PXR_EMU_UNCHECKED void poll(Site site)
{
    machine.current->state = State::POLLING;
    machine.current->site = site;
    run_others();
}

/* ---- kernels that begin early ---------------------------------------------------------------------------------- */

/* Runs the kernel before on the second level; the current fiber is its host. */
PXR_EMU_UNCHECKED static void run_previous()
{
    const std::function<void()> *before = previous;
    Fiber *self = machine.current;
    previous = nullptr;
    ignore_begin(); /* the fibers of this kernel read the machine, too */
    const std::unique_ptr<Machine> own(new Machine(machine));
    const SharedMemory own_memory = keep_shared_memory();
    machine.host.stack = self->stack;
    machine.host.stack_bytes = self->stack_bytes;
    machine.host.tsan = self->tsan;
    level++;
    (*before)();
    level--;
    own->fault = machine.fault;
    memcpy(own->message, machine.message, sizeof own->message);
    machine = *own;
    return_shared_memory(own_memory);
    ignore_end();
    order_release(&previous_order);
}

PXR_EMU_UNCHECKED void wait_for_previous()
{
    machine.current->waited = true;
    if (previous) run_previous();
    if (machine.fault != cudaSuccess) switch_to(&machine.host); /* nobody comes back: the device is dead */
    order_acquire(&previous_order);
}

void run_early(const std::function<void()> &before, const std::function<void()> &early)
{
    previous = &before;
    early();
    if (!previous) return;
    previous = nullptr; /* the early one could not be run */
    before();
}

/* ---- threads, blocks, grids ------------------------------------------------------------------------------------ */

/* What a fiber does for ever: the kernel's body for one thread after the other. */
PXR_EMU_UNCHECKED static void fiber_main()
{
    sanitizers_after_switch(nullptr);
    for (;;) {
        Fiber *self = machine.current;
        if (self->launch != machine.launch) order_acquire(&launch_order); /* once a launch: it is dear */
        self->launch = machine.launch;
        machine.body(machine.context);
        if (machine.blocks_left < SETS) order_release(&end_order);
        Block *block = self->block;
        if (machine.early && !self->waited)
            fault({nullptr, 0}, "a thread returns without having waited for the kernel before");
        if (!self->copies.empty()) fault({nullptr, 0}, "a thread returns before its cp_async copies are waited for");
        self->state = State::DONE;
        machine.alive--;
        block->live--;
        block->warps[self->warp].live &= ~(1u << self->lane);
        if (block->live && block->at_barrier == block->live) open_barrier(block);
        run_others();
    }
}

/* Gives a fiber its stack, whose first frame is fiber_main's; false when there is no memory. */
static bool make_stack(Fiber *fiber)
{
    void *memory = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    mprotect(memory, GUARD_BYTES, PROT_NONE);
    fiber->stack = (char *)memory + GUARD_BYTES;
    fiber->stack_bytes = STACK_BYTES;
    void **top = (void **)(fiber->stack + STACK_BYTES);
    *--top = nullptr; /* as after a call: the stack pointer is 8 beside a multiple of 16 */
    *--top = (void *)fiber_main;
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fiber->stack_pointer = top;
    fiber->tsan = new_tsan_fiber();
    return true;
}

/* Puts the threads into a ring in their order of running; `turn` varies the shuffle from block to block. */
static void make_ring(Fiber *set, int count, uint64_t turn)
{
    static int at[MAX_THREADS];
    for (int i = 0; i < count; i++) at[i] = machine.order == 1 ? count - 1 - i : i;
    if (machine.order > 1) {
        uint64_t random = machine.order * 0x9E3779B97F4A7C15ull + turn;
        for (int i = count - 1; i > 0; i--) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            const int j = (int)((random >> 33) % (uint64_t)(i + 1)), swapped = at[i];
            at[i] = at[j];
            at[j] = swapped;
        }
    }
    for (int i = 0; i < count; i++) set[at[i]].next = &set[at[(i + 1) % count]];
    machine.host.next = &set[at[0]];
}

/* Fills the block's state and that of its threads, and makes its shared memory; false when there is no memory. */
static bool prepare_block(size_t number, size_t set_number)
{
    const dim3 grid = machine.grid, shape = machine.block;
    const int count = (int)(shape.x * shape.y * shape.z);
    Fiber *set = fibers[level][set_number];
    Block *block = &machine.current_block;
    memset((void *)block, 0, sizeof *block);
    block->index = make_uint3((unsigned)(number % grid.x), (unsigned)(number / grid.x % grid.y),
                              (unsigned)(number / ((size_t)grid.x * grid.y)));
    block->live = machine.alive = count;
    machine.polls = 0;
    for (int t = 0; t < count; t++) {
        Fiber *f = &set[t];
        if (!f->stack && !make_stack(f)) return false;
        const unsigned linear = (unsigned)t;
        f->block = block;
        f->thread = make_uint3(linear % shape.x, linear / shape.x % shape.y, linear / (shape.x * shape.y));
        f->lane = t % WARP;
        f->warp = t / WARP;
        f->state = State::READY;
        f->waited = false;
        f->group = 0;
        block->warps[f->warp].live |= 1u << f->lane;
    }
    make_ring(set, count, number);
    return begin_shared_memory(level * SETS + set_number, machine.dynamic_bytes, &machine.dynamic_shared,
                               &block->order);
}

/* Runs block `number` of the grid as the launch's `turn`-th. */
static cudaError_t run_block(size_t number, size_t turn)
{
    ignore_begin(); /* the host is not ordered behind the blocks that have run */
    const bool prepared = prepare_block(number, turn % SETS);
    machine.current = &machine.host;
    ignore_end();
    if (!prepared) return cudaErrorMemoryAllocation;
    switch_to(machine.host.next);
    end_shared_memory();
    return machine.fault;
}

/* Tells the sanitizers which stack the calling thread has. */
static void adopt_host()
{
    pthread_attr_t attributes;
    void *stack = nullptr;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &stack, &machine.host.stack_bytes);
    pthread_attr_destroy(&attributes);
    machine.host.stack = (char *)stack;
    machine.host.tsan = current_tsan_fiber();
}

cudaError_t run_grid(const char *kernel, bool early, dim3 grid, dim3 block, size_t dynamic_bytes, void (*body)(void *),
                     void *context)
{
    static uint64_t launches;
    if (machine.fault != cudaSuccess) return machine.fault;
    static pthread_t adopted;
    if (!machine.host.stack || !pthread_equal(adopted, pthread_self())) {
        adopt_host();
        adopted = pthread_self();
    }
    const char *order = getenv("PIXELREFER_EMU_ORDER");
    machine.order = order ? (unsigned)strtoul(order, nullptr, 10) : 0;
    machine.grid = grid;
    machine.block = block;
    machine.kernel = kernel;
    machine.early = early;
    machine.body = body;
    machine.context = context;
    machine.dynamic_bytes = dynamic_bytes;
    machine.launch = ++launches;
    order_release(&launch_order);
    const size_t blocks = (size_t)grid.x * grid.y * grid.z;
    cudaError_t status = cudaSuccess;
    for (size_t turn = 0; turn < blocks && status == cudaSuccess; turn++) {
        machine.blocks_left = blocks - 1 - turn;
        status = run_block(machine.order == 1 ? blocks - 1 - turn : turn, turn);
    }
    order_acquire(&end_order);
    return status;
}

} /* namespace pxr_emu */
