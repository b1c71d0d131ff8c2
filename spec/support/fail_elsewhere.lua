-- Run with fail_malloc.so preloaded: fails allocations of other libraries (FFmpeg, jansson, the C library) at random,
-- while checkpoints, pictures and clips are loaded and a question is asked. Each time an error must be raised, or the
-- result must be what it is without; and nothing may be left behind. A clip's result is not compared: FFmpeg's demuxers
-- and decoders take some failures for a damaged file, whose other frames they still give.
-- usage: luajit spec/support/fail_elsewhere.lua COUNT SEED
local ffi = require "ffi"
ffi.cdef "void fail_malloc_arm(long number); long fail_malloc_disarm(void);"
local core = require "pixelrefer.core"
local pixelrefer = require "pixelrefer"

local COUNT, SEED = tonumber(arg[1]), tonumber(arg[2])
local MODEL = "spec/fixtures/golden/models/refer"

local function settled()
    jit.flush()
    collectgarbage()
    collectgarbage()
    return core.memory()
end

-- Each gives a text that tells whether it went as it always does.
local function load_model()
    return tostring(pixelrefer.load(MODEL).bytes)
end

local function load_media()
    local clip = pixelrefer.video.load("spec/fixtures/media/bframes.mp4", { max_frames = 3 })
    local picture = pixelrefer.image.load("spec/fixtures/media/picture.bmp")
    clip:free()
    return tostring(picture:sum())
end

local function ask()
    local model = pixelrefer.load(MODEL)
    local image = pixelrefer.image.load("spec/fixtures/media/picture.bmp")
    local scene = model:encode(image)
    local box = pixelrefer.mask.box(image, 0, 0, 20, 20)
    local text = scene:ask("What is <region>?", { box }, { max_new_tokens = 2 }).text
    scene:free()
    return text
end

local tasks = { load_model, load_media, ask }
local usual, allocations, baseline = {}, {}, {}
for i, task in ipairs(tasks) do
    task()
    ffi.C.fail_malloc_arm(0)
    usual[i] = task()
    allocations[i] = tonumber(ffi.C.fail_malloc_disarm())
    baseline[i] = settled()
end

math.randomseed(SEED)
local raised = 0
for n = 1, COUNT do
    local i = (n - 1) % #tasks + 1
    local number = math.random(1, allocations[i])
    ffi.C.fail_malloc_arm(number)
    local fine, result = pcall(tasks[i])
    ffi.C.fail_malloc_disarm()
    if not fine then raised = raised + 1 end
    local which = ("task %d, allocation %d of %d: "):format(i, number, allocations[i])
    if fine and result ~= usual[i] then error(("%s'%s' instead of '%s'"):format(which, result, usual[i])) end
    result = nil -- luacheck: ignore
    local left = settled() - baseline[i]
    if left ~= 0 then error(("%s%d bytes left behind"):format(which, left)) end
end
for i, task in ipairs(tasks) do assert(task() == usual[i]) end
print(("%d failed, %d raised"):format(COUNT, raised))
