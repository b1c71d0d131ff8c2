-- Writes a set of pictures and clips of the shapes world, with questions, in the reference's dataset format.
--
--     pixelrefer run examples/shapes/generate.lua OUT --seed N --pictures N [--clips N] [--first N]
--
-- OUT gets pictures/000001.png, clips/000001/0.png ... and dataset.jsonl: one question a line, with the masks of its
-- regions as compressed run lengths. `kind` names the kind of question. A clip's object carries masks in
-- its first and last frame; the same questions with a mask in the first frame alone, as PixelRefer takes them, are in
-- dataset-vision-object.jsonl.
package.path = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/../?.lua;" .. package.path
local pixelrefer = require "pixelrefer"
local json = require "pixelrefer.json"
local media = require "shapes.media"
local questions = require "shapes.questions"
local world = require "shapes.world"

local USAGE = "usage: pixelrefer run examples/shapes/generate.lua OUT --seed N --pictures N [--clips N] [--first N]"

local function read_arguments(words)
    local given, out = { seed = 1, pictures = 0, clips = 0, first = 1 }, nil
    local at = 1
    while at <= #words do
        local option = words[at]:match("^%-%-(%a+)$")
        if option then
            local number = tonumber(words[at + 1])
            if given[option] == nil or not number or number % 1 ~= 0 or number < 0 then error(USAGE, 0) end
            given[option], at = number, at + 2
        else
            if out then error(USAGE, 0) end
            out, at = words[at], at + 1
        end
    end
    if not out then error(USAGE, 0) end
    return out, given
end

-- The run lengths of object `number` in a frame.
local function rle_of(scene, frame, number)
    return pixelrefer.mask.toRle(media.mask(scene, frame, number))
end

local function line(scene, made, source, masks)
    return json.encode {
        image = source.image,
        video = source.video,
        timestamps = source.timestamps,
        masked_video = source.masked_video,
        width = scene.width,
        height = scene.height,
        kind = made.kind,
        masks = masks,
        conversations = {
            { from = "human", value = (source.image and "<image>\n" or "<video>\n") .. made.question },
            { from = "gpt", value = made.answer },
        },
    } .. "\n"
end

local function write_picture(out, files, index, seed)
    local scene = world.make(seed, index, "picture")
    local name = ("pictures/%06d.png"):format(index)
    pixelrefer.image.save(out .. "/" .. name, media.picture(scene, 1))
    for _, made in ipairs(questions.make(scene)) do
        local masks = {}
        for i, number in ipairs(made.regions) do masks[i] = rle_of(scene, 1, number) end
        local text = line(scene, made, { image = name }, masks)
        for _, file in ipairs(files) do assert(file:write(text)) end
    end
end

local function write_clip(out, files, index, seed)
    local scene = world.make(seed, index, "clip")
    local folder = ("clips/%06d"):format(index)
    local names, times, masked = {}, {}, {}
    assert(os.execute(("mkdir -p '%s/%s'"):format(out:gsub("'", "'\\''"), folder)) == 0)
    for frame = 1, scene.frames do
        names[frame], times[frame] = ("%s/%d.png"):format(folder, frame - 1), frame - 1
        pixelrefer.image.save(out .. "/" .. names[frame], media.picture(scene, frame))
    end
    for i, frame in ipairs(world.masked_frames) do masked[i] = names[frame + 1] end
    for _, made in ipairs(questions.make(scene)) do
        local all = {}
        for _, frame in ipairs(world.masked_frames) do
            all[tostring(frame)] = rle_of(scene, frame + 1, made.regions[1])
        end
        local source = { video = names, timestamps = times, masked_video = masked }
        assert(files[1]:write(line(scene, made, source, { all })))
        source = { video = names, timestamps = times, masked_video = { names[1] } }
        assert(files[2]:write(line(scene, made, source, { { ["0"] = all["0"] } })))
    end
end

local out, given = read_arguments(arg)
assert(os.execute(("mkdir -p '%s/pictures'"):format(out:gsub("'", "'\\''"))) == 0)
local files = {
    assert(io.open(out .. "/dataset.jsonl", "wb")),
    assert(io.open(out .. "/dataset-vision-object.jsonl", "wb")),
}
for index = given.first, given.first + given.pictures - 1 do write_picture(out, files, index, given.seed) end
for index = given.first, given.first + given.clips - 1 do write_clip(out, files, index, given.seed) end
for _, file in ipairs(files) do assert(file:close()) end
