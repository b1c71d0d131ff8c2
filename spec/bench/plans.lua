-- Which of cuBLASLt's proposals is fastest for the products of PixelRefer-2B and -7B on this card; what differs from
-- the first one goes into kernels/linear_plans.h, where other cards' entries stay. Called by `make plans`.
--
--     luajit spec/bench/plans.lua DEVICE HEADER [DIVISOR]
--
-- DIVISOR makes all sizes smaller, for a dry run. Each proposal is measured by a process of its own, which
-- PIXELREFER_CUDA_PROPOSAL tells which one to take.

local core = require "pixelrefer.core"
local json = require "pixelrefer.json"
local rates = require "bench.rates"
local tensor = require "pixelrefer.tensor"

local PROPOSALS, CALLS, REPEATS = 8, 20, 5
local LEAST_GAIN = 1.02 -- below, the first one stays: timings differ as much by themselves

-- Columns and depth of the products, and the most rows of the buckets that they are measured for.
local PRODUCTS = {
    { rows = { 64, 128, 256, 512 }, -- the decoders': a prefill goes in pieces of 512
        { 1536, 1536 }, { 256, 1536 }, { 8960, 1536 }, { 1536, 8960 },
        { 3584, 3584 }, { 512, 3584 }, { 18944, 3584 }, { 3584, 18944 } },
    { rows = { 1024, 2048, 4096, 16384 }, -- the encoder's: a picture of so many cells, or a video's
        { 1152, 1152 }, { 4304, 1152 }, { 1152, 4304 } },
}

local device, header, divisor = arg[1], arg[2], tonumber(arg[3] or 1)

--- Calls visit(rows, columns, depth) for each problem.
local function each_problem(visit)
    for _, group in ipairs(PRODUCTS) do
        for _, product in ipairs(group) do
            for _, rows in ipairs(group.rows) do visit(rows, product[1], product[2]) end
        end
    end
end

--- Seconds of each problem with the proposal that the environment names, as a JSON array on standard output.
local function measure()
    local seconds = {}
    local function smaller(count) return math.max(32, math.floor(count / divisor / 8) * 8) end
    core.compute(device, "bf16")
    each_problem(function(rows, columns, depth)
        local x = tensor.randn({ smaller(rows), smaller(depth) }, { seed = 1 }):to(device)
        local weight = tensor.randn({ smaller(columns), smaller(depth) }, { seed = 2 }):to("bfloat16"):to(device)
        local calls = divisor == 1 and CALLS or 1
        seconds[#seconds + 1] = rates.least(function()
            tensor.scope(function()
                local out
                for _ = 1, calls do out = core.linear(x, weight) end
                rates.arrived(out)
            end)
        end, divisor == 1 and REPEATS or 1) / calls
    end)
    print(json.encode(json.array(seconds)))
end

local function output_of(command)
    local pipe = assert(io.popen(command))
    local text = pipe:read("*a")
    pipe:close()
    return text
end

local function seconds_with(proposal)
    return json.decode(output_of(("PIXELREFER_CUDA_PROPOSAL=%d luajit %s %s measure %d"):format(proposal, arg[0],
        device, divisor)))
end

--- 90 for compute capability 9.0; the emulated device is of the oldest kind.
local function card()
    if device == "emu" then return 80 end
    local major, minor = output_of("nvidia-smi --query-gpu=compute_cap --format=csv,noheader"):match("(%d+)%.(%d)")
    return tonumber(major .. minor)
end

--- The entries of this card for which another proposal than the first one is faster.
local function find_plans()
    local timings, entries, number = {}, {}, 0
    for proposal = 0, PROPOSALS - 1 do timings[proposal] = seconds_with(proposal) end
    local this = card()
    each_problem(function(rows, columns, depth)
        number = number + 1
        local best, gain = 0, 1
        for proposal = 1, PROPOSALS - 1 do
            local faster = timings[0][number] / timings[proposal][number]
            if faster > gain then best, gain = proposal, faster end
        end
        print(("%5d x %5d x %5d: proposal %d, %.3f times the first"):format(rows, columns, depth, best, gain))
        if gain >= LEAST_GAIN then
            entries[#entries + 1] = ("    {%d, %d, %d, %d, %d},\n"):format(this, rows, columns, depth, best)
        end
    end)
    print(("%d of %d products by another proposal than the first"):format(#entries, number))
    return table.concat(entries), this
end

local function write_plans(path)
    local entries, this = find_plans()
    local file = assert(io.open(path))
    local text = file:read("*a")
    file:close()
    local others = text:match("pxr_gpu_plans%[%] = {\n(.-)    {0, 0, 0, 0, 0}")
    others = others:gsub(("    {%d, [^}]*},\n"):format(this), "")
    text = text:gsub("(pxr_gpu_plans%[%] = {\n).-(    {0, 0, 0, 0, 0})", function(before, after)
        return before .. others .. entries .. after
    end)
    file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
end

if header == "measure" then measure() else write_plans(header) end
