--- Farthest-point sampling: at most mask_num cells stand for the region, each as it is and as unlike the others as can
-- be. Where k-means averages, this keeps what stands out.
-- @module pixelrefer.tokenizers.farthest_point
local saot = require "pixelrefer.tokenizers.saot_lua"
local tensor = require "pixelrefer.tensor"

local farthest_point = { name = "farthest_point" }

-- Begins with the cell nearest to the mean; each next one is farthest from all before it, the first of equals.
local function sample(cells, most)
    local chosen = { cells:pairwiseDistance(cells:mean(1, true)):reshape(-1):argmin() }
    local distance = tensor.full({ cells:size(1) }, math.huge)
    while #chosen < most do
        local last = cells:narrow(1, chosen[#chosen], 1)
        distance:cmin_(cells:pairwiseDistance(last):reshape(-1))
        chosen[#chosen + 1] = distance:argmax()
    end
    return tensor.fromTable(chosen, "int64")
end

--- Pools a region into min(n, mask_num) of its n cells; an empty one (Lite) into one token of zeros.
-- @tparam Tensor features [gh,gw,E]
-- @tparam table item
-- @tparam table weights
-- @treturn Tensor [k,E]
-- @treturn Tensor cells [n,E]
-- @treturn Tensor assignment [n]: the sampled cell that is nearest
function farthest_point.pool(features, item, weights)
    return tensor.scope(function()
        local cells = saot.cells(features, item, weights)
        local count = cells:size(1)
        if count == 0 then return tensor.zeros(1, features:size(3)), cells, tensor.zeros(0, { dtype = "int64" }) end
        local tokens = cells:indexSelect(1, sample(cells, math.min(count, item.config.mask_num)))
        return tokens, cells, cells:pairwiseDistance(tokens):argmin(2)
    end)
end

return farthest_point
