--- PixelRefer and PixelRefer-Lite: describe and reason about any masked region of an image or a video.
--
--     local pixelrefer = require "pixelrefer"
--     local model = pixelrefer.load("PixelRefer-Lite-2B")
--     local image = pixelrefer.image.load("street.jpg")
--     local bus = pixelrefer.mask.box(image, 1250, 0, 1600, 700)
--     print(model:describe(image, bus))
--
-- @module pixelrefer
local Model = require "pixelrefer.model"

local pixelrefer = {
    load = Model.load,
    tensor = require "pixelrefer.tensor",
    image = require "pixelrefer.image",
    video = require "pixelrefer.video",
    media = require "pixelrefer.media",
    mask = require "pixelrefer.mask",
    draw = require "pixelrefer.draw",
    inside = require "pixelrefer.inside",
    dataset = require "pixelrefer.dataset",
    annotate = require("pixelrefer.annotate").run,
    compare = require "pixelrefer.compare",
    tokenizer = require "pixelrefer.tokenizer",
    prompt = require "pixelrefer.prompt",
    checkpoint = require "pixelrefer.checkpoint",
    layout = require "pixelrefer.layout",
    quantize = require "pixelrefer.quantize.write",
    hub = require "pixelrefer.hub",
}

return pixelrefer
