/* Streams of the emulated device; see stream.h. */
#include "emu/stream.h"

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

void advance(Stream *stream, uint64_t ticket)
{
    const OpenMemory open;
    while (stream->done < ticket && !stream->queue.empty()) {
        const Work work = std::move(stream->queue.front());
        stream->queue.pop_front();
        work();
        stream->done++;
    }
}

} /* namespace pxr_emu */
