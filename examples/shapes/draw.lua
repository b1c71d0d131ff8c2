--- Draws scenes: which object each pixel shows, and the picture. Loops over FFI buffers, some milliseconds a picture.
-- @module shapes.draw
local ffi = require "ffi"

local outline = require "shapes.outline"
local random = require "shapes.random"

local draw = {}

local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max

--- Colours by name: {red, green, blue}.
draw.COLOURS = {
    red = { 215, 35, 40 }, orange = { 245, 140, 25 }, yellow = { 245, 225, 50 }, green = { 45, 160, 60 },
    cyan = { 60, 205, 215 }, blue = { 40, 75, 205 }, purple = { 125, 50, 170 }, pink = { 250, 135, 195 },
    brown = { 120, 75, 40 }, white = { 242, 242, 242 },
}

-- Pixels of a stripe and its gap, of a dot and its gap, of a dot's radius, of an outline.
local TEXTURE = {
    small = { period = 6, radius = 1.8, line = 2.6 },
    medium = { period = 7.5, radius = 2.3, line = 3.4 },
    large = { period = 10, radius = 3.1, line = 4.6 },
}

-- Columns where a row at height y crosses a polygon, in order.
local crossings = {}
local function cross(points, y)
    local count, total = 0, #points
    local x0, y0 = points[total - 1], points[total]
    for i = 1, total, 2 do
        local x1, y1 = points[i], points[i + 1]
        if (y0 <= y) ~= (y1 <= y) then
            local x, at = x0 + (y - y0) / (y1 - y0) * (x1 - x0), count
            while at > 0 and crossings[at] > x do
                crossings[at + 1] = crossings[at]
                at = at - 1
            end
            crossings[at + 1] = x
            count = count + 1
        end
        x0, y0 = x1, y1
    end
    return count
end

-- Writes an object's number where it is. Returns its pixels, those outside the picture too. What was there before is
-- counted in `hidden[number]`.
local function fill(ids, width, height, points, number, hidden)
    local low, high = math.huge, -math.huge
    for i = 2, #points, 2 do low, high = min(low, points[i]), max(high, points[i]) end
    local pixels = 0
    for y = floor(low), ceil(high) do
        for k = 1, cross(points, y + 0.5), 2 do
            local first, last = ceil(crossings[k] - 0.5), ceil(crossings[k + 1] - 0.5) - 1
            pixels = pixels + max(0, last - first + 1)
            if y >= 0 and y < height then
                for at = y * width + max(first, 0), y * width + min(last, width - 1) do
                    local before = ids[at]
                    if before ~= 0 then hidden[before] = (hidden[before] or 0) + 1 end
                    ids[at] = number
                end
            end
        end
    end
    return pixels
end

--- Which object each pixel of a frame shows: the exact visible masks.
-- @tparam table scene as `world.make` gives it
-- @tparam int frame from 0
-- @tparam cdata ids uint8_t[height*width], filled: 0 the background, k object k
-- @treturn table for each object {full = its pixels if nothing hid it and the picture had no border, hides = {[k] =
--   pixels of object k that it covered when it was drawn}}
function draw.ids(scene, frame, ids)
    ffi.fill(ids, scene.width * scene.height)
    local facts = {}
    for k, object in ipairs(scene.objects) do
        local points = outline.place(object.shape, object.x + frame * object.dx, object.y + frame * object.dy,
                                     object.area, object.angle)
        local hides = {}
        facts[k] = { full = fill(ids, scene.width, scene.height, points, k, hides), hides = hides, points = points }
    end
    return facts
end

-- Smooth noise from a coarse grid of values, -1 to 1, at a point in grid units.
local function smooth(grid, side, x, y)
    local column, row = floor(x), floor(y)
    local fx, fy = x - column, y - row
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    local at = row * side + column
    local above = grid[at] + (grid[at + 1] - grid[at]) * fx
    local below = grid[at + side] + (grid[at + side + 1] - grid[at + side]) * fx
    return above + (below - above) * fy
end

-- A dull colour with soft clouds and a weave.
local function paint_background(scene, source, canvas)
    local grey = source:number(70, 175)
    local red, green, blue = grey + source:number(-22, 22), grey + source:number(-22, 22), grey + source:number(-22, 22)
    local cell, clouds = source:number(16, 48), source:number(4, 26)
    local weave, wave_x, wave_y = source:number(0, 9), source:number(-0.6, 0.6), source:number(-0.6, 0.6)
    local side = ceil(max(scene.width, scene.height) / cell) + 2
    local grid = ffi.new("double[?]", side * side)
    for i = 0, side * side - 1 do grid[i] = source:number(-1, 1) end
    local at = 0
    for y = 0, scene.height - 1 do
        for x = 0, scene.width - 1 do
            local light = clouds * smooth(grid, side, x / cell, y / cell) + weave * math.sin(x * wave_x + y * wave_y)
            canvas[at], canvas[at + 1], canvas[at + 2] = red + light, green + light, blue + light
            at = at + 3
        end
    end
end

-- Square of the distance from a point to a polygon's border.
local function border_distance(points, x, y)
    local best, total = math.huge, #points
    local x0, y0 = points[total - 1], points[total]
    for i = 1, total, 2 do
        local x1, y1 = points[i], points[i + 1]
        local ex, ey = x1 - x0, y1 - y0
        local share = ((x - x0) * ex + (y - y0) * ey) / (ex * ex + ey * ey)
        share = min(1, max(0, share))
        local dx, dy = x - x0 - share * ex, y - y0 - share * ey
        best = min(best, dx * dx + dy * dy)
        x0, y0 = x1, y1
    end
    return best
end

-- How much of its colour an object has at a point: 1, or the little of its dark parts.
local DARK = 0.3
local FILLINGS = {
    plain = function() return 1 end,
    striped = function(u, _, texture) return u % texture.period < texture.period / 2 and 1 or DARK end,
    dotted = function(u, v, texture)
        local period = texture.period
        local du, dv = (u + period / 2) % period - period / 2, (v + period / 2) % period - period / 2
        return du * du + dv * dv < texture.radius * texture.radius and DARK or 1
    end,
}

local function paint_object(scene, number, frame, facts, ids, canvas)
    local object, points = scene.objects[number], facts.points
    local color = draw.COLOURS[frame >= scene.change_frame and object.later_colour or object.colour]
    local red, green, blue = color[1], color[2], color[3]
    local texture, outlined = TEXTURE[object.size], object.filling == "outlined"
    local share_at = FILLINGS[object.filling]
    local cx, cy = object.x + frame * object.dx, object.y + frame * object.dy
    local cosine, sine = math.cos(object.texture_angle), math.sin(object.texture_angle)
    local left, top, right, bottom = math.huge, math.huge, -math.huge, -math.huge
    for i = 1, #points, 2 do
        left, right = min(left, points[i]), max(right, points[i])
        top, bottom = min(top, points[i + 1]), max(bottom, points[i + 1])
    end
    local reach = texture.line * texture.line
    for y = max(0, floor(top)), min(scene.height - 1, ceil(bottom)) do
        for x = max(0, floor(left)), min(scene.width - 1, ceil(right)) do
            local at = y * scene.width + x
            if ids[at] == number then
                local dx, dy = x + 0.5 - cx, y + 0.5 - cy
                local share
                if outlined then
                    share = border_distance(points, x + 0.5, y + 0.5) < reach and 1 or DARK
                else
                    share = share_at(dx * cosine + dy * sine, dy * cosine - dx * sine, texture)
                end
                canvas[3 * at], canvas[3 * at + 1], canvas[3 * at + 2] = red * share, green * share, blue * share
            end
        end
    end
end

-- Noise of every pixel and channel, the same in every frame.
local function add_noise(source, strength, count, canvas, rgb)
    local band, rshift = require("bit").band, require("bit").rshift
    for at = 0, count - 1, 3 do
        local word = source:word()
        for channel = 0, 2 do
            local noise = (band(rshift(word, 10 * channel), 1023) / 511.5 - 1) * strength
            rgb[at + channel] = max(0, min(255, floor(canvas[at + channel] + noise + 0.5)))
        end
    end
end

--- Draws a frame.
-- @tparam table scene as `world.make` gives it
-- @tparam int frame from 0
-- @tparam cdata rgb uint8_t[height*width*3], filled
-- @tparam cdata ids uint8_t[height*width], filled as by @{ids}
-- @treturn table as `ids`
function draw.frame(scene, frame, rgb, ids)
    local source = random.new(scene.look, 1)
    local canvas = ffi.new("double[?]", scene.width * scene.height * 3)
    local facts = draw.ids(scene, frame, ids)
    local strength = source:number(2, 14)
    paint_background(scene, source, canvas)
    for number in ipairs(scene.objects) do paint_object(scene, number, frame, facts[number], ids, canvas) end
    add_noise(source, strength, scene.width * scene.height * 3, canvas, rgb)
    return facts
end

return draw
