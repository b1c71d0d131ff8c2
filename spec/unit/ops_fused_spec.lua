-- The fused ops against plain float64 statements of what they compute, on odd, tiny and large shapes, with strided
-- inputs and weights of every type at any byte; the same bits for every instruction set, thread count and cut.
-- DEVICE=name runs them on another device than the CPU.
local bits = require "support.bits"
local core = require "pixelrefer.core"
local device = require "support.device"
local operands = require "support.operands"
local seed = require "support.seed"
local shared = require "support.shared"
local tensor = require "pixelrefer.tensor"

local assert_same_bits, everywhere = bits.same, bits.everywhere

local uniform, of, with_gaps, unaligned = operands.uniform, operands.of, operands.with_gaps, operands.unaligned
local flat, assert_close, FLOATS = operands.flat, operands.assert_close, operands.FLOATS

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

--- A test of what a device computes in bf16; the CPU's own are in compute_spec.
local function in_bf16(name, body)
    if device.is_cpu then return end
    it(name, function()
        local before = core.compute(device.name)
        finally(function() core.compute(device.name, before) end)
        core.compute(device.name, "bf16")
        body()
    end)
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
            local made = setmetatable({}, { __index = function() return uniform { 5, 48 } end }) -- kept by nothing
            assert.error_matches(function() core.linears(x, made) end, "weight expected")
            assert.error_matches(function() core.linears(x, { wieght = w }) end, "there is no option 'wieght'")
            assert.error_matches(function() core.linears(x, w) end, "table expected")
            assert.error_matches(function() core.linears(x, { weight = w, activation = "relu" }) end, "relu")
        end)
    end)

    describe("normed_linears", function()
        --- The same op by op.
        local function composed(x, weight, gated, products)
            local found = { core.linears(core.rms_norm(x, weight, 1e-6), unpack(products)) }
            return gated and { core.silu_mul(found[1], found[2]) } or found
        end

        local function compare(check, rows, depth, dtype)
            for _, gated in ipairs { false, true } do
                local x, weight = uniform { rows, depth }, uniform({ depth }, dtype)
                local products = {
                    { weight = uniform({ 70, depth }, dtype), bias = uniform({ 70 }, dtype) },
                    { weight = uniform({ 70, depth }, dtype) },
                    not gated and { weight = uniform({ 3, depth }, dtype), residual = uniform { rows, 3 } } or nil,
                }
                local expected = composed(x, weight, gated, products)
                local found = { core.normed_linears(x, weight, 1e-6, gated, unpack(products)) }
                assert.equal(#expected, #found)
                for i = 1, #expected do
                    local what = ("%d rows of %d, %s, product %d"):format(rows, depth, dtype, i)
                    check(expected[i], found[i], gated and what .. ", gated" or what)
                end
            end
        end

        it("are to the bit what the ops give one by one", function()
            for _, dtype in ipairs(FLOATS) do
                for _, rows in ipairs { 0, 1, 2, 5, 20 } do
                    compare(assert_same_bits, rows, 192, dtype)
                    compare(assert_same_bits, rows, 35, dtype)
                end
                compare(assert_same_bits, 200, 35, dtype)
            end
        end)

        in_bf16("round in bf16 as the ops do, done in one launch or not", function()
            for _, dtype in ipairs(FLOATS) do
                for rows = 0, 3 do
                    for _, depth in ipairs { 8, 192, 1032, 35 } do
                        compare(function(expected, found, what)
                            assert_close(flat(expected), found, 1e-5, what)
                        end, rows, depth, dtype)
                    end
                end
            end
        end)

        it("say what does not fit", function()
            local x, w = uniform { 2, 48 }, { weight = uniform { 5, 48 } }
            local function with(norm, gated, ...)
                local products = { ... }
                return function() core.normed_linears(x, norm, 1e-6, gated, unpack(products)) end
            end
            local norm = uniform { 48 }
            assert.error_matches(with(uniform { 47 }, false, w), "rms_norm: weight is %[47%] float32, expected %[48%]")
            assert.error_matches(with(norm, false), "linears: 0 products")
            assert.error_matches(with(norm, true, w), "silu_mul is of what two products give, there are 1")
            assert.error_matches(with(norm, true, w, { weight = uniform { 4, 48 } }), "silu_mul: up is %[2x4%]")
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

    in_bf16("linear of few rows is x w^T in bf16, a row's bits the same among 3 to 16", function()
        for _, dtype in ipairs { "bfloat16", "float16" } do
            for _, shape in ipairs { { 1, 8 }, { 16, 192 }, { 70, 1032 }, { 33, 24 }, { 9, 35 } } do
                local N, K = unpack(shape)
                local all, w, bias = uniform({ 17, K }, "bfloat16"), uniform({ N, K }, dtype), uniform { N }
                local residual, of_sixteen = uniform { 17, N }, nil
                for n = 16, 1, -1 do
                    local some, kept = all:narrow(1, 1, n), residual:narrow(1, 1, n)
                    local what = ("%d rows of %d to %d, %s"):format(n, K, N, dtype)
                    local found = core.linear(some, w, bias, nil, kept)
                    assert_close(plain_linear(flat(some), flat(w), flat(bias), "none", flat(kept), n, N, K), found,
                        1e-5, what)
                    assert_same_bits(found, core.linear(some:float(), w, bias, nil, kept), what .. ", float32 rows")
                    of_sixteen = of_sixteen or found
                    if n >= 3 then assert_same_bits(of_sixteen:narrow(1, 1, n), found, what) end
                end
            end
        end
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
        local repeated = uniform({ 1, 2, 4 }):expand(3, 2, 4)
        assert.error_matches(function() core.rope(repeated, uniform { 3, 2 }, uniform { 3, 2 }) end,
            "rope: out is an expanded view and cannot be written to")
    end)

    describe("rope_store", function()
        it("turns queries and keys and stores keys and values, to the bit what rope and copy do", function()
            for _, dtype in ipairs(FLOATS) do
                for _, shape in ipairs { { 1, 1, 1, 2 }, { 5, 6, 2, 72 }, { 3, 4, 4, 300 }, { 0, 2, 1, 4 } } do
                    local n, heads, kv_heads, dim = unpack(shape)
                    local q, c, s = uniform { n, heads, dim }, uniform { n, dim / 2 }, uniform { n, dim / 2 }
                    local k, v = uniform { n, kv_heads, dim }, uniform { n, kv_heads, dim }
                    local past = uniform({ 2, 2, 7, kv_heads, dim }, dtype) -- keys and values, two sequences of seven
                    local places = { 9, 1, 14, 7, 2 }
                    for i = n + 1, #places do places[i] = nil end
                    local q_turned, k_turned = core.rope(q:clone(), c, s), core.rope(k:clone(), c, s)
                    local expected = past:clone()
                    for row, place in ipairs(places) do
                        local sequence, position = math.ceil(place / 7), (place - 1) % 7 + 1
                        local function at(i) return expected:select(1, i):select(1, sequence):select(1, position) end
                        at(1):copy_(k_turned:select(1, row))
                        at(2):copy_(v:select(1, row))
                    end
                    local out = everywhere("rope_store", function()
                        local filled = past:clone()
                        local turned = core.rope_store(with_gaps(q), with_gaps(k), v, c, s, filled:select(1, 1),
                            filled:select(1, 2), places)
                        assert_same_bits(q_turned, turned:contiguous(), "q")
                        return filled
                    end)
                    assert_same_bits(expected, out, dtype)
                end
            end
        end)

        it("says what does not fit", function()
            local function store(given)
                local x = uniform { 2, 1, 4 }
                return core.rope_store(x, given.k or x:clone(), x, given.cos or uniform { 2, 2 }, uniform { 2, 2 },
                    given.keys or uniform { 1, 3, 1, 4 }, uniform { 1, 3, 1, 4 }, given.places or { 1, 2 })
            end
            assert.error_matches(function() store { k = uniform { 2, 1, 6 } } end, "rope_store: k is %[2x1x6%]")
            assert.error_matches(function() store { cos = uniform { 2, 4 } } end, "rope_store: cos is %[2x4%]")
            assert.error_matches(function() store { keys = uniform({ 1, 3, 1, 4 }, "float16") } end,
                "rope_store: values is %[1x3x1x4%] float32, expected %[1x3x1x4%] float16")
            assert.error_matches(function() store { keys = uniform { 1, 4, 1, 4 } } end, "values is %[1x3x1x4%]")
            assert.error_matches(function() store { places = { 1 } } end, "rope_store: places is %[1%] int64")
            if device.is_cpu then
                assert.error_matches(function() store { places = { 1, 4 } } end, "place 3 of row 1 is not in 0 .. 2")
                assert.error_matches(function() store { places = { 0, 1 } } end, "place %-1 of row 0")
            else -- nothing is stored there, and nothing else happens
                local keys = uniform { 1, 3, 1, 4 }
                local before = keys:clone()
                store { keys = keys, places = { 0, 4 } }
                assert_same_bits(before, keys, "keys")
            end
        end)
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
