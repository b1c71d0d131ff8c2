-- The CPU's kernels at the models' true sizes, beside what the machine can do: multiply-add rate and read bandwidth.
--
--     luajit spec/bench/kernels.lua [threads]
package.path = "lua/?.lua;lua/?/init.lua;spec/?.lua;" .. package.path
package.cpath = (os.getenv("BUILD") or "build") .. "/?.so;" .. package.cpath

local ffi = require "ffi"

local bandwidth = require "bench.bandwidth"
local core = require "pixelrefer.core"
local tensor = require "pixelrefer.tensor"

ffi.cdef "double fma_peak(int repeats);"

local function fma_peak()
    local build = (os.getenv("BUILD") or "build") .. "/bench"
    local library = (build:sub(1, 1) == "/" and "" or "./") .. build .. "/libfma_peak.so"
    local command = "mkdir -p %s && %s -O2 -shared -fPIC -o %s spec/bench/fma_peak.c"
    assert(os.execute(command:format(build, os.getenv("CC") or "cc", library)) == 0, "fma_peak.c does not build")
    return ffi.load(library).fma_peak(5)
end

--- The fastest of several calls, in seconds; they go on for about `budget` seconds.
local function fastest(call, budget)
    call()
    local best, spent, calls = math.huge, 0, 0
    while spent < budget or calls < 3 do
        local start = core.tick()
        call()
        local elapsed = core.tick() - start
        best, spent, calls = math.min(best, elapsed), spent + elapsed, calls + 1
    end
    return best
end

local threads = core.threads(tonumber(arg[1]))
local peak, reading = fma_peak() * threads, bandwidth.measure(threads, 2 ^ 30, 5)
print(("%d threads, %s; multiply-add peak %.0f GFLOP/s, reads %.1f GB/s"):format(threads, core.isa(), peak / 1e9,
    reading / 1e9))

--- The peak is that of float32.
local function report(name, elapsed, operations, bytes)
    local rate, limit, unit = operations, peak, "GFLOP/s"
    if bytes then rate, limit, unit = bytes, reading, "GB/s" end
    rate = rate / elapsed
    print(("%-44s %9.3f ms  %7.1f %-7s %3.0f %% of what the machine does"):format(name, elapsed * 1e3, rate / 1e9, unit,
        100 * rate / limit))
    io.flush()
end

local function random(sizes, dtype)
    local x = tensor.ones(sizes)
    return dtype and x:to(dtype) or x
end

-- Types of weights, and in what they are multiplied.
local KINDS = { { "float32", "f32" }, { "bfloat16", "f32" }, { "bfloat16", "bf16" }, { "int8", "f32", 8, 128 },
    { "int8", "int8", 8, 128 }, { "int4", "f32", 4, 32 }, { "int4", "int8", 4, 32 } }

--- {weight, scales} [N,K] of a kind, and their bytes.
local function weights_of(kind, N, K)
    local name, _, bits, group = unpack(kind)
    if not bits then return { random({ N, K }, name) }, N * K * (name == "float32" and 4 or 2) end
    local plain = random { N, K }
    local integers, scales = core.quantize(plain, bits, group)
    plain:free()
    return { integers, scales }, N * K * bits / 8 + 2 * scales:nElement()
end

--- Seconds of a row block times each of the weights.
local function products(kind, x, weights)
    core.compute("cpu", kind[2])
    local elapsed = fastest(function()
        for _, weight in ipairs(weights) do core.linear(x, weight[1], nil, nil, nil, weight[2]):free() end
    end, 1)
    core.compute("cpu", "f32")
    for _, weight in ipairs(weights) do
        weight[1]:free()
        if weight[2] then weight[2]:free() end
    end
    return elapsed
end

for _, shape in ipairs { { 1000, 4304, 1152 }, { 1000, 1152, 4304 }, { 2048, 8960, 1536 }, { 2048, 1536, 8960 } } do
    local n, N, K = unpack(shape)
    for _, kind in ipairs(KINDS) do
        report(("linear %dx%dx%d, %s in %s"):format(n, N, K, kind[1], kind[2]),
            products(kind, random { n, K }, { (weights_of(kind, N, K)) }), 2 * n * N * K)
    end
end

-- One row: as many equal weights as do not fit the caches, in turn, as the layers of a decoder follow each other.
for _, shape in ipairs { { 151936, 1536 }, { 8960, 1536 }, { 1536, 8960 }, { 2048, 1536 } } do
    local N, K = unpack(shape)
    for _, kind in ipairs(KINDS) do
        local weights, bytes = {}, 0
        while bytes * #weights < 2 ^ 28 do weights[#weights + 1], bytes = weights_of(kind, N, K) end
        local copies = #weights
        report(("linear 1x%dx%d, %s in %s"):format(N, K, kind[1], kind[2]),
            products(kind, random { 1, K }, weights) / copies, nil, bytes)
    end
end

for _, shape in ipairs { { 1000, 16, 16, 72 }, { 2500, 16, 16, 72 }, { 2048, 12, 2, 128, true } } do
    local n, heads, kv_heads, dim, causal = unpack(shape)
    local q, k, v = random { n, heads, dim }, random { n, kv_heads, dim }, random { n, kv_heads, dim }
    local name = ("attention %d cells, %d heads of %d%s"):format(n, heads, dim, causal and ", causal" or "")
    for _, precision in ipairs { "f32", "bf16" } do
        core.compute("cpu", precision)
        report(name .. ", " .. precision,
            fastest(function() core.attention(q, k, v, { causal = causal }):free() end, 1),
            (causal and 2 or 4) * n * n * heads * dim)
    end
    core.compute("cpu", "f32")
end
