--- Images and videos by content: what a file is, and loading either.
-- @module pixelrefer.media

local core = require "pixelrefer.core"

local media = {}

--- What a file holds: an image, or a video (also a directory of pictures, and a GIF of more than one frame).
-- @tparam string path
-- @treturn string "image" or "video"
-- @raise a file that is missing, or neither
function media.kind(path)
    if type(path) ~= "string" or path == "" then
        error("media.kind: a path expected, got " .. (path == "" and "an empty string" or type(path)), 0)
    end
    local stands = core.path_kind(path)
    if stands == "directory" then return "video" end
    if stands == "file" and core.picture_format(path) ~= "other" then return "image" end
    local reader = core.open_video(path)
    local info = reader:info()
    reader:free()
    if info.is_picture or (info.container == "gif" and info.frames == 1) then return "image" end
    return "video"
end

--- Loads an image or a video.
-- @tparam string path
-- @tparam[opt] table given options of @{pixelrefer.video.load}; an image needs none of them
-- @treturn table `{ kind = "image", image = Tensor }` or `{ kind = "video", video = Video }`
function media.load(path, given)
    if media.kind(path) == "image" then return { kind = "image", image = require("pixelrefer.image").load(path) } end
    return { kind = "video", video = require("pixelrefer.video").load(path, given) }
end

--- What is in a file.
-- @tparam string path
-- @treturn table kind, path, width, height; of a video also what @{pixelrefer.video.info} says
function media.info(path)
    local kind = media.kind(path)
    if kind == "image" then
        local picture = require("pixelrefer.image").load(path)
        local info = { kind = kind, path = path, width = picture:size(2), height = picture:size(1) }
        picture:free()
        return info
    end
    local info = require("pixelrefer.video").info(path)
    info.kind = kind
    return info
end

return media
