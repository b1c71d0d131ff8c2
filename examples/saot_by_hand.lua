-- SAOT, step by step, with the library's objects: from a mask to the tokens that stand in the prompt. Any of the three
-- steps can be another function; this is where a variant begins.
--
--     pixelrefer run examples/saot_by_hand.lua MODEL PICTURE MASK.png

local pixelrefer = require "pixelrefer"
local pictures = require "pixelrefer.pictures"

local directory, path, mask_path = ...
local model = pixelrefer.load(directory)
local image, mask = pixelrefer.image.load(path), pixelrefer.mask.png(mask_path)
local saot, weights = model.object_tokenizer, model.weights.object_tokenizer

-- 1. Crop the region and scale it so that it spans enough cells, but not too many.
local item = saot.prepare(image, mask, model.config)
item.generator = pixelrefer.tensor.generator(0) -- draws where k-means starts

-- 2. The crop goes through the vision encoder like any picture.
local encoded = pictures.encode(model, { item.picture })[1]
local features = encoded.features:view(encoded.height, encoded.width, -1)

-- 3. Cells under the mask, with their place in the image added, merged into at most mask_num tokens.
local tokens, cells = saot.pool(features, item, weights)

-- 4. Into the decoder's space.
local embeddings = saot.project(tokens, weights)

print(("crop %d x %d pixels, grid %d x %d, %d cells inside, %d tokens of width %d"):format(
    item.picture:size(2), item.picture:size(1), encoded.width, encoded.height, cells:size(1),
    embeddings:size(1), embeddings:size(2)))
