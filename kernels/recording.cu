/* Recorded work as CUDA graphs. Semantics: ops/recording.h. */
#include "device.h"

#include "core/memory.h"

struct recorded_work {
    cudaGraphExec_t executable;
    const void *scratch; /* the device's when this was recorded: kernels hold its address */
};

pxr_status pxr_gpu_record(pxr_device *device, pxr_error *error)
{
    return pxr_gpu_check(device, "record",
                         cudaStreamBeginCapture(pxr_gpu_of(device)->stream, cudaStreamCaptureModeThreadLocal), error);
}

pxr_status pxr_gpu_end_record(pxr_device *device, void **work, pxr_error *error)
{
    pxr_gpu *gpu = pxr_gpu_of(device);
    cudaGraph_t graph = NULL;
    cudaGraphExec_t executable = NULL;
    *work = NULL;
    cudaError_t result = cudaStreamEndCapture(gpu->stream, &graph);
    if (result == cudaSuccess) result = cudaGraphInstantiate(&executable, graph, 0);
    if (graph) (void)cudaGraphDestroy(graph);
    const pxr_status status = pxr_gpu_check(device, "record", result, error);
    if (status != PXR_OK) return status;
    recorded_work *made = static_cast<recorded_work *>(pxr_malloc(sizeof *made));
    if (!made) {
        (void)cudaGraphExecDestroy(executable);
        return pxr_fail_memory(error, sizeof *made, "recorded work");
    }
    *made = {executable, gpu->scratch};
    *work = made;
    return PXR_OK;
}

pxr_status pxr_gpu_play(pxr_device *device, const void *work, bool *played, pxr_error *error)
{
    pxr_gpu *gpu = pxr_gpu_of(device);
    const recorded_work *recorded = static_cast<const recorded_work *>(work);
    *played = recorded->scratch == gpu->scratch;
    if (!*played) return PXR_OK;
    return pxr_gpu_check(device, "play", cudaGraphLaunch(recorded->executable, gpu->stream), error);
}

void pxr_gpu_forget(pxr_device *device, void *work)
{
    recorded_work *recorded = static_cast<recorded_work *>(work);
    (void)cudaStreamSynchronize(pxr_gpu_of(device)->stream);
    (void)cudaGraphExecDestroy(recorded->executable);
    pxr_free(recorded);
}
