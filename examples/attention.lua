-- Where an answer looks: the share of its attention that goes to visual tokens, object tokens and text in each layer of
-- the decoder, as a chart; and where in the picture and in the region, as heat.
--
--     pixelrefer run examples/attention.lua MODEL PICTURE MASK.png FOLDER
--     pixelrefer run examples/attention.lua MODEL CLIP FRAME:MASK.png FOLDER
--
-- writes FOLDER/layers.png, FOLDER/region.png and, of a model with visual tokens, FOLDER/picture.png.

local pixelrefer = require "pixelrefer"

local directory, path, mask_path, folder = ...
local model = pixelrefer.load(directory)
local frame, file = mask_path:match("^(%d+):(.+)$")
local media = frame and pixelrefer.video.load(path, { frame_ids = { tonumber(frame) } }) or pixelrefer.image.load(path)
local object = { mask = pixelrefer.mask.png(file or mask_path), frame = tonumber(frame) }

local scene, attention = model:encode(media), pixelrefer.inside.attention(model)
local answer = scene:ask("Describe <region>.", { object }, { inspect = attention.inspect, max_new_tokens = 16 })

local save = pixelrefer.image.save
save(folder .. "/layers.png", attention:plot())
save(folder .. "/region.png", attention:onRegion(frame and media:frame(tonumber(frame)) or media, 1))
if model.framework == "vision_object" then save(folder .. "/picture.png", attention:overlay(scene)) end

for kind, share in pairs(attention:shares()) do -- [layers, heads, answer tokens]
    print(("%-8s %5.1f %%"):format(kind, 100 * share:mean()))
end
print(answer)
