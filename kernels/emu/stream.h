/* Streams, events and graphs of the emulated device.
 *
 * Work is done when it is asked for; with PIXELREFER_EMU_LAZY=1 only when somebody waits for it, and then no more than he
 * waits for: a missing wait, or a staging buffer that is reused too early, shows in the values. While a stream
 * captures, its work becomes a graph.
 *
 * A kernel that was launched early begins before the kernel that it follows wherever that one is not done yet: in graphs
 * and in lazy streams (every second pair of neighbours, by turns).
 */
#ifndef PXR_EMU_STREAM_H
#define PXR_EMU_STREAM_H

#include "emu/memory.h"

#include <cuda_runtime_api.h>
#include <deque>
#include <functional>
#include <memory>
#include <stdint.h>
#include <vector>

namespace pxr_emu
{

struct Work {
    std::function<void()> run;
    bool is_kernel, is_early;
};
typedef std::vector<Work> Graph;

struct Stream {
    std::deque<Work> queue;
    uint64_t submitted = 0, done = 0; /* pieces of work */
    bool capturing = false;
    Graph captured;
};

struct Event {
    Stream *stream = nullptr; /* null before the first record */
    uint64_t ticket = 0;      /* over when the stream has done that much */
    double seconds = 0;       /* when it was over */
};

/* The stream behind CUDA's handle. */
Stream *stream_of(cudaStream_t stream);

void stream_made(Stream *stream);
void stream_gone(Stream *stream);
const std::vector<Stream *> &all_streams();

/* True when work waits until somebody waits for it. */
bool lazy();

/* Does the stream's work up to and with piece number `ticket`. */
void advance(Stream *stream, uint64_t ticket);

/* Does one piece of work after the other. */
void run_graph(const Graph &graph);

/* Does, queues or captures `work`. */
template <class F> void submit(cudaStream_t handle, const F &work, bool is_kernel = false, bool is_early = false)
{
    Stream *stream = stream_of(handle);
    if (stream->capturing) {
        stream->captured.push_back({work, is_kernel, is_early});
        return;
    }
    stream->submitted++;
    if (lazy()) {
        stream->queue.push_back({work, is_kernel, is_early});
        return;
    }
    const OpenMemory open;
    work();
    stream->done++;
}

} /* namespace pxr_emu */
#endif
