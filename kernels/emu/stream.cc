/* Streams of the emulated device; see stream.h. */
#include "emu/stream.h"

#include "emu/machine.h"

#include <algorithm>
#include <stdlib.h>
#include <string.h>

namespace pxr_emu
{

static Stream default_stream;
static std::vector<Stream *> streams = {&default_stream};

Stream *stream_of(cudaStream_t stream)
{
    return stream ? (Stream *)stream : &default_stream;
}

void stream_made(Stream *stream)
{
    streams.push_back(stream);
}

void stream_gone(Stream *stream)
{
    streams.erase(std::find(streams.begin(), streams.end(), stream));
}

const std::vector<Stream *> &all_streams()
{
    return streams;
}

bool lazy()
{
    static const char *const setting = getenv("PIXELREFER_EMU_LAZY");
    return setting && strcmp(setting, "1") == 0;
}

/* Whether `next` begins before `work` is done: early kernels do, but each belongs to one pair, this time or the next. */
static bool are_pair(const Work &work, const Work &next, uint64_t turn)
{
    return work.is_kernel && next.is_early && (!work.is_early || turn % 2 == 0);
}

void run_graph(const Graph &graph)
{
    static uint64_t turn;
    for (size_t i = 0; i < graph.size(); i++) {
        if (i + 1 < graph.size() && are_pair(graph[i], graph[i + 1], turn + i)) {
            run_early(graph[i].run, graph[i + 1].run);
            i++;
        } else {
            graph[i].run();
        }
    }
    turn++;
}

void advance(Stream *stream, uint64_t ticket)
{
    const OpenMemory open;
    while (stream->done < ticket && !stream->queue.empty()) {
        const Work work = std::move(stream->queue.front());
        stream->queue.pop_front();
        if (stream->done + 1 < ticket && !stream->queue.empty() &&
            are_pair(work, stream->queue.front(), stream->done)) {
            const Work next = std::move(stream->queue.front());
            stream->queue.pop_front();
            run_early(work.run, next.run);
            stream->done++;
        } else {
            work.run();
        }
        stream->done++;
    }
}

} /* namespace pxr_emu */
