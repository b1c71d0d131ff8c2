/* The CUDA backend's table and its devices: opening, memory, transfers, errors. The same text builds as the plugin
 * `cuda` and, over the emulated runtime, as the plugin `emu`. */
#include "device.h"

#include "core/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __CUDACC__
#define PLUGIN_NAME "cuda"
static const pxr_compute usual_compute = PXR_COMPUTE_BF16;
#else
#define PLUGIN_NAME "emu"
static const pxr_compute usual_compute = PXR_COMPUTE_F32; /* what tests compare with the CPU */
#endif

static int opened; /* devices */

pxr_gpu *pxr_gpu_of(pxr_device *device)
{
    pxr_gpu *gpu = static_cast<pxr_gpu *>(device->state);
    if (opened > 1) (void)cudaSetDevice(gpu->ordinal);
    return gpu;
}

/* ---- errors ---------------------------------------------------------------------------------------------------- */

/* After these the context is lost: every later call would fail with the same words. */
static bool is_fatal(cudaError_t result)
{
    switch (result) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
        return true;
    default:
        return false;
    }
}

pxr_status pxr_gpu_check(pxr_device *device, const char *what, cudaError_t result, pxr_error *error)
{
    pxr_gpu *gpu = pxr_gpu_of(device);
    if (gpu->dead)
        return pxr_fail(error, PXR_ERROR_IO,
                        "%s: %s is out of use since an earlier error (%s): only a new process can "
                        "use it again",
                        what, device->name, gpu->reason);
    if (result == cudaSuccess) return PXR_OK;
    (void)cudaGetLastError();
    if (result == cudaErrorMemoryAllocation)
        return pxr_fail(error, PXR_ERROR_MEMORY, "%s on %s: %s", what, device->name, cudaGetErrorString(result));
    if (is_fatal(result)) {
        gpu->dead = true;
        snprintf(gpu->reason, sizeof gpu->reason, "%s: %s", what, cudaGetErrorString(result));
        return pxr_fail(error, PXR_ERROR_IO, "%s on %s: %s; the device is out of use for this process%s", what,
                        device->name, cudaGetErrorString(result),
                        gpu->synchronous ? "" : " (PIXELREFER_CUDA_SYNC=1 names the op that it came from)");
    }
    return pxr_fail(error, PXR_ERROR_IO, "%s on %s: %s", what, device->name, cudaGetErrorString(result));
}

pxr_status pxr_gpu_launched(pxr_device *device, const char *op, cudaError_t result, pxr_error *error)
{
    if (result == cudaSuccess && pxr_gpu_of(device)->synchronous)
        result = cudaStreamSynchronize(pxr_gpu_of(device)->stream);
    return pxr_gpu_check(device, op, result, error);
}

static pxr_status synchronize(pxr_device *device, pxr_error *error)
{
    return pxr_gpu_check(device, "synchronize", cudaStreamSynchronize(pxr_gpu_of(device)->stream), error);
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* Sizes are rounded up so that blocks can be used again: to eighths of a power of two, large ones to 32nds. Returns
 * the class; `*rounded` is its size. */
static int size_class(size_t bytes, size_t *rounded)
{
    const size_t smallest = 256, large = (size_t)1 << 20;
    if (bytes <= smallest) {
        *rounded = smallest;
        return 0;
    }
    int exponent = 0;
    while ((size_t)2 << exponent <= bytes) exponent++; /* 2^exponent <= bytes */
    const int parts = bytes < large ? 8 : 32;
    size_t step = ((size_t)1 << exponent) / (size_t)parts;
    if (step < smallest) step = smallest;
    *rounded = (bytes + step - 1) / step * step;
    const size_t part = (*rounded - ((size_t)1 << exponent)) / step; /* 0 .. parts */
    return part == (size_t)parts ? (exponent + 1) * 32 : exponent * 32 + (int)part;
}

/* Gives all cached blocks back to the card. */
static void trim(pxr_gpu *gpu)
{
    (void)cudaStreamSynchronize(gpu->stream);
    for (int i = 0; i < PXR_GPU_SIZE_CLASSES; i++) {
        while (gpu->cached[i]) {
            pxr_gpu_cached_block *first = gpu->cached[i];
            gpu->cached[i] = first->next;
            (void)cudaFree(first->block);
            pxr_free(first);
        }
    }
}

/* What waits to be used again counts as free. */
static pxr_status memory(pxr_device *device, size_t *available, size_t *total, pxr_error *error)
{
    trim(pxr_gpu_of(device));
    return pxr_gpu_check(device, "memory", cudaMemGetInfo(available, total), error);
}

static pxr_status out_of_memory(pxr_device *device, size_t bytes, pxr_error *error)
{
    size_t available = 0, total = 0;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&available, &total);
    return pxr_fail(error, PXR_ERROR_MEMORY, "out of memory on %s: %.1f MiB wanted, %.1f of %.1f MiB are free",
                    device->name, (double)bytes / 1048576.0, (double)available / 1048576.0, (double)total / 1048576.0);
}

static pxr_status allocate(pxr_device *device, size_t bytes, void **block, pxr_error *error)
{
    pxr_gpu *gpu = pxr_gpu_of(device);
    size_t rounded;
    *block = NULL;
    const pxr_status status = pxr_gpu_check(device, "allocate", cudaSuccess, error);
    if (status != PXR_OK) return status;
    if (bytes > PXR_GPU_LARGEST_BLOCK) return out_of_memory(device, bytes, error);
    const int kind = size_class(bytes, &rounded);
    pxr_gpu_cached_block *first = gpu->cached[kind];
    if (first) {
        gpu->cached[kind] = first->next;
        *block = first->block;
        pxr_free(first);
        return PXR_OK;
    }
    cudaError_t result = cudaMalloc(block, rounded);
    if (result == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        trim(gpu);
        result = cudaMalloc(block, rounded);
    }
    if (result == cudaErrorMemoryAllocation) return out_of_memory(device, bytes, error);
    return pxr_gpu_check(device, "allocate", result, error);
}

static void release(pxr_device *device, void *block, size_t bytes)
{
    pxr_gpu *gpu = pxr_gpu_of(device);
    size_t rounded;
    if (!block) return;
    pxr_gpu_cached_block *node = static_cast<pxr_gpu_cached_block *>(pxr_malloc(sizeof *node));
    if (!node || gpu->dead) {
        pxr_free(node);
        (void)cudaFree(block);
        return;
    }
    const int kind = size_class(bytes, &rounded);
    node->block = block;
    node->next = gpu->cached[kind];
    gpu->cached[kind] = node;
}

pxr_status pxr_gpu_scratch(pxr_device *device, size_t bytes, void **scratch, pxr_error *error)
{
    pxr_gpu *gpu = pxr_gpu_of(device);
    *scratch = gpu->scratch;
    if (bytes <= gpu->scratch_bytes) return PXR_OK;
    void *larger;
    bytes += bytes / 4; /* ahead, for what grows a little with each token */
    const pxr_status status = allocate(device, bytes, &larger, error);
    if (status != PXR_OK) return status;
    release(device, gpu->scratch, gpu->scratch_bytes);
    *scratch = gpu->scratch = larger;
    gpu->scratch_bytes = bytes;
    return PXR_OK;
}

pxr_status pxr_gpu_workspace(pxr_device *device, void **workspace, pxr_error *error)
{
    pxr_gpu *gpu = pxr_gpu_of(device);
    if (!gpu->workspace) {
        const pxr_status status = allocate(device, PXR_GPU_WORKSPACE_BYTES, &gpu->workspace, error);
        if (status != PXR_OK) return status;
    }
    *workspace = gpu->workspace;
    return PXR_OK;
}

pxr_status pxr_gpu_counters(pxr_device *device, unsigned **counters, pxr_error *error)
{
    pxr_gpu *gpu = pxr_gpu_of(device);
    const size_t bytes = PXR_GPU_COUNTERS * sizeof **counters;
    if (!gpu->counters) {
        void *block;
        pxr_status status = allocate(device, bytes, &block, error);
        if (status != PXR_OK) return status;
        status = pxr_gpu_check(device, "counters", cudaMemsetAsync(block, 0, bytes, gpu->stream), error);
        if (status != PXR_OK) {
            release(device, block, bytes);
            return status;
        }
        gpu->counters = block;
    }
    *counters = static_cast<unsigned *>(gpu->counters);
    return PXR_OK;
}

/* ---- transfers ------------------------------------------------------------------------------------------------- */

/* The staging buffer to fill next, with room in it: the other one as soon as its copies are through. */
static cudaError_t next_staging(pxr_gpu *gpu, pxr_gpu_staging **buffer)
{
    pxr_gpu_staging *staging = &gpu->staging[gpu->current];
    cudaError_t result = cudaSuccess;
    if (staging->used == PXR_GPU_STAGING_BYTES) {
        result = cudaEventRecord(staging->done, gpu->stream);
        staging->waits = true;
        gpu->current = 1 - gpu->current;
        staging = &gpu->staging[gpu->current];
        if (result == cudaSuccess && staging->waits) result = cudaEventSynchronize(staging->done);
        staging->waits = false;
        staging->used = 0;
    }
    if (result == cudaSuccess && !staging->host) {
        void *host = NULL;
        result = cudaMallocHost(&host, PXR_GPU_STAGING_BYTES);
        staging->host = static_cast<char *>(host);
    }
    *buffer = staging;
    return result;
}

/* Returns when `from` has been read; the copies themselves may still be under way. */
pxr_status pxr_gpu_upload(pxr_device *device, void *to, const void *from, size_t bytes, pxr_error *error)
{
    enum { ALIGNMENT = 64 };
    pxr_gpu *gpu = pxr_gpu_of(device);
    cudaError_t result = cudaSuccess;
    for (size_t done = 0, count; result == cudaSuccess && done < bytes && !gpu->dead; done += count) {
        pxr_gpu_staging *staging;
        count = 0;
        result = next_staging(gpu, &staging);
        if (result != cudaSuccess) break;
        const size_t room = PXR_GPU_STAGING_BYTES - staging->used;
        count = bytes - done < room ? bytes - done : room;
        char *piece = staging->host + staging->used;
        memcpy(piece, static_cast<const char *>(from) + done, count);
        result = cudaMemcpyAsync(static_cast<char *>(to) + done, piece, count, cudaMemcpyHostToDevice, gpu->stream);
        staging->used += (count + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        if (staging->used > PXR_GPU_STAGING_BYTES) staging->used = PXR_GPU_STAGING_BYTES;
    }
    return pxr_gpu_check(device, "upload", result, error);
}

pxr_status pxr_gpu_download(pxr_device *device, void *to, const void *from, size_t bytes, pxr_error *error)
{
    pxr_gpu *gpu = pxr_gpu_of(device);
    cudaError_t result = cudaSuccess;
    if (bytes > 0 && !gpu->dead) result = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, gpu->stream);
    if (result == cudaSuccess && !gpu->dead) result = cudaStreamSynchronize(gpu->stream);
    return pxr_gpu_check(device, "download", result, error);
}

pxr_status pxr_gpu_watch(pxr_device *device, long long **wrong, pxr_error *error)
{
    void *scratch;
    const pxr_status status = pxr_gpu_scratch(device, sizeof **wrong, &scratch, error);
    *wrong = static_cast<long long *>(scratch);
    if (status != PXR_OK) return status;
    return pxr_gpu_upload(device, scratch, &PXR_GPU_FINE, sizeof PXR_GPU_FINE, error);
}

pxr_status pxr_gpu_first_wrong(pxr_device *device, const long long *wrong, int64_t *place, pxr_error *error)
{
    return pxr_gpu_download(device, place, wrong, sizeof *place, error);
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static bool is_set(const char *variable)
{
    const char *value = getenv(variable);
    return value && strcmp(value, "0") != 0 && strcmp(value, "") != 0;
}

static pxr_status choose_compute(pxr_compute *compute, pxr_error *error)
{
    const char *wanted = getenv("PIXELREFER_COMPUTE");
    *compute = usual_compute;
    if (!wanted || !*wanted) return PXR_OK;
    const bool wide = strcmp(wanted, "f32") == 0;
    if (!wide && strcmp(wanted, "bf16") != 0)
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "PIXELREFER_COMPUTE is \"%s\", expected \"f32\" or \"bf16\"",
                        wanted);
    *compute = wide ? PXR_COMPUTE_F32 : PXR_COMPUTE_BF16;
    return PXR_OK;
}

/* -1 where nothing is said. */
static pxr_status choose_proposal(int *proposal, pxr_error *error)
{
    const char *wanted = getenv("PIXELREFER_CUDA_PROPOSAL");
    *proposal = -1;
    if (!wanted || !*wanted) return PXR_OK;
    if (strlen(wanted) > 2 || wanted[strspn(wanted, "0123456789")])
        return pxr_fail(error, PXR_ERROR_ARGUMENT, "PIXELREFER_CUDA_PROPOSAL is \"%s\", expected a number from 0 to 99",
                        wanted);
    *proposal = (int)strtol(wanted, NULL, 10);
    return PXR_OK;
}

static cudaError_t create(pxr_gpu *gpu, int ordinal)
{
    cudaError_t result = cudaSetDevice(ordinal);
    if (result == cudaSuccess) result = cudaStreamCreate(&gpu->stream);
    for (int i = 0; result == cudaSuccess && i < 2; i++)
        result = cudaEventCreateWithFlags(&gpu->staging[i].done, cudaEventDisableTiming);
    if (result == cudaSuccess)
        result = cudaDeviceGetAttribute(&gpu->processors, cudaDevAttrMultiProcessorCount, ordinal);
    int major = 0, minor = 0;
    if (result == cudaSuccess) result = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal);
    if (result == cudaSuccess) result = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal);
    gpu->capability = 10 * major + minor;
    gpu->early = major >= 9;
    return result;
}

static pxr_status open_device(pxr_device *device, int ordinal, pxr_error *error)
{
    int count = 0, proposal;
    pxr_status status = choose_compute(&device->compute, error);
    if (status == PXR_OK) status = choose_proposal(&proposal, error);
    if (status != PXR_OK) return status;
    const cudaError_t found = cudaGetDeviceCount(&count);
    if (found != cudaSuccess) return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s", cudaGetErrorString(found));
    if (ordinal < 0 || ordinal >= count)
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED,
                        "there is no card number %d: the runtime finds %d, counted from 0", ordinal, count);
    pxr_gpu *gpu = static_cast<pxr_gpu *>(pxr_calloc(1, sizeof *gpu));
    if (!gpu) return pxr_fail_memory(error, sizeof *gpu, "a device");
    const cudaError_t result = create(gpu, ordinal);
    const cublasStatus_t lt = result == cudaSuccess ? cublasLtCreate(&gpu->lt) : CUBLAS_STATUS_SUCCESS;
    if (result != cudaSuccess || lt != CUBLAS_STATUS_SUCCESS) {
        pxr_free(gpu);
        return pxr_fail(error, PXR_ERROR_UNSUPPORTED, "%s",
                        result != cudaSuccess ? cudaGetErrorString(result) : cublasLtGetStatusString(lt));
    }
    gpu->ordinal = ordinal;
    gpu->synchronous = is_set("PIXELREFER_CUDA_SYNC");
    gpu->proposal = proposal;
    opened++;
    snprintf(device->name, sizeof device->name, ordinal ? PLUGIN_NAME ":%d" : PLUGIN_NAME, ordinal);
    device->ordinal = ordinal;
    device->is_host = false;
    device->records = !gpu->synchronous; /* waiting after each op is not possible in a recording */
    device->state = gpu;
    device->allocate = allocate;
    device->release = release;
    device->upload = pxr_gpu_upload;
    device->download = pxr_gpu_download;
    return PXR_OK;
}

static pxr_backend make_table()
{
    pxr_backend table = {};
    table.abi = PXR_BACKEND_ABI;
    table.struct_size = sizeof table;
    table.name = PLUGIN_NAME;
    table.open = open_device;
    table.synchronize = synchronize;
    table.memory = memory;
    table.record = pxr_gpu_record;
    table.end_record = pxr_gpu_end_record;
    table.play = pxr_gpu_play;
    table.forget = pxr_gpu_forget;
    table.linear = pxr_gpu_linear;
    table.linears = pxr_gpu_linears;
    table.layer_norm = pxr_gpu_layer_norm;
    table.rms_norm = pxr_gpu_rms_norm;
    table.rope = pxr_gpu_rope;
    table.rope_store = pxr_gpu_rope_store;
    table.attention = pxr_gpu_attention;
    table.attention_weights = pxr_gpu_attention_weights;
    table.silu_mul = pxr_gpu_silu_mul;
    table.embedding = pxr_gpu_embedding;
    table.kmeans = pxr_gpu_kmeans;
    table.sample = pxr_gpu_sample;
    table.copy = pxr_gpu_copy;
    table.fill = pxr_gpu_fill;
    table.sequence = pxr_gpu_sequence;
    table.unary = pxr_gpu_unary;
    table.binary = pxr_gpu_binary;
    table.where = pxr_gpu_where;
    table.reduce = pxr_gpu_reduce;
    table.matmul = pxr_gpu_matmul;
    table.softmax = pxr_gpu_softmax;
    table.gather = pxr_gpu_gather;
    table.index_select = pxr_gpu_index_select;
    table.pairwise_distance = pxr_gpu_pairwise_distance;
    table.resize_bilinear = pxr_gpu_resize_bilinear;
    table.grid_sample = pxr_gpu_grid_sample;
    return table;
}

/** The plugin's one symbol. */
extern "C" __attribute__((visibility("default"))) const pxr_backend *pxr_backend_v1(void)
{
    static const pxr_backend table = make_table();
    return &table;
}
