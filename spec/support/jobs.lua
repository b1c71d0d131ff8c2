-- A small dataset to annotate: pictures with three regions each, as COCO.
local files = require "support.files"
local image = require "pixelrefer.image"
local json = require "pixelrefer.json"
local tensor = require "pixelrefer.tensor"

local jobs = {}

--- Writes pictures and `instances.json`.
-- @tparam string folder
-- @tparam[opt=4] int pictures how many
-- @tparam[opt=3] int regions in each
-- @treturn string the file
function jobs.write(folder, pictures, regions)
    local categories = { { id = 1, name = "left" }, { id = 2, name = "right" } }
    local dataset = { images = {}, annotations = {}, categories = categories }
    for i = 1, pictures or 4 do
        local name = ("%d.png"):format((i - 1) % 8)
        if i <= 8 then
            image.save(folder .. "/" .. name, (tensor.rand(56, 70, 3, { seed = i }) * 255):byte())
        end
        dataset.images[i] = { id = 100 - i, file_name = name, width = 70, height = 56 }
        for j = 1, regions or 3 do
            local x, y = 4 * j % 30, 3 * j % 20
            dataset.annotations[#dataset.annotations + 1] = { id = #dataset.annotations + 1, image_id = 100 - i,
                category_id = j % 2 + 1, iscrowd = 0,
                segmentation = { { x, y, x + 30 + i % 9, y + 2, x + 20, y + 30 } } }
        end
    end
    return files.write(folder .. "/instances.json", json.encode(dataset))
end

return jobs
