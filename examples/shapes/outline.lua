--- Outlines of the ten shapes, as polygons of area 1 around their centre of mass, y pointing down.
-- @module shapes.outline

local outline = {}

-- Moves a polygon's centre of mass to (0,0) and scales it to area 1. `points` is {x, y, x, y, ...}.
local function normalized(points)
    local doubled, mx, my, count = 0, 0, 0, #points
    for i = 1, count, 2 do
        local x0, y0 = points[i], points[i + 1]
        local x1, y1 = points[(i + 1) % count + 1], points[(i + 2) % count + 1]
        local cross = x0 * y1 - x1 * y0
        doubled, mx, my = doubled + cross, mx + (x0 + x1) * cross, my + (y0 + y1) * cross
    end
    local cx, cy, scale = mx / (3 * doubled), my / (3 * doubled), 1 / math.sqrt(math.abs(doubled) / 2)
    for i = 1, count, 2 do
        points[i], points[i + 1] = (points[i] - cx) * scale, (points[i + 1] - cy) * scale
    end
    return points
end

-- Points of an arc of `steps` parts, from one angle to another (radians).
local function arc(points, cx, cy, radius, from, to, steps)
    for k = 0, steps do
        local angle = from + (to - from) * k / steps
        points[#points + 1], points[#points + 2] = cx + radius * math.cos(angle), cy + radius * math.sin(angle)
    end
    return points
end

local function star()
    local points = {}
    for k = 0, 9 do
        local angle, radius = (k / 5 - 0.5) * math.pi, k % 2 == 0 and 1 or 0.4
        points[#points + 1], points[#points + 2] = radius * math.cos(angle), radius * math.sin(angle)
    end
    return points
end

local function heart()
    local points = {}
    for k = 0, 35 do
        local t = k / 18 * math.pi
        points[#points + 1] = 16 * math.sin(t) ^ 3
        points[#points + 1] = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
    end
    return points
end

-- Two arcs between the same tips: most of a circle, and back along the inside.
local function moon()
    local tip, inner_x = math.rad(55), 0.62
    local points = arc({}, 0, 0, 1, tip, 2 * math.pi - tip, 28)
    local tip_x, tip_y = math.cos(tip) - inner_x, math.sin(tip)
    local angle = math.atan2(tip_y, tip_x)
    return arc(points, inner_x, 0, math.sqrt(tip_x ^ 2 + tip_y ^ 2), 2 * math.pi - angle, angle, 20)
end

local SHAPES = {
    circle = arc({}, 0, 0, 1, 0, 2 * math.pi * 31 / 32, 31),
    square = { -1, -1, 1, -1, 1, 1, -1, 1 },
    triangle = { 0, -1, 0.9, 0.7, -0.9, 0.7 },
    star = star(),
    cross = { -1, -3, 1, -3, 1, -1, 3, -1, 3, 1, 1, 1, 1, 3, -1, 3, -1, 1, -3, 1, -3, -1, -1, -1 },
    heart = heart(),
    moon = moon(),
    diamond = { 0, -1.7, 1, 0, 0, 1.7, -1, 0 },
    arrow = { 3, 0, 0.4, -2.2, 0.4, -0.8, -2.6, -0.8, -2.6, 0.8, 0.4, 0.8, 0.4, 2.2 },
    bar = { -3, -1, 3, -1, 3, 1, -3, 1 },
}
for _, points in pairs(SHAPES) do normalized(points) end

--- The polygon of a shape, turned, scaled and moved.
-- @tparam string shape
-- @tparam number x the centre
-- @tparam number y the centre
-- @tparam number area square pixels
-- @tparam number angle radians
-- @treturn table {x, y, x, y, ...}
function outline.place(shape, x, y, area, angle)
    local points, scale = {}, math.sqrt(area)
    local cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    local base = SHAPES[shape]
    for i = 1, #base, 2 do
        points[i] = x + base[i] * cosine - base[i + 1] * sine
        points[i + 1] = y + base[i] * sine + base[i + 1] * cosine
    end
    return points
end

return outline
