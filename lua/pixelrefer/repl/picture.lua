--- Pictures shown at the prompt: a PNG in a temporary folder, and the picture itself where the terminal can.
-- @module pixelrefer.repl.picture
local draw = require "pixelrefer.draw"
local ffi = require "ffi"
local image = require "pixelrefer.image"
local tensor = require "pixelrefer.tensor"

ffi.cdef "char *mkdtemp(char *template);"

local picture = {}

local DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

--- Base64.
-- @tparam string bytes
-- @treturn string
function picture.base64(bytes)
    local out = {}
    for i = 1, #bytes, 3 do
        local a, b, c = bytes:byte(i, i + 2)
        local group = a * 65536 + (b or 0) * 256 + (c or 0)
        local text = ""
        for shift = 3, 0, -1 do
            local digit = math.floor(group / 64 ^ shift) % 64 + 1
            text = text .. DIGITS:sub(digit, digit)
        end
        out[#out + 1] = c and text or b and text:sub(1, 3) .. "=" or text:sub(1, 2) .. "=="
    end
    return table.concat(out)
end

--- How a terminal shows pictures, by its environment.
-- @tparam function variable name -> value, as os.getenv
-- @treturn ?string "kitty" or "iterm"; nil when it cannot, or hides what it is behind a multiplexer
function picture.protocol(variable)
    local term, program = variable("TERM") or "", variable("TERM_PROGRAM") or ""
    if variable("TMUX") or term:match("^screen") or term:match("^tmux") then return nil end
    if term == "xterm-kitty" or term == "xterm-ghostty" or variable("KITTY_WINDOW_ID") then return "kitty" end
    if program == "iTerm.app" or program == "WezTerm" then return "iterm" end
    return nil
end

--- What makes a terminal show a PNG.
-- @tparam string protocol
-- @tparam string png bytes
-- @treturn string
function picture.escape(protocol, png)
    local text = picture.base64(png)
    if protocol == "iterm" then return ("\27]1337;File=inline=1;size=%d:%s\7\n"):format(#png, text) end
    local out = {}
    for i = 1, #text, 4096 do -- kitty takes it in pieces
        local first, more = i == 1 and "f=100,a=T," or "", i + 4096 <= #text and 1 or 0
        out[#out + 1] = ("\27_G%sm=%d;%s\27\\"):format(first, more, text:sub(i, i + 4095))
    end
    return table.concat(out) .. "\n"
end

-- A picture of what is to be shown: an image or a mask, a path, an image with masks on it.
local function prepare(shown, ...)
    if type(shown) == "string" then shown = image.load(shown) end
    if not tensor.isTensor(shown) or shown:dtype() ~= "uint8" or (shown:dim() ~= 2 and shown:dim() ~= 3) then
        error("show: an image, a mask or a path expected, found " .. (tensor.isTensor(shown)
            and ("a %s tensor of size %s"):format(shown:dtype(), table.concat(shown:size(), "x")) or type(shown)), 0)
    end
    if select("#", ...) > 0 then return draw.overlay(shown, { ... }) end
    if shown:dim() == 2 and shown:nElement() > 0 and shown:max() <= 1 then return shown * 255 end
    return shown
end

local folder, count = nil, 0

--- Writes a picture as PNG into a temporary folder.
-- @param shown an image (uint8 Tensor [h,w,3] or [h,w]), a mask, or a path
-- @param ... masks to be drawn on it
-- @treturn string the PNG's path
function picture.write(shown, ...)
    local prepared = prepare(shown, ...)
    if not folder then
        local template = (os.getenv("TMPDIR") or "/tmp") .. "/pixelrefer-XXXXXX"
        local made = ffi.C.mkdtemp(ffi.new("char[?]", #template + 1, template))
        if made == nil then error(("show: cannot make the folder %s"):format(template), 0) end
        folder = ffi.string(made)
    end
    count = count + 1
    local path = ("%s/%d.png"):format(folder, count)
    image.save(path, prepared)
    return path
end

return picture
