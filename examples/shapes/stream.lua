-- Streams scenes to the training script, which reads them from this program's standard output.
--
--     luajit examples/shapes/stream.lua SEED KIND FIRST COUNT QUESTIONS
--
-- KIND is "picture" or "clip". Each scene is a line of JSON (width, height, frames, objects, questions: QUESTIONS
-- rounds of them), then its pictures (frames * height * width * 3 bytes), then which object each pixel shows
-- (frames * height * width bytes, 0 the background).
local ffi = require "ffi"

package.path = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/../?.lua;" .. package.path
local cjson = require "cjson"
local questions = require "shapes.questions"
local world = require "shapes.world"

local seed, kind, first, count, rounds = tonumber(arg[1]), arg[2], tonumber(arg[3]), tonumber(arg[4]), tonumber(arg[5])

local SHOWN = { "shape", "colour", "size", "filling", "direction", "speed", "later_colour" }

io.stdout:setvbuf("full", 2 ^ 18)
for index = first, first + count - 1 do
    local scene = world.make(seed, index, kind)
    local record = { index = index, width = scene.width, height = scene.height, frames = scene.frames }
    record.objects, record.questions = {}, {}
    for i, object in ipairs(scene.objects) do
        record.objects[i] = {}
        for _, key in ipairs(SHOWN) do record.objects[i][key] = object[key] end
    end
    for _ = 1, rounds do
        for _, made in ipairs(questions.make(scene)) do table.insert(record.questions, made) end
    end
    io.stdout:write(cjson.encode(record), "\n")
    for frame = 1, scene.frames do
        io.stdout:write(ffi.string(scene.rgb[frame], scene.width * scene.height * 3))
    end
    for frame = 1, scene.frames do io.stdout:write(ffi.string(scene.ids[frame], scene.width * scene.height)) end
end
