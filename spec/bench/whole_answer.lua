-- Where the time of a whole answer goes at the size of PixelRefer-2B: a PNG of 1280 x 960 from its file, two regions,
-- 64 new tokens. What is not encoder, prefill or decoding steps is decoding the file, resizing, masks, object tokens,
-- tokens and sampling, whose share is bounded.
--
--     luajit spec/bench/whole_answer.lua [THREADS] [WEIGHTS]     ("int8", "int4"; as they are unless said)

local core = require "pixelrefer.core"
local pixelrefer = require "pixelrefer"
local setting = require "bench.setting"
local tensor = require "pixelrefer.tensor"

local WIDTH, HEIGHT, NEW, REPEATS = 1280, 960, 64, 3
local MOST = 0.015 -- of the time

core.threads(tonumber(arg[1]))
local model = pixelrefer.load(setting.checkpoint("vision_object"), { weights = arg[2], compute = "auto" })
local path = setting.FOLDER .. "/picture.png"

--- Seconds spent in some calls of an object of the module's since the last look.
local function watch(part, names)
    local inner, seconds = model[part], 0
    model[part] = setmetatable({}, { __index = function(_, name)
        return function(_, ...)
            local began = core.tick()
            local result = inner[name](inner, ...)
            if names[name] then seconds = seconds + core.tick() - began end
            return result
        end
    end })
    return function()
        local found = seconds
        seconds = 0
        return found
    end
end

local encoder = watch("encoder", { forward = true })
local decoder = watch("decoder", { forward = true, norm = true, logits = true })

-- Smooth like a photo: noise would make the file larger than any camera's.
local rough = tensor.rand({ 30, 40, 3 }, { seed = 1 }) * 255
pixelrefer.image.save(path, rough:resizeBilinear(HEIGHT, WIDTH):byte())

local function answer()
    local picture = pixelrefer.image.load(path)
    local function box(...) return pixelrefer.mask.box(picture, ...) end
    local regions = { box(100, 120, 500, 700), box(700, 300, 1200, 900) }
    local found = model:encode(picture):ask("What is the relation of <region> and <region>?", regions,
        { max_new_tokens = NEW, temperature = 0 })
    assert(#found.ids == NEW, "it ended early")
    return found
end

answer()
local best
for _ = 1, REPEATS do
    encoder()
    decoder()
    local began = core.tick()
    local found = answer()
    local seconds = core.tick() - began
    local figures = { all = seconds, encoder = encoder(), decoder = decoder(), prompt = found.prompt_tokens }
    figures.rest = figures.all - figures.encoder - figures.decoder
    if not best or figures.rest / figures.all < best.rest / best.all then best = figures end
end
print(("%s, %s: %d + %d tokens in %.2f s: encoder %.2f s, prefill and decoding %.2f s"):format(arg[2] or "bfloat16",
    model.compute, best.prompt, NEW, best.all, best.encoder, best.decoder))
print(("the rest %.1f ms: %.2f %% of the time, at most %.1f %%: %s"):format(1e3 * best.rest, 100 * best.rest / best.all,
    100 * MOST, best.rest <= MOST * best.all and "holds" or "does not hold"))
