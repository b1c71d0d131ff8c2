-- One checkpoint on a device, in a process of its own: loading, a picture through the encoder, a prefill, decoding
-- steps. A part is over when something of its result is back on the host. Called by spec/gpu.lua; writes its figures as
-- JSON.
--
--     luajit spec/bench/device.lua CHECKPOINT DEVICE OUT.json CELLS TOKENS STEPS REPEATS
--
-- CELLS is a side of the picture in patches, TOKENS the prompt's length, STEPS the tokens of a decoding run.

local core = require "pixelrefer.core"
local json = require "pixelrefer.json"
local pixelrefer = require "pixelrefer"
local rates = require "bench.rates"

local tensor = pixelrefer.tensor

local path, device, out = arg[1], arg[2], arg[3]
local side, tokens, steps, repeats = tonumber(arg[4]), tonumber(arg[5]), tonumber(arg[6]), tonumber(arg[7])

--- Seconds of the fastest of several runs after one that warms up; each returns what must have arrived.
local function least(run)
    return rates.least(function() rates.arrived(run()) end, repeats)
end

local begin = core.tick()
local model = pixelrefer.load(path, { device = device })
local figures = { checkpoint = path, device = device, cells = side * side, tokens = tokens, steps = steps,
    load_seconds = core.tick() - begin }

local patches = tensor.randn({ side * side, 588 }, { seed = 2 })
if model.framework ~= "object_only" then
    figures.encoder_seconds = least(function() return (model.encoder:forward(patches, { { side, side, 1 } })) end)
end

local decoder = model.decoder
local cache = decoder:cache(tokens + steps)

local function logits_of(ids)
    local hidden = decoder:forward(decoder:embed(ids), cache)
    return decoder:logits(decoder:norm(hidden:narrow(1, hidden:size(1), 1)))
end

local prompt, one = tensor.range(1, tokens, { dtype = "int64" }), tensor.range(1, 1, { dtype = "int64" })
figures.prefill_seconds = least(function()
    cache:setLength(0)
    return logits_of(prompt)
end)
figures.decode_seconds_per_token = least(function()
    cache:setLength(tokens)
    local logits
    for _ = 1, steps do logits = logits_of(one) end
    return logits
end) / steps

local file = assert(io.open(out, "w"))
file:write(json.encode(figures), "\n")
file:close()
