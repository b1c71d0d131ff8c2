-- attention and attention_weights against plain float64 statements of what they compute; the same bits however queries
-- are cut. DEVICE=name runs them on another device than the CPU.
local attention = require "support.attention"
local bits = require "support.bits"
local core = require "pixelrefer.core"
local device = require "support.device"
local operands = require "support.operands"
local seed = require "support.seed"
local tensor = require "pixelrefer.tensor"

local assert_same_bits, everywhere = bits.same, bits.everywhere
local uniform, with_gaps, flat = operands.uniform, operands.with_gaps, operands.flat
local assert_close = operands.assert_close

before_each(function() math.randomseed(seed) end)

describe("attention", function()
    --- softmax(scale q k^T) v of one segment in float64; every row sees `visible(i)` keys.
    local function plain_attention(q, k, v, scale, n, m, heads, kv_heads, dim, causal)
        local out = {}
        for i = 0, n - 1 do
            local visible = causal and m - n + i + 1 or m
            for h = 0, heads - 1 do
                local g, scores, largest, sum = math.floor(h * kv_heads / heads), {}, -math.huge, 0
                for j = 0, visible - 1 do
                    local dot = 0
                    for d = 0, dim - 1 do
                        dot = dot + q[(i * heads + h) * dim + d] * k[(j * kv_heads + g) * dim + d]
                    end
                    scores[j] = dot * scale
                    largest = math.max(largest, scores[j])
                end
                for d = 0, dim - 1 do out[(i * heads + h) * dim + d] = 0 end
                for j = 0, visible - 1 do sum = sum + math.exp(scores[j] - largest) end
                for j = 0, visible - 1 do
                    local weight = math.exp(scores[j] - largest) / sum
                    for d = 0, dim - 1 do
                        local at = (i * heads + h) * dim + d
                        out[at] = out[at] + weight * v[(j * kv_heads + g) * dim + d]
                    end
                end
            end
        end
        return out
    end

    it("reads keys and values of fewer bits as it reads them widened, to the bit", function()
        if not device.is_cpu then return end -- others keep float32
        for _, shape in ipairs { { 3, 70, 2, 1, 72, "float16" }, { 20, 70, 4, 2, 128, "float16" },
            { 7, 9, 3, 3, 17, "float16" }, { 3, 70, 2, 1, 72, "bfloat16" }, { 7, 70, 3, 3, 17, "bfloat16" } } do
            local n, m, heads, kv_heads, dim, dtype = unpack(shape)
            local q = uniform { n, heads, dim }
            local k, v = uniform({ m, kv_heads, dim }, dtype), uniform({ m, kv_heads, dim }, dtype)
            local out = everywhere(dtype, function()
                return core.attention(with_gaps(q), k, v, { causal = true })
            end)
            assert_same_bits(core.attention(q, k:float(), v:float(), { causal = true }), out, dtype)
        end
        local q, k = uniform { 2, 1, 8 }, uniform { 3, 1, 8 }
        assert.error_matches(function() core.attention(q, k:half(), k) end, "v is %[3x1x8%] float32")
    end)

    local shapes = { -- queries, keys, heads, key heads, head dim
        { 1, 1, 1, 1, 1 }, { 3, 5, 2, 2, 72 }, { 20, 70, 4, 2, 128 }, { 2, 130, 6, 1, 16 }, { 66, 66, 2, 1, 18 },
        { 7, 64, 3, 3, 36 }, { 5, 65, 2, 2, 144 }, { 1, 200, 2, 1, 160 }, { 9, 9, 1, 1, 33 },
        { 1, 1100, 4, 1, 128 }, { 3, 513, 2, 1, 72 },
    }
    for _, shape in ipairs(shapes) do
        for _, causal in ipairs { false, true } do
            local n, m, heads, kv_heads, dim = unpack(shape)
            local name = ("%d over %d, heads %d/%d of %d"):format(n, m, heads, kv_heads, dim)
            if causal then name = name .. ", causal" end
            it("is softmax(q k^T) v: " .. name, function()
                local q, k = uniform { n, heads, dim }, uniform { m, kv_heads, dim }
                local v, scale = uniform { m, kv_heads, dim }, 3 / math.sqrt(dim)
                local out = everywhere(name, function()
                    local given = { scale = scale, causal = causal }
                    return core.attention(with_gaps(q), with_gaps(k), with_gaps(v), given)
                end)
                local expected = plain_attention(flat(q), flat(k), flat(v), scale, n, m, heads, kv_heads, dim,
                    causal)
                assert_close(expected, out, 2e-6, name)
            end)
        end
    end

    it("keeps segments apart", function()
        local q, k, v = uniform { 90, 4, 72 }, uniform { 100, 2, 72 }, uniform { 100, 2, 72 }
        local lengths = { { 1, 7, 1, 12 }, { 8, 3, 13, 3 }, { 21, 70, 31, 70 } }
        local segments = {}
        for i, s in ipairs(lengths) do
            segments[i] = { query_begin = s[1], query_count = s[2], key_begin = s[3], key_count = s[4] }
        end
        for _, causal in ipairs { false, true } do
            local out = everywhere("segments", function()
                return core.attention(q, k, v, { causal = causal, segments = segments })
            end)
            for _, s in ipairs(lengths) do
                local alone = core.attention(q:narrow(1, s[1], s[2]), k:narrow(1, s[3], s[4]),
                    v:narrow(1, s[3], s[4]), { causal = causal })
                assert_same_bits(alone, out:narrow(1, s[1], s[2]), "a segment")
            end
            assert_same_bits(tensor.zeros(10, 4, 72), out:narrow(1, 11, 10), "rows of no segment")
        end
    end)

    it("picks the batch entry of four-dim keys", function()
        local q, k, v = uniform { 3, 2, 16 }, uniform { 2, 8, 1, 16 }, uniform { 2, 8, 1, 16 }
        local out = core.attention(q, k, v, { segments = {
            { query_begin = 1, query_count = 1, batch = 2 }, { query_begin = 2, query_count = 2, key_count = 5 },
        } })
        local second = core.attention(q:narrow(1, 1, 1), k:select(1, 2), v:select(1, 2))
        assert_same_bits(second, out:narrow(1, 1, 1), "batch 2")
        local first = core.attention(q:narrow(1, 2, 2), k:select(1, 1):narrow(1, 1, 5),
            v:select(1, 1):narrow(1, 1, 5))
        assert_same_bits(first, out:narrow(1, 2, 2), "batch 1")
    end)

    it("reads places when the work is done", function()
        for _, n in ipairs { 1, 3, 70 } do
            local q, k, v = uniform { n, 4, 16 }, uniform { 3, 90, 2, 16 }, uniform { 3, 90, 2, 16 }
            local places, segments, guesses = {}, {}, {}
            for i = 1, n do
                local batch, count = math.random(3), i == 2 and 1 or math.random(90)
                places[i] = (batch - 1) * 90 + count
                segments[i] = { query_begin = i, query_count = 1, key_count = count, batch = batch }
                guesses[i] = device.is_cpu and segments[i] or { query_begin = i, query_count = 1, key_count = 1 }
            end
            local expected = core.attention(q, k, v, { segments = segments })
            assert_same_bits(expected, everywhere("places", function()
                return core.attention(q, k, v, { segments = guesses, places = places, causal = true })
            end), ("%d places"):format(n))
        end
        if device.is_cpu then return end
        local q, k = uniform { 2, 1, 8 }, uniform { 1, 70, 1, 8 }
        local out = core.attention(q, k, k, { places = { 0, 71 }, segments = {
            { query_begin = 1, query_count = 1 }, { query_begin = 2, query_count = 1 },
        } }):to("cpu")
        for _, value in ipairs(out:view(16):totable()) do assert.is_true(value ~= value) end -- no keys, no number
    end)

    it("gives a query the same bits in any chunk, whatever lies behind its keys #large", function()
        for _, shape in ipairs { { 150, 12, 2, 128 }, { 131, 2, 2, 72 }, { 530, 2, 1, 20 } } do
            local n, heads, kv_heads, dim = unpack(shape)
            local q, k, v = uniform { n, heads, dim }, uniform { n, kv_heads, dim }, uniform { n, kv_heads, dim }
            local all = core.attention(q, k, v, { causal = true })
            for _, chunk in ipairs(device.is_slow and { 64, 149 } or { 1, 7, 64, 149 }) do
                attention.in_chunks(q, k, v, chunk, function(first, count, found)
                    assert_same_bits(all:narrow(1, first, count), found, ("chunks of %d"):format(chunk))
                end)
            end
        end
    end)

    it("does not let a later key touch an earlier query", function()
        local q, k, v = uniform { 70, 2, 72 }, uniform { 70, 2, 72 }, uniform { 70, 2, 72 }
        local expected = core.attention(q, k, v, { causal = true })
        k:narrow(1, 66, 5):fill_(0 / 0)
        v:narrow(1, 66, 5):fill_(math.huge)
        local found = core.attention(q, k, v, { causal = true })
        assert_same_bits(expected:narrow(1, 1, 65), found:narrow(1, 1, 65), "causal")
    end)

    it("says what does not fit", function()
        local q, k = uniform { 4, 6, 8 }, uniform { 5, 3, 8 }
        local function with(given) return function() core.attention(q, k, k, given) end end
        assert.error_matches(function() core.attention(q, k, uniform { 5, 2, 8 }) end, "attention: v is %[5x2x8%]")
        assert.error_matches(function() core.attention(q, uniform { 5, 4, 8 }, uniform { 5, 4, 8 }) end,
            "6 heads of q are not a multiple of 4 heads of k")
        local wide = uniform { 1, 1, 161 }
        assert.error_matches(function() core.attention(wide, wide, wide) end, "head_dim is 161, expected 1 to 160")
        assert.error_matches(with { segments = { { query_begin = 3, query_count = 3 } } },
            "segment 0 has 3 queries from row 2, q has 4 rows")
        assert.error_matches(with { segments = { { key_begin = 6, key_count = 1 } } },
            "segment 0 has 1 keys from row 5")
        assert.error_matches(with { segments = { { batch = 2 } } }, "segment 0 is of batch 1, there are 1")
        assert.error_matches(with { segments = { { query_count = 2 }, { query_begin = 2, query_count = 1 } } },
            "segment 1 begins at row 1 of q, within or before segment 0")
        assert.error_matches(with { causal = true, segments = { { key_count = 3 } } },
            "4 queries but only 3 keys")
        assert.error_matches(with { casual = true }, "there is no option 'casual'")
        assert.error_matches(with { places = { 1, 2 } }, "attention: places is %[2%] int64, expected %[1%]")
        assert.error_matches(with { places = { 1 } }, "attention: places need a k of four dims")
        local one, past = uniform { 2, 1, 8 }, uniform { 1, 5, 1, 8 }
        assert.error_matches(function() core.attention(one, past, past, { places = { 1 } }) end,
            "segment 0 has 2 queries over keys from 0 on, with places one over keys from 0 on is expected")
    end)
end)

describe("attention_weights", function()
    --- The same of tensor ops: softmax(q k^T scale), a head at a time.
    local function composed(q, k, scale, causal)
        local n, m, heads, group = q:size(1), k:size(1), {}, q:size(2) / k:size(2)
        local unseen = device.put(tensor.arange(m):view(1, m):gt(tensor.arange(m - n, m):view(n, 1)))
        for h = 1, q:size(2) do
            local scores = q:select(2, h):matmul(k:select(2, math.ceil(h / group)):t()) * scale
            if causal then scores = scores:maskedFill(unseen, -math.huge) end
            heads[h] = scores:softmax(2)
        end
        return tensor.stack(heads, 1)
    end

    for _, shape in ipairs { { 1, 1, 1, 1, 1 }, { 3, 5, 2, 2, 72 }, { 20, 70, 4, 2, 128 }, { 66, 66, 6, 1, 18 } } do
        for _, causal in ipairs { false, true } do
            local n, m, heads, kv_heads, dim = unpack(shape)
            local name = ("%d over %d, heads %d/%d of %d%s"):format(n, m, heads, kv_heads, dim,
                causal and ", causal" or "")
            it("is softmax(q k^T): " .. name .. (n == 66 and " #large" or ""), function()
                local q, k, scale = uniform { n, heads, dim }, uniform { m, kv_heads, dim }, 3 / math.sqrt(dim)
                local out = everywhere(name, function()
                    return core.attention_weights(with_gaps(q), with_gaps(k), { scale = scale, causal = causal })
                end)
                assert_close(flat(composed(q, k, scale, causal)), out, 2e-6, name)
                local v = uniform { m, kv_heads, dim }
                local mixed = core.attention(q, k, v, { scale = scale, causal = causal })
                for h = 1, heads do
                    local own = out:select(1, h):matmul(v:select(2, math.ceil(h * kv_heads / heads)))
                    assert_close(flat(mixed:select(2, h)), own, 4e-6, name .. " times v")
                end
            end)
        end
    end

    it("gives no weight to what a query does not see, whatever lies there", function()
        local q, k = uniform { 5, 2, 16 }, uniform { 9, 1, 16 }
        local expected = core.attention_weights(q, k, { causal = true })
        k:narrow(1, 8, 2):fill_(0 / 0)
        local found = core.attention_weights(q, k, { causal = true })
        assert_same_bits(expected:narrow(2, 1, 3), found:narrow(2, 1, 3), "causal")
        assert.equal(0, found:select(2, 1):narrow(2, 6, 4):abs():sum())
        assert.same({ 2, 0, 4 }, core.attention_weights(uniform { 0, 2, 8 }, uniform { 4, 1, 8 }):size())
    end)

    it("says what does not fit", function()
        local q = uniform { 4, 6, 8 }
        assert.error_matches(function() core.attention_weights(q, uniform { 5, 4, 8 }) end,
            "attention_weights: 6 heads of q are not a multiple of 4 heads of k")
        assert.error_matches(function() core.attention_weights(q, uniform { 5, 3, 7 }) end,
            "attention_weights: k is %[5x3x7%] float32, expected %[mxkv_headsx8%]")
        assert.error_matches(function() core.attention_weights(q, uniform { 3, 3, 8 }, { causal = true }) end,
            "4 queries but only 3 keys")
        assert.error_matches(function() core.attention_weights(q, uniform { 0, 3, 8 }) end, "only 0 keys")
    end)
end)
