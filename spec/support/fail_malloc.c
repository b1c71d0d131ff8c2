/* Preloaded (LD_PRELOAD) by a test: makes one chosen allocation of the process fail, wherever in whichever library it is
 * made. Counted are malloc, calloc, realloc and posix_memalign while armed; not aligned_alloc, which is core/memory.c's
 * own and has its own test, and not LuaJIT's heap, which comes from mmap. Left out are those of two libraries that end
 * the process without memory, which nothing of ours can prevent: lua-cjson (by design, strbuf.c) and the C compiler's
 * libgcc, where LuaJIT registers each new area of compiled code (__register_frame writes to what malloc gave). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static atomic_int armed;
static atomic_long made, failing;

/* Starts counting from 0; allocation number `number` (from 1) is going to fail, none for 0. */
void fail_malloc_arm(long number)
{
    atomic_store(&made, 0);
    atomic_store(&failing, number);
    atomic_store(&armed, 1);
}

/* Stops, and gives the number of allocations since. */
long fail_malloc_disarm(void)
{
    atomic_store(&armed, 0);
    return atomic_load(&made);
}

static int is_left_out(const void *caller)
{
    Dl_info found;
    return dladdr(caller, &found) && found.dli_fname &&
           (strstr(found.dli_fname, "cjson") || strstr(found.dli_fname, "libgcc"));
}

static int fails(const void *caller)
{
    if (!atomic_load(&armed) || is_left_out(caller)) return 0;
    return atomic_fetch_add(&made, 1) + 1 == atomic_load(&failing);
}

void *malloc(size_t bytes)
{
    if (!fails(__builtin_return_address(0))) return __libc_malloc(bytes);
    errno = ENOMEM;
    return NULL;
}

void *calloc(size_t count, size_t bytes)
{
    if (!fails(__builtin_return_address(0))) return __libc_calloc(count, bytes);
    errno = ENOMEM;
    return NULL;
}

void *realloc(void *block, size_t bytes)
{
    if (!fails(__builtin_return_address(0))) return __libc_realloc(block, bytes);
    errno = ENOMEM;
    return NULL;
}

int posix_memalign(void **block, size_t alignment, size_t bytes)
{
    if (fails(__builtin_return_address(0))) return ENOMEM;
    void *memory = __libc_memalign(alignment, bytes);
    if (!memory) return ENOMEM;
    *block = memory;
    return 0;
}
