-- The fused ops against plain float64 statements of what they compute, on odd, tiny and large shapes, with strided
-- inputs and weights of every type at any byte; the same bits for every instruction set, thread count and cut.
-- DEVICE=name runs them on another device than the CPU.
local ffi = require "ffi"

local attention = require "support.attention"
local bits = require "support.bits"
local core = require "pixelrefer.core"
local device = require "support.device"
local seed = require "support.seed"
local shared = require "support.shared"
local tensor = require "pixelrefer.tensor"

local assert_same_bits, everywhere = bits.same, bits.everywhere

local FLOATS = { "float32", "float16", "bfloat16" }

-- ---- making tensors --------------------------------------------------------------------------------------------

local function uniform(sizes, dtype)
    local x = tensor.empty(sizes)
    local data = x:data()
    for i = 0, x:nElement() - 1 do data[i] = math.random() * 2 - 1 end
    return device.put(dtype and dtype ~= "float32" and x:to(dtype) or x)
end

--- A table's numbers on the device under test.
local function of(values, dtype)
    return device.put(tensor.fromTable(values, dtype))
end

--- The same elements in a view whose rows lie apart.
local function with_gaps(x)
    local sizes = {}
    for i = 1, x:dim() do sizes[i] = x:size(i) end
    sizes[#sizes] = sizes[#sizes] + 3
    local wide = tensor.full(sizes, 0 / 0, { device = device.name })
    local view = wide:narrow(#sizes, 2, x:size(x:dim()))
    view:copy_(x)
    return view
end

local kept = {}

--- The same elements starting at an odd byte, as in a mapped file; other devices have no such tensors.
local function unaligned(x)
    if not device.is_cpu then return x end
    local bytes = x:bytes()
    local buffer = ffi.new("uint8_t[?]", #bytes + 64)
    ffi.copy(buffer + 1, bytes, #bytes)
    kept[#kept + 1] = buffer
    local sizes = {}
    for i = 1, x:dim() do sizes[i] = x:size(i) end
    return tensor.fromPointer(buffer + 1, x:dtype(), sizes, buffer)
end

--- Elements in row-major order as a Lua array from 0.
local function flat(x)
    local wide = x:to("cpu"):to(x:dtype() == "int64" and "int64" or "float32"):contiguous()
    local data, values = wide:data(), {}
    for i = 0, x:nElement() - 1 do values[i] = tonumber(data[i]) end
    return values
end

-- ---- comparing -------------------------------------------------------------------------------------------------

local function assert_close(expected, found, tolerance, what)
    local values = flat(found)
    for i = 0, found:nElement() - 1 do
        local difference = math.abs(expected[i] - values[i])
        if difference ~= difference or difference > tolerance * (1 + math.abs(expected[i])) then
            error(("%s: element %d is %.9g, expected %.9g"):format(what, i, values[i], expected[i]), 2)
        end
    end
end

--- What the CPU alone promises bit by bit, and other devices within a tolerance: sums whose order depends on the shape.
local function assert_same_sums(expected, found, what)
    if device.is_cpu then return assert_same_bits(expected, found, what) end
    assert_close(flat(expected), found, 1e-4, what)
end

local function erf(x) -- Maclaurin series, enough for |x| < 4 in float64
    local sum, term = x, x
    for n = 1, 120 do
        term = -term * x * x / n
        sum = sum + term / (2 * n + 1)
    end
    return 2 / math.sqrt(math.pi) * sum
end

local ACTIVATIONS = {
    none = function(x) return x end,
    gelu_tanh = function(x)
        local u = math.sqrt(2 / math.pi) * (x + 0.044715 * x ^ 3)
        return 0.5 * x * (1 + 1 - 2 / (math.exp(2 * u) + 1))
    end,
    gelu = function(x) return 0.5 * x * (1 + (math.abs(x) < 5 and erf(x / math.sqrt(2)) or (x > 0 and 1 or -1))) end,
}

--- activation(x w^T + bias) + residual on flat arrays.
local function plain_linear(x, w, bias, activation, residual, n, N, K)
    local out = {}
    for i = 0, n - 1 do
        for j = 0, N - 1 do
            local sum = 0
            for k = 0, K - 1 do sum = sum + x[i * K + k] * w[j * K + k] end
            local y = ACTIVATIONS[activation](sum + (bias and bias[j] or 0))
            out[i * N + j] = y + (residual and residual[i * N + j] or 0)
        end
    end
    return out
end

describe("fused ops", function()
    before_each(function() math.randomseed(seed) end)

    describe("linears", function()
        it("are what linear gives for each, whatever the weights", function()
            for _, rows in ipairs { 1, 3, 16, 17, 40 } do
                for _, depth in ipairs { 0, 35, 192 } do
                    local x = uniform { rows, depth }
                    local products = {
                        { weight = uniform { 70, depth }, bias = uniform { 70 } },
                        { weight = uniform({ 5, depth }, "bfloat16"), activation = "gelu" },
                        { weight = uniform({ 0, depth }, "bfloat16"), bias = uniform { 0 } },
                        { weight = unaligned(uniform({ 130, depth }, "bfloat16")), residual = uniform { rows, 130 } },
                    }
                    local function together() return core.linears(x, unpack(products)) end
                    local found = { together() }
                    assert.equal(4, #found)
                    for i, p in ipairs(products) do
                        local alone = core.linear(x, p.weight, p.bias, p.activation, p.residual)
                        assert_same_bits(alone, found[i], ("%d rows of %d, product %d"):format(rows, depth, i))
                    end
                    everywhere("the last", function() return (select(4, together())) end)
                end
            end
        end)

        it("says what does not fit", function()
            local x, w = uniform { 2, 48 }, uniform { 5, 48 }
            assert.error_matches(function() core.linears(x) end, "linears: 0 products, expected 1 to 4")
            local one = { weight = w }
            assert.error_matches(function() core.linears(x, one, one, one, one, one) end, "linears: 5 products")
            assert.error_matches(function() core.linears(x, one, { weight = uniform { 5, 47 } }) end,
                "product 2: linear: weight is %[5x47%]")
            assert.error_matches(function() core.linears(x, one, { bias = w }) end, "weight expected")
            assert.error_matches(function() core.linears(x, { wieght = w }) end, "there is no option 'wieght'")
            assert.error_matches(function() core.linears(x, w) end, "table expected")
            assert.error_matches(function() core.linears(x, { weight = w, activation = "relu" }) end, "relu")
        end)
    end)

    describe("linear", function()
        local shapes = {
            { 1, 1, 1 }, { 0, 5, 7 }, { 3, 0, 4 }, { 2, 3, 0 }, { 7, 5, 17 }, { 13, 67, 33 }, { 40, 131, 50 },
        }

        for _, dtype in ipairs(FLOATS) do
            it("is x w^T with weights in " .. dtype, function()
                for number, shape in ipairs(shapes) do
                    local n, N, K = unpack(shape)
                    local x, w = uniform { n, K }, uniform({ N, K }, dtype)
                    local what = ("%dx%dx%d"):format(n, N, K)
                    local bias = number % 2 == 0 and uniform({ N }, dtype) or nil
                    local residual = number % 3 == 0 and uniform { n, N } or nil
                    local out = everywhere(what, function()
                        return core.linear(x, w, bias, nil, residual)
                    end)
                    assert_close(plain_linear(flat(x), flat(w), bias and flat(bias), "none",
                        residual and flat(residual), n, N, K), out, 2e-6, what)
                end
            end)

            it("reads " .. dtype .. " weights at any byte and any row stride", function()
                local x, w, bias = uniform { 5, 35 }, uniform({ 9, 35 }, dtype), uniform({ 9 }, dtype)
                local expected = core.linear(x, w, bias)
                assert_same_bits(expected, everywhere("unaligned", function()
                    return core.linear(x, unaligned(w), unaligned(bias))
                end), "unaligned")
                local wide = uniform({ 9, 40 }, dtype)
                wide:narrow(2, 4, 35):copy_(w)
                assert_same_bits(expected, core.linear(with_gaps(x), wide:narrow(2, 4, 35), bias), "with gaps")
            end)
        end

        for name in pairs(ACTIVATIONS) do
            it("applies " .. name, function()
                local x, w, bias, residual = uniform { 6, 20 }, uniform { 37, 20 }, uniform { 37 }, uniform { 6, 37 }
                local out = everywhere(name, function() return core.linear(x, w, bias, name, residual) end)
                local expected = plain_linear(flat(x), flat(w), flat(bias), name, flat(residual), 6, 37, 20)
                assert_close(expected, out, 2e-6, name)
            end)
        end

        it("gives a row the same bits among any others #large", function()
            local large = not device.is_slow and { 65, 70, 2100 } or nil
            for _, shape in ipairs { { 9, 300, 64 }, { 150, 9, 1200 }, large } do
                local n, N, K = unpack(shape)
                for _, dtype in ipairs(FLOATS) do
                    local x, w, bias = uniform { n, K }, uniform({ N, K }, dtype), uniform { N }
                    local all = core.linear(x, w, bias, "gelu")
                    for _, range in ipairs { { 1, 1 }, { 2, 5 }, { n - 7, 8 }, { 3, n - 3 } } do
                        assert_same_bits(all:narrow(1, range[1], range[2]),
                            core.linear(x:narrow(1, range[1], range[2]), w, bias, "gelu"), "rows")
                    end
                    assert_same_bits(all:narrow(2, 3, N - 4), core.linear(x, w:narrow(1, 3, N - 4),
                        bias:narrow(1, 3, N - 4), "gelu"), "columns")
                end
            end
        end)

        it("has one answer on every instruction set for large shapes", function()
            local x, w = uniform { 70, 1500 }, uniform({ 90, 1500 }, "bfloat16")
            local isa = core.isa()
            local expected = core.linear(x, w)
            for _, name in ipairs(core.isas()) do
                core.isa(name)
                assert_same_bits(expected, core.linear(x, w), name)
            end
            core.isa(isa)
        end)

        it("keeps NaN and infinity where they belong", function()
            local x, w = uniform { 8, 40 }, uniform { 20, 40 }
            x[{ 3, 7 }] = 0 / 0
            w[{ 5, 38 }] = math.huge
            local out = core.linear(x, w)
            for i = 1, 8 do
                for j = 1, 20 do
                    local y = out[{ i, j }]
                    assert.equal(i == 3, y ~= y and true or false)
                    if i ~= 3 then assert.equal(j == 5, math.abs(y) == math.huge) end
                end
            end
        end)

        it("says what does not fit", function()
            local x, w = uniform { 2, 48 }, uniform { 64, 32 }
            assert.error_matches(function() core.linear(x, w) end,
                "linear: weight is %[64x32%] float32, expected %[64x48%] float32, float16 or bfloat16")
            assert.error_matches(function() core.linear(uniform { 2, 3, 4 }, w) end, "linear: x is %[2x3x4%] float32")
            assert.error_matches(function() core.linear(x, x:t():contiguous():t()) end,
                "linear: weight %[2x48%] must have dense rows")
            assert.error_matches(function() core.linear(x, uniform { 5, 48 }, uniform { 4 }) end,
                "linear: bias is %[4%] float32, expected %[5%]")
            assert.error_matches(function() core.linear(x, uniform { 5, 48 }, nil, "relu") end, "invalid option 'relu'")
            assert.error_matches(function() core.linear(x, "w") end, "bad argument #2")
        end)
    end)

    describe("norms", function()
        for _, dtype in ipairs(FLOATS) do
            for _, shape in ipairs { { 1, 1 }, { 0, 8 }, { 5, 16 }, { 3, 23 }, { 40, 1152 } } do
                local n, D = unpack(shape)
                it(("of %d rows of %d with weights in %s"):format(n, D, dtype), function()
                    local x, w, b = with_gaps(uniform { n, D }), unaligned(uniform({ D }, dtype)), uniform({ D }, dtype)
                    local X, W, B, layer, rms = flat(x), flat(w), flat(b), {}, {}
                    for i = 0, n - 1 do
                        local mean, variance, square = 0, 0, 0
                        for j = 0, D - 1 do mean = mean + X[i * D + j] / D end
                        for j = 0, D - 1 do
                            variance = variance + (X[i * D + j] - mean) ^ 2 / D
                            square = square + X[i * D + j] ^ 2 / D
                        end
                        for j = 0, D - 1 do
                            layer[i * D + j] = (X[i * D + j] - mean) / math.sqrt(variance + 1e-6) * W[j] + B[j]
                            rms[i * D + j] = X[i * D + j] / math.sqrt(square + 1e-6) * W[j]
                        end
                    end
                    assert_close(layer, everywhere("layer_norm", function()
                        return core.layer_norm(x, w, b, 1e-6)
                    end), 5e-6, "layer_norm")
                    assert_close(rms, everywhere("rms_norm", function() return core.rms_norm(x, w, 1e-6) end), 3e-6,
                        "rms_norm")
                end)
            end
        end

        it("say what does not fit", function()
            assert.error_matches(function() core.rms_norm(uniform { 2, 3 }, uniform { 4 }, 1e-6) end,
                "rms_norm: weight is %[4%] float32, expected %[3%]")
            assert.error_matches(function() core.layer_norm(uniform { 2, 3 }, uniform { 3 }, uniform { 3 }, -1) end,
                "layer_norm: epsilon is %-1")
        end)
    end)

    it("rope turns the halves of each head", function()
        for _, shape in ipairs { { 1, 1, 2 }, { 5, 3, 72 }, { 4, 2, 128 }, { 3, 1, 18 } } do
            local n, heads, dim = unpack(shape)
            local x, c, s = uniform(shape), uniform { n, dim / 2 }, uniform { n, dim / 2 }
            local X, C, S, expected = flat(x), flat(c), flat(s), {}
            for i = 0, n - 1 do
                for h = 0, heads - 1 do
                    for d = 0, dim / 2 - 1 do
                        local at, other = (i * heads + h) * dim + d, (i * heads + h) * dim + d + dim / 2
                        local cosine, sine = C[i * dim / 2 + d], S[i * dim / 2 + d]
                        expected[at] = X[at] * cosine - X[other] * sine
                        expected[other] = X[other] * cosine + X[at] * sine
                    end
                end
            end
            local out = everywhere("rope", function() return core.rope(x:clone(), c, s) end)
            assert_close(expected, out, 1e-6, "rope")
        end
        local x = uniform { 2, 1, 4 }
        assert.equal(x, core.rope(x, uniform { 2, 2 }, uniform { 2, 2 }))
        assert.error_matches(function() core.rope(uniform { 2, 1, 5 }, uniform { 2, 2 }, uniform { 2, 2 }) end,
            "head_dim is 5, expected an even number")
    end)

    it("silu_mul is silu(gate) * up, far out too", function()
        for _, shape in ipairs { { 1, 1 }, { 3, 37 }, { 2, 640 } } do
            local gate, up = uniform(shape) * 30, uniform(shape)
            local G, U, expected = flat(gate), flat(up), {}
            for i = 0, gate:nElement() - 1 do expected[i] = G[i] / (1 + math.exp(-G[i])) * U[i] end
            local found = everywhere("silu_mul", function() return core.silu_mul(gate, up) end)
            assert_close(expected, found, 1e-6, "silu_mul")
        end
        local far = of { { -math.huge, -1e30, -200, 100, 1e30, 0 } }
        local out = core.silu_mul(far, of { { 1, 1, 1, 1, 1, 1 } }):totable()[1]
        assert.is_true(out[1] ~= out[1]) -- infinity times zero
        local found = { math.abs(out[2]), math.abs(out[3]), out[4], out[5], out[6] }
        assert.same({ 0, 0, 100, far:totable()[1][5], 0 }, found)
    end)

    it("embedding widens rows and refuses ids outside the table", function()
        for _, dtype in ipairs(FLOATS) do
            local whole = uniform({ 11, 37 }, dtype)
            local expected = whole:to("float32")
            local out = everywhere("embedding", function() return core.embedding(unaligned(whole), { 10, 0, 3, 3 }) end)
            for row, id in ipairs { 10, 0, 3, 3 } do
                assert_same_bits(expected:select(1, id + 1), out:select(1, row), dtype)
            end
        end
        local whole = uniform { 4, 3 }
        assert.same({ 0, 3 }, core.embedding(whole, {}):size())
        assert.error_matches(function() core.embedding(whole, { 0, 4 }) end, "id 4 at place 1 is not in 0 .. 3")
        assert.error_matches(function() core.embedding(whole, { -1 }) end, "id %-1 at place 0")
        assert.error_matches(function() core.embedding(whole, { 1.5 }) end, "entry 1 is no integer")
    end)

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

        it("gives a query the same bits in any chunk, whatever lies behind its keys #large", function()
            for _, shape in ipairs { { 150, 12, 2, 128 }, { 131, 2, 2, 72 } } do
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
            assert.error_matches(with { causal = true, segments = { { key_count = 3 } } },
                "4 queries but only 3 keys")
            assert.error_matches(with { casual = true }, "there is no option 'casual'")
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

    it("pairwiseDistance and kmeans measure alike, matmul sums as linear", function()
        local a, b = uniform { 9, 37 }, uniform { 70, 37 }
        local A, B, expected = flat(a), flat(b), {}
        for i = 0, 8 do
            for j = 0, 69 do
                local sum = 0
                for d = 0, 36 do sum = sum + (A[i * 37 + d] - B[j * 37 + d]) ^ 2 end
                expected[i * 70 + j] = sum
            end
        end
        local out = everywhere("distance", function() return a:pairwiseDistance(b) end)
        assert_close(expected, out, 2e-6, "distance")
        assert_same_bits(out, with_gaps(a):pairwiseDistance(b:t():contiguous():t()), "strided")
        assert_same_sums(core.linear(a, b), everywhere("matmul", function() return a:matmul(b:t()) end), "matmul")
        for _, dtype in ipairs { "float16", "bfloat16" } do
            local x, y = uniform({ 2, 5, 20 }, dtype), uniform({ 20, 6 }, dtype)
            local product = x:matmul(y)
            for i = 1, 2 do
                assert_same_bits(core.linear(x:select(1, i):to("float32"), y:to("float32"):t():contiguous()):to(dtype),
                    product:select(1, i), dtype)
            end
        end
    end)

    describe("kmeans", function()
        it("follows Lloyd's rounds, keeps empty clusters and stops when nothing moves", function()
            local points = of { { 0, 0 }, { 0, 1 }, { 10, 0 }, { 10, 1 }, { 0, 0 } }
            local centroids, assignment = core.kmeans(points, { 1, 3, 5 }, 1)
            assert_close({ [0] = 0, 1 / 3, 10, 0.5, 0, 0 }, centroids, 1e-6, "one round")
            assert.same({ 1, 1, 2, 2, 1 }, assignment:totable()) -- the first of equal distances
            centroids, assignment = core.kmeans(points, { 1, 3, 5 }, 5)
            assert_close({ [0] = 0, 1, 10, 0.5, 0, 0 }, centroids, 1e-6, "five rounds")
            assert.same({ 3, 1, 2, 2, 3 }, assignment:totable())
            local again = core.kmeans(points, of({ 1, 3, 5 }, "int64"), 5)
            assert_same_bits(centroids, again, "start as a tensor")
        end)

        it("has one answer everywhere", function()
            local points = uniform { 300, 40 }
            local start = {}
            for i = 1, 70 do start[i] = i * 4 end
            everywhere("kmeans", function() return (core.kmeans(points, start, 5)) end)
            everywhere("kmeans", function() return select(2, core.kmeans(points, start, 5)) end)
        end)

        it("says what does not fit", function()
            local points = uniform { 4, 3 }
            assert.error_matches(function() core.kmeans(points, { 1, 5 }, 5) end,
                "start: entry 2 is 5, expected a row of points, 1 to 4")
            assert.error_matches(function() core.kmeans(points, { 1, 2, 3, 4, 1 }, 5) end,
                "kmeans: 5 clusters of 4 points")
            assert.error_matches(function() core.kmeans(points, {}, 5) end, "kmeans: 0 clusters")
            assert.error_matches(function() core.kmeans(points, { 1 }, 0) end, "bad argument #3")
        end)

        it("agrees with the golden unit", function()
            local units = core.read_safetensors(shared.path("golden/units/kmeans.safetensors"))
            local number = 0
            while units[number .. ".points"] do
                local unit = function(name) return units[number .. "." .. name] end
                local rounds, k = unit("rounds_seed"):totable()[1], unit("centroids"):size(1)
                local start = unit("perm"):narrow(1, 1, k) + 1
                local centroids = core.kmeans(device.put(unit("points"):contiguous()), start:contiguous(), rounds)
                assert_close(flat(unit("centroids")), centroids, 1e-5, "case " .. number)
                number = number + 1
            end
            assert.is_true(number > 0)
        end)
    end)

    describe("sample", function()
        it("is greedy at temperature 0: the largest, the first of equals, after the penalty", function()
            local logits = of { { 1, 5, 5, -2 }, { -3, -1, -9, -1 } }
            assert.same({ 1, 1 }, core.sample(logits):totable())
            local penalised = core.sample(logits, { repetition_penalty = 1.5, generated = { { 1, 1 }, { 1 } } })
            assert.same({ 2, 3 }, penalised:totable())
            local ids, probabilities = core.sample(logits, { probabilities = true })
            assert.same({ 1, 1 }, ids:totable())
            assert.same({ { 0, 1, 0, 0 }, { 0, 1, 0, 0 } }, probabilities:totable())
        end)

        it("draws by inverse distribution, repeatably #large", function()
            local logits = uniform { 1, 50 } * 4
            local counts, probabilities, draws = {}, nil, device.is_slow and 400 or 4000
            for step = 1, draws do
                local ids, p = core.sample(logits, { temperature = 1, seed = 7, step = step, probabilities = true })
                local id = ids:totable()[1]
                counts[id], probabilities = (counts[id] or 0) + 1, p
            end
            for id, p in pairs(flat(probabilities)) do
                assert.is_true(math.abs((counts[id] or 0) / draws - p) < 5 * math.sqrt(p / draws) + 4 / draws)
            end
            local pair = device.put(tensor.empty(2, 50)):copy_(logits:expand(2, 50))
            local both = core.sample(pair, { temperature = 1, seed = 7, step = 3, streams = { 0, 1 } }):totable()
            local first = core.sample(logits, { temperature = 1, seed = 7, step = 3 })
            local second = core.sample(logits, { temperature = 1, seed = 7, step = 3, streams = { 1 } })
            assert.same(both, { first:totable()[1], second:totable()[1] })
        end)

        it("has one answer everywhere #large", function()
            local logits = uniform { 3, 1000 } * 5
            everywhere("sample", function()
                local given = { temperature = 0.7, top_k = 300, top_p = 0.9, probabilities = true }
                return select(2, core.sample(logits, given))
            end)
        end)

        it("keeps at least one id, and ties at the k-th place", function()
            local logits = of { { 0, 3, 1, 3, 2 } }
            local function support(given)
                given.temperature, given.probabilities = 1, true
                local ids = {}
                local _, probabilities = core.sample(logits, given)
                for place, p in ipairs(probabilities:totable()[1]) do if p > 0 then ids[#ids + 1] = place - 1 end end
                return ids
            end
            assert.same({ 1, 3 }, support { top_k = 1 })
            assert.same({ 1, 3, 4 }, support { top_k = 3 })
            assert.same({ 3 }, support { top_p = 1e-6 })
            assert.same({ 0, 1, 2, 3, 4 }, support { top_k = 99, top_p = 1 })
        end)

        it("says what does not fit", function()
            local logits = uniform { 2, 5 }
            local function with(given) return function() core.sample(logits, given) end end
            assert.error_matches(with { temperature = -1 }, "temperature is %-1")
            assert.error_matches(with { top_p = 1.5 }, "top_p is 1.5, expected 0 to 1")
            assert.error_matches(with { top_k = 0.5 }, "top_k: an integer")
            assert.error_matches(with { repetition_penalty = 2, generated = { { 5 }, {} } },
                "generated id 5 of row 0 is not in 0 .. 4")
            assert.error_matches(with { generated = { {} } }, "the ids of each row")
            assert.error_matches(with { temperatur = 1 }, "there is no option 'temperatur'")
        end)

        it("agrees with the golden unit #large", function()
            local units = core.read_safetensors(shared.path("golden/units/sampling.safetensors"))
            local number = 0
            while units[("%02d.logits"):format(number)] do
                local unit = function(name) return units[("%02d.%s"):format(number, name)] end
                local settings = unit("settings"):totable()
                local logits, expected = device.put(unit("logits"):contiguous()), flat(unit("probabilities"))
                local _, found = core.sample(logits:view(1, logits:nElement()), { temperature = settings[1],
                    top_k = settings[2], top_p = settings[3], repetition_penalty = settings[4],
                    generated = { unit("generated"):contiguous() }, probabilities = true })
                assert_close(expected, found, 1e-6, "case " .. number)
                for id, p in pairs(flat(found)) do assert.equal(expected[id] > 0, p > 0) end
                number = number + 1
            end
            assert.is_true(number > 0)
        end)
    end)

    it("fail cleanly when there is no memory #large", function()
        local x, w, logits = uniform { 80, 64 }, uniform({ 64, 64 }, "bfloat16"), uniform { 1, 100 }
        local calls = {
            function() return core.linear(x, w) end,
            function() return core.kmeans(x, { 1, 2, 3 }, 3) end,
            function() return core.attention_weights(x:view(80, 4, 16), x:view(80, 4, 16)) end,
            function() return core.sample(logits, { temperature = 1, top_p = 0.5, top_k = 9 }) end,
            function() return w:to("float32"):matmul(w:to("float32")) end,
            function() return x:pairwiseDistance(x:t():contiguous():t()) end,
        }
        for number, call in ipairs(calls) do
            call()
            collectgarbage()
            collectgarbage()
            local before, failures = core.memory(), 0
            while true do
                core.memory_fail_at(core.memory_allocations() + failures + 1)
                local ok, message = pcall(call)
                core.memory_fail_at(0)
                if ok then break end
                failures = failures + 1
                assert.is_truthy(tostring(message):find("memory", 1, true), message)
            end
            collectgarbage()
            collectgarbage()
            assert.is_true(failures > 0, "call " .. number)
            assert.equal(before, core.memory())
        end
    end)
end)
