--- RoI-align: a fixed grid of bins over the mask's box, whatever the mask's shape, as detectors pool.
-- @module pixelrefer.tokenizers.roi_align
local saot = require "pixelrefer.tokenizers.saot_lua"
local tensor = require "pixelrefer.tensor"

local roi_align = { name = "roi_align" }

local SAMPLES = 2 -- of a bin, in each direction

-- The sample points' coordinates along one side, in cells: (0) is the centre of the first.
local function coordinates(first, last, side)
    local length, list = last - first + 1, {}
    for s = 1, side * SAMPLES do list[s] = first - 1.5 + (s - 0.5) * length / (side * SAMPLES) end
    return tensor.fromTable(list)
end

--- Pools a region into side x side tokens, side = floor(sqrt(mask_num)): each the mean of its bin's bilinear samples.
-- @tparam Tensor features [gh,gw,E]
-- @tparam table item
-- @tparam table weights
-- @treturn Tensor [side*side,E] in raster order
-- @treturn Tensor cells [n,E] under the mask
-- @treturn Tensor assignment [n]: the bin that a cell's centre lies in
function roi_align.pool(features, item, weights)
    return tensor.scope(function()
        local placed, hidden = saot.place(features, item, weights), features:size(3)
        local side = math.floor(math.sqrt(item.config.mask_num))
        local at = item.mask_grid:gt(0):nonzero() -- [n,2]
        if at:size(1) == 0 then at = tensor.ones(1, 2, { dtype = "int64" }) end -- Lite's empty mask: its one cell
        local rows, columns = at:select(2, 1), at:select(2, 2)
        local top, bottom, left, right = rows:min(), rows:max(), columns:min(), columns:max()
        local count = side * SAMPLES
        local points = tensor.stack({
            coordinates(top, bottom, side):view(count, 1):expand(count, count),
            coordinates(left, right, side):view(1, count):expand(count, count),
        }, 3):view(count * count, 2)
        local tokens = placed:gridSample(points):view(side, SAMPLES, side, SAMPLES, hidden):mean(4):mean(2)
        local bin_row = ((rows:float() - (top - 0.5)) * (side / (bottom - top + 1))):floor():long()
        local bin_column = ((columns:float() - (left - 0.5)) * (side / (right - left + 1))):floor():long()
        return tokens:view(side * side, hidden), saot.cells(features, item, weights), bin_row * side + bin_column + 1
    end)
end

return roi_align
