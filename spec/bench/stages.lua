-- One checkpoint of true size, measured in a process of its own (peak memory is the process's): how long it takes to
-- load, what an answer about two regions of a picture needs in time and memory, and the rates of encoder, prefill and
-- decode alone, in float32 and in what is fastest. Called by spec/bench/true_size.lua; writes its figures as JSON, anew
-- after each part.
--
--     luajit spec/bench/stages.lua CHECKPOINT OUT.json THREADS REPEATS

local checkpoint = require "pixelrefer.checkpoint"
local core = require "pixelrefer.core"
local json = require "pixelrefer.json"
local measure = require "bench.rates"
local memory = require "bench.memory"
local pixelrefer = require "pixelrefer"
local weights = require "pixelrefer.weights"

local tensor = pixelrefer.tensor

local SIDE = 448              -- pixels: 32 x 32 = 1,024 cells
local PROMPTS = { 1100, 2048 } -- tokens
local TOGETHER = require("pixelrefer.together").GROUP -- answers at a time

local path, out, threads, repeats = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])

--- A picture of noise and two rectangular regions on it.
local function drawing()
    local picture = (tensor.rand({ SIDE, SIDE, 3 }, { seed = 1 }) * 255):byte()
    local function rectangle(top, height, left, width)
        local mask = tensor.zeros({ SIDE, SIDE }, { dtype = "uint8" })
        mask:narrow(1, top, height):narrow(2, left, width):fill_(1)
        return mask
    end
    return picture, { rectangle(100, 160, 40, 120), rectangle(200, 200, 230, 180) }
end

--- Asks about the picture's regions; the seconds between one inspected stage and the next are the latter's.
local function ask(model)
    local picture, regions = drawing()
    local seconds, order, mark = {}, {}, core.tick()
    local function lap(stage)
        stage = stage:gsub("%d+", "*"):gsub("^region%*.*", "regions"):gsub("^oci.*", "infusion")
        if not seconds[stage] then
            seconds[stage] = 0
            order[#order + 1] = stage
        end
        local time = core.tick()
        seconds[stage], mark = seconds[stage] + time - mark, time
    end
    local begin = core.tick()
    local scene = model:encode(picture, { inspect = lap })
    local answer = scene:ask("What is the relation of <region> and <region>?", regions,
        { max_new_tokens = 16, inspect = lap })
    lap "generation"
    local stages = {}
    for i, stage in ipairs(order) do stages[i] = { stage = stage, seconds = seconds[stage] } end
    return { seconds = core.tick() - begin, new_tokens = #answer.ids, stages = json.array(stages) }
end

local function encoder_rate(model)
    local cells = (SIDE / 14) ^ 2
    local patches = tensor.randn({ cells, 588 }, { seed = 2 })
    local grids = { { SIDE / 14, SIDE / 14, 1 } }
    return cells / measure.least(function() model.encoder:forward(patches, grids):free() end, repeats)
end

--- Bytes that a decode step reads of a loaded decoder's weights.
local function decoder_bytes(model)
    local read, decoder = {}, model.weights.decoder
    for name, weight in pairs(decoder) do
        if not name:find("^embed_tokens") then read[name] = weight end
    end
    return weights.bytes { decoder = read }
end

--- Bytes of all weights, and of those that a decode step reads: the layers, the final norm and the head.
local function weight_bytes(folder)
    local opened = checkpoint.open(folder)
    local all, step_bytes, embedding, head = 0, 0, 0, nil
    for name, weight in pairs(opened.tensors) do
        local bytes = weight:nElement() * (weight:dtype() == "float32" and 4 or 2)
        all = all + bytes
        if name:find("^model%.layers%.") or name == "model.norm.weight" then step_bytes = step_bytes + bytes end
        if name == "model.embed_tokens.weight" then embedding = bytes end
        if name == "lm_head.weight" then head = bytes end
    end
    return all, step_bytes + (head or embedding)
end

-- What is measured: the weights as they are in float32, and what is fastest here with each type of weights.
local VARIANTS = { { compute = "f32" }, { compute = "auto" }, { compute = "auto", weights = "int8" },
    { compute = "auto", weights = "int4" } }

--- The rates of a loaded model's parts.
local function rates_of(model, step_bytes)
    local decoder = model.decoder
    local rates = { encoder_cells_per_second = encoder_rate(model), bytes = model.bytes,
        decode_tokens_per_second = measure.decode(decoder, PROMPTS[1], repeats),
        together_tokens_per_second = measure.decode(decoder, PROMPTS[1], repeats, TOGETHER) }
    rates.decode_bytes_per_second = rates.decode_tokens_per_second * (step_bytes or decoder_bytes(model))
    for _, length in ipairs(PROMPTS) do
        rates[("prefill_%d_tokens_per_second"):format(length)] = measure.prefill(decoder, length, repeats)
    end
    return rates
end

local figures = { checkpoint = path, threads = threads, repeats = repeats, together = TOGETHER, isa = core.isa() }

local function keep()
    local file = assert(io.open(out, "w"))
    file:write(json.encode(figures), "\n")
    file:close()
end

local step_bytes
figures.weight_bytes, step_bytes = weight_bytes(path)

--- The figures of the first answer, in float32.
local function first_answer()
    local begin = core.tick()
    local model = pixelrefer.load(path, { threads = threads })
    figures.load_seconds = core.tick() - begin
    figures.ask = ask(model)
    figures.peak_bytes = memory.peak()
    figures.beyond_weights_bytes = figures.peak_bytes - figures.weight_bytes
    return model.framework
end

--- The rates of one variant; nil where the fastest is float32, which is measured already.
local function variant_rates(variant)
    local begin = core.tick()
    local model = pixelrefer.load(path, { threads = threads, weights = variant.weights, compute = variant.compute })
    local seconds = core.tick() - begin
    if variant.compute == "auto" and not variant.weights and model.compute == "f32" then return nil end
    local rates = rates_of(model, not variant.weights and step_bytes or nil)
    rates.weights, rates.compute, rates.load_seconds = variant.weights, model.compute, seconds
    return rates
end

local framework = first_answer()
keep()
figures.variants = json.array {}
for _, variant in ipairs(framework == "vision_object" and VARIANTS or {}) do -- Object-Only has the same networks
    collectgarbage() -- the last model's memory
    figures.variants[#figures.variants + 1] = variant_rates(variant)
    keep()
end
