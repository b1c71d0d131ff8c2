/* Launching a kernel on the emulated device. */
#ifndef PXR_EMU_LAUNCH_H
#define PXR_EMU_LAUNCH_H

#include "emu/machine.h"
#include "emu/stream.h"

#include <tuple>
#include <type_traits>
#include <utility>

namespace pxr_emu
{

/* Remembers `status` for cudaGetLastError and returns it; on a dead device its fault. */
cudaError_t report(cudaError_t status);

/* What a launch may ask for: the block's size, shared memory and what the kernel has opted into. */
cudaError_t check_launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t dynamic_bytes);

/* Kills the device when a pointer argument leads to where a GPU could not follow. */
void check_pointer(const char *name, int argument, const void *pointer);

template <class T> inline void check_argument(const char *name, int argument, const T &value)
{
    if constexpr (std::is_pointer<T>::value) check_pointer(name, argument, (const void *)value);
    (void)name, (void)argument, (void)value;
}

/* Arguments are copied at the launch, as a driver does it. `early`: the kernel may begin before the one before it ends. */
template <class... P, class... A>
cudaError_t launch(const char *name, bool early, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_bytes,
                   cudaStream_t stream, A &&...given)
{
    typedef std::tuple<std::decay_t<P>...> Arguments;
    const cudaError_t status = check_launch(name, (const void *)kernel, grid, block, dynamic_bytes);
    if (status != cudaSuccess) return status;
    const Arguments arguments(std::forward<A>(given)...);
    std::apply(
        [name](const auto &...values) {
            int argument = 0;
            (check_argument(name, ++argument, values), ...);
        },
        arguments);
    const auto run = [=] {
        struct Call {
            void (*kernel)(P...);
            const Arguments *arguments;
        } call = {kernel, &arguments};
        const auto body = [](void *context) {
            const Call *c = (const Call *)context;
            std::apply(c->kernel, *c->arguments);
        };
        run_grid(name, early, grid, block, dynamic_bytes, body, &call);
    };
    submit(stream, run, true, early);
    return report(cudaSuccess);
}

} /* namespace pxr_emu */
#endif
