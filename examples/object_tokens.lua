-- Which cells each object token took, drawn on the image and on the crop that the encoder sees.
--
--     pixelrefer run examples/object_tokens.lua MODEL PICTURE MASK.png OUT.png [CROP.png] [TOKENIZER]
--     pixelrefer run examples/object_tokens.lua MODEL CLIP FRAME:MASK.png OUT.png [CROP.png] [TOKENIZER]

local pixelrefer = require "pixelrefer"

local directory, path, mask_path, out, crop_out, name = ...
local model = pixelrefer.load(directory, { tokenizer = name })
local frame, file = mask_path:match("^(%d+):(.+)$")
local media = frame and pixelrefer.video.load(path, { frame_ids = { tonumber(frame) } }) or pixelrefer.image.load(path)

local object = { mask = pixelrefer.mask.png(file or mask_path), frame = tonumber(frame) }
local region = pixelrefer.inside.regions(model:encode(media), { object })[1]

local draw, save = pixelrefer.draw, pixelrefer.image.save
save(out, draw.tokens(region.picture, region.item, region.assignment))
if crop_out then save(crop_out, draw.tokens(region.picture, region.item, region.assignment, { crop = true })) end
print(("%s: %d cells under the mask became %d tokens"):format(model.object_tokenizer.name, region.cells:size(1),
                                                             region.pooled:size(1)))
