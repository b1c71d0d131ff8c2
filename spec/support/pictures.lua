-- Small pictures with known pixels, made by spec/fixtures/make_picture_fixtures.py.
local json = require "pixelrefer.json"
local tensor = require "pixelrefer.tensor"

local pictures = {}

local FOLDER = "spec/fixtures/pictures/"

--- Path of a fixture.
function pictures.path(name)
    return FOLDER .. name
end

--- A fixture's bytes.
function pictures.bytes(name)
    local file = assert(io.open(FOLDER .. name, "rb"))
    local bytes = file:read "*a"
    file:close()
    return bytes
end

--- What PIL reads from a fixture: uint8 Tensor [h,w,3].
function pictures.expected(name)
    local bytes = pictures.bytes(name .. ".ppm")
    local width, height, start = bytes:match "^P6%s(%d+) (%d+)%s255%s()"
    return tensor.fromString(bytes:sub(start), "uint8", { tonumber(height), tonumber(width), 3 })
end

--- The masks that pycocotools made.
function pictures.masks()
    return json.read(FOLDER .. "masks.json")
end

--- The largest difference of two uint8 tensors of one shape.
function pictures.difference(a, b)
    return (a:float() - b:float()):abs():max()
end

--- The message that a call raises.
function pictures.message(f, ...)
    local ok, text = pcall(f, ...)
    assert(not ok, "an error was expected")
    return text
end

return pictures
