--- Scenes of the shapes world as the library takes them: pictures, masks, clips, regions.
-- @module shapes.media
local ffi = require "ffi"

local pixelrefer = require "pixelrefer"
local world = require "shapes.world"

local media = {}

--- A frame of a scene.
-- @tparam table scene of `world.make`
-- @tparam int frame from 1
-- @treturn Tensor uint8 [h,w,3]
function media.picture(scene, frame)
    local bytes = ffi.string(scene.rgb[frame], scene.width * scene.height * 3)
    return pixelrefer.tensor.fromString(bytes, "uint8", { scene.height, scene.width, 3 })
end

--- What is seen of an object in a frame.
-- @tparam table scene
-- @tparam int frame from 1
-- @tparam int number the object
-- @treturn Tensor uint8 [h,w]
function media.mask(scene, frame, number)
    local bytes = ffi.string(scene.ids[frame], scene.width * scene.height)
    return pixelrefer.tensor.fromString(bytes, "uint8", { scene.height, scene.width }):eq(number)
end

--- A scene as `model:encode` takes it: its picture, or its clip with a frame a second.
-- @tparam table scene
-- @treturn Tensor|Video
function media.open(scene)
    if scene.kind == "picture" then return media.picture(scene, 1) end
    local frames = {}
    for frame = 1, scene.frames do frames[frame] = media.picture(scene, frame) end
    return pixelrefer.video.fromFrames(frames, { fps = 1 })
end

--- An object as `scene:ask` takes it: a mask; in a clip with its frame, for Object-Only in several frames.
-- @tparam table scene
-- @tparam int number the object
-- @tparam string framework "vision_object" or "object_only"
-- @treturn Tensor|table
function media.region(scene, number, framework)
    if scene.kind == "picture" then return media.mask(scene, 1, number) end
    if framework == "vision_object" then return { mask = media.mask(scene, 1, number), frame = 0 } end
    local frames = {}
    for i, frame in ipairs(world.masked_frames) do
        frames[i] = { mask = media.mask(scene, frame + 1, number), frame = frame }
    end
    return frames
end

return media
