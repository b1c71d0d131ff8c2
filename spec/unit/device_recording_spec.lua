-- A decoder's step of one token a sequence on a device that records: played, it has the bits of the same layers run,
-- for any past, number of sequences and cache. DEVICE=cuda runs this on a GPU.
local command = require "support.command"
local core = require "pixelrefer.core"
local device = require "support.device"
local emulated = require "support.emulated"
local seed = require "support.seed"
local skip = require "support.skip"
local tensor = require "pixelrefer.tensor"

local NAME = device.is_cpu and "emu" or device.name

local SIZES = {
    hidden_size = 32, intermediate_size = 48, num_hidden_layers = 3, num_attention_heads = 4, num_key_value_heads = 2,
    head_dim = 8, vocab_size = 20, rms_norm_eps = 1e-6, rope_theta = 1e4,
}

local function new_decoder(dtype)
    local weights = {}
    local function add(name, ...) weights[name] = (tensor.randn(...) * 0.3):to(dtype):to(NAME) end
    for i = 0, SIZES.num_hidden_layers - 1 do
        local layer = ("layers.%d."):format(i)
        add(layer .. "input_layernorm.weight", 32)
        add(layer .. "post_attention_layernorm.weight", 32)
        for name, rows in pairs { q = 32, k = 16, v = 16 } do
            add(("%sself_attn.%s_proj.weight"):format(layer, name), rows, 32)
            add(("%sself_attn.%s_proj.bias"):format(layer, name), rows)
        end
        add(layer .. "self_attn.o_proj.weight", 32, 32)
        add(layer .. "mlp.gate_proj.weight", 48, 32)
        add(layer .. "mlp.up_proj.weight", 48, 32)
        add(layer .. "mlp.down_proj.weight", 32, 48)
    end
    add("norm.weight", 32)
    add("embed_tokens.weight", 20, 32)
    add("lm_head.weight", 20, 32)
    return core.decoder(SIZES, weights, NAME)
end

--- One token for each of the rows.
local function one_each(rows)
    local sequences = {}
    for i, row in ipairs(rows) do sequences[i] = { row, 1 } end
    return sequences
end

--- What forward computes, layer by layer: never recorded.
local function run(decoder, x, cache, rows)
    local out = decoder:layers(x, cache, 1, SIZES.num_hidden_layers, one_each(rows))
    for _, row in ipairs(rows) do cache:setLength(cache:length(row) + 1, row) end
    return out
end

local function play(decoder, x, cache, rows)
    return decoder:forward(x, cache, one_each(rows))
end

-- In what is computed, and the type of the weights: each has kernels of its own.
for _, kind in ipairs { { "f32", "float32" }, { "bf16", "bfloat16" } } do
    local compute, dtype = unpack(kind)
    describe("a recorded step in " .. compute, function()
        local decoder, before

        before_each(function()
            if not device.available(NAME) then return end
            before = core.compute(NAME)
            core.compute(NAME, compute)
            tensor.manualSeed(seed)
            decoder = decoder or new_decoder(dtype)
        end)
        after_each(function()
            if before then core.compute(NAME, before) end
        end)

        --- Two caches with the same pasts of different lengths in their rows.
        local function caches(capacity, rows)
            local pair = { decoder:cache(capacity, rows), decoder:cache(capacity, rows) }
            for row = 1, rows do
                local past = tensor.randn(4 + row, 32):to(NAME)
                for i = 1, 2 do decoder:forward(past, pair[i], { { row, 4 + row } }) end
            end
            return pair[1], pair[2]
        end

        --- Compares `count` steps of the rows.
        local function compare(one, other, rows, count)
            for step = 1, count do
                local x = tensor.randn(#rows, 32):to(NAME)
                local found, expected = play(decoder, x, one, rows), run(decoder, x, other, rows)
                local what = ("step %d, %d rows"):format(step, #rows)
                assert.is_true(tensor.equal(expected:to("cpu"), found:to("cpu")), what)
            end
            for _, row in ipairs(rows) do
                assert.equal(other:length(row), one:length(row))
                for layer = 1, SIZES.num_hidden_layers do
                    assert.is_true(tensor.equal(other:keys(layer, row):to("cpu"), one:keys(layer, row):to("cpu")))
                    assert.is_true(tensor.equal(other:values(layer, row):to("cpu"), one:values(layer, row):to("cpu")))
                end
            end
        end

        --- A test that is skipped where the device is not there.
        local function on_device(name, body)
            it(name, function()
                device.require(NAME)
                body()
            end)
        end

        on_device("has the bits of the layers run one by one", function()
            local one, other = caches(200, 1)
            compare(one, other, { 1 }, 5)
        end)

        on_device("may continue any rows, in any order, fewer and fewer of them", function()
            local one, other = caches(64, 4)
            compare(one, other, { 1, 2, 3, 4 }, 3)
            compare(one, other, { 4, 2, 1 }, 3)
            compare(one, other, { 1, 2, 4 }, 3) -- as many others: the same recording
            compare(one, other, { 3 }, 3)
            compare(one, other, { 1 }, 3)
        end)

        on_device("follows a cache that grows, another cache, and a past that was cut", function()
            local one, other = caches(16, 1)
            other:reserve(200)
            compare(one, other, { 1 }, 20)
            assert.is_true(one:capacity() > 16)
            local third, fourth = caches(one:capacity(), 1)
            compare(third, fourth, { 1 }, 4)
            compare(one, other, { 1 }, 4)
            for _, cache in ipairs { one, other } do cache:setLength(3) end
            compare(one, other, { 1 }, 4)
        end)

        on_device("goes on when memory has moved that the device lends its ops", function()
            local one, other = caches(200, 1)
            compare(one, other, { 1 }, 4)
            local q, past = tensor.randn(40, 64, 8):to(NAME), tensor.randn(40, 4000, 1, 8):to(NAME)
            local segments = {}
            for i = 1, 40 do segments[i] = { query_begin = i, query_count = 1, batch = i } end
            core.attention(q, past, past, { segments = segments }) -- needs more of it
            compare(one, other, { 1 }, 4)
        end)

        it("begins anew behind a step that failed for want of memory", function()
            device.require "emu"
            if NAME ~= "emu" then skip.because "its memory cannot be taken away" end
            local kept = decoder
            decoder = new_decoder(dtype)
            local one, other = caches(200, 1)
            local x = tensor.randn(1, 32):to(NAME)
            core.device_memory(NAME) -- what waits to be used again is given back
            local ok, reason = emulated.with_memory(1, play, decoder, x, one, { 1 })
            assert.is_false(ok)
            assert.matches("out of memory on emu", tostring(reason))
            compare(one, other, { 1 }, 4)
            decoder = kept
        end)

        on_device("survives a longer prefill and another decoder between steps", function()
            local one, other = caches(200, 1)
            compare(one, other, { 1 }, 3)
            local past = tensor.randn(50, 32):to(NAME)
            for _, cache in ipairs { one, other } do decoder:forward(past, cache) end
            compare(one, other, { 1 }, 3)
            local kept = decoder
            decoder = new_decoder(dtype)
            local third, fourth = caches(200, 1)
            compare(third, fourth, { 1 }, 3)
            decoder = kept
            compare(one, other, { 1 }, 3)
        end)

        on_device("begins with ids that are in the vocabulary, wherever they lie", function()
            local good, wrong = tensor.fromTable({ 3, 19 }, "int64"), tensor.fromTable({ 3, 20 }, "int64")
            assert.is_true(tensor.equal(decoder:embed(good):to("cpu"), decoder:embed(good:to(NAME)):to("cpu")))
            for _, ids in ipairs { wrong, wrong:to(NAME) } do
                assert.error_matches(function() decoder:embed(ids) end, "embedding: id 20 at place 1 is not in 0 .. 19")
            end
        end)
    end)
end

describe("a recorded step", function()
    it("is played from the third on, and never where each op is waited for", function()
        device.require "emu"
        -- a kernel that cannot be launched any more does not hinder what was recorded
        local script = [[
            local ffi = require "ffi"
            ffi.cdef "int setenv(const char *name, const char *value, int overwrite);"
            local model = require("pixelrefer").load("spec/fixtures/golden/models/refer", { device = "emu" })
            local next_piece = model:text():session():stream("What is there?", {}, { max_new_tokens = 8 })
            for _ = 1, 3 do assert(next_piece()) end
            ffi.C.setenv("PIXELREFER_EMU_FAULT", "rope_store", 1)
            print(pcall(next_piece))
        ]]
        assert.matches("^true", command.lua(script))
        assert.matches("rope_store on emu: unspecified launch failure",
            command.lua(script, "PIXELREFER_CUDA_SYNC=1"))
    end)
end)
