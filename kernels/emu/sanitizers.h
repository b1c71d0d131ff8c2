/* What the sanitizers must be told about fibers and memory; nothing in builds without them. */
#ifndef PXR_EMU_SANITIZERS_H
#define PXR_EMU_SANITIZERS_H

#include <stddef.h>

#ifdef __SANITIZE_ADDRESS__
extern "C" void __sanitizer_start_switch_fiber(void **fake_stack, const void *stack, size_t bytes);
extern "C" void __sanitizer_finish_switch_fiber(void *fake_stack, const void **stack, size_t *bytes);
extern "C" void __asan_poison_memory_region(const volatile void *memory, size_t bytes);
extern "C" void __asan_unpoison_memory_region(const volatile void *memory, size_t bytes);
#endif
#ifdef __SANITIZE_THREAD__
extern "C" void *__tsan_create_fiber(unsigned flags);
extern "C" void *__tsan_get_current_fiber();
extern "C" void __tsan_switch_to_fiber(void *fiber, unsigned flags);
extern "C" void __tsan_acquire(void *address);
extern "C" void __tsan_release(void *address);
extern "C" void AnnotateIgnoreReadsBegin(const char *file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char *file, int line);
extern "C" void AnnotateIgnoreWritesBegin(const char *file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char *file, int line);
#endif

namespace pxr_emu
{

#ifdef __SANITIZE_THREAD__
constexpr bool UNDER_TSAN = true;
#else
constexpr bool UNDER_TSAN = false;
#endif

/* Around a switch of stacks; the fiber switched to is `tsan` to ThreadSanitizer, which takes the switch for no order. */
__attribute__((always_inline)) inline void sanitizers_before_switch(void **fake_stack, const char *stack, size_t bytes,
                                                                    void *tsan)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
#endif
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(tsan, 1);
#endif
    (void)fake_stack, (void)stack, (void)bytes, (void)tsan;
}

__attribute__((always_inline)) inline void sanitizers_after_switch(void *fake_stack)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
    (void)fake_stack;
}

inline void *new_tsan_fiber()
{
#ifdef __SANITIZE_THREAD__
    return __tsan_create_fiber(0);
#else
    return nullptr;
#endif
}

inline void *current_tsan_fiber()
{
#ifdef __SANITIZE_THREAD__
    return __tsan_get_current_fiber();
#else
    return nullptr;
#endif
}

/* What came before a release of an address comes before what follows an acquire of it. */
__attribute__((always_inline)) inline void order_release(void *address)
{
#ifdef __SANITIZE_THREAD__
    __tsan_release(address);
#endif
    (void)address;
}

__attribute__((always_inline)) inline void order_acquire(void *address)
{
#ifdef __SANITIZE_THREAD__
    __tsan_acquire(address);
#endif
    (void)address;
}

/* Accesses between the two are none to ThreadSanitizer. */
inline void ignore_begin()
{
#ifdef __SANITIZE_THREAD__
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
}

inline void ignore_end()
{
#ifdef __SANITIZE_THREAD__
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
}

/* Memory that AddressSanitizer lets nobody touch, and gives back. */
inline void forbid(const void *memory, size_t bytes)
{
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(memory, bytes);
#endif
    (void)memory, (void)bytes;
}

inline void permit(const void *memory, size_t bytes)
{
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(memory, bytes);
#endif
    (void)memory, (void)bytes;
}

} /* namespace pxr_emu */
#endif
