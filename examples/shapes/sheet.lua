-- A contact sheet of the shapes world: some pictures, and below them some clips frame by frame.
--
--     pixelrefer run examples/shapes/sheet.lua OUT.png [SEED]
package.path = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/../?.lua;" .. package.path
local media = require "shapes.media"
local pixelrefer = require "pixelrefer"
local world = require "shapes.world"

local COLUMNS, PICTURES, CLIPS = 8, 32, 8

local out, seed = arg[1], tonumber(arg[2] or 1)
if not out or not seed then error("usage: pixelrefer run examples/shapes/sheet.lua OUT.png [SEED]", 0) end

local rows, row = {}, {}
local function add(scene)
    for frame = 1, scene.frames do
        row[#row + 1] = media.picture(scene, frame)
        if #row == COLUMNS then rows[#rows + 1], row = pixelrefer.tensor.cat(row, 2), {} end
    end
end
for index = 1, PICTURES do add(world.make(seed, index, "picture")) end
for index = 1, CLIPS do add(world.make(seed, index, "clip")) end
pixelrefer.image.save(out, pixelrefer.tensor.cat(rows, 1))
