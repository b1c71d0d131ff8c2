/* The CUDA runtime of the emulated device: CUDA's own declarations, so that the compiler checks how they are used, with
 * our definitions. Memory, devices, errors and launches; streams and graphs are in runtime_stream.cc. */
#include "emu/launch.h"
#include "emu/machine.h"
#include "emu/memory.h"
#include "emu/stream.h"

#include <map>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace pxr_emu
{

static cudaError_t last_error;

/* What kernels have opted into with cudaFuncSetAttribute: bytes of dynamic shared memory. */
static std::map<const void *, size_t> dynamic_limits;

cudaError_t report(cudaError_t status)
{
    if (machine.fault != cudaSuccess) status = machine.fault;
    if (status != cudaSuccess) last_error = status;
    return status;
}

/* A fault found outside of kernels. */
static void kill_device(const char *what, const char *name, int argument, const void *pointer)
{
    if (machine.fault != cudaSuccess) return;
    machine.fault = cudaErrorLaunchFailure;
    snprintf(machine.message, sizeof machine.message, "%s: argument %d of %s, %p", what, argument, name, pointer);
}

cudaError_t check_launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t dynamic_bytes)
{
    if (machine.fault != cudaSuccess) return report(machine.fault);
    const char *injected = getenv("PIXELREFER_EMU_FAULT");
    if (injected && *injected && strstr(name, injected)) {
        machine.fault = cudaErrorLaunchFailure;
        snprintf(machine.message, sizeof machine.message, "unspecified launch failure (PIXELREFER_EMU_FAULT)");
        return report(machine.fault);
    }
    const size_t threads = (size_t)block.x * block.y * block.z;
    if (threads == 0 || threads > MAX_THREADS || block.z > 64) return report(cudaErrorInvalidConfiguration);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return report(cudaErrorInvalidConfiguration);
    const std::map<const void *, size_t>::const_iterator limit = dynamic_limits.find(kernel);
    const size_t allowed = limit == dynamic_limits.end() ? STATIC_SHARED_LIMIT : limit->second;
    return dynamic_bytes > allowed ? report(cudaErrorInvalidValue) : cudaSuccess;
}

void check_pointer(const char *name, int argument, const void *pointer)
{
    if (!pointer || is_device(pointer, 0) || is_pinned(pointer, 0)) return;
    kill_device("an illegal memory access was encountered: no device memory", name, argument, pointer);
}

/* A copy whose device side is no device memory, or whose host side is. */
static bool copy_fits(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    if (bytes == 0) return true;
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    return kind != cudaMemcpyDefault && is_device(to, bytes) == to_device && is_device(from, bytes) == from_device;
}

static bool any_captures()
{
    for (const Stream *stream : all_streams())
        if (stream->capturing) return true;
    return false;
}

} /* namespace pxr_emu */

using namespace pxr_emu;

extern "C" {

/* ---- memory ---------------------------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **block, size_t bytes)
{
    *block = nullptr;
    if (any_captures()) return report(cudaErrorStreamCaptureUnsupported);
    if (bytes == 0) return report(cudaSuccess);
    *block = allocate_device(bytes);
    return report(*block ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void *block)
{
    if (any_captures()) return report(cudaErrorStreamCaptureUnsupported);
    cudaDeviceSynchronize();
    return report(!block || free_device(block) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaHostAlloc(void **block, size_t bytes, unsigned)
{
    *block = bytes ? allocate_pinned(bytes) : nullptr;
    return report(*block || !bytes ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocHost(void **block, size_t bytes)
{
    return cudaHostAlloc(block, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *block)
{
    return report(!block || free_pinned(block) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *total)
{
    *total = device_memory_total();
    *left = *total > device_memory_used() ? *total - device_memory_used() : 0;
    return report(cudaSuccess);
}

/* Host memory is read and written when the copy is done, pinned or not. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    if (!copy_fits(to, from, bytes, kind)) return report(cudaErrorInvalidValue);
    if (bytes > 0) submit(stream, [=] { memmove(to, from, bytes); });
    return report(cudaSuccess);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    if (any_captures()) return report(cudaErrorStreamCaptureUnsupported);
    const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    return status != cudaSuccess ? status : cudaStreamSynchronize(nullptr);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    if (width > to_pitch || width > from_pitch) return report(cudaErrorInvalidPitchValue);
    if (width == 0 || height == 0) return report(cudaSuccess);
    if (!copy_fits(to, from, width, kind) ||
        !copy_fits((char *)to + (height - 1) * to_pitch, (const char *)from + (height - 1) * from_pitch, width, kind))
        return report(cudaErrorInvalidValue);
    submit(stream, [=] {
        for (size_t row = 0; row < height; row++)
            memmove((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
    });
    return report(cudaSuccess);
}

cudaError_t cudaMemsetAsync(void *block, int value, size_t bytes, cudaStream_t stream)
{
    if (bytes > 0 && !is_device(block, bytes)) return report(cudaErrorInvalidValue);
    if (bytes > 0) submit(stream, [=] { memset(block, value, bytes); });
    return report(cudaSuccess);
}

cudaError_t cudaMemset(void *block, int value, size_t bytes)
{
    const cudaError_t status = cudaMemsetAsync(block, value, bytes, nullptr);
    return status != cudaSuccess ? status : cudaStreamSynchronize(nullptr);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer)
{
    memset(attributes, 0, sizeof *attributes);
    attributes->type = is_device(pointer, 0)   ? cudaMemoryTypeDevice
                       : is_pinned(pointer, 0) ? cudaMemoryTypeHost
                                               : cudaMemoryTypeUnregistered;
    return report(cudaSuccess);
}

/* ---- the device ------------------------------------------------------------------------------------------------ */

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int ordinal)
{
    return report(ordinal == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int *ordinal)
{
    *ordinal = 0;
    return report(cudaSuccess);
}

/* The least that the architectures have which the kernels are built for. */
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int ordinal)
{
    if (ordinal != 0) return report(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
        *value = 8;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = 4;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = (int)STATIC_SHARED_LIMIT;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)DYNAMIC_SHARED_LIMIT;
        break;
    case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrWarpSize:
        *value = WARP;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 4 << 20;
        break;
    default:
        return report(cudaErrorInvalidValue);
    }
    return report(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int ordinal)
{
    if (ordinal != 0) return report(cudaErrorInvalidDevice);
    memset((void *)properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "emulated device");
    properties->totalGlobalMem = device_memory_total();
    properties->major = 8;
    properties->minor = 0;
    properties->multiProcessorCount = 4;
    properties->sharedMemPerBlock = STATIC_SHARED_LIMIT;
    properties->sharedMemPerBlockOptin = DYNAMIC_SHARED_LIMIT;
    properties->maxThreadsPerBlock = 1024;
    properties->warpSize = WARP;
    properties->l2CacheSize = 4 << 20;
    return report(cudaSuccess);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    if (any_captures()) return report(cudaErrorStreamCaptureUnsupported);
    for (Stream *stream : all_streams()) advance(stream, stream->submitted);
    return report(cudaSuccess);
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return report(cudaSuccess);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || (size_t)value > DYNAMIC_SHARED_LIMIT)
        return report(cudaErrorInvalidValue);
    dynamic_limits[kernel] = (size_t)value;
    return report(cudaSuccess);
}

/* ---- errors ---------------------------------------------------------------------------------------------------- */

cudaError_t cudaGetLastError(void)
{
    const cudaError_t status = report(last_error);
    if (machine.fault == cudaSuccess) last_error = cudaSuccess;
    return status;
}

cudaError_t cudaPeekAtLastError(void)
{
    return report(last_error);
}

const char *cudaGetErrorString(cudaError_t status)
{
    switch (status) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInvalidPitchValue:
        return "invalid pitch argument";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNotReady:
        return "device not ready";
    case cudaErrorLaunchFailure:
        return machine.message;
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorNotSupported:
        return "operation not supported";
    default:
        return "unrecognized error code";
    }
}

const char *cudaGetErrorName(cudaError_t status)
{
    switch (status) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
    default:
        return "cudaError";
    }
}

} /* extern "C" */
