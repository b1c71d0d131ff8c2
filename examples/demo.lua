-- The demonstration behind `make demo`: draws a picture and a clip, asks both models about regions of them, and writes
-- the pictures with what was asked about.
--
--     luajit examples/demo.lua FOLDER

package.path = "examples/?.lua;" .. package.path
local make_media = require "make_media"
local pixelrefer = require "pixelrefer"

local folder = arg[1] or "build/demo"

-- The committed checkpoints have the real layout and random weights.
local MODELS = { "spec/fixtures/golden/models/refer", "spec/fixtures/golden/models/lite_sharded_bin" }
local SETTINGS = { max_new_tokens = 16 }

local function show(question, answer)
    print(("  %s\n    (%d prompt tokens, %s object tokens) %s"):format(
        question, answer.prompt_tokens, table.concat(answer.tokens, "+"), (answer.text:gsub("%s+", " "))))
end

os.execute(("mkdir -p '%s'"):format(folder))
make_media.write(folder)
local image = pixelrefer.image.load(folder .. "/picture.png")
local masks = {}
for i, name in ipairs { "sun", "house", "ball" } do
    masks[i] = pixelrefer.mask.png(("%s/picture-%s.png"):format(folder, name))
end
pixelrefer.image.save(folder .. "/picture-regions.png", pixelrefer.draw.overlay(image, masks))

local last = make_media.frames - 1
local ball = {
    { frame = 0, mask = pixelrefer.mask.png(folder .. "/clip-ball-000.png") },
    { frame = last, mask = pixelrefer.mask.png(("%s/clip-ball-%03d.png"):format(folder, last)) },
}
local video = pixelrefer.video.load(folder .. "/clip", { fps = 1, frame_ids = { 0, last } })
pixelrefer.image.save(folder .. "/clip-regions.png", pixelrefer.draw.overlay(video:frame(last), { ball[2].mask }))

print("The committed checkpoints have random weights: the words below are noise. They show that everything runs.")
for _, directory in ipairs(MODELS) do
    local model = pixelrefer.load(directory)
    print(("\n%s (%s)"):format(model.framework == "vision_object" and "PixelRefer" or "PixelRefer-Lite", directory))
    local scene = model:encode(image)
    show("Describe <the ball>.", scene:describe({ masks[3] }, SETTINGS)[1])
    show("What is the relation of <the sun> and <the house>?",
         scene:ask("What is the relation of <region> and <region>?", { masks[1], masks[2] }, SETTINGS))
    local object = model.framework == "vision_object" and ball[1] or ball
    show("(clip) What does <the ball> do?",
         model:encode(video):ask("<video>\nWhat does <region> do?", { object }, SETTINGS))
end
print(("\nwritten: %s/picture-regions.png, %s/clip-regions.png"):format(folder, folder))
