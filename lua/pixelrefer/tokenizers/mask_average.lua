--- One token a region: the mean of the cells under its mask, as earlier region-level models pool.
-- @module pixelrefer.tokenizers.mask_average
local saot = require "pixelrefer.tokenizers.saot_lua"
local tensor = require "pixelrefer.tensor"

local mask_average = { name = "mask_average" }

--- Pools a region into one token; an empty one (Lite) into zeros.
-- @tparam Tensor features [gh,gw,E]
-- @tparam table item
-- @tparam table weights
-- @treturn Tensor [1,E]
-- @treturn Tensor cells [n,E]
-- @treturn Tensor assignment [n]
function mask_average.pool(features, item, weights)
    local cells = saot.cells(features, item, weights)
    local count = cells:size(1)
    local assignment = tensor.ones(count, { dtype = "int64" })
    if count == 0 then return tensor.zeros(1, features:size(3)), cells, assignment end
    return cells:mean(1, true), cells, assignment
end

return mask_average
