-- Which cells each object token took, drawn on the image and on the crop that the encoder sees.
--
--     pixelrefer run examples/object_tokens.lua MODEL PICTURE MASK.png OUT.png [CROP.png] [TOKENIZER]

local pixelrefer = require "pixelrefer"
local pictures = require "pixelrefer.pictures"

local directory, path, mask_path, out, crop_out, name = ...
local model = pixelrefer.load(directory, { tokenizer = name })
local image, mask = pixelrefer.image.load(path), pixelrefer.mask.png(mask_path)
local tokenizer = model.object_tokenizer

local item = tokenizer.prepare(image, mask)
item.generator = pixelrefer.tensor.generator(0)
local encoded = pictures.encode(model, { item.picture })[1]
local tokens, cells, assignment = tokenizer.pool(encoded.features:view(encoded.height, encoded.width, -1), item)

pixelrefer.image.save(out, pixelrefer.draw.tokens(image, item, assignment))
if crop_out then pixelrefer.image.save(crop_out, pixelrefer.draw.tokens(image, item, assignment, { crop = true })) end
print(("%s: %d cells under the mask became %d tokens"):format(tokenizer.name, cells:size(1), tokens:size(1)))
