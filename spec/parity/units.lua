-- The units of a golden directory: one step of the library at a time, against the library that the reference calls.
-- Each file is one line of the report, with the largest error among its checks.

local compare = require "parity.compare"
local core = require "pixelrefer.core"
local places = require "parity.places"
local prompt = require "pixelrefer.prompt"
local tensor = require "pixelrefer.tensor"
local tokenizer = require "pixelrefer.tokenizer"
local video = require "pixelrefer.video"

local units = {}

--- Merges the checks of a file into one verdict.
local function tally()
    local self = { checks = 0, verdict = { passed = true, error = 0 } }
    function self.add(label, verdict)
        self.checks = self.checks + 1
        local worst = self.verdict
        if verdict.error > worst.error then worst.error = verdict.error end
        worst.limit = verdict.limit or worst.limit
        if not verdict.passed and worst.passed then
            worst.passed, worst.why = false, label .. ": " .. (verdict.why or "?")
        end
    end
    --- A check that is either right or wrong.
    function self.equal(label, found, expected)
        self.add(label, compare.strings(tostring(found), tostring(expected)))
    end
    return self
end

--- The numbers of a safetensors unit's checks, from names such as "007.in".
local function cases_in(tensors)
    local names, seen = {}, {}
    for name in pairs(tensors) do
        local case = name:match("^(%d+)%.")
        if case and not seen[case] then
            seen[case] = true
            names[#names + 1] = case
        end
    end
    table.sort(names)
    return names
end

--- A check for `<n>.in` -> `<n>.out` files.
-- @tparam function resize (x, height, width) -> Tensor
-- @tparam table limit
local function resizing(resize, limit)
    return function(path, checks)
        local tensors = core.read_safetensors(path)
        for _, case in ipairs(cases_in(tensors)) do
            local x, expected = tensors[case .. ".in"], tensors[case .. ".out"]
            checks.add(case, compare.tensors(resize(x, expected:size(1), expected:size(2)), expected, limit))
        end
    end
end

local function resize_with(kind)
    return function(x, height, width) return core.resize(x, height, width, kind) end
end

--- What SAOT does with 0/1 masks; these units' masks are where the input (its first channel) is above one half.
local function resize_mask_opencv(x, height, width)
    return core.resize(x:gt(0.5):float(), height, width, "opencv_linear")
end

local function resize_mask_torch(x, height, width)
    return core.resize((x:dim() == 3 and x:select(3, 1) or x):gt(127), height, width, "torch_bilinear")
end

local function smart_resize(path, checks)
    for i, row in ipairs(places.json(path)) do
        local budget = core.budget_max_pixels(row.mm_max_length, row.spatial_merge_size, row.downsampling,
            row.num_images)
        local ok, height, width = pcall(core.smart_resize, row.h, row.w, 14 * row.downsampling, row.min_pixels, budget)
        local expected = type(row.result) == "table" and ("%dx%d"):format(row.result[1], row.result[2]) or "an error"
        checks.equal(i, ok and ("%dx%d"):format(height, width) or "an error", expected)
    end
end

--- A mask's compressed counts, area and COCO box (x, y, width, height).
local function check_mask(checks, label, mask, row, counts)
    local x0, y0, x1, y1 = core.mask_bounds(mask)
    local box = x0 and { x0, y0, x1 - x0, y1 - y0 } or { 0, 0, 0, 0 }
    checks.equal(label, core.rle_encode(mask), counts)
    checks.equal(label, core.mask_area(mask), row.area)
    checks.add(label, compare.arrays(box, row.bbox))
end

local function mask_rle(path, checks)
    for i, row in ipairs(places.json(path)) do
        local compressed = core.rle_decode(row.compressed, row.size[1], row.size[2])
        check_mask(checks, i, compressed, row, row.compressed)
        checks.add(i, compare.arrays(core.rle_counts(compressed), row.uncompressed))
        checks.add(i, compare.tensors(core.rle_decode(row.uncompressed, row.size[1], row.size[2]), compressed))
    end
end

local function mask_polygon(path, checks)
    for i, row in ipairs(places.json(path)) do
        check_mask(checks, i, core.polygon_mask(row.polygons, row.h, row.w), row, row.counts)
    end
end

local function randperm(path, checks)
    for _, sequence in ipairs(places.json(path)) do
        local generator = tensor.generator(sequence.seed)
        for i, call in ipairs(sequence.calls) do
            checks.add(("seed %d call %d"):format(sequence.seed, i),
                compare.arrays((generator:randperm(call.n) - 1):totable(), call.perm))
        end
    end
end

local function kmeans(path, checks)
    local tensors = core.read_safetensors(path)
    for _, case in ipairs(cases_in(tensors)) do
        local points, expected = tensors[case .. ".points"], tensors[case .. ".centroids"]
        local settings = tensors[case .. ".rounds_seed"]:totable()
        local start = tensor.generator(settings[2]):randperm(points:size(1))
        checks.add(case, compare.tensors(start - 1, tensors[case .. ".perm"]))
        local centroids = core.kmeans(points, start:narrow(1, 1, expected:size(1)), settings[1])
        checks.add(case, compare.tensors(centroids, expected, { absolute = 1e-5, relative = 0 }))
    end
end

--- Same support: what is exactly 0 in one is in the other.
local function sampling(path, checks)
    local tensors = core.read_safetensors(path)
    for _, case in ipairs(cases_in(tensors)) do
        local settings, expected = tensors[case .. ".settings"]:totable(), tensors[case .. ".probabilities"]
        local _, drawn_from = core.sample(tensors[case .. ".logits"]:view(1, -1), {
            temperature = settings[1],
            top_k = settings[2],
            top_p = settings[3],
            repetition_penalty = settings[4],
            generated = { tensors[case .. ".generated"]:totable() },
            probabilities = true,
        })
        local probabilities = drawn_from:view(-1)
        checks.add(case, compare.tensors(probabilities:gt(0), expected:gt(0)))
        checks.add(case, compare.tensors(probabilities, expected, { absolute = 1e-6, relative = 0 }))
    end
end

local function tokens_of(folder_name)
    return function(path, checks, golden)
        local folder = places.media(golden, folder_name)
        if not folder then return "no " .. folder_name end
        local unit, tokens = places.json(path), tokenizer.load(folder)
        for name, id in pairs(unit.added_tokens) do checks.equal(name, tokens:id(name), id) end
        for _, row in ipairs(unit.encode) do
            checks.add(row.text, compare.arrays(tokens:encode(row.text), row.ids))
            checks.equal(row.text, tokens:decode(row.ids), row.decoded)
            checks.equal(row.text, tokens:decode(row.ids, { skip_special_tokens = true }), row.decoded_skip_special)
        end
        for i, row in ipairs(unit.decode) do checks.equal(i, tokens:decode(row.ids), row.decoded) end
    end
end

local function chat(path, checks)
    for i, row in ipairs(places.json(path)) do
        checks.equal(i, prompt.render(row.messages), row.rendered)
    end
end

local function time_format(path, checks)
    for _, row in ipairs(places.json(path)) do
        checks.equal(row.t, prompt.formatTime(row.t), row.printed)
    end
end

--- Frames shrunk as the unit's thumbs were.
local function thumbs(frames)
    local shrunk = {}
    for i, frame in ipairs(frames) do shrunk[i] = resize_with("opencv_area")(frame, 18, 32) end
    return tensor.stack(shrunk)
end

local function clips(path, checks, golden)
    local unit, tensors = places.json(path), core.read_safetensors((path:gsub("%.json$", ".safetensors")))
    local clip = places.media(golden, unit.video)
    if not clip then return "no " .. unit.video end
    local near, levels = { absolute = 1e-9, relative = 0 }, { absolute = 3, relative = 0 }
    for i, call in ipairs(unit.calls) do
        local label, args = ("%02d"):format(i - 1), call.args
        local found = video.load(clip, {
            way = call.way,
            fps = args.fps or 0, -- as the reference: no fixed rate unless said
            max_frames = args.max_frames,
            start = args.start or args.s,
            ["end"] = args["end"] or args.e,
            frame_ids = args.frame_ids,
        })
        checks.equal(label, #found.frames, call.frames)
        checks.add(label, compare.arrays(found.times, call.timestamps, near))
        checks.add(label, compare.tensors(thumbs(found.frames), tensors[label .. ".thumbs"], levels))
        if args.frame_ids then
            local additional = {}
            for k, id in ipairs(args.frame_ids) do additional[k] = found.masked_frames[id] end
            checks.add(label, compare.tensors(thumbs(additional), tensors[label .. ".additional"], levels))
        end
    end
end

local SIXTH = { absolute = 1e-6, relative = 0 }

--- What each known file checks: function(path, checks, golden) that adds to `checks`, or returns why it is skipped.
local KNOWN = {
    ["resize_pillow_bicubic_u8.safetensors"] = resizing(resize_with("pillow_bicubic"), compare.EQUAL),
    ["resize_opencv_linear_u8.safetensors"] = resizing(resize_with("opencv_linear"), compare.EQUAL),
    ["resize_opencv_area_u8.safetensors"] = resizing(resize_with("opencv_area"), compare.EQUAL),
    ["resize_torch_bilinear_u8.safetensors"] = resizing(resize_mask_torch, compare.EQUAL),
    ["resize_opencv_linear_f32.safetensors"] = resizing(resize_mask_opencv, SIXTH),
    ["resize_torch_bilinear_f32_hwc.safetensors"] = resizing(function(x, height, width)
        return x:resizeBilinear(height, width)
    end, SIXTH),
    ["smart_resize.json"] = smart_resize,
    ["mask_rle.json"] = mask_rle,
    ["mask_polygon.json"] = mask_polygon,
    ["randperm.json"] = randperm,
    ["kmeans.safetensors"] = kmeans,
    ["sampling.safetensors"] = sampling,
    ["tokenizer_tiny.json"] = tokens_of("tokenizer_tiny"),
    ["tokenizer_qwen2.5.json"] = tokens_of("tokenizer"),
    ["chat.json"] = chat,
    ["time_format.json"] = time_format,
    ["video.json"] = clips,
}

local PARTS = { ["video.safetensors"] = true } -- read with the file beside it

--- Runs one unit file; counts a skip when it is not known or lacks its media.
-- @tparam string golden the directory
-- @tparam string name of the file
-- @tparam table report see report.lua
function units.run(golden, name, report)
    if PARTS[name] then return end
    local where, check = "unit " .. name:gsub("%.%w+$", ""), KNOWN[name]
    if not check then return report:skip(where, "not a unit that this runner knows") end
    local checks = tally()
    local ok, result = pcall(check, golden .. "/units/" .. name, checks, golden)
    if not ok then return report:fail(where, "", tostring(result)) end
    if result then return report:skip(where, result) end
    report:add(where, checks.checks .. " checks", checks.verdict)
end

--- The unit files of a golden directory.
function units.names(golden)
    return places.list(golden .. "/units")
end

return units
