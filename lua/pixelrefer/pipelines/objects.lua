--- What both frameworks do with a region before and after the encoder: the object tokenizer's first two steps.
-- @module pixelrefer.pipelines.objects
local pictures = require "pixelrefer.pictures"
local tensor = require "pixelrefer.tensor"

local objects = {}

--- Prepares a call's regions: `prepare` of the model's object tokenizer on each.
-- @tparam Model model
-- @tparam table regions list of {mask = uint8 [h,w], picture = uint8 [h,w,3]}, in prompt order
-- @tparam Generator generator draws the k-means starts of all of them, in order
-- @tparam function stage called with each stage's name and value; what it returns is used
-- @treturn table items as `pool` of an object tokenizer takes them
function objects.prepare(model, regions, generator, stage)
    local items = {}
    for j, region in ipairs(regions) do
        local item, name = model.object_tokenizer.prepare(region.picture, region.mask, model.config), "region" .. j - 1
        item.box = stage(name .. ".box", tensor.fromTable(item.box, "int64")):totable()
        item.picture = stage(name .. ".crop", item.picture)
        item.mask_grid = stage(name .. ".mask_grid", item.mask_grid)
        item.generator = generator
        items[j] = item
    end
    return items
end

--- Encodes the regions' crops, which share a budget.
-- @tparam Model model
-- @tparam table items from `prepare`
-- @tparam function stage as in prepare
-- @treturn table as `pictures.encodeFitted`
function objects.encode(model, items, stage)
    local crops = {}
    for j, item in ipairs(items) do crops[j] = item.picture end
    local fitted = pictures.fit(crops, model.config, 1, "region")
    for j, picture in ipairs(fitted) do fitted[j] = stage(("region%d.picture"):format(j - 1), picture) end
    return pictures.encodeFitted(model, fitted, stage, "regions.")
end

--- Pools an encoded crop: `pool` of the model's object tokenizer.
-- @tparam Model model
-- @tparam table item from `prepare`
-- @tparam table encoded from `pictures.encode`
-- @tparam function stage as in prepare
-- @tparam string name "region0", ...
-- @treturn Tensor [k,E]
-- @treturn int|boolean cells under the mask; false when the object tokenizer does not say
function objects.pool(model, item, encoded, stage, name)
    local features = stage(name .. ".features", encoded.features:view(encoded.height, encoded.width, -1))
    local pooled, cells, assignment = model.object_tokenizer.pool(features, item, model.weights.object_tokenizer)
    if cells then stage(name .. ".cells", cells) end
    if assignment then stage(name .. ".assignment", assignment) end
    return stage(name .. ".pooled", pooled), cells and cells:size(1) or false
end

return objects
