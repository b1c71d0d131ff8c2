-- Draws the pictures that the other examples ask about: a landscape with a sun, a house and a ball, each with its exact
-- mask, and a short clip in which the ball rolls past the house. Everything is drawn with tensor operations, and the
-- same bytes come out every time.
--
--     pixelrefer run examples/make_media.lua FOLDER
--
-- writes FOLDER/picture.png, FOLDER/picture-<object>.png (masks), FOLDER/clip/<frame>.png (a folder of pictures is a
-- video) and FOLDER/clip-<object>-<frame>.png. As a module it gives the same as tensors.

local pixelrefer = require "pixelrefer"

local tensor = pixelrefer.tensor

local make_media = {
    frames = 8,            -- in the clip
    frames_per_second = 3, -- what a folder of pictures counts as
}

--- The coordinates of every pixel's centre: x [1,width] and y [height,1], which broadcast against each other.
local function coordinates(height, width)
    local x = tensor.arange(0.5, width):view(1, width)
    local y = tensor.arange(0.5, height):view(height, 1)
    return x, y
end

local function disc(x, y, cx, cy, radius)
    local dx, dy = x - cx, y - cy
    return (dx * dx + dy * dy):lt(radius * radius)
end

local function box(x, y, left, top, right, bottom)
    return x:ge(left):logicalAnd(x:lt(right)):logicalAnd(y:ge(top)):logicalAnd(y:lt(bottom))
end

--- An upright triangle: apex at (cx, top), standing on y = bottom, `half` to either side.
local function gable(x, y, cx, top, bottom, half)
    local slope = half / (bottom - top)
    return (x - cx):abs():lt((y - top) * slope):logicalAnd(y:lt(bottom))
end

local function colour(red, green, blue)
    return tensor.fromTable({ red, green, blue }):view(1, 1, 3)
end

--- Lays a colour over the part of the canvas [height,width,3] where mask [height,width] is 1.
local function paint(canvas, mask, red, green, blue)
    local cover = mask:float():view(mask:size(1), mask:size(2), 1)
    return canvas + (colour(red, green, blue) - canvas) * cover
end

--- One drawing, with the ball's place as a share of the way across.
-- @tparam integer height
-- @tparam integer width
-- @tparam number way 0 .. 1
-- @treturn Tensor the picture [height,width,3] uint8
-- @treturn table masks [height,width] uint8 by name: sun, house, ball (what is hidden is not in them)
function make_media.draw(height, width, way)
    local x, y = coordinates(height, width)
    local unit = height / 12

    local sun = disc(x, y, width * 0.8, unit * 2.5, unit * 1.5)
    local house = box(x, y, width * 0.2, unit * 5, width * 0.48, unit * 9.5)
    local roof = gable(x, y, width * 0.34, unit * 2.5, unit * 5, width * 0.18)
    local door = box(x, y, width * 0.31, unit * 7, width * 0.37, unit * 9.5)
    local ball_x, ball_y, radius = width * (0.1 + 0.8 * way), unit * 9.8, unit * 1.2
    local ball = disc(x, y, ball_x, ball_y, radius)
    local turn = 9 * way -- radians that the ball has rolled
    local spot = disc(x, y, ball_x + math.cos(turn) * radius / 2, ball_y + math.sin(turn) * radius / 2, radius / 3)

    local depth = (y / height):expand(height, width):contiguous():view(height, width, 1)
    local canvas = colour(90, 150, 225) + depth * colour(110, 60, 10)
    canvas = paint(canvas, box(x, y, 0, height * 0.7, width, height), 86, 140, 62)
    canvas = paint(canvas, sun, 252, 214, 60)
    canvas = paint(canvas, house, 214, 196, 170)
    canvas = paint(canvas, roof, 150, 62, 44)
    canvas = paint(canvas, door, 96, 60, 34)
    canvas = paint(canvas, ball, 206, 40, 48)
    canvas = paint(canvas, spot, 250, 250, 250)

    local seen = ball:eq(0) -- the ball is in front of everything
    return (canvas + 0.5):byte(), {
        sun = sun:logicalAnd(seen),
        house = house:logicalOr(roof):logicalAnd(seen),
        ball = ball,
    }
end

--- The picture and its masks.
-- @treturn Tensor [336,448,3] uint8
-- @treturn table masks by name
function make_media.picture()
    return make_media.draw(336, 448, 0.72)
end

--- The clip.
-- @treturn {Tensor,...} frames [180,320,3] uint8
-- @treturn {table,...} each frame's masks by name
function make_media.clip()
    local frames, masks = {}, {}
    for k = 1, make_media.frames do
        frames[k], masks[k] = make_media.draw(180, 320, (k - 1) / (make_media.frames - 1))
    end
    return frames, masks
end

--- Writes all of it below a folder, which is made if need be.
-- @tparam string folder
function make_media.write(folder)
    assert(os.execute(("mkdir -p '%s/clip'"):format(folder:gsub("'", "'\\''"))) == 0)
    local picture, objects = make_media.picture()
    pixelrefer.image.save(folder .. "/picture.png", picture)
    for name, mask in pairs(objects) do
        pixelrefer.image.save(("%s/picture-%s.png"):format(folder, name), mask * 255)
    end
    local frames, masks = make_media.clip()
    for k, frame in ipairs(frames) do
        pixelrefer.image.save(("%s/clip/%03d.png"):format(folder, k - 1), frame)
        for name, mask in pairs(masks[k]) do
            pixelrefer.image.save(("%s/clip-%s-%03d.png"):format(folder, name, k - 1), mask * 255)
        end
    end
end

if arg and arg[0] and arg[0]:find("make_media%.lua$") then make_media.write(arg[1] or "build/media") end

return make_media
