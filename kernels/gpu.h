/* The dialect of the kernels: CUDA C++ less what a host compiler cannot follow, plus a few wrappers. Every file of
 * kernels/ includes this header alone, and inline PTX stands nowhere else.
 *
 * nvcc compiles the sources for the GPU. A host compiler compiles the same sources for the emulated device (emu/emu.h),
 * which runs every CUDA thread as a fiber and finds races, lost lanes and stray accesses without a GPU.
 *
 * Rules, so that both mean the same: launches and shared memory through the macros below; no __activemask, no implicit
 * warp synchrony, no cooperative groups, no printf or malloc on the device, no atomics on floats; 16-byte accesses
 * as uint4 or float4.
 */
#ifndef PXR_KERNELS_GPU_H
#define PXR_KERNELS_GPU_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <vector_functions.h>

#ifdef __CUDACC__

/* What the device is called that these sources make. */
#define GPU_NAME "cuda"

/* A device function; GPU_MEMBER is for members of structs. */
#define GPU_DEV static __device__ __forceinline__
#define GPU_MEMBER __device__ __forceinline__

/* Static shared arrays of a block, 16-byte aligned. */
#define GPU_SHARED(T, name, N) __shared__ __align__(16) T name[N]
#define GPU_SHARED2(T, name, A, B) __shared__ __align__(16) T name[A][B]

/* The block's dynamic shared memory (third launch argument, bytes) as `T *name`, 128-byte aligned. */
#define GPU_DYN_SMEM(T, name)                                                                                          \
    extern __shared__ __align__(128) unsigned char gpu_dynamic_shared_memory[];                                        \
    T *name = reinterpret_cast<T *>(gpu_dynamic_shared_memory)

/* Launches and yields the cudaError_t of the launch. A template's name goes into parentheses. */
#define GPU_LAUNCH(kernel, grid, block, smem, stream, ...)                                                             \
    (kernel<<<(grid), (block), (smem), (stream)>>>(__VA_ARGS__), cudaGetLastError())

/* A launch whose kernel may begin before those before it on the stream have ended, on cards that can (`early`: compute
 * capability 9.0), back to the last ordinary launch. Every thread of it must call wait_for_previous_kernel; before, it
 * writes nothing and reads nothing that work under way may write: weights of a loaded model at most. */
#define GPU_LAUNCH_EARLY(kernel, early, grid, block, smem, stream, ...)                                                \
    gpu_launch_early((kernel), (early), (grid), (block), (smem), (stream), __VA_ARGS__)

template <class... P, class... A>
static inline cudaError_t gpu_launch_early(void (*kernel)(P...), bool early, dim3 grid, dim3 block, size_t smem,
                                           cudaStream_t stream, const A &...arguments)
{
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = early ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
}

/* In a kernel that was launched early: all that earlier kernels wrote is there from here on. */
GPU_DEV void wait_for_previous_kernel()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel may begin, if it was launched early, as soon as every block has come here or ended. */
GPU_DEV void let_next_kernel_begin()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

GPU_DEV uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* Copies 16 bytes from global to shared memory in the background, or zeros when not `valid` (then `global` is not
 * read, but must be a global address). Both 16-byte aligned. There after the wait for its group, for other threads after a
 * barrier behind that. */
GPU_DEV void cp_async16(void *shared, const void *global, bool valid)
{
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
                 "r"(bytes)
                 : "memory");
}

/* Closes the group of the copies issued since the last commit. */
GPU_DEV void cp_async_commit()
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/* Waits until at most the N latest groups are still on their way. */
template <int N> GPU_DEV void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}

/* 8x8 matrices of 16-bit elements from shared memory: lane 8 i + r gives the 16-byte row r of matrix i; of matrix i,
 * r[i] gets the elements 2 (lane % 4) and + 1 of row lane / 4. The transposed form hands out columns for rows. */
GPU_DEV void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

GPU_DEV void ldmatrix_x2(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

GPU_DEV void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/* d[16x8] += a[16x16] b[16x8] over a warp, bfloat16 operands, float32 sums. With r = lane / 4 and c = 2 (lane % 4):
 * d holds (r, c), (r, c+1), (r+8, c), (r+8, c+1); a holds the pairs (r, c), (r+8, c), (r, c+8), (r+8, c+8);
 * b holds the pairs (c, r), (c+8, r), along k. */
GPU_DEV void mma_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The same over k = 8: d[16x8] += a[16x8] b[8x8]. */
GPU_DEV void mma_1688(float (&d)[4], const uint32_t (&a)[2], uint32_t b)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}

/* 2^x within two units in the last place; subnormal results are 0. */
GPU_DEV float fast_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 16 bytes that are read once (weights): past L1, which keeps its lines for what is read again. */
GPU_DEV uint4 load_once16(const void *global)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(global));
    return v;
}

/* Between blocks: what a thread wrote before add_release is seen by whoever sees the sum in ld_acquire, or gets it back
 * from an add_release of its own. */
GPU_DEV unsigned ld_acquire(const unsigned *p)
{
    unsigned value;
    asm volatile("ld.acquire.gpu.u32 %0,[%1];" : "=r"(value) : "l"(p) : "memory");
    return value;
}

GPU_DEV unsigned add_release(unsigned *p, unsigned value)
{
    unsigned old;
    asm volatile("atom.add.acq_rel.gpu.u32 %0,[%1],%2;" : "=r"(old) : "l"(p), "r"(value) : "memory");
    return old;
}

#else
#include "emu/emu.h"
#endif
#endif
