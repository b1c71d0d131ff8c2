-- Describes one region of a picture.
--
--     pixelrefer run examples/describe_region.lua MODEL PICTURE x0 y0 x1 y1

local pixelrefer = require "pixelrefer"

local directory, path, x0, y0, x1, y1 = ...
local model = pixelrefer.load(directory)
local image = pixelrefer.image.load(path)
local region = pixelrefer.mask.box(image, tonumber(x0), tonumber(y0), tonumber(x1), tonumber(y1))
print(model:describe(image, region, { max_new_tokens = 64 }))
