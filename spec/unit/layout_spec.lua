-- The layout of checkpoints: parts, completed config, and one report about everything that is wrong.
local core = require "pixelrefer.core"
local checkpoint = require "pixelrefer.checkpoint"
local json = require "pixelrefer.json"
local layout = require "pixelrefer.layout"

local files = require "support.files"
local shared = require "support.shared"
local make_checkpoint = require "fixtures.make_checkpoint"

local REFER, LITE = "spec/fixtures/golden/models/refer", "spec/fixtures/golden/models/lite_sharded_bin"

local function count(map)
    local n = 0
    for _ in pairs(map) do n = n + 1 end
    return n
end

local function copy(from)
    local into = {}
    for key, value in pairs(from) do into[key] = value end
    return into
end

--- An opened checkpoint whose tables can be changed without harm to others.
local function open(path)
    local opened = copy(checkpoint.open(path))
    opened.config, opened.tensors = copy(opened.config), copy(opened.tensors)
    opened.config.vision_encoder_config = copy(opened.config.vision_encoder_config)
    return opened
end

local function refused(opened)
    local ok, message = pcall(layout.read, opened)
    assert.is_false(ok, "not refused")
    assert.is_truthy(message:find(opened.path, 1, true), "no path in: " .. message)
    return message
end

local function zeros(...)
    return core.tensor.empty({ ... }, "float32"):fill_(0)
end

--- Renames all weights whose names begin with a prefix.
local function rename(tensors, from, to)
    for name, tensor in pairs(copy(tensors)) do
        if name:sub(1, #from) == from then
            tensors[name], tensors[to .. name:sub(#from + 1)] = nil, tensor
        end
    end
end

describe("layout.read", function()
    for name, expected in pairs {
        refer = { "vision_object", 39, 4, 6, 0, 52 },
        refer_penalty = { "vision_object", 39, 4, 6, 0, 52 },
        refer_tied_bf16_sharded = { "vision_object", 27, 4, 6, 0, 36 },
        lite = { "object_only", 39, 4, 6, 12, 52 },
        lite_sharded_bin = { "object_only", 27, 4, 6, 12, 36 },
    } do
        it("sorts " .. name .. " into its parts", function()
            local committed = "spec/fixtures/golden/models/" .. name
            local path = core.path_kind(committed) and committed or shared.path("golden/models/" .. name)
            local opened = checkpoint.open(path)
            local read = layout.read(opened)
            local w = read.weights
            assert.same(expected, { read.framework, count(w.decoder), count(w.projector), count(w.object_tokenizer),
                count(w.infusion or {}), count(w.vision_encoder) })
            assert.equal(expected[5] == 0, w.infusion == nil)
            assert.equal(opened.config.tie_word_embeddings,
                rawequal(w.decoder["lm_head.weight"], w.decoder["embed_tokens.weight"]))
            local readout = opened.tensors["model.mm_projector.readout.0.weight"]
            assert.is_true(rawequal(readout, w.projector["readout.0.weight"]))
            assert.same({ 502, 500 }, read.config.eos_token_ids)
        end)
    end

    it("completes the config with what the reference takes", function()
        local opened = open(REFER)
        for _, key in ipairs { "mm_max_length", "spatial_merge_size", "mask_num", "max_frames", "use_token_compression",
            "rms_norm_eps", "rope_theta", "max_position_embeddings", "mm_projector_type", "tie_word_embeddings",
            "mm_hidden_size", "hidden_act", "use_sliding_window" } do
            opened.config[key] = nil
        end
        opened.preprocessor_config, opened.generation_config = {}, {}
        local config = layout.read(opened).config
        assert.same({ 8192, 2, 32, 180, true, 1e-6, 1e6, 32768, 2, false, 144 }, { config.mm_max_length,
            config.spatial_merge_size, config.mask_num, config.max_frames, config.use_token_compression,
            config.rms_norm_eps, config.rope_theta, config.max_position_embeddings, config.mm_projector_depth,
            config.tie_word_embeddings, config.mm_hidden_size })
        assert.same({ 3136, { 0.5, 0.5, 0.5 }, { 0.5, 0.5, 0.5 } },
            { config.min_pixels, config.image_mean, config.image_std })
        assert.same({ 502 }, config.eos_token_ids) -- generation_config.json is silent, config.json is not
    end)

    it("infers sizes from shapes where the config is silent", function()
        for _, path in ipairs { REFER, LITE } do
            local opened = open(path)
            local expected = layout.read(opened).config
            opened.config.vision_encoder_config = json.null
            for _, key in ipairs { "hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads",
                "vocab_size", "head_dim" } do
                opened.config[key] = nil
            end
            assert.same(expected, layout.read(opened).config)
        end
    end)

    it("takes all three prefixes of the vision encoder, and buffers that nobody needs", function()
        local opened = open(LITE)
        local expected = layout.read(opened).weights.vision_encoder
        rename(opened.tensors, "model.vision_encoder.vision_encoder.", "model.vision_encoder.")
        opened.tensors["model.vision_encoder.rotary_pos_emb.inv_freq"] = zeros(18)
        opened.tensors["model.vision_encoder.embeddings.position_ids"] = zeros(1, 4)
        opened.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = zeros(8)
        assert.same(expected, layout.read(opened).weights.vision_encoder)
        opened.tensors["model.vision_encoder.vision_encoder.post_layernorm.bias"] = zeros(144)
        assert.matches("model.vision_encoder.post_layernorm.bias and "
            .. "model.vision_encoder.vision_encoder.post_layernorm.bias are the same weight", refused(opened))
    end)

    it("ties the head as the config says", function()
        local opened = open(REFER)
        opened.config.tie_word_embeddings = true -- and the checkpoint carries lm_head.weight too
        local decoder = layout.read(opened).weights.decoder
        assert.is_true(rawequal(decoder["lm_head.weight"], decoder["embed_tokens.weight"]))
        opened.tensors["lm_head.weight"] = nil
        decoder = layout.read(opened).weights.decoder
        assert.is_true(rawequal(decoder["lm_head.weight"], decoder["embed_tokens.weight"]))
        opened.config.tie_word_embeddings = nil -- silent, and no head: tied
        assert.is_true(layout.read(opened).config.tie_word_embeddings)
        opened.config.tie_word_embeddings = false
        assert.matches("missing    lm_head.weight %[507x128%]", refused(opened))
    end)

    it("makes strided weights dense", function()
        local opened = open(REFER)
        local name = "model.layers.0.self_attn.o_proj.weight"
        local before = opened.tensors[name]
        opened.tensors[name] = before:t():contiguous():t()
        local after = layout.read(opened).weights.decoder["layers.0.self_attn.o_proj.weight"]
        assert.is_true(after:isContiguous())
        assert.same(before:totable(), after:totable())
    end)

    it("reports everything that is wrong with the weights at once", function()
        local opened = open(REFER)
        opened.tensors["model.norm.weight"] = nil
        opened.tensors["model.layers.1.mlp.up_proj.weight"] = nil
        opened.tensors["model.mm_projector.readout.0.weight"] = zeros(128, 140)
        opened.tensors["model.region_encoder.pos_linear.bias"] = zeros(144):long()
        opened.tensors["model.layers.7.mlp.up_proj.weight"] = zeros(2)
        opened.tensors["model.region_encoder.ln_local.bias"] = zeros(144)
        opened.tensors["optimizer"] = zeros(3, 4)
        assert.equal(table.concat({
            opened.path .. ": the weights do not fit config.json: 2 missing, 2 of another shape or type, 3 unknown",
            "  missing    model.layers.1.mlp.up_proj.weight [344x128]",
            "  missing    model.norm.weight [128]",
            "  wrong      model.mm_projector.readout.0.weight: expected [128x144], found [128x140]",
            "  wrong      model.region_encoder.pos_linear.bias: expected float32, float16 or bfloat16, found int64",
            "  unknown    model.layers.7.mlp.up_proj.weight [2]",
            "  unknown    model.region_encoder.ln_local.bias [144]",
            "  unknown    optimizer [3x4]",
        }, "\n"), refused(opened))
    end)

    it("cuts a long report", function()
        local opened = open(REFER)
        opened.config.num_hidden_layers = 40
        local message = refused(opened)
        assert.matches("444 missing", message)
        assert.matches("  missing    and 424 more", message)
    end)

    it("knows a base checkpoint and other models", function()
        local opened = open(REFER)
        for name in pairs(copy(opened.tensors)) do
            if name:find("region_encoder") then opened.tensors[name] = nil end
        end
        assert.matches("VideoLLaMA3 base checkpoint", refused(opened))
        opened.config.model_type = "videollama3_qwen2"
        assert.matches("\"videollama3_qwen2\" without a region encoder", refused(opened))
        opened.config.model_type = "llama"
        assert.matches("\"model_type\": \"pixelrefer_qwen2\" or .* found \"llama\"", refused(opened))
        opened.config.model_type = nil
        assert.matches("\"model_type\" is missing", refused(opened))
    end)

    it("names a framework's weights in the other's checkpoint", function()
        local opened = open(REFER)
        opened.config.model_type = "pixelreferlite_qwen2"
        assert.matches("missing    model.region_encoder.fusion_attention_local.in_proj_weight %[432x144%]",
            refused(opened))
        opened = open(LITE)
        opened.config.model_type = "pixelrefer_qwen2"
        assert.matches("unknown    model.region_encoder.fusion_attention_global.in_proj_bias", refused(opened))
    end)

    it("refuses config values that cannot be, with file and key", function()
        local function with(key, value, part)
            local opened = open(REFER)
            local object = part and opened.config[part] or opened.config
            object[key] = value
            return refused(opened)
        end
        assert.matches('config.json: "hidden_size": an integer from 1 to 65536 expected, found 0',
            with("hidden_size", 0))
        assert.matches('"hidden_size": .* found 1e%+300', with("hidden_size", 1e300))
        assert.matches('"hidden_size": .* found "128"', with("hidden_size", "128"))
        assert.matches('"num_hidden_layers": an integer from 1 to 512 expected, found 1000000000',
            with("num_hidden_layers", 1e9))
        assert.matches('"vocab_size": .* found 507.5', with("vocab_size", 507.5))
        assert.matches('"num_attention_heads" is missing', with("num_attention_heads", nil))
        assert.matches("3 attention heads do not divide a width of 128", with("num_attention_heads", 3))
        assert.matches("3 key/value heads do not divide 4 attention heads", with("num_key_value_heads", 3))
        assert.matches("heads of odd width 33", with("head_dim", 33))
        assert.matches('"rms_norm_eps": .* found %-1', with("rms_norm_eps", -1))
        assert.matches('"rope_theta": a number from 1', with("rope_theta", 0))
        assert.matches('"tie_word_embeddings": true or false', with("tie_word_embeddings", 1))
        assert.matches('"hidden_act": only silu is supported, found relu', with("hidden_act", "relu"))
        assert.matches('"use_sliding_window": only false is supported', with("use_sliding_window", true))
        assert.matches('"rope_scaling" is not supported', with("rope_scaling", { type = "yarn" }))
        assert.matches('"mm_projector_type": "mlp2x_gelu" .* found "linear"', with("mm_projector_type", "linear"))
        assert.matches('"mm_projector_type": a string', with("mm_projector_type", 2))
        assert.matches('"mm_hidden_size" is 140, but the vision encoder is 144 wide', with("mm_hidden_size", 140))
        assert.matches('"mask_num": an integer from 1', with("mask_num", 0))
        assert.matches('"mm_max_length": an integer', with("mm_max_length", true))
        assert.matches('"vision_encoder_config": an object expected, found 3', with("vision_encoder_config", 3))
        assert.matches('vision_encoder_config: 5 attention heads do not divide a width of 144',
            with("num_attention_heads", 5, "vision_encoder_config"))
        assert.matches('vision_encoder_config: "patch_size": an integer',
            with("patch_size", 0, "vision_encoder_config"))
        assert.matches('vision_encoder_config: "hidden_act": only gelu_pytorch_tanh',
            with("hidden_act", "gelu", "vision_encoder_config"))
        local opened = open(REFER)
        opened.config.vision_encoder_config = { hidden_size = 100 }
        assert.matches('"num_attention_heads" is missing, and heads of 72 do not divide a width of 100',
            refused(opened))
    end)

    it("refuses other files' values too", function()
        local opened = open(REFER)
        opened.generation_config = { eos_token_id = { 502, "x" } }
        assert.matches('generation_config.json: "eos_token_id%[2%]": an integer .* found "x"', refused(opened))
        opened.generation_config = { eos_token_id = -1 }
        assert.matches('generation_config.json: "eos_token_id%[1%]": .* found %-1', refused(opened))
        opened = open(REFER)
        opened.preprocessor_config = { image_mean = { 0.5, 0.5 } }
        assert.matches('preprocessor_config.json: "image_mean": three numbers expected, found 2', refused(opened))
        opened.preprocessor_config = { image_std = { 0.5, 0, 0.5 } }
        assert.matches('preprocessor_config.json: "image_std%[2%]": a number from 0.001 to 1', refused(opened))
        opened.preprocessor_config = { min_pixels = "many" }
        assert.matches('preprocessor_config.json: "min_pixels": an integer', refused(opened))
    end)
end)

describe("a made checkpoint", function()
    local directory

    before_each(function() directory = files.directory() end)
    after_each(function() files.remove(directory) end)

    it("has the layout, in any type and number of shards, and repeats with its seed", function()
        for _, case in ipairs {
            { framework = "vision_object", dtype = "float32", shards = 1 },
            { framework = "object_only", dtype = "float16", shards = 3, set = { ["vision.num_hidden_layers"] = 1 } },
            { framework = "object_only", dtype = "bfloat16", shards = 2, set = { tie_word_embeddings = true } },
        } do
            local path, again = directory .. "/" .. case.dtype, directory .. "/again-" .. case.dtype
            make_checkpoint(path, case)
            make_checkpoint(again, case)
            local read = layout.read(checkpoint.open(path))
            assert.equal(case.framework, read.framework)
            assert.equal(case.dtype, read.weights.decoder["norm.weight"]:dtype())
            assert.equal(case.shards, #checkpoint.open(path).files)
            for _, name in ipairs(core.list_directory(path)) do
                assert.equal(files.read(path .. "/" .. name), files.read(again .. "/" .. name))
            end
        end
    end)
end)
