--- PixelRefer's framework, Vision-Object: the decoder sees the visual tokens of the whole image or video and, in place
-- of each `<region>`, the region's object tokens.
--
--     pictures -> encoder -> merge -> projector -> drop what did not change        visual tokens, once a scene
--     mask -> crop -> encoder -> position, k-means -> projector                     object tokens, once a region
--
-- A pipeline has three steps, `encode`, `tokenize` and `content`; a script can call them, or write its own.
-- @module pixelrefer.pipelines.vision_object
local objects = require "pixelrefer.pipelines.objects"
local pictures = require "pixelrefer.pictures"
local prompt = require "pixelrefer.prompt"
local tensor = require "pixelrefer.tensor"

local vision_object = {}

-- Cells of a block lie one behind the other: merging them is the mean that the reference's bilinear resize by 1/2 is.
local function merge(features, block)
    if block == 1 then return features end
    local cells, width = features:size(1), features:size(2)
    return features:view(cells / (block * block), block * block, width):mean(2)
end

-- Visual tokens of frame k > 1 stay where the frame changed: mean over a token's pixel values of
-- |frame k - frame k-1|, times 255, above 0.1; a frame left with none keeps its first (REFERENCE section 6).
local function changed_tokens(patches, grids, block)
    local kept, start, previous = {}, 1, nil
    for k, grid in ipairs(grids) do
        local cells = grid[1] * grid[2]
        local frame = patches:narrow(1, start, cells):view(cells / (block * block), -1)
        if previous and previous:size(1) == frame:size(1) then
            local change = (frame - previous):abs():mean(2) * 255
            kept[k] = change:gt(0.1)
            if kept[k]:sum() == 0 then kept[k][1] = 1 end
        else
            kept[k] = tensor.ones(frame:size(1), { dtype = "uint8" })
        end
        previous, start = frame, start + cells
    end
    return kept
end

--- Encodes an image or the frames of a video.
-- @tparam Model model
-- @tparam table list uint8 Tensors [h,w,3]
-- @tparam string kind "image" or "video"
-- @tparam function stage called with each stage's name and value; what it returns is used
-- @treturn table {visual_tokens = Tensor [n,D], counts = {visual tokens of each picture}, grids = {{height, width} of
--   each picture in tokens}, kept = {uint8 Tensor [height*width] of each frame, when some were dropped}}
function vision_object.encode(model, list, kind, stage)
    local config = model.config
    if #list == 0 then error(("encode: a %s without frames"):format(kind), 0) end
    local block = kind == "video" and config.spatial_merge_size or 1
    local fitted = pictures.fit(list, config, block)
    for k, picture in ipairs(fitted) do fitted[k] = stage("scene.picture" .. k - 1, picture) end
    local patches, grids = pictures.patches(fitted, config, block)
    patches = stage("scene.patches", patches)
    local features = stage("scene.features", pictures.features(model, patches, grids, stage))
    local tokens = stage("scene.visual_tokens_all", model.projector:forward(merge(features, block)))

    local counts, sides, kept = {}, {}, nil
    for k, grid in ipairs(grids) do
        sides[k] = { grid[1] / block, grid[2] / block }
        counts[k] = sides[k][1] * sides[k][2]
    end
    if #grids > 1 and config.use_token_compression then
        local all = stage("scene.kept", tensor.cat(changed_tokens(patches, grids, block), 1))
        local start = 1
        kept = {}
        for k, count in ipairs(counts) do
            kept[k] = all:narrow(1, start, count)
            counts[k], start = kept[k]:sum(), start + count
        end
        tokens = tokens:indexSelect(1, all:nonzero():select(2, 1))
    end
    return { visual_tokens = stage("scene.visual_tokens", tokens), counts = counts, grids = sides, kept = kept }
end

--- Object tokens of a call's regions.
-- @tparam Model model
-- @tparam table regions list of {mask = uint8 [h,w], picture = uint8 [h,w,3]}, in prompt order
-- @tparam Generator generator draws the k-means starts
-- @tparam function stage as in encode
-- @treturn Tensor float32 [sum k,D]
-- @treturn table k of each region
-- @treturn table cells under the mask of each region; false where the object tokenizer does not say
function vision_object.tokenize(model, regions, generator, stage)
    local items = objects.prepare(model, regions, generator, stage)
    local tokens, counts, cells = {}, {}, {}
    for j, encoded in ipairs(objects.encode(model, items, stage)) do
        local pooled, count = objects.pool(model, items[j], encoded, stage, "region" .. j - 1)
        tokens[j], counts[j] = model.object_tokenizer.project(pooled, model.weights.object_tokenizer), pooled:size(1)
        cells[j] = count
    end
    return stage("object_tokens", tensor.cat(tokens, 1)), counts, cells
end

--- The parts of a user's message: the image or video where the text has its tag (in front when it has none), and the
-- text with the regions' tokens in it.
-- @tparam string text
-- @tparam Scene scene
-- @tparam table counts tokens of each region
-- @treturn table parts as `prompt.render` takes them
function vision_object.content(text, scene, counts)
    local count = scene.kind == "image" and #scene.pictures or nil
    return prompt.content(prompt.regions(text, counts), { kind = scene.kind, count = count, times = scene.times })
end

return vision_object
