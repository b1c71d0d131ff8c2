--- Pictures: uint8 Tensors [h,w,3], RGB, from files and back.
--
--     local image = require "pixelrefer.image"
--     local street = image.load("street.jpg")
--     image.save("small.png", image.resize(street, 224, 224))
--
-- @module pixelrefer.image
local core = require "pixelrefer.core"
local tensor = require "pixelrefer.tensor"

local image = {}

local KINDS = { pillow_bicubic = true, opencv_linear = true, opencv_area = true, torch_bilinear = true }

local function check_path(where, path)
    if type(path) ~= "string" then error(("%s: a path expected, got %s"):format(where, type(path)), 3) end
end

local function check_picture(where, picture)
    if not tensor.isTensor(picture) then
        error(("%s: a Tensor expected, got %s"):format(where, type(picture)), 3)
    end
    return picture:contiguous()
end

-- The picture that is being read beside what else is done: its path and what waits for it.
local coming

--- Begins to read a JPEG or PNG file beside whatever else is done; the next @{load}, if it is of that path, waits for
-- it and gives it. For the picture that comes next: there is one at a time. What is wrong with the file @{load} says.
-- @tparam string path
function image.ahead(path)
    check_path("image.ahead", path)
    local known, format = pcall(core.picture_format, path)
    coming = known and format ~= "other" and { path = path, handle = core.begin_image(path) } or nil
end

--- Loads a picture: JPEG and PNG, and everything else that FFmpeg reads as a picture (WebP, BMP, TIFF ...). The EXIF
-- orientation is applied, grey widened, alpha dropped, 16 bits a channel cut to the upper 8.
-- @tparam string path
-- @treturn Tensor uint8 [h,w,3]
-- @raise a file that is missing, cut off, damaged or no picture; sides above 65535 pixels
function image.load(path)
    check_path("image.load", path)
    local begun = coming and coming.path == path and coming.handle
    if begun then
        coming = nil
        return core.end_image(begun)
    end
    if core.picture_format(path) == "other" then return core.read_picture(path) end
    return core.read_image(path)
end

--- Decodes JPEG or PNG bytes, as @{load} does a file.
-- @tparam string bytes
-- @treturn Tensor uint8 [h,w,3]
function image.decode(bytes)
    if type(bytes) ~= "string" then error("image.decode: a string expected, got " .. type(bytes), 2) end
    return core.decode_image(bytes)
end

--- Saves a picture as PNG; the file is there whole or not at all.
-- @tparam string path that ends in .png, or has no ending
-- @tparam Tensor picture uint8 [h,w,3], or [h,w] for grey
function image.save(path, picture)
    check_path("image.save", path)
    local ending = path:match("%.([^./]+)$")
    if ending and ending:lower() ~= "png" then
        error(("image.save: '%s': a path that ends in .png expected"):format(path), 2)
    end
    core.write_png(path, check_picture("image.save", picture))
end

--- A picture as PNG bytes.
-- @tparam Tensor picture uint8 [h,w,3], or [h,w] for grey
-- @treturn string
function image.encode(picture)
    return core.encode_png(check_picture("image.encode", picture))
end

--- Resizes a picture, bit for bit as one of the libraries that the reference uses.
-- @tparam Tensor picture uint8 [h,w] or [h,w,channels]; for "opencv_linear" also float32
-- @tparam int height
-- @tparam int width
-- @tparam[opt="pillow_bicubic"] string kind "pillow_bicubic", "opencv_linear", "opencv_area" or "torch_bilinear"
-- @treturn Tensor
function image.resize(picture, height, width, kind)
    picture = check_picture("image.resize", picture)
    if kind ~= nil and not KINDS[kind] then
        error(("image.resize: no kind '%s', expected pillow_bicubic, opencv_linear, opencv_area or torch_bilinear")
              :format(tostring(kind)), 2)
    end
    return core.resize(picture, height, width, kind)
end

return image
