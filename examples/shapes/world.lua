--- The shapes world: scenes of objects that look, lie and move in ways that can be asked about.
--
--     local scene = world.make(seed, index, "picture")
--     scene.objects[1] -- {shape = "star", colour = "red", size = "small", filling = "striped", x =, y =, ...}
--
-- A scene is made by its seed and index alone. Objects are drawn in order, later ones over earlier ones; of each at
-- least 80 % is seen. Numbers that questions need (masks' areas and centres, who touches whom) are measured on the
-- pixels that the picture shows.
-- @module shapes.world
local ffi = require "ffi"

local draw = require "shapes.draw"
local random = require "shapes.random"

local world = {}

world.SHAPES = { "circle", "square", "triangle", "star", "cross", "heart", "moon", "diamond", "arrow", "bar" }
world.COLOURS = { "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "white" }
world.SIZES = { "small", "medium", "large" }
world.FILLINGS = { "plain", "striped", "dotted", "outlined" }
world.DIRECTIONS = { "left", "right", "up", "down" }

world.width, world.height = 140, 140 -- pixels
world.frames = 4 -- of a clip, one a second
world.masked_frames = { 0, 3 } -- of a clip: frames whose masks go into a dataset

local AREAS = { small = 380, medium = 900, large = 2000 } -- square pixels
local VISIBLE = 0.8
local STEPS = { slowly = { 6, 8 }, fast = { 14, 17 } } -- pixels a frame
local TOWARDS = { left = { -1, 0 }, right = { 1, 0 }, up = { 0, -1 }, down = { 0, 1 } }

-- Shapes that lie as well as they stand, and those that point anywhere.
local TURNS = { bar = 2, arrow = 4, moon = 4 }

local function new_object(source, colour)
    local shape, size = source:choose(world.SHAPES), source:choose(world.SIZES)
    return {
        shape = shape,
        colour = colour,
        size = size,
        filling = source:choose(world.FILLINGS),
        area = AREAS[size] * source:number(0.9, 1.1),
        angle = source:number(-0.24, 0.24) + math.pi / 2 * source:integer(0, (TURNS[shape] or 1) - 1),
        texture_angle = source:integer(0, 3) * math.pi / 4 + source:number(-0.15, 0.15),
        dx = 0,
        dy = 0,
    }
end

-- Colours of a picture's objects: one of them on one to four objects, each number as often as the others.
local function picture_colours(source)
    local shared = source:integer(1, 4)
    local count = source:integer(math.max(2, shared), 6)
    local main, colours, others = source:choose(world.COLOURS), {}, {}
    for i = 1, count do
        if i <= shared then
            colours[i] = main
        elseif #others > 0 and source:chance(0.35) then
            colours[i] = source:choose(others)
        else
            repeat colours[i] = source:choose(world.COLOURS) until colours[i] ~= main
            others[#others + 1] = colours[i]
        end
    end
    return source:shuffle(colours)
end

local function clip_colours(source)
    local colours = {}
    for i = 1, source:integer(1, 3) do colours[i] = source:choose(world.COLOURS) end
    return colours
end

local function set_moving(object, source)
    if source:chance(0.75) then
        object.speed = source:chance(0.5) and "slowly" or "fast"
        object.direction = source:choose(world.DIRECTIONS)
        local step = source:number(STEPS[object.speed][1], STEPS[object.speed][2])
        object.dx, object.dy = TOWARDS[object.direction][1] * step, TOWARDS[object.direction][2] * step
    end
    if source:chance(0.5) then
        repeat object.later_colour = source:choose(world.COLOURS) until object.later_colour ~= object.colour
    end
end

-- A place: anywhere, or (so that things touch) beside an object that is there.
local function choose_place(scene, object, source)
    local width, height = scene.width, scene.height
    local beside = #scene.objects > 1 and source:chance(0.4) and scene.objects[source:integer(1, #scene.objects - 1)]
    if beside then
        local reach = source:number(0.55, 1.05) * (math.sqrt(object.area) + math.sqrt(beside.area)) / 1.7
        local angle = source:number(0, 2 * math.pi)
        object.x, object.y = beside.x + reach * math.cos(angle), beside.y + reach * math.sin(angle)
    else
        object.x, object.y = source:number(0, width), source:number(0, height)
    end
    local last = scene.frames - 1
    object.x, object.y = object.x - object.dx * last / 2, object.y - object.dy * last / 2
end

-- Whether enough of every object is seen in every frame.
local function is_visible(scene, ids)
    for frame = 0, scene.frames - 1 do
        local facts, counts = draw.ids(scene, frame, ids), {}
        for k = 0, #scene.objects do counts[k] = 0 end
        for at = 0, scene.width * scene.height - 1 do
            local k = ids[at]
            if k ~= 0 then counts[k] = counts[k] + 1 end
        end
        for k, fact in ipairs(facts) do
            if counts[k] < VISIBLE * fact.full then return false end
        end
        if scene.frames == 1 then break end
    end
    return true
end

local function place_objects(scene, objects, source)
    local ids = ffi.new("uint8_t[?]", scene.width * scene.height)
    for _, object in ipairs(objects) do
        local count, placed = #scene.objects + 1, false
        scene.objects[count] = object
        for _ = 1, 40 do
            choose_place(scene, object, source)
            placed = is_visible(scene, ids)
            if placed then break end
        end
        if not placed then scene.objects[count] = nil end
    end
end

-- Pixels, centre and neighbours of each object in a frame.
local function measure(scene, frame, ids, facts)
    local width, height, count = scene.width, scene.height, #scene.objects
    local seen = {}
    for k = 1, count do seen[k] = { pixels = 0, x = 0, y = 0, borders = {}, hides = facts[k].hides } end
    local function meet(a, b)
        if a ~= b and a ~= 0 and b ~= 0 then
            seen[a].borders[b] = (seen[a].borders[b] or 0) + 1
            seen[b].borders[a] = (seen[b].borders[a] or 0) + 1
        end
    end
    for y = 0, height - 1 do
        for x = 0, width - 1 do
            local at = y * width + x
            local k = ids[at]
            if k ~= 0 then
                local object = seen[k]
                object.pixels, object.x, object.y = object.pixels + 1, object.x + x, object.y + y
                if x + 1 < width then meet(k, ids[at + 1]) end
                if y + 1 < height then meet(k, ids[at + width]) end
            end
        end
    end
    for _, object in ipairs(seen) do object.x, object.y = object.x / object.pixels, object.y / object.pixels end
    scene.seen[frame + 1] = seen
end

--- Makes a scene.
-- @tparam int seed
-- @tparam int index
-- @tparam string kind "picture" or "clip"
-- @treturn table {kind, width, height, frames, objects = {{shape, colour, size, filling, direction, speed, later_colour
--   ...}}, seen = for each frame and object {pixels, x, y, borders = {[other] = edges}, hides = {[other] = pixels}},
--   rgb = uint8_t buffers and ids = uint8_t buffers, one a frame}
function world.make(seed, index, kind)
    local source = random.new(seed, 2 * index + (kind == "clip" and 1 or 0))
    local scene = {
        kind = kind,
        width = world.width,
        height = world.height,
        frames = kind == "clip" and world.frames or 1,
        change_frame = 2, -- from here on later colours show
        objects = {},
        seen = {},
        rgb = {},
        ids = {},
        look = source:word(),
        source = source,
    }
    local objects = {}
    for i, colour in ipairs(kind == "clip" and clip_colours(source) or picture_colours(source)) do
        objects[i] = new_object(source, colour)
        if kind == "clip" then set_moving(objects[i], source) end
    end
    place_objects(scene, objects, source)
    if #scene.objects == 0 then return world.make(seed, index + 2 ^ 30, kind) end -- no place in 40 tries
    for frame = 0, scene.frames - 1 do
        local rgb = ffi.new("uint8_t[?]", scene.width * scene.height * 3)
        local ids = ffi.new("uint8_t[?]", scene.width * scene.height)
        measure(scene, frame, ids, draw.frame(scene, frame, rgb, ids))
        scene.rgb[frame + 1], scene.ids[frame + 1] = rgb, ids
    end
    return scene
end

return world
