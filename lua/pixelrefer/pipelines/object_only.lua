--- PixelRefer-Lite's framework, Object-Only: no visual tokens; each region's object tokens carry what the decoder needs
-- of its surroundings, infused by OCI.
--
--     mask -> crop -> encoder -> position, k-means -> exactly mask_num tokens
--     OCI: tokens attend to their own crop (224 x 224), then to the whole picture (336 x 336)
--     -> projector -> object tokens
--
-- The whole picture's features are made once a scene.
-- @module pixelrefer.pipelines.object_only
local core = require "pixelrefer.core"
local objects = require "pixelrefer.pipelines.objects"
local pictures = require "pixelrefer.pictures"
local prompt = require "pixelrefer.prompt"
local tensor = require "pixelrefer.tensor"

local object_only = {}

local GLOBAL_SIDE = 336 -- pixels of the whole picture that OCI's global step attends to

--- Lite encodes nothing ahead: pictures are encoded when a region of theirs is asked about.
-- @treturn table an empty record
function object_only.encode()
    return {}
end

-- Features of the regions' whole pictures. The pictures of one call share a budget of pixels, so how large one is fed
-- depends on how many there are; a scene remembers each frame at each size, unless somebody looks, who may change it.
local function global_features(model, regions, remembered, stage)
    local list, keys, missing, missing_keys, asked = {}, {}, {}, {}, {}
    if stage.watched then remembered = {} end
    for j, region in ipairs(regions) do
        list[j] = core.resize(region.picture, GLOBAL_SIDE, GLOBAL_SIDE, "opencv_area")
    end
    for j, fitted in ipairs(pictures.fit(list, model.config, 1)) do
        fitted = stage(("region%d.global_picture"):format(j - 1), fitted)
        local key = stage.watched and j
            or ("%d:%dx%d"):format(regions[j].frame or 0, fitted:size(1), fitted:size(2))
        keys[j] = key
        if not remembered[key] and not asked[key] then
            asked[key] = true
            missing[#missing + 1], missing_keys[#missing_keys + 1] = fitted, key
        end
    end
    for i, encoded in ipairs(pictures.encodeFitted(model, missing, stage, "global.")) do
        remembered[missing_keys[i]] = encoded
    end
    local whole = {}
    for j, key in ipairs(keys) do whole[j] = remembered[key] end
    return whole
end

-- [regions,k,E]; [sum k,E] when an object tokenizer gives regions different numbers of tokens.
local function together(list)
    for _, tokens in ipairs(list) do
        if tokens:size(1) ~= list[1]:size(1) then return tensor.cat(list, 1) end
    end
    return tensor.stack(list, 1)
end

-- Shows the tokens of all regions as one tensor; what comes back is taken apart again.
local function show(stage, name, list)
    local whole = together(list)
    local shown = stage(name, whole)
    if shown == whole then return list end
    local parts, start = {}, 1
    shown = shown:reshape(-1, shown:size(shown:dim()))
    for j, tokens in ipairs(list) do
        parts[j] = shown:narrow(1, start, tokens:size(1)):contiguous()
        start = start + tokens:size(1)
    end
    return parts
end

-- The pictures of OCI's first step, encoded: each region's own, or the first one's for all regions of a picture.
local function encode_surroundings(model, regions, items, stage, which)
    local crops, first = {}, {}
    for j, item in ipairs(items) do
        local picture = regions[j].picture
        first[picture] = first[picture] or item.local_picture
        crops[j] = which == "first" and first[picture] or item.local_picture
    end
    local fitted = pictures.fit(crops, model.config, 1)
    for j, picture in ipairs(fitted) do fitted[j] = stage(("region%d.local_picture"):format(j - 1), picture) end
    return pictures.encodeFitted(model, fitted, stage, "local.")
end

--- Object tokens of a call's regions (a region of a video once for each frame it is masked in).
-- @tparam Model model
-- @tparam table regions list of {mask =, picture =, frame =}, in prompt order
-- @tparam Generator generator draws the k-means starts
-- @tparam function stage called with each stage's name and value; what it returns is used
-- @tparam table options `local_crop` "own", or "first": the reference's slip of giving every region of a picture the
--   first one's crop; `remembered`, a table that lives with the scene
-- @treturn Tensor float32 [sum k,D]
-- @treturn table k of each region: SAOT's is always mask_num
-- @treturn table cells under the mask of each region; false where the object tokenizer does not say
function object_only.tokenize(model, regions, generator, stage, options)
    local items = objects.prepare(model, regions, generator, stage)
    local own = objects.encode(model, items, stage)
    local surroundings = encode_surroundings(model, regions, items, stage, options.local_crop)
    local whole = global_features(model, regions, options.remembered, stage)

    local tokens, counts, cells = {}, {}, {}
    for j, item in ipairs(items) do
        tokens[j], cells[j] = objects.pool(model, item, own[j], stage, "region" .. j - 1)
        counts[j] = tokens[j]:size(1)
    end
    for _, step in ipairs { { "local", surroundings }, { "global", whole } } do
        local infused = {}
        for j, pooled in ipairs(tokens) do
            local features = stage(("region%d.%s_features"):format(j - 1, step[1]), step[2][j].features)
            infused[j] = model.infusion:forward(step[1], pooled, features)
        end
        tokens = show(stage, "oci." .. step[1], infused)
    end
    for j, infused in ipairs(tokens) do
        tokens[j] = model.object_tokenizer.project(infused, model.weights.object_tokenizer)
    end
    return stage("object_tokens", tensor.cat(tokens, 1)), counts, cells
end

--- The parts of a user's message: text alone, modal tags dropped.
-- @tparam string text
-- @tparam Scene scene
-- @tparam table counts tokens of each region
-- @tparam table times for each object the seconds of its frames (video only)
-- @treturn table parts as `prompt.render` takes them
function object_only.content(text, scene, counts, times)
    local spread = prompt.regions(prompt.withoutMedia(text), counts, { times = scene.kind == "video" and times or nil })
    return { { type = "text", text = spread } }
end

return object_only
