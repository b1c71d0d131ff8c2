-- A model on a device: precision, memory that runs out or is not needed, errors of the device, what stays usable. The
-- emulated device takes orders: PIXELREFER_EMU_MEMORY (bytes of the card), PIXELREFER_EMU_FAULT (a kernel that fails).
local command = require "support.command"
local core = require "pixelrefer.core"
local device = require "support.device"
local emulated = require "support.emulated"
local pixelrefer = require "pixelrefer"
local tensor = require "pixelrefer.tensor"

local run, with_memory = command.lua, emulated.with_memory

local MODEL = "spec/fixtures/golden/models/refer"
local PROMPT, TOKENS = "What is there?", 6

--- A test that is skipped where the device is not there.
local function on_emu(name, body)
    it(name, function()
        device.require "emu"
        body()
    end)
end

describe("a model on the emulated device", function()
    local model

    setup(function()
        if device.available("emu") then model = pixelrefer.load(MODEL, { device = "emu", compute = "f32" }) end
    end)

    on_emu("answers as on the CPU, sampled or not", function()
        local host = pixelrefer.load(MODEL)
        for _, given in ipairs {
            { max_new_tokens = TOKENS },
            { max_new_tokens = TOKENS, temperature = 0.9, top_p = 0.8, seed = 3 },
            { max_new_tokens = TOKENS, temperature = 1.5, top_k = 20, top_p = 1, repetition_penalty = 1.3, seed = 4 },
        } do
            assert.same(host:ask(PROMPT, given).ids, model:ask(PROMPT, given).ids)
        end
    end)

    on_emu("has no block of 2^48 bytes", function()
        assert.error_matches(function() tensor.empty({ 2 ^ 46 }, { device = "emu" }) end, "out of memory on emu")
    end)

    on_emu("does not hand what it holds to what reads memory", function()
        local picture = tensor.zeros({ 8, 8, 3 }, { dtype = "uint8" })
        local mask = tensor.ones({ 8, 8 }, { dtype = "uint8" })
        assert.error_matches(function() core.saot_prepare("vision_object", 16, picture:to("emu"), mask) end,
            "image is on emu and mask on cpu, expected both on the CPU")
    end)

    on_emu("attends to keys and values of any float type, as the CPU does", function()
        local q, k, v = tensor.randn(3, 4, 16), tensor.randn(90, 2, 16), tensor.randn(90, 2, 16)
        for _, dtype in ipairs { "bfloat16", "float16" } do
            local narrow_k, narrow_v = k:to(dtype), v:to(dtype)
            local found = core.attention(q:to("emu"), narrow_k:to("emu"), narrow_v:to("emu"))
            local expected = core.attention(q:to("emu"), narrow_k:float():to("emu"), narrow_v:float():to("emu"))
            assert.is_true(tensor.equal(expected:to("cpu"), found:to("cpu")))
            assert.is_true(tensor.equal(core.attention(q, narrow_k:float(), narrow_v:float()),
                                        core.attention(q, narrow_k, narrow_v)))
        end
    end)

    on_emu("allocates nothing once it is under way", function()
        local session = model:text():session()
        local next_piece, answer = session:stream(PROMPT, {}, { max_new_tokens = TOKENS, repetition_penalty = 1.2 })
        for _ = 1, 2 do next_piece() end
        collectgarbage("stop")
        local ok, reason = with_memory(1, function() while next_piece() do end end)
        collectgarbage("restart")
        assert.is_true(ok, reason)
        assert.is_true(#answer.ids > 2)
    end)

    on_emu("says what does not fit before it loads, and what it needed", function()
        local ok, reason = with_memory(90 * 2 ^ 20, pixelrefer.load, MODEL, { device = "emu" })
        assert.is_false(ok)
        assert.is_truthy(reason:match("models/refer does not fit on emu: %d+ MiB are needed %(5 of weights, .- of "
            .. "90 MiB are free"), reason)
        assert.equal(TOKENS, #model:ask(PROMPT, { max_new_tokens = TOKENS }).ids)
    end)

    on_emu("tells how far its weights' upload is, each weight once", function()
        local before, stages = 0, {}
        local loaded = pixelrefer.load(MODEL, { device = "emu", compute = "f32", progress = function(stage, done, all)
            assert.is_true(done > before and done <= all)
            before, stages[stage], stages.rest = done, true, all - done
        end })
        assert.same({ uploading = true, rest = 0 }, stages)
        assert.is_true(before < loaded.bytes and before > 0.9 * loaded.bytes) -- an object tokenizer has its own
    end)

    on_emu("stays usable when the card is full", function()
        local ok, reason = with_memory(1, tensor.zeros, 3 * 2 ^ 20, { device = "emu" })
        assert.is_false(ok)
        assert.is_truthy(reason:match("out of memory on emu: 12%.0 MiB wanted, 0%.0 of 0%.0 MiB are free"), reason)
        assert.equal(3 * 2 ^ 20, tensor.ones(3 * 2 ^ 20, { device = "emu" }):sum())
    end)

    on_emu("tells its memory, which what was given back is part of", function()
        local before = core.device_memory("emu")
        local x = tensor.zeros(5 * 2 ^ 20, { device = "emu" })
        assert.equal(before - 20 * 2 ^ 20, (core.device_memory("emu")))
        x:free()
        assert.equal(before, (core.device_memory("emu")))
        assert.is_nil((core.device_memory("cpu")))
    end)

    on_emu("multiplies by weights that were computed a moment ago", function()
        local script = [[
            local core, tensor = require "pixelrefer.core", require "pixelrefer.tensor"
            core.compute("emu", "bf16")
            local a, b = tensor.randn({ 24, 64 }, { seed = 1 }):to("bfloat16"):to("emu"), nil
            b = a:clone()
            for _, rows in ipairs { 1, 2, 5, 12 } do
                local x = tensor.randn({ rows, 64 }, { seed = 2 }):to("emu")
                local w = a + b
                local out = core.linear(x, w):to("cpu")
                local again = core.linear(x, w):to("cpu")
                io.write(tostring(tensor.equal(out, again)), " ")
            end
        ]]
        for _, environment in ipairs { "", "PIXELREFER_EMU_LAZY=1" } do
            assert.equal("true true true true ", run(script, environment))
        end
    end)

    on_emu("takes the proposal of cuBLASLt's that it is told, or the last there is", function()
        local script = [[
            local core, tensor = require "pixelrefer.core", require "pixelrefer.tensor"
            core.compute("emu", "bf16")
            local x, w = tensor.randn({ 40, 64 }, { seed = 1 }), tensor.randn({ 24, 64 }, { seed = 2 }):to("bfloat16")
            print(core.linear(x:to("emu"), w:to("emu")):to("cpu"):sum())
        ]]
        local first = run(script)
        assert.is_truthy(tonumber(first), first)
        for _, proposal in ipairs { 2, 99 } do
            assert.equal(first, run(script, "PIXELREFER_CUDA_PROPOSAL=" .. proposal))
        end
        for _, wrong in ipairs { "-1", "x", "100" } do
            assert.matches(('PIXELREFER_CUDA_PROPOSAL is "%s", expected a number from 0 to 99'):format(
                wrong:gsub("%-", "%%-")), run(script, "PIXELREFER_CUDA_PROPOSAL=" .. wrong))
        end
    end)

    on_emu("has one precision at a time", function()
        assert.equal("f32", core.compute("emu"))
        assert.error_matches(function() pixelrefer.load(MODEL, { device = "emu", compute = "bf16" }) end,
            "load: emu computes in f32 for .-models/refer, which is loaded: it cannot compute in bf16 too")
        assert.error_matches(function() pixelrefer.load(MODEL, { device = "emu", compute = "int8" }) end,
            "compute: emu computes in f32 or bf16, not in int8")
        assert.equal("f32", model.compute)
    end)

    on_emu("takes its precision from the environment, if that is one", function()
        local script = 'local core = require "pixelrefer.core" print(select(2, pcall(core.compute, "emu")))'
        assert.equal("bf16\n", run(script, "PIXELREFER_COMPUTE=bf16"))
        assert.equal("f32\n", run(script, "PIXELREFER_COMPUTE="))
        assert.equal('device "emu": PIXELREFER_COMPUTE is "int3", expected "f32" or "bf16"\n',
            run(script, "PIXELREFER_COMPUTE=int3"))
    end)

    on_emu("that has died names the op, and says so ever after", function()
        local script = 'local tensor = require "pixelrefer.tensor" '
            .. 'local x = tensor.ones(4, { device = "emu" }) '
            .. 'print(select(2, pcall(x.exp, x))) print(select(2, pcall(x.exp, x))) print(tensor.ones(4):sum())'
        local said = run(script, "PIXELREFER_EMU_FAULT=unary_elements PIXELREFER_CUDA_SYNC=1")
        local first, second, third = said:match("^(.-)\n(.-)\n(.-)\n$")
        assert.is_truthy(first:match("^unary on emu: unspecified launch failure"), said)
        assert.is_truthy(first:match("the device is out of use for this process$"), said)
        assert.is_truthy(second:match("emu is out of use since an earlier error %(unary: unspecified launch failure"),
            said)
        assert.equal("4", third)
    end)

    on_emu("names the environment variable that finds a launch when nobody waits", function()
        local script = 'local tensor = require "pixelrefer.tensor" '
            .. 'local x = tensor.ones(4, { device = "emu" }) print(select(2, pcall(x.exp, x)))'
        local said = run(script, "PIXELREFER_EMU_FAULT=unary_elements")
        assert.is_truthy(said:find("(PIXELREFER_CUDA_SYNC=1 names the op that it came from)", 1, true), said)
    end)
end)

describe("products with operands rounded to bfloat16", function()
    before_each(function()
        if device.available("emu") then core.compute("emu", "bf16") end
    end)
    after_each(function()
        if device.available("emu") then core.compute("emu", "f32") end
    end)

    --- Compares by the norm of the difference, relative to that of what is expected.
    local function assert_near(expected, found, limit, what)
        local away = (found:to("cpu") - expected):norm() / expected:norm()
        assert.is_true(away <= limit, ("%s: %.3g away"):format(what, away))
        assert.is_true(away > 0, what .. ": nothing was rounded")
    end

    --- Whether so many rows of x are rounded: on tensor cores, which take 3 rows and more by aligned bfloat16 weights.
    local function rounds(rows, dtype, depth, first)
        return rows > 2 and dtype == "bfloat16" and depth % 8 == 0 and first == 1
    end

    on_emu("are rounded for few rows on tensor cores alone, whatever the weights and where they lie", function()
        for _, dtype in ipairs { "float32", "bfloat16", "float16" } do
            for _, depth in ipairs { 8, 37, 200, 1300 } do
                local whole, bias = tensor.randn(10, depth + 8):to(dtype), tensor.randn(9):to(dtype)
                for first = 1, 2 do -- aligned and not
                    local function cut(w) return w:narrow(1, first, 9):narrow(2, first, depth) end
                    for _, rows in ipairs { 1, 2, 3, 4, 7, 8, 16 } do
                        local x, residual = tensor.randn(rows, depth), tensor.randn(rows, 9)
                        local expected = core.linear(x, cut(whole), bias, "gelu_tanh", residual)
                        local found = core.linear(x:to("emu"), cut(whole:to("emu")), bias:to("emu"), "gelu_tanh",
                            residual:to("emu"))
                        local what = ("%s, %d rows of %d"):format(dtype, rows, depth)
                        local away = (found:to("cpu") - expected):norm() / expected:norm()
                        if rounds(rows, dtype, depth, first) then
                            assert_near(expected, found, 1e-2, what)
                        else
                            assert.is_true(away < 2e-6, ("%s: %g away"):format(what, away))
                        end
                    end
                end
            end
        end
    end)

    on_emu("are the same for products that go together", function()
        local narrow = tensor.randn(40, 65):bfloat16():to("emu")
        for _, rows in ipairs { 1, 2, 4, 7, 16, 17 } do
            local x = tensor.randn(rows, 64):to("emu")
            local products = {
                { weight = narrow:narrow(1, 1, 9):narrow(2, 1, 64):contiguous(), bias = tensor.randn(9):to("emu") },
                { weight = narrow:narrow(1, 10, 3):narrow(2, 2, 64), activation = "gelu" }, -- not aligned
                { weight = narrow:narrow(1, 13, 7):narrow(2, 1, 64):contiguous() },
                { weight = tensor.randn(6, 64):to("emu"), residual = tensor.randn(rows, 6):to("emu") },
            }
            for count = 1, #products do
                local found = { core.linears(x, unpack(products, 1, count)) }
                for i = 1, count do
                    local p = products[i]
                    local alone = core.linear(x, p.weight, p.bias, p.activation, p.residual)
                    assert.is_true(tensor.equal(alone:to("cpu"), found[i]:to("cpu")), rows .. " rows, product " .. i)
                end
            end
        end
    end)

    for _, dtype in ipairs { "bfloat16", "float16" } do
        on_emu("are linear's, with every epilogue, for weights of " .. dtype, function()
            local w, bias = tensor.randn(20, 48):to(dtype), tensor.randn(20):to(dtype)
            for _, rows in ipairs { 17, 40 } do
                local x, residual = tensor.randn(rows, 48), tensor.randn(rows, 20)
                for _, activation in ipairs { "none", "gelu_tanh", "gelu" } do
                    for _, b in ipairs { bias, false } do
                        for _, r in ipairs { residual, false } do
                            local found = core.linear(x:to("emu"), w:to("emu"), b and b:to("emu") or nil, activation,
                                r and r:to("emu") or nil)
                            assert_near(core.linear(x, w, b or nil, activation, r or nil), found, 4e-3,
                                ("%d rows, %s"):format(rows, activation))
                        end
                    end
                end
            end
        end)
    end

    on_emu("are the same for rows that are bfloat16 already", function()
        for _, dtype in ipairs { "float32", "bfloat16", "float16" } do
            local w = tensor.randn(20, 48):to(dtype):to("emu")
            for _, rows in ipairs { 1, 5, 16, 17, 70 } do
                local x = tensor.randn(rows, 48):to("bfloat16")
                local found, expected = core.linear(x:to("emu"), w), core.linear(x:float():to("emu"), w)
                assert.is_true(tensor.equal(expected:to("cpu"), found:to("cpu")), dtype .. " " .. rows)
            end
        end
        assert.error_matches(function() core.linear(tensor.zeros(2, 4, { dtype = "bfloat16" }), tensor.zeros(3, 4)) end,
            "linear: x is %[2x4%] bfloat16, expected %[2x4%] float32")
    end)

    on_emu("keep what float16 cannot hold finite", function()
        local x = tensor.ones(20, 8) * 1e6
        local found = core.linear(x:to("emu"), tensor.ones(4, 8, { dtype = "float16", device = "emu" })):to("cpu")
        assert.equal(8 * 65504, found:max())
    end)

    for _, head_dim in ipairs { 72, 128 } do
        for _, causal in ipairs { false, true } do
            local name = ("are attention's: head dim %d, %s"):format(head_dim, causal and "causal" or "over all keys")
            on_emu(name, function()
                local q, k, v = tensor.randn(150, 6, head_dim), tensor.randn(210, 2, head_dim), tensor.randn(210, 2,
                    head_dim)
                local given = {
                    causal = causal,
                    segments = {
                        { query_begin = 1, query_count = 70, key_begin = 1, key_count = 70 },
                        { query_begin = 71, query_count = 9, key_begin = 71, key_count = 75 },
                        { query_begin = 80, query_count = 71, key_begin = 146, key_count = 65 },
                    },
                }
                if causal then given.segments[3].query_count, q = 65, q:narrow(1, 1, 144) end
                local expected = core.attention(q, k, v, given)
                assert_near(expected, core.attention(q:to("emu"), k:to("emu"), v:to("emu"), given), 6e-3, "attention")
            end)
        end
    end
end)
