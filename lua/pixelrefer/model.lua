--- A model: immutable weights, from which scenes and sessions are made.
-- @module pixelrefer.model
local checkpoint = require "pixelrefer.checkpoint"
local core = require "pixelrefer.core"
local footprint = require "pixelrefer.footprint"
local generation = require "pixelrefer.generation"
local layout = require "pixelrefer.layout"
local object_tokenizer = require "pixelrefer.object_tokenizer"
local options = require "pixelrefer.options"
local quantize = require "pixelrefer.quantize"
local Scene = require "pixelrefer.scene"
local Session = require "pixelrefer.session"
local tensor = require "pixelrefer.tensor"
local tokenizer = require "pixelrefer.tokenizer"
local weights = require "pixelrefer.weights"

local Model = {}
Model.__index = Model
Model.__tostring = function(model)
    local config = model.config
    return ("Model(%s, %s, %d layers of width %d, %.1f MiB, %s)"):format(model.path, model.framework,
        config.num_hidden_layers, config.hidden_size, model.bytes / 2 ^ 20, model.device)
end

local PIPELINES = {
    vision_object = require "pixelrefer.pipelines.vision_object",
    object_only = require "pixelrefer.pipelines.object_only",
}

local LOAD_OPTIONS = {
    device = "string", threads = { type = "integer", min = 1, max = 256 }, tokenizer = "string|table|function",
    compute = { "f32", "bf16", "int8", "auto" }, weights = "string", kv = { "float32", "float16", "bfloat16" },
    progress = "function",
}

-- The models that there are.
local models = setmetatable({}, { __mode = "k" })

-- Instruction sets that multiply bytes, and bfloat16, faster than float32.
local BYTES = { avx2 = true, avx512_vnni = true, avx512_bf16 = true, amx = true }
local BFLOAT16 = { avx512_bf16 = true, amx = true }

-- The precision that a device multiplies a model's matrices in at the highest rate.
local function fastest(device, config)
    if device ~= "cpu" then return "bf16" end
    local isa = core.isa()
    if config.quantization then return BYTES[isa] and "int8" or "f32" end
    return BFLOAT16[isa] and "bf16" or "f32"
end

-- Where a load gave a device its precision: {wanted = that, before = the device's own}.
local chosen = {}

-- A model that a device computes for; nil when there is none.
local function model_on(device)
    jit.flush() -- compiled traces keep the models that they were recorded with
    collectgarbage()
    for model in pairs(models) do
        if model.device == device then return model end
    end
end

-- Gives a device the precision that is asked for; a device has one, which other models may be using. Where none is
-- asked for, a device without a model has its own again.
local function set_compute(device, wanted, config)
    local current, choice = core.compute(device), chosen[device]
    if wanted == "auto" then wanted = fastest(device, config) end
    if choice and choice.wanted ~= current then choice = nil end -- core.compute has been called since
    if not wanted then
        if not choice or choice.before == current or model_on(device) then return current end
        core.compute(device, choice.before)
        chosen[device] = nil
        return choice.before
    end
    if wanted == current then return current end
    core.compute(device, wanted)
    local other = model_on(device)
    if other then
        core.compute(device, current)
        error(("load: %s computes in %s for %s, which is loaded: it cannot compute in %s too"):format(device, current,
            other.path, wanted), 0)
    end
    chosen[device] = { wanted = wanted, before = choice and choice.before or current }
    return wanted
end

-- Returns make(the precision that a device computes in from now on, ...); when that fails, the device has the one that
-- it had.
local function computing(device, wanted, config, make, ...)
    local before, choice = core.compute(device), chosen[device]
    local ok, result = pcall(make, set_compute(device, wanted, config), ...)
    if ok then return result end
    core.compute(device, before)
    chosen[device] = choice
    error(result, 0)
end

-- The decoder's inputs for pictures and regions are found by token.
local function special_id(text, name, path)
    local id = text:id(name)
    if not id then error(("%s: the tokenizer has no token '%s'"):format(path, name), 0) end
    return id
end

--- The weights in fewer bits, unless the files have them so.
local function quantised(parts, config, kind, files, progress)
    local settings = quantize.settings(kind)
    local there = config.quantization
    if there then
        if there.bits == settings.bits then return parts end
        error(("%s: its weights have %d bits already"):format(files.path, there.bits), 0)
    end
    config.quantization = settings
    return quantize.weights(parts, settings, progress)
end

-- Makes what computes out of weights that may lie on the device already.
local function build(self, parts)
    local config, hidden = self.config, self.config.vision_encoder_config.hidden_size
    self.encoder = core.vision_encoder(config.vision_encoder_config, parts.vision_encoder, self.device)
    self.projector = core.projector(hidden, config.hidden_size, config.mm_projector_depth, "readout", parts.projector,
                                    self.device)
    if self.framework == "object_only" then self.infusion = core.infusion(hidden, parts.infusion, self.device) end
    self.decoder = core.decoder(config, parts.decoder, self.device)
end

-- A model of weights that were read, on a device that computes in `compute`.
local function assemble(compute, device, files, parts, given, telling)
    local config, loaded = parts.config, parts.weights
    config.kv = given.kv or (device == "cpu" and compute ~= "f32") and "bfloat16" or "float32"
    if given.kv and compute == "bf16" and device ~= "cpu" then
        error(("load: kv = \"%s\": %s computes in bfloat16 and keeps the past in it"):format(given.kv, device), 0)
    end
    footprint.check(device, config, files.bytes, files.path)
    local self = setmetatable({
        path = files.path,
        framework = parts.framework,
        pipeline = PIPELINES[parts.framework],
        config = config,
        weights = loaded,
        generation_config = generation.read(files.generation_config, files.path .. "/generation_config.json"),
        device = device,
        compute = compute,
        bytes = files.bytes,
    }, Model)
    self.tokenizer = tokenizer.load(files.path)
    self.image_id = special_id(self.tokenizer, "<image>", files.path)
    self.region_id = special_id(self.tokenizer, "<REGION>", files.path)
    self.is_end = {}
    for _, id in ipairs(config.eos_token_ids) do self.is_end[id] = true end

    self.object_tokenizer = object_tokenizer.new(given.tokenizer, config, loaded.object_tokenizer, device)
    if device == "cpu" then
        build(self, loaded)
    else
        tensor.scope(function()
            local uploaded = { vision_encoder = loaded.vision_encoder, projector = loaded.projector,
                infusion = loaded.infusion, decoder = loaded.decoder }
            build(self, weights.upload(uploaded, device, telling "uploading"))
        end)
    end
    models[self] = true
    return self
end

--- Loads a checkpoint directory (or a name found in the caches).
-- @tparam string name
-- @tparam[opt] table given device ("cpu"), threads, compute (in what the device computes products: "f32", "bf16",
--   "int8", see `core.compute`, or "auto", the fastest; unless told what the models that are there compute in, else the
--   device's own), tokenizer (the object tokenizer in place of the one that the weights were trained with: see
--   `object_tokenizer.new`), weights ("int8" or "int4": matrices are quantised while loading, see `quantize`; nil: as
--   they are in the files, mapped), kv ("float32", "float16" or "bfloat16": what the past's keys and values are kept
--   in; the default is what attention takes them in),
--   progress (told "quantizing" or "uploading", the bytes of weights that are done and those of all that will be)
-- @treturn Model
function Model.load(name, given)
    given = options.check(given, LOAD_OPTIONS, "load")
    local device = given.device or "cpu"
    if given.threads then core.threads(given.threads) end
    local files = checkpoint.open(name)
    local parts = layout.read(files)
    local config = parts.config
    local function telling(stage)
        return given.progress and function(done, all) given.progress(stage, done, all) end
    end
    if given.weights then
        parts.weights = quantised(parts.weights, config, given.weights, files, telling "quantizing")
    end
    if config.quantization then files.bytes = weights.bytes(parts.weights, device) end
    config.framework = parts.framework
    return computing(device, given.compute, config, assemble, device, files, parts, given, telling)
end

local function is_video(media)
    return type(media.frames) == "table" and type(media.times) == "table" and type(media.frame) == "function"
end

--- The same model with another object tokenizer; everything else is shared.
-- @param given as the option `tokenizer` of `load`
-- @treturn Model
function Model:withTokenizer(given)
    local other = {}
    for key, value in pairs(self) do other[key] = value end
    other.object_tokenizer = object_tokenizer.new(given, self.config, self.weights.object_tokenizer, self.device)
    models[other] = true
    return setmetatable(other, Model)
end

-- What a scene needs of an image (Tensor or path) or a Video.
local function open_media(media)
    if type(media) == "string" then
        local loaded = require("pixelrefer.media").load(media)
        media = loaded.image or loaded.video
    end
    if tensor.isTensor(media) then media = { media } end
    if type(media) ~= "table" or (#media == 0 and not is_video(media)) then
        error("encode: an image (tensor or path), a list of images or a video expected, found " .. type(media), 0)
    end
    if #media > 0 then
        local list = {}
        for i, picture in ipairs(media) do
            if not tensor.isTensor(picture) then
                error(("encode: image %d: a uint8 tensor [h,w,3] expected, found %s"):format(i, type(picture)), 0)
            elseif picture:dim() ~= 3 or picture:size(3) ~= 3 or picture:nElement() == 0
                or picture:dtype() ~= "uint8" then
                error(("encode: image %d: a uint8 tensor [h,w,3] expected, found %s [%s]"):format(i, picture:dtype(),
                    table.concat(picture:size(), "x")), 0)
            end
            list[i] = picture:contiguous()
        end
        return { kind = "image", pictures = list }
    end
    return {
        kind = "video",
        pictures = media.frames,
        times = media.times,
        frame = function(index) return media:frame(index) end,
    }
end

--- Encodes an image or a video once.
-- @param media an image (uint8 Tensor [h,w,3]), a list of images, a Video, or a path
-- @tparam[opt] table given `inspect(stage, value)` sees every stage, may return a replacement, or false to stop there
-- @treturn Scene nil when `inspect` stopped it
function Model:encode(media, given)
    given = options.check(given, { inspect = "function" }, "encode")
    local opened = open_media(media)
    local started = core.tick()
    local ok, encoded = pcall(self.pipeline.encode, self, opened.pictures, opened.kind, Session.watcher(given.inspect))
    if not ok then
        if encoded == Session.STOP then return nil end
        error(encoded, 0)
    end
    local scene = Scene.new(self, opened, encoded)
    scene.owns_tokens = not given.inspect -- who looks may keep them, or have put others there
    scene.seconds = { encode = core.tick() - started }
    return scene
end

--- A scene without a picture, for conversations in text alone.
-- @treturn Scene
function Model:text()
    return Scene.new(self, { kind = "text", pictures = {} }, {})
end

--- Asks about no picture at all.
-- @tparam string text
-- @tparam[opt] table given as `session:ask`
-- @treturn Answer
function Model:ask(text, given)
    return self:text():ask(text, {}, given)
end

--- Describes regions of an image or video, each in a call of its own.
-- @param media as for `encode`
-- @tparam table|Tensor regions one region (a mask, or `{mask =, frame =}`) or a list of them
-- @tparam[opt] table given as `scene:describe`
-- @treturn table|Answer a list of answers; for one region its answer
function Model:describe(media, regions, given)
    local answers = self:encode(media):describe(regions, given)
    if tensor.isTensor(regions) or regions.mask then return answers[1] end
    return answers
end

return Model
