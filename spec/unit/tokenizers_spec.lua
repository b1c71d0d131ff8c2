-- Object tokenizers: SAOT in Lua equals SAOT in C and the golden tensors; the shipped variants run in both frameworks;
-- a step that returns nonsense is told by name.

local core = require "pixelrefer.core"
local files = require "support.files"
local json = require "pixelrefer.json"
local object_tokenizer = require "pixelrefer.object_tokenizer"
local pixelrefer = require "pixelrefer"
local seed = require "support.seed"

local tensor = pixelrefer.tensor
local GOLDEN = "spec/fixtures/golden/"
local SHORT = { max_new_tokens = 4 }

local models = {}
for _, name in ipairs { "refer", "lite_sharded_bin" } do models[name] = pixelrefer.load(GOLDEN .. "models/" .. name) end

-- A golden case: its file, its tensors, its regions {mask =, picture =} in order.
local function read_case(name)
    local folder = GOLDEN .. "cases/" .. name .. "/"
    local case, regions = json.read(folder .. "case.json"), {}
    local names = case.frames or case.pictures
    for _, object in ipairs(case.regions) do
        for _, part in ipairs(object) do
            regions[#regions + 1] = {
                mask = pixelrefer.mask.rle(part.mask),
                picture = pixelrefer.image.load(folder .. names[part.frame + 1]),
            }
        end
    end
    return case, core.read_safetensors(folder .. "expected.safetensors"), regions
end

local function noise(height, width, number)
    return (tensor.rand(height, width, 3, { seed = seed + number }) * 255):byte()
end

-- All three steps with both tokenizers, on made-up features; `name` is in messages.
local function check_equal(model, region, number, name)
    local native, lua = model.object_tokenizer, model:withTokenizer("saot_lua").object_tokenizer
    local a, b = native.prepare(region.picture, region.mask), lua.prepare(region.picture, region.mask)
    assert.same(a.box, b.box, name)
    for _, field in ipairs { "picture", "mask_grid", "local_picture" } do
        if a[field] then assert.is_true(tensor.equal(a[field], b[field]), name .. " " .. field) end
    end
    local rows, columns = a.mask_grid:size(1), a.mask_grid:size(2)
    local hidden = model.config.vision_encoder_config.hidden_size
    for shrink = 0, 1 do -- as encoded, and as if the picture budget had shrunk the crop
        local features = tensor.randn(math.max(1, rows - shrink), math.max(1, columns - shrink), hidden,
                                      { seed = seed + number })
        a.generator, b.generator = tensor.generator(number), tensor.generator(number)
        local tokens, cells, assignment = native.pool(features, a)
        local own_tokens, own_cells, own_assignment = lua.pool(features, b)
        assert.is_true(tensor.equal(assignment, own_assignment), name .. " choices")
        assert.is_true(tensor.allclose(cells, own_cells, 1e-5, 1e-5), name .. " cells")
        assert.is_true(tensor.allclose(tokens, own_tokens, 1e-5, 1e-5), name .. " tokens")
        assert.is_true(tensor.allclose(native.project(tokens), lua.project(own_tokens), 1e-5, 1e-5), name)
    end
end

describe("SAOT in Lua", function()
    for _, name in ipairs { "refer_image_two_regions", "refer_image_thin_and_border", "lite_video_two_objects" } do
        it("prepares and pools the regions of " .. name .. " as in C", function()
            local case, expected, regions = read_case(name)
            local model = models[case.model]
            local steps = model:withTokenizer("saot_lua").object_tokenizer
            for j, region in ipairs(regions) do
                local item, prefix = steps.prepare(region.picture, region.mask), ("region%d."):format(j - 1)
                assert.same(expected[prefix .. "box"]:totable(), item.box)
                local crop, grid = expected[prefix .. "crop"], expected[prefix .. "mask_grid"]
                if crop then assert.is_true(tensor.equal(crop, item.picture)) end -- the small set leaves some out
                if grid then assert.is_true(tensor.allclose(grid, item.mask_grid, 1e-6, 1e-6)) end
                check_equal(model, region, j, prefix)
            end
        end)
    end

    it("gives the golden tokens in a whole run", function()
        local case, expected, regions = read_case("refer_image_two_regions")
        local masks, compared = {}, 0
        for j, region in ipairs(regions) do masks[j] = region.mask end
        local function watch(stage, value)
            if not (stage:find("^region") or stage == "object_tokens") or not expected[stage] then return end
            assert.is_true(tensor.allclose(value, expected[stage], 1e-4, 1e-4), stage)
            compared = compared + 1
        end
        models[case.model]:withTokenizer("saot_lua"):encode(regions[1].picture):ask(case.prompt, masks, {
            inspect = watch, seed = case.seed or 0, max_new_tokens = 1,
        })
        assert.is_true(compared > 8)
    end)

    for name, model in pairs(models) do
        it("equals C on regions of all sizes with " .. name, function()
            local random = tensor.generator(seed)
            local function below(limit) return math.floor(random:random() / 2 ^ 32 * limit) end
            for number = 1, 12 do
                local height, width = 20 + below(300), 20 + below(300)
                local picture = noise(height, width, number)
                local x0, y0 = below(width), below(height)
                local x1, y1 = x0 + 1 + below(width - x0), y0 + 1 + below(height - y0)
                if number % 3 == 0 then x1 = x0 + 1 end -- thin
                local m = pixelrefer.mask.box(picture, x0, y0, x1, y1)
                check_equal(model, { picture = picture, mask = m }, number, ("%dx%d box %d,%d,%d,%d seed %d"):format(
                    height, width, x0, y0, x1, y1, seed))
            end
        end)
    end

    it("gives Lite's empty region zero tokens", function()
        local picture = noise(40, 50, 0)
        check_equal(models.lite_sharded_bin, { picture = picture, mask = tensor.zeros(40, 50, { dtype = "uint8" }) }, 1,
                    "empty")
    end)
end)

describe("the shipped tokenizers", function()
    local picture = noise(200, 240, 99)
    local masks = { pixelrefer.mask.box(picture, 20, 20, 200, 150), pixelrefer.mask.box(picture, 5, 5, 19, 20) }

    for name, model in pairs(models) do
        for _, tokenizer in ipairs(object_tokenizer.NAMES) do
            it(("answer with %s on %s"):format(tokenizer, name), function()
                local assigned, tokens = {}, {}
                local function watch(stage, value)
                    local region = tonumber(stage:match("^region(%d+)%.assignment$"))
                    if region then assigned[region + 1] = value:clone() end
                    if stage == "object_tokens" then tokens = value end
                end
                local answer = model:withTokenizer(tokenizer):encode(picture):ask("Is <region> in <region>?", masks, {
                    inspect = watch, max_new_tokens = 2,
                })
                assert.equal(answer.tokens[1] + answer.tokens[2], tokens:size(1))
                for j = 1, 2 do
                    assert.is_true(assigned[j]:min() >= 1 and assigned[j]:max() <= answer.tokens[j])
                end
            end)
        end
    end

    it("have the tokens that their names promise", function()
        local function tokens(name, region)
            return models.refer:withTokenizer(name):describe(picture, masks[region], SHORT).tokens[1]
        end
        assert.equal(1, tokens("mask_average", 1))
        assert.equal(25, tokens("roi_align", 2))
        assert.equal(32, tokens("farthest_point", 1))
        assert.equal(32, tokens("saot", 2))
        assert.is_true(tokens("saot_fixed_scale", 2) < 9)
    end)

    it("mean the cells under the mask", function()
        local steps = models.refer:withTokenizer("mask_average").object_tokenizer
        local item = steps.prepare(picture, masks[1])
        local features = tensor.randn(item.mask_grid:size(1), item.mask_grid:size(2),
                                      models.refer.config.vision_encoder_config.hidden_size, { seed = 5 })
        local token, cells = steps.pool(features, item)
        assert.is_true(tensor.allclose(token, cells:mean(1, true)))
    end)

    it("take Lite's empty region", function()
        local empty = tensor.zeros(200, 240, { dtype = "uint8" })
        for _, name in ipairs(object_tokenizer.NAMES) do
            local answer = models.lite_sharded_bin:withTokenizer(name):describe(picture, empty, SHORT)
            assert.is_true(answer.tokens[1] >= 1)
        end
    end)
end)

describe("the tokenizer that docs/tokenizers.md begins with", function()
    it("takes a region, and Lite's empty one", function()
        local corners = assert(loadstring(files.read("docs/tokenizers.md"):match("```lua\n(.-)```")))()
        local model, picture = models.lite_sharded_bin:withTokenizer(corners), noise(80, 90, 7)
        local empty = tensor.zeros(80, 90, { dtype = "uint8" })
        assert.same({ 5 }, model:describe(picture, pixelrefer.mask.box(picture, 10, 10, 60, 70), SHORT).tokens)
        assert.same({ 1 }, model:describe(picture, empty, SHORT).tokens)
    end)
end)

describe("a tokenizer of one's own", function()
    local picture = noise(80, 90, 7)
    local m = pixelrefer.mask.box(picture, 10, 10, 60, 70)

    local function describe_with(given, name)
        return models[name or "refer"]:withTokenizer(given):describe(picture, m, SHORT)
    end

    local function fails(message, given, name)
        local ok, reason = pcall(describe_with, given, name)
        assert.is_false(ok)
        assert.matches(message, reason)
    end

    it("can be a table, a function, a file or a name, and leave steps out", function()
        local first = { pool = function(features) return features:select(1, 1):narrow(1, 1, 2):contiguous() end }
        assert.same({ 2 }, describe_with(first).tokens)
        assert.same({ 2 }, describe_with(first, "lite_sharded_bin").tokens)
        local halved = function(saot)
            return { pool = function(...) return (saot.pool(...)):narrow(1, 1, 16) end }
        end
        assert.same({ 16 }, describe_with(halved).tokens)
        local model = pixelrefer.load(GOLDEN .. "models/refer",
                                      { tokenizer = "lua/pixelrefer/tokenizers/mask_average.lua" })
        assert.equal("mask_average", model.object_tokenizer.name)
        assert.same({ 1 }, model:describe(picture, m, SHORT).tokens)
    end)

    it("gets Lite's local picture from the crop when it gives none", function()
        local function bare(saot)
            return { prepare = function(...)
                local item = saot.prepare(...)
                return { picture = item.picture, mask_grid = item.mask_grid:gt(0), box = item.box }
            end }
        end
        local item = models.lite_sharded_bin:withTokenizer(bare).object_tokenizer.prepare(picture, m)
        assert.same({ 224, 224, 3 }, item.local_picture:size())
        assert.equal("float32", item.mask_grid:dtype())
        assert.same(SHORT.max_new_tokens, #describe_with(bare, "lite_sharded_bin").ids)
    end)

    it("is refused when it is none", function()
        fails("no shipped one is named 'mask_avrage', did you mean 'mask_average'", "mask_avrage")
        fails("cannot open nowhere.lua", "nowhere.lua")
        fails("it has none of prepare, pool, project", {})
        fails("unknown step 'projekt', did you mean 'project'", { pool = function() end, projekt = function() end })
        fails("tokenizer mine: pool must be a function, found string", { name = "mine", pool = "mean" })
        fails("a table { prepare =, pool =, project = } expected, found nil", function() end)
        assert.error_matches(function() pixelrefer.load(GOLDEN .. "models/refer", { tokenizer = 3 }) end,
                             "'tokenizer' must be a string or a table or a function, got 3")
    end)

    it("is named with the step that returns nonsense", function()
        local function step(name, value)
            return { name = "mine", [name] = function() return type(value) == "function" and value() or value end }
        end
        local grid, box = tensor.ones(2, 2), { 0, 0, 10, 10 }
        fails("tokenizer mine: prepare: nil returned, expected a table", step("prepare", nil))
        fails("tokenizer mine: prepare: picture is nil, expected uint8 %[h x w x 3%]", step("prepare", {}))
        fails("mine: prepare: picture is float32 %[4x4%]", step("prepare", { picture = tensor.ones(4, 4) }))
        fails("mine: prepare: mask_grid is nil", step("prepare", { picture = picture }))
        fails("mine: prepare: box is nil, expected {top, left, bottom, right}",
              step("prepare", { picture = picture, mask_grid = grid }))
        fails("mine: prepare: local_picture is number",
              step("prepare", { picture = picture, mask_grid = grid, box = box, local_picture = 4 }),
              "lite_sharded_bin")
        fails("mine: pool: number returned, expected a float32 tensor %[k x %d+%]", step("pool", 3))
        fails("mine: pool: float32 %[2x3%] returned, expected a float32 tensor %[k x %d+%]",
              step("pool", tensor.ones(2, 3)))
        fails("mine: pool: no token returned", function()
            return { name = "mine", pool = function(features) return tensor.zeros(0, features:size(3)) end }
        end)
        fails("mine: pool: cells is string, expected a tensor of 2 dims or nil",
              { name = "mine", pool = function(features) return features:select(1, 1), "x" end })
        fails("mine: project: float32 %[1x5%] returned, expected a float32 tensor %[%d+ x %d+%]",
              step("project", tensor.ones(1, 5)))
    end)

    it("is named with the step that raises", function()
        fails("tokenizer mine: pool: .*tokenizers_spec.lua:%d+: attempt to index",
              { name = "mine", pool = function(features) return features.nothing.more end })
    end)
end)

describe("draw.tokens", function()
    local picture = noise(56, 70, 3)
    local item = { picture = noise(28, 28, 4), mask_grid = tensor.fromTable { { 1, 0 }, { 1, 1 } },
        box = { 14, 14, 42, 42 } }
    local tokens = tensor.fromTable({ 1, 1, 2 }, "int64")

    it("colours the cells under the mask and nothing else", function()
        local drawn = pixelrefer.draw.tokens(picture, item, tokens, { opacity = 1 })
        local palette = pixelrefer.draw.PALETTE
        assert.same(palette[1], drawn[20 + 1][20 + 1]:totable())
        assert.same(palette[1], drawn[36 + 1][20 + 1]:totable())
        assert.same(palette[2], drawn[36 + 1][36 + 1]:totable())
        assert.same({ 0, 0, 0 }, drawn[36 + 1][28 + 1]:totable()) -- the line between them
        for _, place in ipairs { { 21, 37 }, { 5, 5 }, { 50, 20 } } do
            assert.is_true(tensor.equal(picture[place[1]][place[2]], drawn[place[1]][place[2]]))
        end
        assert.same({ 28, 28, 3 }, pixelrefer.draw.tokens(picture, item, tokens, { crop = true }):size())
    end)

    it("refuses an assignment of other cells", function()
        assert.error_matches(function() pixelrefer.draw.tokens(picture, item, tokens:narrow(1, 1, 2)) end,
                             "3 cells are under the mask, 2 assigned")
        assert.error_matches(function() pixelrefer.draw.tokens(picture, item, 3) end, "a tensor expected, got number")
    end)

    it("refuses what is no item", function()
        for given, found in pairs { ["nil"] = "nil", [{}] = "another table", [3] = "number" } do
            assert.error_matches(function()
                pixelrefer.draw.tokens(picture, given ~= "nil" and given or nil, tokens)
            end, "draw.tokens: an item with mask_grid and box expected, as `prepare` gives it, got " .. found, 1, true)
        end
    end)
end)
