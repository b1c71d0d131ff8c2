-- The machine's read bandwidth, measured by spec/bench/bandwidth.c.

local ffi = require "ffi"

ffi.cdef "double read_bandwidth(size_t bytes, int threads, int repeats);"

local bandwidth = {}

--- Builds the helper (once per call; it is small) and measures.
-- @tparam integer threads as many as what is to be compared uses
-- @tparam[opt=1073741824] integer bytes of the block that is read
-- @tparam[opt=5] integer repeats the fastest pass counts
-- @treturn number bytes per second
function bandwidth.measure(threads, bytes, repeats)
    local build = (os.getenv("BUILD") or "build") .. "/bench"
    local library = (build:sub(1, 1) == "/" and "" or "./") .. build .. "/libbandwidth.so"
    local command = "mkdir -p %s && %s -O3 -shared -fPIC -pthread -o %s spec/bench/bandwidth.c"
    assert(os.execute(command:format(build, os.getenv("CC") or "cc", library)) == 0, "bandwidth.c does not build")
    local rate = ffi.load(library).read_bandwidth(bytes or 2 ^ 30, threads, repeats or 5)
    assert(rate > 0, "no memory for the bandwidth block")
    return rate
end

return bandwidth
