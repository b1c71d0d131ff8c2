--- SAOT in Lua: the scale-adaptive object tokenizer on tensor operations, equal to the built-in one in C.
--
-- The template for variants. Copy it and change what you like, or take its parts:
--
--     local saot = require "pixelrefer.tokenizers.saot_lua"
--     return { pool = function(features, item, weights)
--         return saot.cells(features, item, weights):mean(1, true)
--     end }
--
-- Numbers follow the paper's section on the scale-adaptive object tokenizer and its published code; where the two
-- frameworks differ, PixelRefer ("vision_object") comes first, PixelRefer-Lite ("object_only") second.
-- @module pixelrefer.tokenizers.saot_lua
local core = require "pixelrefer.core"
local image = require "pixelrefer.image"
local mask = require "pixelrefer.mask"
local tensor = require "pixelrefer.tensor"

local saot = {}

local CELL = 14       -- pixels a side
local MARGIN = 28     -- pixels around the region's tight box
local LOCAL_SIDE = 224 -- of Lite's local picture

local function is_lite(config)
    return config.framework == "object_only"
end

-- ---- prepare: crop and scale -----------------------------------------------------------------------------------

--- How much a region of `area` pixels is scaled: up until it spans mask_num cells, down to 100 cells (Lite: 50).
-- @tparam int area
-- @tparam table config
-- @treturn number
function saot.scale(area, config)
    local cell, most = CELL * CELL, is_lite(config) and 50 or 100
    local scale = math.ceil(math.sqrt(cell * config.mask_num / area)) -- the paper has no ceil, its code does
    if scale == 1 and area / cell > most then return 1 / math.sqrt(area / cell / most) end
    return scale
end

-- The box that positions are computed from, and where the crop ends. The far edge is inclusive in Lite alone.
local function choose_box(m, lite)
    local height, width = m:size(1), m:size(2)
    local x0, y0, x1, y1 = mask.boundingBox(m) -- half-open
    local top, left = math.max(0, y0 - MARGIN), math.max(0, x0 - MARGIN)
    if lite then
        local bottom, right = math.min(height, y1 + MARGIN), math.min(width, x1 + MARGIN)
        return { top, left, bottom - 1, right - 1 }, bottom, right
    end
    local bottom, right = math.min(height, y1 + MARGIN) - 1, math.min(width, x1 + MARGIN) - 1
    return { top, left, bottom, right }, math.max(bottom, top + 1), math.max(right, left + 1)
end

-- A mask too thin to reach a cell's centre: the cell that holds the largest share of it, the first of equals.
local function keep_largest_cell(grid, m)
    local rows, columns, height, width = grid:size(1), grid:size(2), m:size(1), m:size(2)
    local share, best = {}, nil
    local function overlap(at, size, cells, cell) -- of a pixel with a cell, in pixels times cells
        return math.min((at + 1) * cells, (cell + 1) * size) - math.max(at * cells, cell * size)
    end
    for _, pixel in ipairs(m:nonzero():totable()) do
        local y, x = pixel[1] - 1, pixel[2] - 1
        for i = math.floor(y * rows / height), math.ceil((y + 1) * rows / height) - 1 do
            for j = math.floor(x * columns / width), math.ceil((x + 1) * columns / width) - 1 do
                local cell = i * columns + j + 1
                share[cell] = (share[cell] or 0) + overlap(y, height, rows, i) * overlap(x, width, columns, j)
            end
        end
    end
    for cell, area in pairs(share) do
        if not best or area > share[best] or (area == share[best] and cell < best) then best = cell end
    end
    grid:view(-1)[best] = 1
end

--- Prepares a region at a scale of one's own.
-- @tparam Tensor picture uint8 [h,w,3]
-- @tparam Tensor m uint8 [h,w], not empty
-- @tparam table config
-- @tparam number scale
-- @treturn table item
function saot.crop(picture, m, config, scale)
    local lite = is_lite(config)
    local box, bottom, right = choose_box(m, lite)
    local height, width = bottom - box[1], right - box[2]
    local cut = picture:narrow(1, box[1] + 1, height):narrow(2, box[2] + 1, width)
    local part = m:narrow(1, box[1] + 1, height):narrow(2, box[2] + 1, width)
    local rows, columns = math.ceil(height * scale / CELL), math.ceil(width * scale / CELL)
    local grows = rows * CELL >= height or columns * CELL >= width
    local item = {
        box = box,
        picture = image.resize(cut, rows * CELL, columns * CELL,
                               (grows or not lite) and "opencv_linear" or "opencv_area"),
    }
    if lite then
        item.mask_grid = image.resize(part:float(), rows, columns, "opencv_linear")
        item.local_picture = image.resize(cut, LOCAL_SIDE, LOCAL_SIDE, "opencv_area")
    else
        item.mask_grid = image.resize(part, rows, columns, "torch_bilinear"):float()
        if not item.mask_grid:any() then keep_largest_cell(item.mask_grid, part) end
    end
    return item
end

--- The first step: the region's crop, scaled, and the mask on its cells. An empty mask, which only Lite lets pass, is
-- one black cell that is not in.
-- @tparam Tensor picture uint8 [h,w,3]
-- @tparam Tensor m uint8 [h,w], 0 or 1
-- @tparam table config the model's: `framework`, `mask_num`
-- @treturn table {picture =, mask_grid =, box =, local_picture = (Lite)}
function saot.prepare(picture, m, config)
    local area = mask.area(m)
    if area > 0 then return saot.crop(picture, m, config, saot.scale(area, config)) end
    return {
        box = { 0, 0, 0, 0 },
        picture = tensor.zeros(CELL, CELL, 3, { dtype = "uint8" }),
        mask_grid = tensor.zeros(1, 1),
        local_picture = tensor.zeros(LOCAL_SIDE, LOCAL_SIDE, 3, { dtype = "uint8" }),
    }
end

-- ---- pool: position, cells, k-means ----------------------------------------------------------------------------

--- Adds to each cell where it lies in the image. The published code stores the box as (top, left, bottom, right) and
-- reads it as (x0, y0, x1, y1), so columns run over its vertical extent and rows over its horizontal one; the weights
-- were trained with that.
-- @tparam Tensor features [gh,gw,E]
-- @tparam table item
-- @tparam table weights
-- @treturn Tensor [mask grid's height, its width, E]
function saot.place(features, item, weights)
    local height, width, hidden = features:size(1), features:size(2), features:size(3)
    local top, left, bottom, right = unpack(item.box)
    local x, y = {}, {}
    for j = 1, width do x[j] = ((j - 1) / width * (bottom - top) + top) / math.max(1, item.image_size[2] - 1) end
    for i = 1, height do y[i] = ((i - 1) / height * (right - left) + left) / math.max(1, item.image_size[1] - 1) end
    local positions = tensor.stack({
        tensor.fromTable(x):view(1, width):expand(height, width),
        tensor.fromTable(y):view(height, 1):expand(height, width),
    }, 3):view(height * width, 2)
    local placed = core.linear(positions, weights["pos_linear.weight"], weights["pos_linear.bias"], "none",
                               features:reshape(height * width, hidden)):view(height, width, hidden)
    local rows, columns = item.mask_grid:size(1), item.mask_grid:size(2)
    if rows == height and columns == width then return placed end
    return placed:resizeBilinear(rows, columns) -- the picture budget had shrunk the crop
end

--- The cells under the mask, in raster order, position added.
-- @tparam Tensor features [gh,gw,E]
-- @tparam table item
-- @tparam table weights
-- @treturn Tensor [n,E]; n is 0 for Lite's empty mask
function saot.cells(features, item, weights)
    local placed = saot.place(features, item, weights)
    local inside = item.mask_grid:gt(0):reshape(-1):nonzero():select(2, 1)
    return placed:view(-1, features:size(3)):indexSelect(1, inside)
end

--- Lloyd's k-means: first of equal distances, empty clusters stay, and it ends early when no centroid moves.
-- @tparam Tensor points [n,E]
-- @tparam Tensor centroids [k,E] to start from
-- @tparam int rounds at most
-- @treturn Tensor [k,E]
-- @treturn Tensor [n] int64: each point's centroid, from 1
function saot.kmeans(points, centroids, rounds)
    local ones, nearest = tensor.ones(points:size(1), 1), nil
    for _ = 1, rounds do
        nearest = points:pairwiseDistance(centroids):argmin(2)
        local members = tensor.zeros(centroids:size(1), 1):indexAdd_(1, nearest, ones)
        local means = tensor.zeros(centroids:size()):indexAdd_(1, nearest, points):div_(members)
        means = tensor.where(members:gt(0), means, centroids)
        local rests = tensor.allclose(centroids, means, 1e-6, 1e-5)
        centroids = means
        if rests then break end
    end
    return centroids, nearest
end

--- The second step: at most mask_num tokens from the cells under the mask; Lite always has mask_num, zeros fill up.
-- @tparam Tensor features [gh,gw,E] of the encoded crop
-- @tparam table item from `prepare`, with `image_size`, `generator` and `config`
-- @tparam table weights
-- @treturn Tensor [k,E]
-- @treturn Tensor cells [n,E]
-- @treturn Tensor assignment [n] int64: the token that each cell went into, from 1
function saot.pool(features, item, weights)
    return tensor.scope(function()
        local lite, most = is_lite(item.config), item.config.mask_num
        local cells = saot.cells(features, item, weights)
        local count, width = cells:size(1), cells:size(2)
        if count > most then
            local start = item.generator:randperm(count):narrow(1, 1, most)
            local tokens, assignment = saot.kmeans(cells, cells:indexSelect(1, start), lite and 3 or 5)
            return tokens, cells, assignment
        end
        local tokens = lite and tensor.cat({ cells, tensor.zeros(most - count, width) }, 1) or cells
        return tokens, cells, tensor.arange(1, count + 1, { dtype = "int64" })
    end)
end

-- ---- project ---------------------------------------------------------------------------------------------------

--- The third step, into the decoder's space: linear, exact GELU, linear.
-- @tparam Tensor tokens [k,E]
-- @tparam table weights
-- @treturn Tensor [k,D]
function saot.project(tokens, weights)
    local inner = core.linear(tokens, weights["feat_linear.0.weight"], weights["feat_linear.0.bias"], "gelu")
    return core.linear(inner, weights["feat_linear.2.weight"], weights["feat_linear.2.bias"])
end

return saot
