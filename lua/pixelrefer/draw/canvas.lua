--- A picture to draw charts and sheets on: boxes, lines, text, other pictures.
--
--     local sheet = canvas.new(200, 300)
--     sheet:line(10, 10, 290, 190, { 200, 0, 0 }, 2)
--     sheet:text(20, 20, "hello", { scale = 2 })
--     image.save("sheet.png", sheet.picture)
--
-- Coordinates are pixels from 0, x to the right, y down; what lies outside is cut off.
-- @module pixelrefer.draw.canvas
local bit = require "bit"

local font = require "pixelrefer.draw.font"
local image = require "pixelrefer.image"
local options = require "pixelrefer.options"
local tensor = require "pixelrefer.tensor"

local canvas = {}

local Canvas = {}
Canvas.__index = Canvas

local BLACK = { 30, 30, 30 }

--- A canvas of one colour.
-- @tparam int height
-- @tparam int width
-- @tparam[opt] table color {red, green, blue} (white)
-- @treturn Canvas whose `picture` is the uint8 Tensor [height,width,3]
function canvas.new(height, width, color)
    local picture = tensor.full({ height, width, 3 }, 255, { dtype = "uint8" })
    local made = setmetatable({ picture = picture, height = height, width = width }, Canvas)
    if color then made:fill(0, 0, width, height, color) end
    return made
end

-- Mixes a colour into a pixel, `share` of it.
local function mix(self, data, x, y, color, share)
    if x < 0 or y < 0 or x >= self.width or y >= self.height or share <= 0 then return end
    local at = (y * self.width + x) * 3
    for c = 0, 2 do data[at + c] = data[at + c] * (1 - share) + color[c + 1] * share + 0.5 end
end

--- Fills the box of columns x0 to x1-1 and rows y0 to y1-1.
-- @tparam int x0
-- @tparam int y0
-- @tparam int x1
-- @tparam int y1
-- @tparam table color
function Canvas:fill(x0, y0, x1, y1, color)
    local data = self.picture:data()
    for y = math.max(0, y0), math.min(self.height, y1) - 1 do
        for x = math.max(0, x0), math.min(self.width, x1) - 1 do mix(self, data, x, y, color, 1) end
    end
end

--- Draws a line with smooth edges; of length 0 it is a dot.
-- @tparam number x0
-- @tparam number y0
-- @tparam number x1
-- @tparam number y1
-- @tparam table color
-- @tparam[opt=1] number thickness
function Canvas:line(x0, y0, x1, y1, color, thickness)
    local half = (thickness or 1) / 2
    local dx, dy = x1 - x0, y1 - y0
    local square = dx * dx + dy * dy
    local data = self.picture:data()
    for y = math.floor(math.min(y0, y1) - half - 1), math.ceil(math.max(y0, y1) + half + 1) do
        for x = math.floor(math.min(x0, x1) - half - 1), math.ceil(math.max(x0, x1) + half + 1) do
            local along = square > 0 and math.max(0, math.min(1, ((x - x0) * dx + (y - y0) * dy) / square)) or 0
            local ax, ay = x - x0 - along * dx, y - y0 - along * dy
            mix(self, data, x, y, color, math.min(1, half + 0.5 - math.sqrt(ax * ax + ay * ay)))
        end
    end
end

--- Width of a text in pixels.
-- @tparam string text
-- @tparam[opt=1] int scale
-- @treturn int
function canvas.textWidth(text, scale)
    return #font.plain(text) * font.ADVANCE * (scale or 1)
end

--- Options of @{Canvas:text} and @{Canvas:paragraph}.
-- @table TextOptions
-- @field scale pixels a dot of the font (1)
-- @field color (nearly black)
-- @field align "left", "center" or "right" of x ("left")
local TEXT = {
    scale = { type = "integer", min = 1, max = 64, default = 1 },
    color = { type = "table", default = BLACK },
    align = { "left", "center", "right", default = "left" },
}

--- Writes one line of text; y is its top.
-- @tparam number x
-- @tparam number y
-- @tparam string text
-- @tparam[opt] TextOptions given
function Canvas:text(x, y, text, given)
    local settings = options.check(given, TEXT, "text")
    local plain, scale = font.plain(text), settings.scale
    local share = settings.align == "center" and 0.5 or settings.align == "right" and 1 or 0
    x, y = math.floor(x - canvas.textWidth(plain, scale) * share + 0.5), math.floor(y + 0.5)
    for i = 1, #plain do
        for column, bits in ipairs(font.glyph(plain:byte(i)) or {}) do
            for row = 0, 7 do
                if bit.band(bits, bit.lshift(1, row)) ~= 0 then
                    local left, top = x + ((i - 1) * font.ADVANCE + column - 1) * scale, y + row * scale
                    self:fill(left, top, left + scale, top + scale, settings.color)
                end
            end
        end
    end
end

-- Lines of at most `columns` characters, broken between words where there are such places.
local function wrap(text, columns)
    local lines, line = {}, ""
    for word in font.plain(text):gmatch("%S+") do
        if line ~= "" and #line + 1 + #word > columns then
            lines[#lines + 1], line = line, ""
        end
        line = line == "" and word or line .. " " .. word
        while #line > columns do
            lines[#lines + 1], line = line:sub(1, columns), line:sub(columns + 1)
        end
    end
    if line ~= "" then lines[#lines + 1] = line end
    return lines
end

--- Writes a text in lines of at most `width` pixels; what does not fit into `height` ends in "...".
-- @tparam number x
-- @tparam number y
-- @tparam int width
-- @tparam int height
-- @tparam string text
-- @tparam[opt] TextOptions given
function Canvas:paragraph(x, y, width, height, text, given)
    local scale = given and given.scale or 1
    local columns = math.max(1, math.floor(width / (font.ADVANCE * scale)))
    local most = math.max(1, math.floor(height / (font.LINE * scale)))
    local lines = wrap(text, columns)
    if #lines > most then lines[most] = lines[most]:sub(1, math.max(0, columns - 3)) .. "..." end
    for i = 1, math.min(#lines, most) do self:text(x, y + (i - 1) * font.LINE * scale, lines[i], given) end
end

--- Puts a picture into a box, as large as it fits there, in the middle.
-- @tparam int x
-- @tparam int y
-- @tparam int width
-- @tparam int height
-- @tparam Tensor picture uint8 [h,w,3]
function Canvas:paste(x, y, width, height, picture)
    local scale = math.min(width / picture:size(2), height / picture:size(1))
    local h = math.max(1, math.floor(picture:size(1) * scale + 0.5))
    local w = math.max(1, math.floor(picture:size(2) * scale + 0.5))
    local top, left = y + math.floor((height - h) / 2), x + math.floor((width - w) / 2)
    self.picture:narrow(1, top + 1, h):narrow(2, left + 1, w):copy_(image.resize(picture, h, w))
end

return canvas
