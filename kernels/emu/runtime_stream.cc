/* Streams, events and graphs of the emulated device's CUDA runtime; see runtime.cc and stream.h. */
#include "emu/launch.h"
#include "emu/stream.h"

#include <time.h>

using namespace pxr_emu;

namespace
{

typedef std::shared_ptr<const Graph> SharedGraph; /* queued launches keep the graph that they were asked for */

double now()
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

} /* namespace */

extern "C" {

/* ---- streams --------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreate(cudaStream_t *handle)
{
    Stream *stream = new Stream();
    stream_made(stream);
    *handle = (cudaStream_t)stream;
    return report(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned)
{
    return cudaStreamCreate(handle);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    Stream *stream = stream_of(handle);
    advance(stream, stream->submitted);
    stream_gone(stream);
    delete stream;
    return report(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    Stream *stream = stream_of(handle);
    if (stream->capturing) return report(cudaErrorStreamCaptureUnsupported);
    advance(stream, stream->submitted);
    return report(cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    const Stream *stream = stream_of(handle);
    if (stream->capturing) return report(cudaErrorStreamCaptureUnsupported);
    return stream->done < stream->submitted ? cudaErrorNotReady : report(cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned)
{
    const Event event = *(const Event *)event_handle; /* as it is now: later records do not count */
    if (stream_of(handle)->capturing) return report(cudaErrorStreamCaptureUnsupported);
    if (event.stream) submit(handle, [event] { advance(event.stream, event.ticket); });
    return report(cudaSuccess);
}

/* ---- events ---------------------------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned)
{
    *handle = (cudaEvent_t) new Event();
    return report(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *handle)
{
    return cudaEventCreateWithFlags(handle, cudaEventDefault);
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle)
{
    Event *event = (Event *)handle;
    Stream *stream = stream_of(stream_handle);
    if (stream->capturing) return report(cudaErrorStreamCaptureUnsupported);
    submit(stream_handle, [event] { event->seconds = now(); });
    event->stream = stream;
    event->ticket = stream->submitted;
    return report(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle)
{
    const Event *event = (const Event *)handle;
    if (event->stream) advance(event->stream, event->ticket);
    return report(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t handle)
{
    const Event *event = (const Event *)handle;
    return event->stream && event->stream->done < event->ticket ? cudaErrorNotReady : report(cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    *milliseconds = (float)(1e3 * (((const Event *)to)->seconds - ((const Event *)from)->seconds));
    return report(cudaSuccess);
}

cudaError_t cudaEventDestroy(cudaEvent_t handle)
{
    cudaEventSynchronize(handle);
    delete (Event *)handle;
    return report(cudaSuccess);
}

/* ---- graphs ---------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode)
{
    Stream *stream = stream_of(handle);
    if (!handle || stream->capturing) return report(cudaErrorStreamCaptureUnsupported);
    stream->capturing = true;
    return report(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph)
{
    Stream *stream = stream_of(handle);
    *graph = nullptr;
    if (!stream->capturing) return report(cudaErrorInvalidValue);
    *graph = (cudaGraph_t) new SharedGraph(new Graph(std::move(stream->captured)));
    stream->captured.clear();
    stream->capturing = false;
    return report(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long)
{
    *executable = (cudaGraphExec_t) new SharedGraph(*(const SharedGraph *)graph);
    return report(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    const SharedGraph graph = *(const SharedGraph *)executable;
    submit(stream, [graph] { run_graph(*graph); });
    return report(cudaSuccess);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t)
{
    return report(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete (SharedGraph *)graph;
    return report(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    delete (SharedGraph *)executable;
    return report(cudaSuccess);
}

} /* extern "C" */
