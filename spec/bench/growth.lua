-- How the cost of PixelRefer-2B grows with cells, frames, regions and context, as a picture of four charts.
--
--     luajit spec/bench/growth.lua OUT.png [THREADS|--kept]
--
-- Random weights in bfloat16, in the precision that is fastest here. Each point is the second of two runs; it takes
-- some minutes. The figures go to growth.json below build/bench; --kept draws those of an earlier run.

local canvas = require "pixelrefer.draw.canvas"
local core = require "pixelrefer.core"
local draw = require "pixelrefer.draw"
local json = require "pixelrefer.json"
local pixelrefer = require "pixelrefer"
local rates = require "bench.rates"
local setting = require "bench.setting"

local tensor = pixelrefer.tensor

local STEP = 768            -- cells, and tokens of context, from one point to the next
local FRAME = { 16, 16 }    -- cells of a frame
local POINTS, REGIONS = 4, 4
local REPEATS, TOGETHER = 1, 8
local WIDTH, HEIGHT = 720, 420 -- pixels of a chart

local FIGURES = setting.FOLDER .. "/growth.json"

local out = arg[1]
if not out then error("usage: luajit spec/bench/growth.lua OUT.png [THREADS|--kept]", 0) end

--- Seconds that the encoder takes for pictures of h x w cells, so many of them.
local function encode(model, count, h, w)
    local patches, grids = tensor.randn({ count * h * w, 588 }, { seed = 1 }), {}
    for i = 1, count do grids[i] = { h, w, 1 } end
    return rates.least(function() model.encoder:forward(patches, grids):free() end, REPEATS)
end

--- Seconds to the first token of a question about so many regions of a picture that is encoded already.
local function ask(scene, picture, count)
    local regions, marks = {}, {}
    for i = 1, count do
        regions[i], marks[i] = pixelrefer.mask.box(picture, 20 * i, 25 * i, 20 * i + 200, 25 * i + 180), "<region>"
    end
    local question = table.concat(marks, ", ") .. "?"
    return rates.least(function() scene:ask(question, regions, { max_new_tokens = 1 }) end, REPEATS)
end

local function measure()
    local model = pixelrefer.load(setting.checkpoint "vision_object", { compute = "auto" })
    local figures = { threads = core.threads(), isa = core.isa(), compute = model.compute,
        picture = {}, frames = {}, prefill = {}, alone = {}, together = {}, regions = {} }
    for i = 1, POINTS do
        io.stderr:write(("\r%d of %d "):format(i, POINTS))
        local size = i * STEP
        figures.picture[i] = encode(model, 1, size / 32, 32)
        figures.frames[i] = encode(model, size / (FRAME[1] * FRAME[2]), FRAME[1], FRAME[2])
        figures.prefill[i] = size / rates.prefill(model.decoder, size, REPEATS)
        figures.alone[i] = 1e3 / rates.decode(model.decoder, size, REPEATS)
        figures.together[i] = 1e3 / rates.decode(model.decoder, size, REPEATS, TOGETHER)
    end
    local picture = (tensor.rand({ 448, 448, 3 }, { seed = 1 }) * 255):byte()
    local scene = model:encode(picture)
    for i = 1, REGIONS do figures.regions[i] = ask(scene, picture, i) end
    io.stderr:write("\r", (" "):rep(20), "\r")
    setting.write(FIGURES, figures)
    return figures
end

if arg[2] ~= "--kept" then core.threads(tonumber(arg[2])) end
local figures = arg[2] == "--kept" and json.read(FIGURES) or measure()
local charts = {
    { { { name = "one picture", values = figures.picture }, { name = "frames of 256", values = figures.frames } },
        "encoder, seconds", ("cells, in %d"):format(STEP) },
    { { { name = "prefill", values = figures.prefill } }, "prefill, seconds", ("tokens, in %d"):format(STEP) },
    { { { name = "one answer", values = figures.alone },
        { name = ("%d together"):format(TOGETHER), values = figures.together } },
        "decode, milliseconds a token", ("tokens of context, in %d"):format(STEP) },
    { { { name = "first token", values = figures.regions } },
        "a question about a picture of 1,024 cells, seconds", "regions" },
}
local sheet = canvas.new(2 * HEIGHT, 2 * WIDTH)
for i, chart in ipairs(charts) do
    local series, title, x = unpack(chart)
    local drawn = draw.chart(series, { title = title, x = x, first = 1, width = WIDTH, height = HEIGHT })
    sheet:paste((i - 1) % 2 * WIDTH, math.floor((i - 1) / 2) * HEIGHT, WIDTH, HEIGHT, drawn)
end
pixelrefer.image.save(out, sheet.picture)
print(("%s: %d threads, %s, computed in %s"):format(out, figures.threads, figures.isa, figures.compute))
