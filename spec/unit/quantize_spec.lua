-- Weights of eight and four bits: integers against another program's, products against those of the widened matrix,
-- checkpoints written and read, and models that answer from them.
local ffi = require "ffi"

local bits_of = require "support.bits"
local core = require "pixelrefer.core"
local files = require "support.files"
local pixelrefer = require "pixelrefer"
local seed = require "support.seed"
local tensor = require "pixelrefer.tensor"
local weights = require "pixelrefer.weights"

local same_bits, everywhere = bits_of.same, bits_of.everywhere

local MODELS = { "spec/fixtures/golden/models/refer", "spec/fixtures/golden/models/lite_sharded_bin" }

local function uniform(sizes)
    return tensor.rand(sizes, { seed = math.random(2 ^ 30) }) * 2 - 1
end

--- The matrix that integers and scales stand for.
local function widened(integers, scales, columns)
    return core.embedding(integers, tensor.arange(integers:size(1), { dtype = "int64" }), scales, columns)
end

local function squared_error(a, b)
    return (a - b):square():sum()
end

describe("quantize", function()
    before_each(function() math.randomseed(seed) end)

    local there = tensor.load("spec/fixtures/tensor/quantised.safetensors")

    it("gives llama.cpp's eight-bit integers and scales", function()
        local integers, scales = core.quantize(there.x, 8, 32)
        same_bits(there.scales, scales, "scales")
        -- it divides by the scale before that is rounded to float16: a step apart at most, but for the fourth row,
        -- whose scales vanish in float16
        local away = (integers:to("float32") - there.integers:to("float32")):abs()
        away:select(1, 4):fill_(0)
        assert.is_true(away:max() <= 1)
        assert.is_true(away:sum() <= 0.01 * away:nElement())
    end)

    it("leaves less error in four bits than llama.cpp's simplest", function()
        local integers, scales = core.quantize(there.x, 4, 32)
        local ours = squared_error(widened(integers, scales, 160):narrow(1, 3, 4), there.x:narrow(1, 3, 4))
        assert.is_true(ours < 0.95 * squared_error(there.four_bits:narrow(1, 3, 4), there.x:narrow(1, 3, 4)))
    end)

    for _, bits in ipairs { 8, 4 } do
        it(("stays within half a step: %d bits"):format(bits), function()
            local shapes = { { 3, 1, 16 }, { 5, 17, 16 }, { 2, 100, 32 }, { 4, 300, 128 }, { 1, 1024, 1024 } }
            for _, shape in ipairs(shapes) do
                local rows, columns, group = unpack(shape)
                local x = uniform { rows, columns }
                local integers = everywhere("integers", function() return (core.quantize(x, bits, group)) end)
                local scales = everywhere("scales", function() return (select(2, core.quantize(x, bits, group))) end)
                local back = everywhere("widened", function() return widened(integers, scales, columns) end)
                local groups = scales:size(2)
                local steps = scales:float():abs():view(rows, groups, 1):expand(rows, groups, group):contiguous()
                    :view(rows, groups * group):narrow(2, 1, columns)
                -- in four bits the extreme may be cut by one step
                local most = ((back - x):abs() / (steps + 1e-30)):max()
                assert.is_true(most <= (bits == 8 and 0.5 or 1.5) + 1e-3, ("%g steps"):format(most))
            end
        end)

        it(("multiplies as the widened matrix does, to the bit: %d bits"):format(bits), function()
            local shapes = { { 1, 67, 33, 16 }, { 1, 9, 1536, 128 }, { 3, 66, 50, 32 }, { 8, 70, 257, 64 },
                { 20, 31, 130, 32 }, { 130, 50, 1100, 128 }, { 2, 5, 7, 16 } }
            for _, shape in ipairs(shapes) do
                local n, N, K, group = unpack(shape)
                local x, w, bias, residual = uniform { n, K }, uniform { N, K }, uniform { N }, uniform { n, N }
                local integers, scales = core.quantize(w, bits, group)
                local what = ("%dx%dx%d in groups of %d"):format(n, N, K, group)
                local out = everywhere(what, function()
                    return core.linear(x, integers, bias, "gelu", residual, scales)
                end)
                same_bits(core.linear(x, widened(integers, scales, K), bias, "gelu", residual), out, what)
            end
        end)
    end

    it("reads integers and scales at any byte", function()
        local x, w = uniform { 3, 100 }, uniform { 9, 100 }
        for _, bits in ipairs { 8, 4 } do
            local moved, pair = {}, { core.quantize(w, bits, 32) }
            for i, part in ipairs(pair) do
                local bytes = part:bytes()
                local buffer = ffi.new("uint8_t[?]", #bytes + 1)
                ffi.copy(buffer + 1, bytes, #bytes)
                moved[i] = tensor.fromPointer(buffer + 1, part:dtype(), part:size(), buffer)
            end
            same_bits(core.linear(x, pair[1], nil, nil, nil, pair[2]),
                core.linear(x, moved[1], nil, nil, nil, moved[2]), bits .. " bits")
        end
    end)

    it("says what it cannot take", function()
        local x = uniform { 4, 40 }
        x[{ 3, 39 }] = 0 / 0
        assert.error_matches(function() core.quantize(x, 8, 32) end, "row 3 of 4 holds a weight that is not finite")
        x[{ 3, 39 }] = -math.huge
        assert.error_matches(function() core.quantize(x, 4, 32) end, "row 3 of 4")
        assert.error_matches(function() core.quantize(x, 8, 48) end, "a power of two expected")
        assert.error_matches(function() core.quantize(x, 5, 32) end, "4 or 8 bits")
        local integers, scales = core.quantize(uniform { 4, 40 }, 8, 16)
        local y = uniform { 2, 40 }
        assert.error_matches(function() core.linear(y, integers) end, "weight is %[4x40%] int8, expected")
        assert.error_matches(function() core.linear(y, integers, nil, nil, nil, scales:narrow(1, 1, 3)) end,
            "scales is %[3x3%] float16, expected %[4xgroups%]")
        assert.error_matches(function() core.linear(y, integers, nil, nil, nil, core.quantize(y, 8, 16)) end, "scales")
        local five = tensor.zeros({ 4, 5 }, { dtype = "float16" })
        assert.error_matches(function() core.linear(y, integers, nil, nil, nil, five) end,
            "5 scales for a row of 40 weights: groups of 16 to 1024")
    end)
end)

-- ---- checkpoints ---------------------------------------------------------------------------------------------------

local function describe_once(model)
    local picture = (tensor.rand({ 56, 84, 3 }, { seed = 3 }) * 255):byte()
    return model:describe(picture, pixelrefer.mask.box(picture, 10, 10, 50, 40), { max_new_tokens = 6 })
end

describe("quantised checkpoints", function()
    local folder
    before_each(function() folder = files.directory() end)
    after_each(function() files.remove(folder) end)

    for _, path in ipairs(MODELS) do
        for _, kind in ipairs { "int8", "int4" } do
            it(("answer as the model quantised while loading: %s, %s"):format(path:match("[^/]+$"), kind), function()
                local target = folder .. "/model"
                pixelrefer.quantize(path, target, { weights = kind })
                local written, made = pixelrefer.load(target), pixelrefer.load(path, { weights = kind })
                for part, tensors in pairs(made.weights) do
                    for name, weight in pairs(tensors) do same_bits(weight, written.weights[part][name], name) end
                end
                assert.equal(weights.bytes(written.weights), made.bytes)
                assert.same(describe_once(made).ids, describe_once(written).ids)
                assert.is_true(made.bytes < 0.75 * weights.bytes(pixelrefer.load(path).weights))
                assert.equal(kind == "int8" and 8 or 4, written.config.quantization.bits)
                local narrow = kind == "int8" and "int8" or "uint8"
                assert.equal(narrow, made.weights.decoder["layers.0.mlp.up_proj.qweight"]:dtype())
                for part, tensors in pairs(made.weights) do -- all else has eight bits in either kind
                    for name, weight in pairs(tensors) do
                        local is_layer = part == "decoder" and name:find("^layers%.")
                        if name:find("qweight$") and not is_layer then assert.equal("int8", weight:dtype(), name) end
                    end
                end
                pixelrefer.load(target, { weights = kind })
                assert.error_matches(function()
                    pixelrefer.load(target, { weights = kind == "int8" and "int4" or "int8" })
                end, "bits already")
                assert.error_matches(function() pixelrefer.quantize(target, target .. "2") end, "bits already")
            end)
        end

        it("tell how far their making is: " .. path:match("[^/]+$"), function()
            local before, stages = 0, {}
            local model = pixelrefer.load(path, { weights = "int4", progress = function(stage, done, all)
                assert.is_true(done > before and done <= all)
                before, stages[stage], stages.rest = done, true, all - done
            end })
            assert.same({ quantizing = true, rest = 0 }, stages)
            assert.is_true(before > model.bytes)
        end)

        it("stay near the weights that they were made of: " .. path:match("[^/]+$"), function()
            local plain, eight = pixelrefer.load(path), pixelrefer.load(path, { weights = "int8" })
            local ids = tensor.arange(40, { dtype = "int64" })
            local function logits(model)
                local decoder = model.decoder
                return decoder:logits(decoder:norm(decoder:forward(decoder:embed(ids), decoder:cache(40))))
            end
            local expected, found = logits(plain), logits(eight)
            assert.is_true(squared_error(expected, found) < 1e-3 * expected:square():sum())
            local rows = tensor.randn({ 2, plain.config.hidden_size }, { seed = 1 })
            local words = pixelrefer.inside.words
            assert.equal(words(plain, rows, 1)[1][1].id, words(eight, rows, 1)[1][1].id)
        end)
    end

    it("are there whole or not at all", function()
        local target = folder .. "/model"
        files.make_directories(target)
        assert.error_matches(function() pixelrefer.quantize(MODELS[1], target) end, "is there already")
        os.remove(target)
        files.make_directories(target .. ".partial") -- of a run that was killed
        files.write(target .. ".partial/model.safetensors", "half")
        assert.error_matches(function()
            pixelrefer.quantize(MODELS[1], target, { progress = function() error("enough", 0) end })
        end, "enough")
        assert.is_nil(core.path_kind(target))
        assert.is_nil(core.path_kind(target .. ".partial"))
        local function with(given) return function() pixelrefer.quantize(MODELS[1], target, given) end end
        assert.error_matches(with { weights = "int3" }, "'int8' or 'int4'")
        assert.error_matches(with { group = 48 }, "a power of two")
    end)

    it("are refused where they are damaged", function()
        local target = folder .. "/model"
        pixelrefer.quantize(MODELS[1], target, { weights = "int8", group = 16 })
        local config = files.read(target .. "/config.json")
        local function with(from, to)
            files.write(target .. "/config.json", (config:gsub(from, to)))
            local ok, message = pcall(pixelrefer.load, target)
            files.write(target .. "/config.json", config)
            return ok and "loads" or message
        end
        assert.matches('"pixelrefer" expected, found "awq"', with('"method": "pixelrefer"', '"method": "awq"'))
        assert.matches('"bits": 4 or 8 expected, found 5', with('"bits": 8', '"bits": 5'))
        assert.matches('"group": a power of two expected, found 20', with('"group": 16', '"group": 20'))
        assert.matches("expected float16 scales", with('"group": 16', '"group": 32'))
        assert.matches("missing .*qweight", with('"quantization_config"', '"other"'))
        local tensors = tensor.load(target .. "/model.safetensors")
        tensors["model.layers.0.mlp.up_proj.scales"] = nil
        tensor.save(target .. "/model.safetensors", tensors)
        local ok, message = pcall(pixelrefer.load, target)
        assert.is_false(ok)
        assert.matches("missing +model.layers.0.mlp.up_proj.scales", message)
    end)
end)
