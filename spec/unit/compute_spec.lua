-- Products in fewer bits on the CPU: compute = "bf16" and "int8".
local attention = require "support.attention"
local bits = require "support.bits"
local core = require "pixelrefer.core"
local pixelrefer = require "pixelrefer"
local seed = require "support.seed"
local tensor = require "pixelrefer.tensor"

local function uniform(sizes)
    return tensor.rand(sizes, { seed = math.random(2 ^ 30) }) * 2 - 1
end

--- Calls `run` while the CPU computes in `precision`.
local function computing(precision, run)
    core.compute("cpu", precision)
    local ok, result = pcall(run)
    core.compute("cpu", "f32")
    if not ok then error(result, 2) end
    return result
end

local function relative_error(expected, found)
    return (expected - found):square():sum() / expected:square():sum()
end

-- rows, K, N: one row, few, a block and its rests; K with and without a rest behind steps and chunks.
local SHAPES = { { 1, 64, 5 }, { 1, 600, 70 }, { 3, 272, 9 }, { 4, 1100, 70 }, { 2, 4304, 33 }, { 16, 1152, 68 },
    { 17, 33, 24 }, { 98, 1100, 35 }, { 130, 4304, 33 },
    { 400, 64, 33 } }

describe("bfloat16 operands on the CPU", function()
    before_each(function() math.randomseed(seed) end)

    for _, shape in ipairs(SHAPES) do
        local rows, depth, columns = unpack(shape)
        local name = ("%d rows times %d x %d have the same bits everywhere, alone or together"):format(rows, columns,
            depth)
        it(name, function()
            local x, weight = uniform { rows, depth }, uniform({ columns, depth }):bfloat16()
            local bias, rest = uniform { columns }, uniform { rows, columns }
            computing("bf16", function()
                local all = bits.everywhere("linear", function()
                    return core.linear(x, weight, bias, "gelu_tanh", rest)
                end, "amx") -- whose tiles have an order of their own
                for _, row in ipairs { 1, rows } do
                    local one = core.linear(x:narrow(1, row, 1), weight, bias, "gelu_tanh", rest:narrow(1, row, 1))
                    bits.same(all:narrow(1, row, 1), one, "row " .. row)
                end
                return all
            end)
        end)
    end

    it("are x rounded to bfloat16 times the weights, and other weights stay in float32", function()
        local x, weight = uniform { 20, 700 }, uniform { 40, 700 }
        local half = weight:bfloat16()
        local found = computing("bf16", function() return core.linear(x, half) end)
        assert.is_true(relative_error(core.linear(x:bfloat16():float(), half), found) < 1e-12)
        assert.is_true(relative_error(core.linear(x, half), found) > 1e-7)
        for _, other in ipairs { weight, weight:half() } do
            local again = computing("bf16", function() return core.linear(x, other) end)
            bits.same(core.linear(x, other), again, other:dtype())
        end
    end)

    it("keep what is not a number, and what is infinite", function()
        local x, weight = uniform { 18, 64 }, uniform({ 8, 64 }):bfloat16()
        x[2][5], x[3][7] = 0 / 0, 1 / 0
        local y = computing("bf16", function() return core.linear(x, weight) end)
        assert.equal(8, y:narrow(1, 2, 1):ne(y:narrow(1, 2, 1)):sum())
        assert.equal(8, y:narrow(1, 3, 1):abs():eq(1 / 0):sum())
        assert.equal(0, y:narrow(1, 4, 15):ne(y:narrow(1, 4, 15)):sum())
    end)
end)

describe("attention over operands of bfloat16 on the CPU", function()
    before_each(function() math.randomseed(seed) end)

    -- queries, keys, heads, key heads, head dim
    local ATTENTIONS = { { 1, 1, 1, 1, 1 }, { 20, 70, 4, 2, 128 }, { 130, 130, 2, 1, 72 }, { 7, 33, 3, 3, 17 },
        { 5, 65, 2, 2, 144 }, { 1, 200, 2, 1, 160 }, { 40, 64, 6, 2, 36 }, { 1, 1100, 4, 1, 128 },
        { 3, 513, 2, 1, 72 } }

    for _, shape in ipairs(ATTENTIONS) do
        local n, m, heads, kv_heads, dim = unpack(shape)
        for _, causal in ipairs { false, true } do
            local name = ("%d over %d, heads %d/%d of %d"):format(n, m, heads, kv_heads, dim)
            if causal then name = name .. ", causal" end
            it("is that of rounded queries, keys and values, the same bits everywhere: " .. name, function()
                local q, k, v = uniform { n, heads, dim }, uniform { m, kv_heads, dim }, uniform { m, kv_heads, dim }
                local given = { causal = causal }
                local rounded = core.attention(q:bfloat16():float(), k:bfloat16():float(), v:bfloat16():float(), given)
                for _, precision in ipairs { "bf16", "int8" } do
                    local found = computing(precision, function()
                        return bits.everywhere("attention", function()
                            return core.attention(q, k, v, given)
                        end, "amx") -- whose tiles have an order of their own
                    end)
                    assert.is_true(relative_error(rounded, found) < 1e-5)
                    local kept = computing(precision, function()
                        return bits.everywhere("attention", function()
                            return core.attention(q, k:bfloat16(), v:bfloat16(), given)
                        end, "amx")
                    end)
                    bits.same(found, kept, "keys and values that are bfloat16")
                    if n > 1 then assert.is_true(relative_error(core.attention(q, k, v, given), found) > 1e-8) end
                end
            end)
        end
    end

    it("gives a query the same bits in any chunk, whatever lies behind its keys, in float16 too", function()
        for _, shape in ipairs { { 150, 4, 2, 72 }, { 530, 2, 1, 20 } } do
            local n, heads, kv_heads, dim = unpack(shape)
            local q, k, v = uniform { n, heads, dim }, uniform({ n, kv_heads, dim }):half(),
                uniform({ n, kv_heads, dim }):half()
            computing("bf16", function()
                local all = core.attention(q, k, v, { causal = true })
                bits.same(all, core.attention(q, k:float(), v:float(), { causal = true }), "float16")
                for _, chunk in ipairs { 1, 7, 64, 149 } do
                    attention.in_chunks(q, k, v, chunk, function(first, count, found)
                        bits.same(all:narrow(1, first, count), found, ("chunks of %d"):format(chunk))
                    end)
                end
                return all
            end)
        end
    end)

    it("keeps segments apart", function()
        local q, k, v = uniform { 90, 4, 72 }, uniform { 100, 2, 72 }, uniform { 100, 2, 72 }
        local segments = { { query_begin = 1, query_count = 7, key_begin = 1, key_count = 12 },
            { query_begin = 8, query_count = 3, key_begin = 13, key_count = 3 },
            { query_begin = 21, query_count = 70, key_begin = 31, key_count = 70 } }
        computing("bf16", function()
            local out = core.attention(q, k, v, { segments = segments })
            for _, s in ipairs(segments) do
                local alone = core.attention(q:narrow(1, s.query_begin, s.query_count),
                    k:narrow(1, s.key_begin, s.key_count), v:narrow(1, s.key_begin, s.key_count))
                bits.same(alone, out:narrow(1, s.query_begin, s.query_count), "a segment")
            end
            return out
        end)
    end)
end)

describe("operands of eight bits on the CPU", function()
    before_each(function() math.randomseed(seed) end)

    for _, shape in ipairs(SHAPES) do
        local rows, depth, columns = unpack(shape)
        for _, kind in ipairs { { 8, 32 }, { 8, 64 }, { 8, 128 }, { 8, 512 }, { 4, 32 }, { 4, 64 }, { 4, 128 },
            { 4, 256 } } do
            local width, group = unpack(kind)
            it(("%d rows times %d x %d of %d bits in groups of %d have the same bits everywhere"):format(rows, columns,
                depth, width, group), function()
                local x = uniform { rows, depth }
                local integers, scales = core.quantize(uniform { columns, depth }, width, group)
                local exact = core.linear(x, integers, nil, nil, nil, scales)
                local found = computing("int8", function()
                    local all = bits.everywhere("linear", function()
                        return core.linear(x, integers, nil, nil, nil, scales)
                    end)
                    for _, row in ipairs { 1, rows } do
                        bits.same(all:narrow(1, row, 1),
                            core.linear(x:narrow(1, row, 1), integers, nil, nil, nil, scales), "row " .. row)
                    end
                    return all
                end)
                assert.is_true(relative_error(exact, found) < 1e-4)
            end)
        end
    end

    for _, kind in ipairs { { "int8", -128, 127, 1 }, { "uint8", 0x00, 0xff, 2 } } do
        local dtype, low, high, of_byte = unpack(kind)
        it("add up the largest integers of " .. dtype .. " exactly", function()
            local depth, group = 384, 128
            local chosen = uniform({ 40, depth / of_byte }):gt(0):float()
            chosen[1], chosen[2] = 0, 1
            local integers = (chosen * (high - low) + low):to(dtype)
            local scales = tensor.ones(40, depth / group):half()
            local signs = uniform({ 30, depth }):gt(0):float() * 2 - 1 -- the largest integers with either sign
            signs[1], signs[2] = 1, -1
            for _, rows in ipairs { 1, 4, 30 } do
                local x = signs:narrow(1, 1, rows)
                local exact = core.linear(x, integers, nil, nil, nil, scales)
                local found = computing("int8", function()
                    return bits.everywhere("linear", function()
                        return core.linear(x, integers, nil, nil, nil, scales)
                    end)
                end)
                assert.is_true((exact - found):abs():max() <= 1e-6 * exact:abs():max())
            end
        end)
    end

    it("have a scale for each chunk: columns hundreds of times larger spoil only their own", function()
        local x = uniform { 40, 1536 }
        x[{ {}, { 200, 202 } }] = x[{ {}, { 200, 202 } }] * 500
        local weight = uniform { 64, 1536 }
        weight[{ {}, { 129, 256 } }] = 0 -- the chunk of the large columns counts for nothing
        local integers, scales = core.quantize(weight, 8, 128)
        local exact = core.linear(x, integers, nil, nil, nil, scales)
        local found = computing("int8", function() return core.linear(x, integers, nil, nil, nil, scales) end)
        assert.is_true(relative_error(exact, found) < 1e-4)
    end)

    it("are not used for groups of sixteen, nor for weights of floats", function()
        local x, weight = uniform { 20, 256 }, uniform { 30, 256 }
        local integers, scales = core.quantize(weight, 8, 16)
        local function products()
            return tensor.cat({ core.linear(x, integers, nil, nil, nil, scales), core.linear(x, weight:bfloat16()) }, 2)
        end
        bits.same(products(), computing("int8", products), "linear")
    end)

    it("are shared by products of the same rows, each as it is alone", function()
        for _, rows in ipairs { 1, 9, 30 } do
            local x, products = uniform { rows, 400 }, {}
            for _, kind in ipairs { { 8, 128 }, { 4, 128 }, { 4, 32 }, { 4, 256 } } do
                local integers, scales = core.quantize(uniform { 70, 400 }, unpack(kind))
                products[#products + 1] = { weight = integers, scales = scales, bias = uniform { 70 } }
            end
            for _, last in ipairs { products[4], { weight = uniform({ 9, 400 }):bfloat16() } } do
                products[4] = last
                for _, precision in ipairs { "int8", "bf16" } do
                    computing(precision, function()
                        local found = { core.linears(x, unpack(products)) }
                        for i, p in ipairs(products) do
                            local alone = core.linear(x, p.weight, p.bias, nil, nil, p.scales)
                            bits.same(alone, found[i], ("%s, %d rows, product %d"):format(precision, rows, i))
                        end
                        return tensor.cat(found, 2)
                    end)
                end
            end
        end
    end)

    it("are zero where values are all but zero, and where there are none", function()
        local integers, scales = core.quantize(uniform { 8, 256 }, 8, 128)
        local tiny = uniform { 18, 256 } * 1e-38
        tiny[1] = 0
        computing("int8", function()
            assert.equal(0, core.linear(tiny, integers, nil, nil, nil, scales):abs():max())
            return assert.equal(0, core.linear(tensor.zeros(0, 256), integers, nil, nil, nil, scales):nElement())
        end)
        computing("bf16", function()
            local none = core.linear(tensor.zeros(3, 0), tensor.zeros(4, 0):bfloat16())
            return assert.equal(0, none:abs():max())
        end)
    end)

    it("give no number where a chunk is not finite", function()
        local x = uniform { 18, 256 }
        x[2][200] = 1 / 0
        local integers, scales = core.quantize(uniform { 8, 256 }, 8, 128)
        local y = computing("int8", function() return core.linear(x, integers, nil, nil, nil, scales) end)
        assert.equal(8, y:narrow(1, 2, 1):ne(y:narrow(1, 2, 1)):sum())
        assert.equal(0, y:narrow(1, 3, 16):ne(y:narrow(1, 3, 16)):sum())
    end)
end)

describe("a model in fewer bits on the CPU", function()
    local PATH = "examples/models/shapes-vision-object"
    local model

    local function load(given)
        model = nil
        collectgarbage()
        model = pixelrefer.load(PATH, given)
        return model
    end

    teardown(function()
        model = nil
        collectgarbage()
        core.compute("cpu", "f32")
    end)

    for _, given in ipairs { { compute = "bf16" }, { compute = "int8", weights = "int8" },
        { compute = "int8", weights = "int4" } } do
        it(("answers alike alone and together, on one thread and two: %s %s"):format(given.compute,
            given.weights or ""), function()
            load(given)
            assert.equal(given.compute, model.compute)
            local image = tensor.rand(112, 140, 3, { seed = seed }):mul_(255):byte()
            local scene = model:encode(image)
            local regions = {}
            for j = 1, 3 do regions[j] = pixelrefer.mask.box(image, 10 * j, 15 * j, 30 + 30 * j, 40 + 20 * j) end
            local settings = { max_new_tokens = 6, alternatives = 1 }
            local threads = core.threads()
            finally(function() core.threads(threads) end)
            local all = scene:describe(regions, settings)
            for i, region in ipairs(regions) do
                core.threads(i % 2 + 1)
                local alone = scene:describe({ region }, settings)[1]
                assert.same(alone.ids, all[i].ids)
                assert.same(alone.logprobs, all[i].logprobs)
            end
        end)
    end

    it("keeps its past in bfloat16, as attention rounds it: the same bits", function()
        local function logits(given)
            local decoder = load(given).decoder
            local cache = decoder:cache(100)
            decoder:forward(decoder:embed(tensor.arange(99, { dtype = "int64" })), cache)
            local last = decoder:forward(decoder:embed(tensor.fromTable({ 7 }, "int64")), cache)
            return decoder:logits(decoder:norm(last)), cache:keys(1):dtype()
        end
        for _, given in ipairs { { compute = "bf16" }, { compute = "int8", weights = "int8" } } do
            local own, dtype = logits(given)
            assert.equal("bfloat16", dtype)
            given.kv = "float32"
            local wide, wide_dtype = logits(given)
            assert.equal("float32", wide_dtype)
            bits.same(wide, own, given.compute)
        end
        assert.equal("float32", select(2, logits { compute = "f32" }))
    end)

    it("computes in what is fastest where that is asked for", function()
        local isa = core.isa()
        finally(function() core.isa(isa) end)
        local expected = {
            avx2 = { "f32", "int8" }, -- without and with quantised weights
            avx512_vnni = { "f32", "int8" },
            avx512_bf16 = { "bf16", "int8" }, amx = { "bf16", "int8" },
        }
        for _, name in ipairs(core.isas()) do
            core.isa(name)
            local floats, integers = unpack(expected[name] or { "f32", "f32" })
            assert.equal(floats, load({ compute = "auto" }).compute)
            assert.equal(integers, load({ compute = "auto", weights = "int4" }).compute)
        end
    end)

    it("is refused while another that computes otherwise is loaded", function()
        load { compute = "f32" }
        assert.error_matches(function() pixelrefer.load(PATH, { compute = "bf16" }) end,
            "load: cpu computes in f32 for .*shapes%-vision%-object, which is loaded: it cannot compute in bf16 too")
    end)

    it("is known as long as a copy with another object tokenizer is", function()
        local copy = load({ compute = "f32" }):withTokenizer()
        model = nil
        assert.error_matches(function() pixelrefer.load(PATH, { compute = "bf16" }) end,
            "cannot compute in bf16 too", 1, true)
        assert.equal("f32", copy.compute)
    end)

    it("leaves the CPU its own precision when it is gone", function()
        load { compute = "bf16" }
        assert.equal("bf16", pixelrefer.load(PATH).compute) -- as the one that is there
        assert.equal("int8", load({ compute = "int8", weights = "int8" }).compute)
        assert.equal("f32", load({}).compute)
        assert.equal("float32", model.config.kv)
        assert.equal("f32", core.compute("cpu"))
    end)

    it("that cannot be loaded leaves the precision as it was", function()
        local function fail(given)
            given.tokenizer = "nothing"
            assert.is_false(pcall(load, given))
        end
        load { compute = "f32" }
        fail { compute = "bf16" }
        assert.equal("f32", core.compute("cpu"))
        load { compute = "bf16" }
        fail {}
        assert.equal("bf16", core.compute("cpu"))
        fail { compute = "int8", weights = "int8" }
        assert.equal("f32", load({}).compute)
    end)
end)
