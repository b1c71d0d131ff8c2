-- The demonstration behind `make demo`: draws a picture and a clip of the shapes world, asks the small models about
-- regions of them, and writes the pictures with what was asked about.
--
--     luajit examples/demo.lua FOLDER [SEED]
package.path = "examples/?.lua;" .. package.path
local answers = require "shapes.answers"
local media = require "shapes.media"
local pixelrefer = require "pixelrefer"
local questions = require "shapes.questions"
local world = require "shapes.world"

local folder, seed = arg[1] or "build/demo", tonumber(arg[2] or 6)
local ZOOM = 4 -- of what is written: a scene has 140 x 140 pixels

-- Each pixel ZOOM times, down and across.
local function enlarged(picture)
    local function places(count)
        local list = {}
        for i = 1, count * ZOOM do list[i] = math.ceil(i / ZOOM) end
        return pixelrefer.tensor.fromTable(list, "int64")
    end
    return picture:indexSelect(1, places(picture:size(1))):indexSelect(2, places(picture:size(2)))
end

-- A frame with the given objects drawn on it, large enough to look at.
local function save(name, scene, frame, numbers)
    local masks = {}
    for i, number in ipairs(numbers) do
        masks[i] = enlarged(media.mask(scene, frame, number))
    end
    pixelrefer.image.save(folder .. "/" .. name, pixelrefer.draw.overlay(
        enlarged(media.picture(scene, frame)), masks, { opacity = 0, contour = 2 })) -- colours are asked about
end

-- Questions of a scene, one of each of the kinds, about its first objects.
local function choose(scene, kinds)
    local chosen = {}
    for _, kind in ipairs(kinds) do
        for _, made in ipairs(questions.make(scene)) do
            if made.kind == kind and not chosen[kind] then
                chosen[kind] = true
                chosen[#chosen + 1] = made
            end
        end
    end
    return chosen
end

local function ask(model, scene, chosen)
    local encoded = model:encode(media.open(scene))
    for _, made in ipairs(chosen) do
        local regions, shown = {}, 0
        for i, number in ipairs(made.regions) do regions[i] = media.region(scene, number, model.framework) end
        local answer = encoded:ask(made.question, regions, { max_new_tokens = 32 })
        local question = made.question:gsub("<region>", function()
            shown = shown + 1
            return ("<object %d>"):format(made.regions[shown])
        end)
        print(("  %-58s %s"):format(question, answer.text .. (answers.right(made.kind, made.answer, answer.text) and ""
            or "  (it is: " .. made.answer .. ")")))
    end
end

os.execute(("mkdir -p '%s'"):format(folder))
local picture, clip = world.make(seed, 1, "picture"), world.make(seed, 1, "clip")
local about_picture = choose(picture, { "describe", "shape", "larger", "left", "same_colour" })
local about_clip = choose(clip, { "describe", "direction", "change" })
local numbers = {}
for i = 1, #picture.objects do numbers[i] = i end
save("picture-regions.png", picture, 1, numbers)
for _, frame in ipairs { 1, clip.frames } do
    save(("clip-regions-%d.png"):format(frame - 1), clip, frame, { about_clip[1].regions[1] })
end

for _, name in ipairs { "shapes-vision-object", "shapes-object-only" } do
    local model = pixelrefer.load("examples/models/" .. name)
    print(("\n%s (examples/models/%s)"):format(model.framework == "vision_object" and "PixelRefer" or "PixelRefer-Lite",
                                               name))
    print " a picture"
    ask(model, picture, about_picture)
    if model.framework == "object_only" then
        print " a clip"
        ask(model, clip, about_clip)
    else
        print " a clip: not asked; it is shown a region in one frame and mostly guesses how it moves (its README.md)"
    end
end
print(("\nThe pictures with these objects: %s/picture-regions.png, clip-regions-0.png, clip-regions-%d.png"):format(
    folder, clip.frames - 1))
