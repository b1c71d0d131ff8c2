-- Runs the cases of a golden directory end to end, each stage compared at the moment it is computed.

local compare = require "parity.compare"
local core = require "pixelrefer.core"
local pixelrefer = require "pixelrefer"
local places = require "parity.places"

local cases = {}

--- What the golden README's `regions` entry is to the library: a mask on a frame, or a list of those.
local function region_of(object)
    local parts = {}
    for i, entry in ipairs(object) do
        parts[i] = { mask = pixelrefer.mask.rle(entry.mask), frame = entry.frame }
    end
    return #parts == 1 and parts[1] or parts
end

local function pictures_of(folder, names)
    local pictures = {}
    for i, name in ipairs(names or {}) do pictures[i] = pixelrefer.image.load(folder .. "/" .. name) end
    return pictures
end

--- The images or the video of a case; masked frames are keyed by the frame numbers that the regions use.
local function media_of(folder, case)
    local pictures = pictures_of(folder, case.pictures)
    if case.modal == "image" then return pictures end
    local masked, masked_times = {}, {}
    for i, picture in ipairs(case.frames and pictures_of(folder, case.frames) or pictures) do
        masked[i - 1] = picture
        masked_times[i - 1] = (case.frame_times or (not case.frames and case.times) or {})[i]
    end
    return pixelrefer.video.fromFrames(pictures, {
        times = case.times,
        masked_frames = masked,
        masked_times = next(masked_times) and masked_times or nil,
    })
end

--- Compares stages as they come; `missing` names those that never did. With `narrow` products are rounded to bfloat16:
-- the limits are wide, and each stage is fed what was expected of those before it.
local function watch(where, expected, report, narrow)
    local seen = {}
    local function inspect(stage, value)
        local wanted = expected[stage]
        if not wanted or seen[stage] then return end
        seen[stage] = true
        local limit = narrow and wanted:dtype() == "float32" and compare.BFLOAT16 or nil
        local verdict = type(value) == "table" and compare.arrays(value, wanted)
            or compare.tensors(value, wanted, limit)
        report:add(where, stage, verdict)
        if narrow and type(value) ~= "table" then return wanted end
    end
    local function missing()
        local names = {}
        for stage in pairs(expected) do
            if not seen[stage] then names[#names + 1] = stage end
        end
        table.sort(names)
        return names
    end
    return inspect, missing
end

--- A function that asks the case's question, with or without somebody who looks at the stages. The scene is encoded
-- once, and every call asks it anew.
local function asker(model, folder, case, inspect)
    local regions, scene = {}, nil
    for i, object in ipairs(case.regions or {}) do regions[i] = region_of(object) end
    if case.modal ~= "text" then scene = model:encode(media_of(folder, case), { inspect = inspect }) end
    return function(look)
        local settings = {
            seed = case.seed or 0,
            max_new_tokens = case.steps or 24,
            repetition_penalty = case.penalty,
            local_crop = case.local_crop,
            inspect = look,
        }
        if scene then return scene:ask(case.prompt, regions, settings) end
        return model:ask(case.prompt, settings)
    end
end

--- Asks while looking at every stage, then twice without: what nobody looks at may take shorter ways (all layers at
-- once, the scene's cache), which must give the same ids. With `once` only the first.
local function answers_of(model, folder, case, inspect, once)
    local ask = asker(model, folder, case, inspect)
    if once then return ask(inspect) end
    return ask(inspect), ask(), ask()
end

local cached = {} -- the last model: { key =, model = }

local function model_at(path, options)
    local key = table.concat({ path, options.device or "", options.compute or "", options.threads or "" }, "|")
    if cached.key ~= key then
        cached.model, cached.key = nil, nil
        cached.model = pixelrefer.load(path, {
            device = options.device, compute = options.compute or "f32", threads = options.threads,
        })
        cached.key = key
    end
    return cached.model
end

--- The stages up to the first logits, each on its own. Ids are not compared: near ties fall either way.
local function stages(model, folder, case, where, expected, report)
    local inspect, missing = watch(where, expected, report, true)
    local merged = {} -- regions whose cells were merged: one that goes to another cluster moves two centroids
    asker(model, folder, case, inspect)(function(stage, value)
        local region, what = stage:match("^(region%d+)%.(%l+)$")
        if what == "cells" then merged[region] = value:size(1) > model.config.mask_num end
        if what == "pooled" and merged[region] then return expected[stage] end
        local replacement = inspect(stage, value)
        if stage == "first_logits" then return false end
        return replacement
    end)
    for _, stage in ipairs(missing()) do
        if stage ~= "ids" and not merged[stage:match("^(region%d+)%.pooled$")] then
            report:fail(where, stage, "the stage never came")
        end
    end
end

local function run(golden, name, report, options)
    local folder, where = golden .. "/cases/" .. name, "case " .. name
    local case = places.json(folder .. "/case.json")
    local path = places.model(golden, case.model)
    if not path then return report:skip(where, "no model " .. case.model) end
    local tensors, texts = folder .. "/expected.safetensors", case.expected or {}
    local expected = places.exists(tensors) and core.read_safetensors(tensors) or {}
    local model = model_at(path, options or {})
    if model.compute == "bf16" then return stages(model, folder, case, where, expected, report) end
    local inspect, missing = watch(where, expected, report)
    local answer, unwatched, reused = answers_of(model, folder, case, inspect, options and options.once)
    inspect("ids", answer.ids)
    for _, stage in ipairs(missing()) do report:fail(where, stage, "the stage never came") end
    if expected.ids and unwatched then
        report:add(where, "ids, nobody looking", compare.arrays(unwatched.ids, expected.ids))
        report:add(where, "ids, scene reused", compare.arrays(reused.ids, expected.ids))
    end
    for _, what in ipairs { "chat", "text" } do
        if texts[what] then report:add(where, what, compare.strings(answer[what], texts[what])) end
    end
end

--- Runs one case; counts a skip when its model is nowhere, a failure when anything raises.
-- @tparam string golden the directory
-- @tparam string name of the case
-- @tparam table report see report.lua
-- @tparam ?table options `device`, `compute` ("f32" when absent), `threads`, `once` (the question is asked only once)
function cases.run(golden, name, report, options)
    local ok, why = pcall(run, golden, name, report, options)
    if not ok then report:fail("case " .. name, "", tostring(why)) end
end

--- The cases of a golden directory.
function cases.names(golden)
    local names = {}
    for _, name in ipairs(places.list(golden .. "/cases")) do
        if places.exists(("%s/cases/%s/case.json"):format(golden, name)) then names[#names + 1] = name end
    end
    return names
end

return cases
