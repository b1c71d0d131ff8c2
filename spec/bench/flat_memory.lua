-- Whether memory stays flat: loads a model, encodes, asks and drops everything, again and again, freeing nothing by
-- hand, as at the prompt. Prints resident memory over time, and how far the peak of the last half lies above the first
-- half's.
-- usage: luajit spec/bench/flat_memory.lua [MINUTES [MODEL ...]]
local core = require "pixelrefer.core"
local pixelrefer = require "pixelrefer"

local minutes = tonumber(arg[1] or 5)
local models = { unpack(arg, 2) }
if #models == 0 then
    models = { "spec/fixtures/golden/models/refer", "spec/fixtures/golden/models/lite_sharded_bin" }
end

local LINES = 20 -- of the table
local SETTINGS = { max_new_tokens = 8 }

local function resident()
    for line in io.lines("/proc/self/status") do
        local kilobytes = line:match("^VmRSS:%s+(%d+) kB")
        if kilobytes then return tonumber(kilobytes) / 1024 end
    end
end

local function round(directory)
    local model = pixelrefer.load(directory)
    local image = pixelrefer.image.load("spec/fixtures/media/picture.bmp")
    local box = pixelrefer.mask.box(image, 0, 0, 20, 20)
    local scene = model:encode(image)
    local session = scene:session()
    session:ask("What is <region>?", { box }, SETTINGS)
    session:ask("And why?", nil, SETTINGS)
    scene:stream("Where is <region>?", { box }, SETTINGS)() -- left after its first piece
    local clip = pixelrefer.video.load("spec/fixtures/media/bframes.mp4", { max_frames = 3, frame_ids = { 0 } })
    local part = { frame = 0, mask = pixelrefer.mask.box(clip:frame(0), 0, 0, 20, 20) }
    model:encode(clip):ask("<video>\nWhat does <region> do?", { part }, SETTINGS)
    pcall(scene.ask, scene, "<region> and <region>", { box }) -- an error on the way
end

local started, rounds, lines = core.tick(), 0, 0
local peaks = { 0, 0 }
print("minutes   rounds   resident MiB   library MiB   Lua MiB")
while core.tick() - started < minutes * 60 do
    round(models[rounds % #models + 1])
    rounds = rounds + 1
    local passed, memory = (core.tick() - started) / 60, resident()
    local half = passed < minutes / 2 and 1 or 2
    if rounds > 10 then peaks[half] = math.max(peaks[half], memory) end
    if passed >= lines * minutes / LINES then
        lines = lines + 1
        print(("%7.2f %8d %14.1f %13.1f %9.1f"):format(passed, rounds, memory, core.memory() / 2 ^ 20,
                                                      collectgarbage("count") / 1024))
        io.stdout:flush()
    end
end
print(("peak of the first half %.1f MiB, of the second %.1f MiB (%+.1f)"):format(peaks[1], peaks[2],
                                                                              peaks[2] - peaks[1]))
