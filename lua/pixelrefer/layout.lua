--- The layout of PixelRefer's checkpoints: which weights there are, under which names, in which shapes.
--
-- An opened checkpoint (see pixelrefer.checkpoint) becomes a framework, a config with every value filled in and
-- checked, and the weights of each part of the model under the names that the part itself uses. Sizes come from
-- `config.json`; where it is silent, from the shapes of the weights.
--
-- @module pixelrefer.layout

local json = require "pixelrefer.json"
local quantize = require "pixelrefer.quantize"

local layout = {}

-- ---- names -------------------------------------------------------------------------------------------------------

-- Where the weights of each part are found. The shorter vision prefix is that of VideoLLaMA3, the base model, and of
-- some exports.
local PREFIXES = {
    { "model.vision_encoder.vision_encoder.", "vision_encoder" },
    { "model.vision_encoder.", "vision_encoder" },
    { "model.mm_projector.", "projector" },
    { "model.region_encoder.fusion_attention_", "infusion", keep = "fusion_attention_" },
    { "model.region_encoder.ln_", "infusion", keep = "ln_" },
    { "model.region_encoder.", "object_tokenizer" },
    { "model.", "decoder" },
    { "lm_head.", "decoder", keep = "lm_head." },
}

-- Buffers that some exports carry, and a layer that Lite's reference has and never uses.
local IGNORED = { "rotary[%w_.]*%.inv_freq$", "%.position_ids$", "^model%.region_encoder%.mask_embedding%." }

local PARTS = { "vision_encoder", "projector", "object_tokenizer", "infusion", "decoder" }

local function is_ignored(name)
    for _, pattern in ipairs(IGNORED) do
        if name:find(pattern) then return true end
    end
    return false
end

--- The part of a weight and its name there; nil for a name that belongs nowhere.
local function place_of(name)
    for _, prefix in ipairs(PREFIXES) do
        if name:sub(1, #prefix[1]) == prefix[1] then
            return prefix[2], (prefix.keep or "") .. name:sub(#prefix[1] + 1)
        end
    end
    return nil
end

--- All weights by part: part -> name there -> {name = in the file, tensor = Tensor}; and the names that belong nowhere.
local function sort_weights(tensors, path)
    local found, unknown = {}, {}
    for _, part in ipairs(PARTS) do found[part] = {} end
    for name, tensor in pairs(tensors) do
        local part, relative = place_of(name)
        if is_ignored(name) then
            part = nil
        elseif not part then
            unknown[#unknown + 1] = { name = name, tensor = tensor }
        end
        if part then
            local other = found[part][relative]
            if other then
                local both = { name, other.name }
                table.sort(both)
                error(("%s: %s and %s are the same weight"):format(path, both[1], both[2]), 0)
            end
            found[part][relative] = { name = name, tensor = tensor }
        end
    end
    return found, unknown
end

--- Size `dim` of a weight if it is there and has that dim.
local function size_of(part, name, dim)
    local weight = part[name] or (dim == 1 and part[(quantize.names(name))])
    return weight and weight.tensor:dim() >= dim and weight.tensor:size(dim) or nil
end

--- The integers and the scales that stand in place of a matrix in a quantised checkpoint.
local function quantised(part, name)
    local integers, scales = quantize.names(name)
    return part[integers], part[scales], integers, scales
end

--- Number of layers 0, 1, ... under a prefix: one more than the highest that occurs.
local function count_layers(part, prefix)
    local count = 0
    for name in pairs(part) do
        local index = name:sub(1, #prefix) == prefix and name:match("^(%d+)%.", #prefix + 1)
        if index and #index < 6 then count = math.max(count, tonumber(index) + 1) end
    end
    return count > 0 and count or nil
end

-- ---- config ------------------------------------------------------------------------------------------------------

local WIDTH, LAYERS, HEADS, VOCAB = 65536, 512, 1024, 2 ^ 22 -- far above every model, far below what could hurt

--- The framework that each `model_type` of a `config.json` means.
layout.FRAMEWORKS = { pixelrefer_qwen2 = "vision_object", pixelreferlite_qwen2 = "object_only" }

local function framework_of(config, found, where)
    local model_type = json.field(config, "model_type", "string", nil, where)
    local framework = layout.FRAMEWORKS[model_type]
    if model_type:find("^videollama3") or (framework and not next(found.object_tokenizer)) then
        error(("%s: \"%s\" without a region encoder (model.region_encoder.*): this is a VideoLLaMA3 base checkpoint, "
            .. "not PixelRefer"):format(where, model_type), 0)
    elseif not framework then
        error(("%s: \"model_type\": \"pixelrefer_qwen2\" or \"pixelreferlite_qwen2\" expected, found \"%s\"")
            :format(where, model_type:sub(1, 60)), 0)
    end
    return framework
end

--- A field that must have one value if it is there.
local function demand(config, key, kind, wanted, where)
    local value = json.field(config, key, kind, { default = wanted }, where)
    if value ~= wanted then
        error(("%s: \"%s\": only %s is supported, found %s"):format(where, key, tostring(wanted), tostring(value)), 0)
    end
end

local function divides(divisor, number, what, where)
    if number % divisor ~= 0 then error(("%s: %s"):format(where, what:format(divisor, number)), 0) end
end

--- The vision encoder's part, from `vision_encoder_config` and the weights.
local function vision_config(given, part, where)
    demand(given, "hidden_act", "string", "gelu_pytorch_tanh", where)
    local hidden = json.field(given, "hidden_size", "integer",
        { min = 1, max = WIDTH, default = size_of(part, "post_layernorm.weight", 1) }, where)
    local heads = json.field(given, "num_attention_heads", "integer", { min = 1, max = HEADS, optional = true }, where)
    if not heads then -- the head count is in no shape; the encoder's heads are 72 wide
        divides(72, hidden, "\"num_attention_heads\" is missing, and heads of %d do not divide a width of %d", where)
        heads = hidden / 72
    end
    divides(heads, hidden, "%d attention heads do not divide a width of %d", where)
    return {
        hidden_size = hidden,
        num_attention_heads = heads,
        intermediate_size = json.field(given, "intermediate_size", "integer",
            { min = 1, max = WIDTH, default = size_of(part, "encoder.layers.0.mlp.fc1.weight", 1) }, where),
        num_hidden_layers = json.field(given, "num_hidden_layers", "integer",
            { min = 1, max = LAYERS, default = count_layers(part, "encoder.layers.") }, where),
        num_channels = json.field(given, "num_channels", "integer", { min = 3, max = 3, default = 3 }, where),
        patch_size = json.field(given, "patch_size", "integer",
            { min = 1, max = 256, default = size_of(part, "embeddings.patch_embedding.weight", 3) or 14 }, where),
        layer_norm_eps = json.field(given, "layer_norm_eps", "number", { min = 0, max = 1, default = 1e-6 }, where),
    }
end

--- The decoder's fields, as Qwen2 names them, into `config`.
local function decoder_config(config, given, part, where)
    local function integer(key, max, default)
        config[key] = json.field(given, key, "integer", { min = 1, max = max, default = default }, where)
        return config[key]
    end
    demand(given, "hidden_act", "string", "silu", where)
    demand(given, "use_sliding_window", "boolean", false, where)
    if given.rope_scaling and given.rope_scaling ~= json.null then
        error(where .. ": \"rope_scaling\" is not supported", 0)
    end
    local hidden = integer("hidden_size", WIDTH, size_of(part, "embed_tokens.weight", 2))
    local heads = integer("num_attention_heads", HEADS)
    if not given.head_dim or given.head_dim == json.null then
        divides(heads, hidden, "%d attention heads do not divide a width of %d", where)
    end
    local head_dim = integer("head_dim", WIDTH, hidden / heads)
    if head_dim % 2 ~= 0 then error(("%s: heads of odd width %d cannot be rotated"):format(where, head_dim), 0) end
    local rows = size_of(part, "layers.0.self_attn.k_proj.weight", 1)
    local kv_heads = integer("num_key_value_heads", HEADS, rows and rows % head_dim == 0 and rows / head_dim or heads)
    divides(kv_heads, heads, "%d key/value heads do not divide %d attention heads", where)
    integer("intermediate_size", 4 * WIDTH, size_of(part, "layers.0.mlp.gate_proj.weight", 1))
    integer("num_hidden_layers", LAYERS, count_layers(part, "layers."))
    integer("vocab_size", VOCAB, size_of(part, "embed_tokens.weight", 1))
    integer("max_position_embeddings", 2 ^ 31, 32768)
    config.rms_norm_eps = json.field(given, "rms_norm_eps", "number", { min = 0, max = 1, default = 1e-6 }, where)
    config.rope_theta = json.field(given, "rope_theta", "number", { min = 1, max = 1e12, default = 1e6 }, where)
    config.tie_word_embeddings = json.field(given, "tie_word_embeddings", "boolean",
        { default = part["lm_head.weight"] == nil and part["lm_head.qweight"] == nil }, where)
end

--- A list of numbers, or one number as a list of one.
local function token_ids(object, key, where)
    local value = object[key]
    if value == nil or value == json.null then return nil end
    local list = type(value) == "table" and value or { value }
    json.check(list, "list", nil, key, where)
    for i, id in ipairs(list) do
        json.check(id, "integer", { min = 0, max = 2 ^ 31 }, ("%s[%d]"):format(key, i), where)
    end
    return list
end

--- Three numbers, one for each of red, green and blue.
local function channel_values(given, key, min, where)
    local list = json.field(given, key, "list", { default = { 0.5, 0.5, 0.5 } }, where)
    if #list ~= 3 then error(("%s: \"%s\": three numbers expected, found %d"):format(where, key, #list), 0) end
    for i, value in ipairs(list) do
        json.check(value, "number", { min = min, max = 1 }, ("%s[%d]"):format(key, i), where)
    end
    return list
end

--- What is around the decoder: pictures, regions, tokens.
local function media_config(config, checkpoint, where)
    local given = checkpoint.config
    local picture, picture_where = checkpoint.preprocessor_config, checkpoint.path .. "/preprocessor_config.json"
    local function integer(key, max, default)
        config[key] = json.field(given, key, "integer", { min = 1, max = max, default = default }, where)
    end
    integer("mm_max_length", 2 ^ 24, 8192)
    integer("spatial_merge_size", 16, 2)
    integer("mask_num", 4096, 32)
    integer("max_frames", 2 ^ 20, 180)
    config.object_tokenizer = json.field(given, "object_tokenizer", "string", { default = "saot" }, where)
    config.use_token_compression = json.field(given, "use_token_compression", "boolean", { default = true }, where)
    local kind = json.field(given, "mm_projector_type", "string", { default = "mlp2x_gelu" }, where)
    config.mm_projector_depth = tonumber(kind:match("^mlp([1-9])x_gelu$"))
    if not config.mm_projector_depth then
        error(("%s: \"mm_projector_type\": \"mlp2x_gelu\" (or another depth) expected, found \"%s\""):format(where,
            kind:sub(1, 60)), 0)
    end
    for _, key in ipairs { "image_token_index", "region_token_index" } do
        config[key] = json.field(given, key, "integer", { min = -2 ^ 31, max = 2 ^ 31, optional = true }, where)
    end
    config.min_pixels = json.field(picture, "min_pixels", "integer", { min = 1, max = 2 ^ 40, default = 3136 },
        picture_where)
    config.image_mean = channel_values(picture, "image_mean", 0, picture_where)
    config.image_std = channel_values(picture, "image_std", 1e-3, picture_where)
    config.eos_token_ids = token_ids(checkpoint.generation_config, "eos_token_id",
        checkpoint.path .. "/generation_config.json") or token_ids(given, "eos_token_id", where) or {}
end

--- How the weights are quantised; nil when they are not.
local function quantization_config(given, where)
    local found = json.field(given, "quantization_config", "object", { optional = true }, where)
    if not found then return nil end
    where = where .. ": quantization_config"
    local method = json.field(found, "method", "string", { default = tostring(found.quant_method or "?") }, where)
    if method ~= "pixelrefer" then
        error(("%s: \"method\": \"pixelrefer\" expected, found \"%s\": weights quantised by other programs cannot be "
            .. "read"):format(where, method:sub(1, 60)), 0)
    end
    local bits = json.field(found, "bits", "integer", { min = 4, max = 8 }, where)
    local group = json.field(found, "group", "integer", { min = 16, max = 1024 }, where)
    if bits ~= 4 and bits ~= 8 then error(("%s: \"bits\": 4 or 8 expected, found %d"):format(where, bits), 0) end
    if not quantize.is_group(group) then
        error(("%s: \"group\": a power of two expected, found %d"):format(where, group), 0)
    end
    return { bits = bits, group = group }
end

--- Everything checked and filled in.
local function complete_config(checkpoint, framework, found, where)
    local given, config = checkpoint.config, { model_type = checkpoint.config.model_type }
    decoder_config(config, given, found.decoder, where)
    config.vision_encoder_config = vision_config(
        json.field(given, "vision_encoder_config", "object", { default = {} }, where), found.vision_encoder,
        where .. ": vision_encoder_config")
    local width = config.vision_encoder_config.hidden_size
    config.mm_hidden_size = json.field(given, "mm_hidden_size", "integer", { min = 1, max = WIDTH, default = width },
        where)
    if config.mm_hidden_size ~= width then
        error(("%s: \"mm_hidden_size\" is %d, but the vision encoder is %d wide"):format(where, config.mm_hidden_size,
            width), 0)
    end
    if framework == "object_only" then divides(8, width, "%d infusion heads do not divide a width of %d", where) end
    media_config(config, checkpoint, where)
    config.quantization = quantization_config(given, where)
    return config
end

-- ---- what must be there ------------------------------------------------------------------------------------------

--- Collects what a part must hold: add(name, sizes ...), linear(name, out, in), norm(name, width).
local function expectations(part)
    local list = {}
    local function add(name, ...) list[#list + 1] = { part = part, name = name, shape = { ... } } end
    local function linear(name, rows, columns)
        add(name .. ".weight", rows, columns)
        add(name .. ".bias", rows)
    end
    local function norm(name, width)
        add(name .. ".weight", width)
        add(name .. ".bias", width)
    end
    return list, add, linear, norm
end

local function expect_vision_encoder(config)
    local list, add, linear, norm = expectations("vision_encoder")
    local vision = config.vision_encoder_config
    local width, mlp, patch = vision.hidden_size, vision.intermediate_size, vision.patch_size
    add("embeddings.patch_embedding.weight", width, vision.num_channels, patch, patch)
    add("embeddings.patch_embedding.bias", width)
    for layer = 0, vision.num_hidden_layers - 1 do
        local prefix = ("encoder.layers.%d."):format(layer)
        norm(prefix .. "layer_norm1", width)
        for _, name in ipairs { "q_proj", "k_proj", "v_proj", "out_proj" } do
            linear(prefix .. "self_attn." .. name, width, width)
        end
        norm(prefix .. "layer_norm2", width)
        linear(prefix .. "mlp.fc1", mlp, width)
        linear(prefix .. "mlp.fc2", width, mlp)
    end
    norm("post_layernorm", width)
    return list
end

--- Linear layers at the even places (the odd ones are their activations), width -> D -> ... -> D.
local function expect_mlp(linear, prefix, width, hidden, depth)
    for i = 0, depth - 1 do linear(("%s.%d"):format(prefix, 2 * i), hidden, i == 0 and width or hidden) end
end

local function expect_projector(config)
    local list, _, linear = expectations("projector")
    expect_mlp(linear, "readout", config.mm_hidden_size, config.hidden_size, config.mm_projector_depth)
    return list
end

local function expect_object_tokenizer(config)
    local list, _, linear = expectations("object_tokenizer")
    linear("pos_linear", config.mm_hidden_size, 2)
    expect_mlp(linear, "feat_linear", config.mm_hidden_size, config.hidden_size, 2)
    return list
end

local function expect_infusion(config)
    local list, add, linear, norm = expectations("infusion")
    local width = config.mm_hidden_size
    for _, step in ipairs { "local", "global" } do
        local prefix = "fusion_attention_" .. step
        add(prefix .. ".in_proj_weight", 3 * width, width)
        add(prefix .. ".in_proj_bias", 3 * width)
        linear(prefix .. ".out_proj", width, width)
        norm("ln_" .. step, width)
    end
    return list
end

local function expect_decoder(config, has_head)
    local list, add, linear = expectations("decoder")
    local hidden, mlp = config.hidden_size, config.intermediate_size
    local queries = config.num_attention_heads * config.head_dim
    local keys = config.num_key_value_heads * config.head_dim
    add("embed_tokens.weight", config.vocab_size, hidden)
    for layer = 0, config.num_hidden_layers - 1 do
        local prefix = ("layers.%d."):format(layer)
        add(prefix .. "input_layernorm.weight", hidden)
        linear(prefix .. "self_attn.q_proj", queries, hidden)
        linear(prefix .. "self_attn.k_proj", keys, hidden)
        linear(prefix .. "self_attn.v_proj", keys, hidden)
        add(prefix .. "self_attn.o_proj.weight", hidden, queries)
        add(prefix .. "post_attention_layernorm.weight", hidden)
        add(prefix .. "mlp.gate_proj.weight", mlp, hidden)
        add(prefix .. "mlp.up_proj.weight", mlp, hidden)
        add(prefix .. "mlp.down_proj.weight", hidden, mlp)
    end
    add("norm.weight", hidden)
    if has_head or not config.tie_word_embeddings then add("lm_head.weight", config.vocab_size, hidden) end
    return list
end

--- Every weight that a checkpoint of this framework and config holds, in order.
-- @tparam string framework "vision_object" or "object_only"
-- @tparam table config as layout.read completes it
-- @tparam ?boolean has_head whether a tied checkpoint carries `lm_head.weight` nevertheless
-- @treturn {table,...} {part =, name = in the part, full_name = in the file, shape = {sizes}}
function layout.weights(framework, config, has_head)
    local canonical = { infusion = "model.region_encoder.", object_tokenizer = "model.region_encoder.",
        vision_encoder = "model.vision_encoder.vision_encoder.", projector = "model.mm_projector.",
        decoder = "model." }
    local all = {}
    for _, list in ipairs {
        expect_decoder(config, has_head), expect_projector(config), expect_object_tokenizer(config),
        framework == "object_only" and expect_infusion(config) or {}, expect_vision_encoder(config),
    } do
        for _, weight in ipairs(list) do
            weight.full_name = weight.name:find("^lm_head") and weight.name or canonical[weight.part] .. weight.name
            all[#all + 1] = weight
        end
    end
    return all
end

-- ---- comparing ---------------------------------------------------------------------------------------------------

local function shape_text(sizes)
    return "[" .. table.concat(sizes, "x") .. "]"
end

local FLOAT = { float32 = true, float16 = true, bfloat16 = true }

--- What is wrong with a weight that is there; nil for nothing.
local function complaint(weight, tensor)
    local found = tensor:size()
    if shape_text(found) ~= shape_text(weight.shape) then
        return ("expected %s, found %s"):format(shape_text(weight.shape), shape_text(found))
    elseif not FLOAT[tensor:dtype()] then
        return ("expected float32, float16 or bfloat16, found %s"):format(tensor:dtype())
    end
    return nil
end

--- What is wrong with a quantised matrix; nil for nothing.
local function quantised_complaint(weight, integers, scales, group)
    local rows, columns = unpack(weight.shape)
    local is_pairs = integers:dtype() == "uint8"
    if not is_pairs and integers:dtype() ~= "int8" then
        return ("expected int8 or uint8, found %s"):format(integers:dtype())
    end
    local wanted = shape_text { rows, is_pairs and math.ceil(columns / 2) or columns }
    if shape_text(integers:size()) ~= wanted then
        return ("expected %s, found %s"):format(wanted, shape_text(integers:size()))
    end
    wanted = shape_text { rows, math.ceil(columns / group) }
    if shape_text(scales:size()) ~= wanted or scales:dtype() ~= "float16" then
        return ("expected float16 scales %s, found %s %s"):format(wanted, scales:dtype(), shape_text(scales:size()))
    end
    return nil
end

local SHOWN = 20 -- lines of each kind in a message

local function add_lines(lines, kind, list)
    for i = 1, math.min(#list, SHOWN) do lines[#lines + 1] = ("  %-10s %s"):format(kind, list[i]) end
    if #list > SHOWN then lines[#lines + 1] = ("  %-10s and %d more"):format(kind, #list - SHOWN) end
end

--- Raises one error about all weights that are missing, wrong or too many.
local function report(path, missing, wrong, unknown)
    if #missing + #wrong + #unknown == 0 then return end
    table.sort(unknown)
    local lines = { ("%s: the weights do not fit config.json: %d missing, %d of another shape or type, %d unknown")
        :format(path, #missing, #wrong, #unknown) }
    add_lines(lines, "missing", missing)
    add_lines(lines, "wrong", wrong)
    add_lines(lines, "unknown", unknown)
    error(table.concat(lines, "\n"), 0)
end

--- Picks the weights of every part, or says everything that is wrong with them.
local function pick_weights(checkpoint, framework, config, found, strays)
    local weights, missing, wrong, unknown = {}, {}, {}, {}
    for _, part in ipairs(PARTS) do
        if part ~= "infusion" or framework == "object_only" then weights[part] = {} end
    end
    local has_head = found.decoder["lm_head.weight"] or found.decoder["lm_head.qweight"]
    local expected = layout.weights(framework, config, has_head ~= nil)
    for _, weight in ipairs(expected) do
        local part = found[weight.part]
        local there = part[weight.name]
        local what = there and complaint(weight, there.tensor)
        local integers, scales, integers_name, scales_name = quantised(part, weight.name)
        if config.quantization and not there and (integers or scales) then
            what = integers and scales
                and quantised_complaint(weight, integers.tensor, scales.tensor, config.quantization.group)
            if not integers or not scales then
                missing[#missing + 1] = (weight.full_name:gsub("weight$", integers and "scales" or "qweight"))
            elseif what then
                wrong[#wrong + 1] = ("%s: %s"):format(integers.name, what)
            else
                weights[weight.part][integers_name] = integers.tensor
                weights[weight.part][scales_name] = scales.tensor
            end
            part[integers_name], part[scales_name] = nil, nil
        elseif not there then
            missing[#missing + 1] = ("%s %s"):format(weight.full_name, shape_text(weight.shape))
        elseif what then
            wrong[#wrong + 1] = ("%s: %s"):format(there.name, what)
        else
            weights[weight.part][weight.name] = there.tensor
        end
        found[weight.part][weight.name] = nil
    end
    for _, part in ipairs(PARTS) do -- what is left was not expected
        for _, stray in pairs(found[part]) do strays[#strays + 1] = stray end
    end
    for _, stray in ipairs(strays) do
        unknown[#unknown + 1] = ("%s %s"):format(stray.name, shape_text(stray.tensor:size()))
    end
    report(checkpoint.path, missing, wrong, unknown)
    return weights
end

--- Sorts an opened checkpoint into the parts of a model.
-- @tparam table checkpoint as checkpoint.open returns it
-- @treturn table {framework = "vision_object" or "object_only", config = completed and checked, weights = part -> name
-- -> Tensor}, the parts being vision_encoder, projector, object_tokenizer, infusion (Lite only) and decoder (whose
-- `lm_head.weight` is `embed_tokens.weight` itself when they are tied); a quantised matrix `x.weight` is `x.qweight`
-- and `x.scales` (see pixelrefer.quantize)
-- @raise every weight that is missing, misshapen or unknown, by name; or a config value that cannot be, with its key
function layout.read(checkpoint)
    local where = checkpoint.path .. "/config.json"
    local found, strays = sort_weights(checkpoint.tensors, checkpoint.path)
    local framework = framework_of(checkpoint.config, found, where)
    local config = complete_config(checkpoint, framework, found, where)
    local weights = pick_weights(checkpoint, framework, config, found, strays)
    for _, part in pairs(weights) do -- a .bin can hold transposed views; the kernels read rows as they lie
        for name, tensor in pairs(part) do
            if not tensor:isContiguous() then part[name] = tensor:contiguous() end
        end
    end
    local decoder = weights.decoder
    if config.tie_word_embeddings then
        for _, kind in ipairs { "weight", "qweight", "scales" } do
            decoder["lm_head." .. kind] = decoder["embed_tokens." .. kind]
        end
    end
    return { framework = framework, config = config, weights = weights }
end

return layout
