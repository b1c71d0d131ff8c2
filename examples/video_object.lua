-- An object over the frames of a video. PixelRefer sees the sampled frames and the object in one of them;
-- PixelRefer-Lite sees the object alone, in every frame that it has a mask of.
--
--     pixelrefer run examples/video_object.lua MODEL VIDEO FRAME:MASK.png [FRAME:MASK.png ...]

local pixelrefer = require "pixelrefer"

local directory, path = ...
local model = pixelrefer.load(directory)

local object, frames = {}, {}
for i, word in ipairs { select(3, ...) } do
    local frame, mask = word:match("^(%d+):(.+)$")
    object[i] = { frame = tonumber(frame), mask = pixelrefer.mask.png(mask) }
    frames[i] = object[i].frame
end
if model.framework == "vision_object" then object = object[1] end

local video = pixelrefer.video.load(path, { fps = 1, frame_ids = frames })
local scene = model:encode(video)
for piece in scene:stream("<video>\nWhat does <region> do?", { object }, { max_new_tokens = 24 }) do
    io.write(piece)
    io.flush()
end
print()
