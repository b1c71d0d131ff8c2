-- A device's kernels at the sizes of PixelRefer-2B, beside the rate at which it copies. Called by spec/gpu.lua, which
-- puts PyTorch's figures (torch_kernels.py, the same names) beside them; writes its own as JSON.
--
--     luajit spec/bench/device_kernels.lua DEVICE OUT.json DIVISOR REPEATS
--
-- DIVISOR makes all sizes smaller, for a dry run. A timing is many calls and one wait for the last one's result.

local core = require "pixelrefer.core"
local json = require "pixelrefer.json"
local rates = require "bench.rates"
local tensor = require "pixelrefer.tensor"

local device, out, divisor, repeats = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
local CALLS = divisor == 1 and 20 or 1 -- of one timing

local function smaller(count)
    return math.max(1, math.floor(count / divisor))
end

local function random(sizes, dtype)
    local x = tensor.randn(sizes, { seed = 1 })
    if dtype then x = x:to(dtype) end
    return x:to(device)
end

--- Seconds of a call: the fastest of several timings after one that warms up.
local function seconds(call)
    return rates.least(function()
        tensor.scope(function()
            local result
            for _ = 1, CALLS do result = call() end
            rates.arrived(result)
        end)
    end, repeats) / CALLS
end

local kernels = {}

--- Adds a figure: seconds, and what the call reads and writes in bytes or computes in operations.
local function measure(name, call, work)
    kernels[#kernels + 1] = { name = name, seconds = seconds(call), bytes = work.bytes, operations = work.operations }
end

-- rows, N, K: the encoder's MLP, the decoder's in a prefill; weights that one row and eight rows read once
for _, shape in ipairs { { 2500, 4304, 1152 }, { 2500, 1152, 4304 }, { 3000, 8960, 1536 }, { 3000, 1536, 8960 },
    { 1, 8960, 1536 }, { 1, 1536, 8960 }, { 8, 8960, 1536 } } do
    local rows, n, k = shape[1] > 8 and smaller(shape[1]) or shape[1], smaller(shape[2]), smaller(shape[3])
    local x, weight = random { rows, k }, random({ n, k }, "bfloat16")
    measure(("linear %d x %d x %d"):format(unpack(shape)), function() return core.linear(x, weight) end,
        rows > 8 and { operations = 2 * rows * n * k } or { bytes = 2 * n * k })
end

-- The first and the last half of a decoding step's layer but attention, as the decoder asks for them.
do
    local x, norm = random { 1, smaller(1536) }, random({ smaller(1536) }, "bfloat16")
    local function product(n) return { weight = random({ smaller(n), smaller(1536) }, "bfloat16") } end
    local q, k, v, gate, up = product(1536), product(256), product(256), product(8960), product(8960)
    measure("norm, q, k, v 1 x 2048 x 1536", function() return (core.normed_linears(x, norm, 1e-6, false, q, k, v)) end,
        { bytes = 2 * smaller(2048) * smaller(1536) })
    measure("norm, gate, up, SwiGLU 1 x 8960 x 1536", function()
        return core.normed_linears(x, norm, 1e-6, true, gate, up)
    end, { bytes = 4 * smaller(8960) * smaller(1536) })
end

-- queries, keys, heads, key heads, head dim: the encoder, a prefill, a step of decoding
for _, shape in ipairs { { 2500, 2500, 16, 16, 72 }, { 3000, 3000, 12, 2, 128, true },
    { 1, 3000, 12, 2, 128, true } } do
    local queries, keys = shape[1] > 1 and smaller(shape[1]) or 1, smaller(shape[2])
    local heads, kv_heads, dim, causal = unpack(shape, 3)
    local q, k, v = random { queries, heads, dim }, random { keys, kv_heads, dim }, random { keys, kv_heads, dim }
    local pairs_seen = queries * keys / (causal and queries > 1 and 2 or 1)
    measure(("attention %d x %d, %d heads of %d%s"):format(shape[1], shape[2], heads, dim, causal and ", causal" or ""),
        function() return core.attention(q, k, v, { causal = causal }) end,
        queries > 1 and { operations = 4 * pairs_seen * heads * dim } or { bytes = 8 * keys * kv_heads * dim })
end

for _, shape in ipairs { { "layer_norm", 2500, 1152 }, { "rms_norm", 3000, 1536 } } do
    local rows, width = smaller(shape[2]), smaller(shape[3])
    local x, weight, bias = random { rows, width }, random { width }, random { width }
    measure(("%s %d x %d"):format(unpack(shape)), function()
        if shape[1] == "rms_norm" then return core.rms_norm(x, weight, 1e-6) end
        return core.layer_norm(x, weight, bias, 1e-6)
    end, { bytes = 8 * rows * width })
end

local gate, up = random { smaller(3000), smaller(8960) }, random { smaller(3000), smaller(8960) }
measure("silu_mul 3000 x 8960", function() return core.silu_mul(gate, up) end, { bytes = 12 * gate:nElement() })

local block = random { smaller(2 ^ 26) }
local copy = seconds(function() return block:clone() end)

local file = assert(io.open(out, "w"))
file:write(json.encode { device = device, divisor = divisor, compute = core.compute(device),
    copy_bytes_per_second = 8 * block:nElement() / copy, kernels = json.array(kernels) }, "\n")
file:close()
