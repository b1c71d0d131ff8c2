-- How much memory an answer of PixelRefer-7B takes with quantised weights, conversion while loading included: the peak
-- of a process of its own (VmHWM, mapped pages among it) beside its bound.
--
--     luajit spec/bench/memory_7b.lua [THREADS]
--
-- The checkpoint of random weights (16 GB) is written once, below build/bench.
local core = require "pixelrefer.core"
local memory = require "bench.memory"
local pixelrefer = require "pixelrefer"
local tensor = require "pixelrefer.tensor"

local FOLDER = (os.getenv("BUILD") or "build") .. "/bench/vision_object-7b"
local BOUNDS = { int4 = 7, int8 = 10 } -- GiB
local SIDE = 448                       -- pixels: 1,024 cells

local function answer(weights)
    local began = core.tick()
    local model = pixelrefer.load(FOLDER, { weights = weights, compute = "auto" })
    local loaded = core.tick()
    local picture = (tensor.rand({ SIDE, SIDE, 3 }, { seed = 1 }) * 255):byte()
    local function box(...) return pixelrefer.mask.box(picture, ...) end
    local regions = { box(40, 100, 160, 260), box(230, 200, 410, 400) }
    local found = model:encode(picture):ask("What is the relation of <region> and <region>?", regions,
        { max_new_tokens = 8 })
    print(("%s: peak %.2f GiB of at most %d; loaded in %.1f s, %d + %d tokens in %.1f s, in %s"):format(weights,
        memory.peak() / 2 ^ 30, BOUNDS[weights], loaded - began, found.prompt_tokens, #found.ids, core.tick() - loaded,
        model.compute))
end

local threads, weights = tonumber(arg[1]), arg[2]
core.threads(threads)
if weights then return answer(weights) end
if not core.path_kind(FOLDER .. "/config.json") then
    local command = ("%s spec/fixtures/make_checkpoint.lua --preset 7b --framework vision_object --shards 4 %s"):format(
        arg[-1], FOLDER)
    assert(os.execute(command) == 0, "no checkpoint")
end
for _, kind in ipairs { "int4", "int8" } do
    assert(os.execute(("%s %s %d %s"):format(arg[-1], arg[0], core.threads(), kind)) == 0, kind .. " failed")
end
