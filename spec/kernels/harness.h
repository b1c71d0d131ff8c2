/* What the tests of spec/kernels share: device buffers, checks, the line `N passed, N failed, N skipped`. */
#ifndef PXR_SPEC_HARNESS_H
#define PXR_SPEC_HARNESS_H

#include "gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define EXPECT_CUDA(call) expect_cuda((call), #call, __LINE__)

/* A call of the runtime that must not fail: the rest would mean nothing. */
inline void expect_cuda(cudaError_t status, const char *call, int line)
{
    if (status == cudaSuccess) return;
    printf("line %d: %s: %s\n", line, call, cudaGetErrorString(status));
    exit(1);
}

/* `count` elements on the device. */
template <class T> struct Buffer {
    T *data = nullptr;
    size_t count;

    explicit Buffer(size_t wanted) : count(wanted)
    {
        EXPECT_CUDA(cudaMalloc((void **)&data, count * sizeof(T)));
    }

    explicit Buffer(const std::vector<T> &values) : Buffer(values.size())
    {
        EXPECT_CUDA(cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    }

    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;

    ~Buffer()
    {
        cudaFree(data);
    }

    /* The elements, once everything is done that was asked for. */
    std::vector<T> values() const
    {
        std::vector<T> host(count);
        EXPECT_CUDA(cudaDeviceSynchronize());
        EXPECT_CUDA(cudaMemcpy(host.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
        return host;
    }
};

/* Uniform in -1 .. 1, the same in every run. */
inline float next_uniform()
{
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * (2.0f / 16777216.0f) - 1.0f;
}

/* Small whole numbers: products and sums of them are exact in every order. */
inline float next_small()
{
    return (float)(int)(next_uniform() * 8.0f);
}

inline uint16_t bf16_bits(float value)
{
    const __nv_bfloat16 narrow = __float2bfloat16(value);
    uint16_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    return bits;
}

#endif
