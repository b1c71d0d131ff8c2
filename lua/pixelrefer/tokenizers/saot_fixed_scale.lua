--- SAOT without its adaptive scale: every region is fed as large as it lies in the image, so a small object has few
-- cells and a large one many. Pooling and projection are SAOT's.
-- @module pixelrefer.tokenizers.saot_fixed_scale
local mask = require "pixelrefer.mask"
local saot = require "pixelrefer.tokenizers.saot_lua"

local saot_fixed_scale = { name = "saot_fixed_scale" }

--- Crops a region at the image's own scale.
-- @tparam Tensor picture uint8 [h,w,3]
-- @tparam Tensor m uint8 [h,w]
-- @tparam table config
-- @treturn table item
function saot_fixed_scale.prepare(picture, m, config)
    if mask.area(m) == 0 then return saot.prepare(picture, m, config) end -- Lite's black cell
    return saot.crop(picture, m, config, 1)
end

return saot_fixed_scale
