/* What the plugin knows of an opened device, and what every op needs of it: the stream, scratch memory, errors.
 *
 * All work of a device is queued on one stream in the order of the calls, so memory that an op has given up may be
 * handed to the next op at once. Ops return when their work is queued; errors of work under way come with a later call.
 */
#ifndef PXR_KERNELS_DEVICE_H
#define PXR_KERNELS_DEVICE_H

#include "gpu.h"

#include "ops/backend.h"

#include <cublasLt.h>

/* One of the two pinned buffers through which host memory goes up. */
struct pxr_gpu_staging {
    char *host;       /* [PXR_STAGING_BYTES], NULL before the first upload */
    size_t used;      /* bytes that copies under way may still read */
    cudaEvent_t done; /* the copies out of this buffer */
    bool waits;       /* `done` was recorded and not yet waited for */
};

/* A block that was given up and waits for a request of its size. */
struct pxr_gpu_cached_block {
    void *block;
    pxr_gpu_cached_block *next;
};

struct pxr_gpu_lt_choices;

static const size_t PXR_GPU_LARGEST_BLOCK = (size_t)1 << 47; /* of the last size class */
static const int64_t PXR_GPU_FINE = INT64_MAX;               /* of a search for what is wrong */

enum {
    PXR_GPU_STAGING_BYTES = 8 << 20,
    PXR_GPU_WORKSPACE_BYTES = 32 << 20, /* cuBLASLt's: what it asks for on the largest cards */
    PXR_GPU_COUNTERS = 1 << 14,
    PXR_GPU_SIZE_CLASSES = 48 * 32,
    PXR_GPU_LONGEST_REASON = 256
};

struct pxr_gpu {
    cudaStream_t stream;
    cublasLtHandle_t lt;
    pxr_gpu_lt_choices *choices; /* algorithms by problem; linear_lt.cu */
    int ordinal;
    int processors;   /* streaming multiprocessors */
    int capability;   /* 90 is 9.0 */
    int proposal;     /* PIXELREFER_CUDA_PROPOSAL: which of cuBLASLt's to take in place of linear_plans.h; -1: none */
    bool early;       /* kernels can begin before the ones before them end (GPU_LAUNCH_EARLY) */
    bool synchronous; /* PIXELREFER_CUDA_SYNC=1: wait after each op, so that an error names the op it came from */
    bool dead;        /* an error that no later call can survive */
    char reason[PXR_GPU_LONGEST_REASON];
    pxr_gpu_staging staging[2];
    int current; /* the staging buffer being filled */
    void *workspace;
    void *counters; /* [PXR_GPU_COUNTERS] unsigned */
    void *scratch;
    size_t scratch_bytes;
    pxr_gpu_cached_block *cached[PXR_GPU_SIZE_CLASSES];
};

/** The state of a device, whose card becomes the one that the runtime's calls of this thread are about. */
pxr_gpu *pxr_gpu_of(pxr_device *device);

/** PXR_OK, or an error that names `what` (an op) and gives the runtime's own words; a device that no later call can
 * use is marked dead. */
pxr_status pxr_gpu_check(pxr_device *device, const char *what, cudaError_t result, pxr_error *error);

/** To be called with the result of an op's launches: as pxr_gpu_check; waits for them when the device is synchronous. */
pxr_status pxr_gpu_launched(pxr_device *device, const char *op, cudaError_t result, pxr_error *error);

/** At least `bytes` bytes, aligned to 256, that are the op's until it returns. Called at most once an op: a second call
 * may hand out the same memory. */
pxr_status pxr_gpu_scratch(pxr_device *device, size_t bytes, void **scratch, pxr_error *error);

/** Scratch memory in which kernels leave the first place where something is wrong, by atomicMin; none so far. It is the
 * op's one scratch. */
pxr_status pxr_gpu_watch(pxr_device *device, long long **wrong, pxr_error *error);

/** Waits for the op's kernels: the first wrong place, PXR_GPU_FINE when there is none. */
pxr_status pxr_gpu_first_wrong(pxr_device *device, const long long *wrong, int64_t *place, pxr_error *error);

/** PXR_GPU_COUNTERS counters that are 0, and are 0 again when the op's kernels have ended: for finding a row's last block.
 * Always the same memory. */
pxr_status pxr_gpu_counters(pxr_device *device, unsigned **counters, pxr_error *error);

/** cuBLASLt's workspace, allocated at its first use. */
pxr_status pxr_gpu_workspace(pxr_device *device, void **workspace, pxr_error *error);

/** The device's memory functions, for ops that hand small host tables to kernels or read results back. */
pxr_status pxr_gpu_upload(pxr_device *device, void *to, const void *from, size_t bytes, pxr_error *error);
pxr_status pxr_gpu_download(pxr_device *device, void *to, const void *from, size_t bytes, pxr_error *error);

/** The backend's slots for recorded work. */
pxr_status pxr_gpu_record(pxr_device *device, pxr_error *error);
pxr_status pxr_gpu_end_record(pxr_device *device, void **work, pxr_error *error);
pxr_status pxr_gpu_play(pxr_device *device, const void *work, bool *played, pxr_error *error);
void pxr_gpu_forget(pxr_device *device, void *work);

/** Number of blocks of `each` that cover `count`. */
static inline int64_t pxr_gpu_blocks(int64_t count, int64_t each)
{
    return (count + each - 1) / each;
}

/** So many blocks as a launch's grid; of more than a card can count it makes what no launch takes: the op fails, and
 * does not do a part of its work. */
static inline unsigned pxr_gpu_grid(int64_t blocks)
{
    return blocks > INT32_MAX ? UINT32_MAX : (unsigned)blocks;
}

/* The ops of this backend, one a slot of the table; those that are missing are not on the device. */
#define PXR_OP(name) pxr_status pxr_gpu_##name(pxr_device *device, const pxr_##name##_args *args, pxr_error *error);
#define PXR_PRIMITIVE(name) PXR_OP(name)
#include "ops/ops.def"
#undef PXR_OP
#undef PXR_PRIMITIVE

#endif
