-- How long things take, for the other scripts here: any call, a device's result, a decoder's prefill and decode.

local core = require "pixelrefer.core"
local tensor = require "pixelrefer.tensor"

local rates = {}

rates.STEPS = 24 -- decode steps of one timing

--- Seconds of the fastest of several runs after one that warms up.
function rates.least(run, repeats)
    run()
    local best = math.huge
    for _ = 1, repeats do
        local begin = core.tick()
        run()
        best = math.min(best, core.tick() - begin)
    end
    return best
end

--- Waits for a tensor that a device computes: its last element comes to the host.
function rates.arrived(x)
    while x:dim() > 1 do x = x:select(1, x:size(1)) end
    return x:narrow(1, x:size(1), 1):to("cpu")
end

--- Logits of the last of x's rows, as generation has them.
local function last_logits(decoder, x, cache)
    local hidden = decoder:forward(x, cache)
    return decoder:logits(decoder:norm(hidden:narrow(1, hidden:size(1), 1)))
end

--- Tokens a second of a prompt of so many.
function rates.prefill(decoder, length, repeats)
    local ids = tensor.range(1, length, { dtype = "int64" })
    local cache = decoder:cache(length)
    return length / rates.least(function()
        cache:setLength(0)
        last_logits(decoder, decoder:embed(ids), cache)
    end, repeats)
end

--- Tokens a second behind a prompt of `past` tokens.
-- @tparam[opt=1] integer rows answers together, each behind a prompt of its own
-- @tparam[opt] integer steps of one timing
function rates.decode(decoder, past, repeats, rows, steps)
    rows, steps = rows or 1, steps or rates.STEPS
    local cache, tokens = decoder:cache(past + steps, rows), tensor.range(1, rows, { dtype = "int64" })
    local sequences = {}
    decoder:forward(decoder:embed(tensor.range(1, past, { dtype = "int64" })), cache)
    for row = 1, rows do
        if row > 1 then cache:copy(cache, past, row, 1) end
        sequences[row] = { row, 1 }
    end
    return rows * steps / rates.least(function()
        for row = 1, rows do cache:setLength(past, row) end
        for _ = 1, steps do
            decoder:logits(decoder:norm(decoder:forward(decoder:embed(tokens), cache, sequences)))
        end
    end, repeats)
end

return rates
