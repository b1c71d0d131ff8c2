-- Our side of spec/bench/peers.lua, in a process of its own: the rates of a decoder, or the speed of single products.
-- What is to be measured comes as JSON, and so goes the result, under the names that the peers use.
--
--     luajit spec/bench/peers/own.lua OUT.json '{"checkpoint": "build/bench/vision_object-2b", "weights": "int8",
--         "compute": "auto", "prompts": [1100], "pasts": [1100], "steps": 24, "threads": 2, "repeats": 3}'
--     luajit spec/bench/peers/own.lua OUT.json '{"kinds": ["f32", "bf16", "int8"], "shapes": ["2048x1536x8960"],
--         "threads": 2, "repeats": 10}'

local core = require "pixelrefer.core"
local json = require "pixelrefer.json"
local measure = require "bench.rates"
local pixelrefer = require "pixelrefer"

local tensor = pixelrefer.tensor

local GROUP = 128 -- weights of eight bits that share a scale

--- Tokens a second of the checkpoint's decoder.
local function decoder_rates(given)
    local model = pixelrefer.load(given.checkpoint,
        { threads = given.threads, weights = given.weights, compute = given.compute })
    local rates = {}
    for _, length in ipairs(given.prompts) do
        rates["prefill_" .. length] = measure.prefill(model.decoder, length, given.repeats)
    end
    for _, past in ipairs(given.pasts) do
        rates["decode_" .. past] = measure.decode(model.decoder, past, given.repeats, 1, given.steps)
    end
    return rates, model.compute
end

--- GFLOP/s of x [rows,K] times weights [N,K]: bfloat16 ones in float32 and in bfloat16, eight bits in int8.
local function product_rate(kind, shape, repeats)
    local rows, N, K = shape:match("^(%d+)x(%d+)x(%d+)$")
    rows, N, K = tonumber(rows), tonumber(N), tonumber(K)
    local x, plain = tensor.randn({ rows, K }, { seed = 1 }), tensor.randn({ N, K }, { seed = 2 })
    local weight, scales
    if kind == "int8" then
        weight, scales = core.quantize(plain, 8, GROUP)
    else
        weight = plain:to("bfloat16")
    end
    plain:free()
    core.compute("cpu", kind)
    local seconds = measure.least(function() core.linear(x, weight, nil, nil, nil, scales):free() end, repeats)
    core.compute("cpu", "f32")
    for _, used in ipairs { x, weight, scales } do used:free() end
    return 2e-9 * rows * N * K / seconds
end

local function product_rates(given)
    core.threads(given.threads)
    local rates = {}
    for _, kind in ipairs(given.kinds) do
        for _, shape in ipairs(given.shapes) do
            rates[kind .. "_" .. shape] = product_rate(kind, shape, given.repeats)
        end
    end
    return rates
end

local given = json.decode(arg[2])
local rates, compute = (given.checkpoint and decoder_rates or product_rates)(given)
local file = assert(io.open(arg[1], "w"))
file:write(json.encode { threads = given.threads, isa = core.isa(), compute = compute, rates = rates }, "\n")
file:close()
