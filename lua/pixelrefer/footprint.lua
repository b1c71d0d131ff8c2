--- How much memory of a device a model needs: its weights, a context, the pictures that are encoded together.
--
-- What is counted are the large blocks; a few MiB of small ones come on top, which `MARGIN` covers.
-- @module pixelrefer.footprint
local core = require "pixelrefer.core"

local footprint = {}

local FLOAT = 4 -- bytes: activations, and the context too where products are not rounded to bfloat16
local MIB = 2 ^ 20
local GROUP_CELLS, MLP_ROWS, CHUNK_ROWS = 4096, 1024, 512 -- as csrc/model goes through cells and tokens
local WORKSPACE = 32 * MIB -- cuBLASLt's, for compute = "bf16"
local MARGIN = 64 * MIB

--- What `needs` takes for granted when nothing else is said.
footprint.USUAL = { context = 4096, frames = 1, cells = 2500 }

-- The encoder's buffers for the cells that go through it together, and every cell's patch and features.
local function encoder_bytes(vision, cells, together)
    local patch = 3 * vision.patch_size ^ 2
    local angles = vision.hidden_size / vision.num_attention_heads
    local wide = math.min(together, MLP_ROWS) * vision.intermediate_size
    return FLOAT * (cells * (patch + vision.hidden_size) + together * (4 * vision.hidden_size + angles) + wide)
end

-- The decoder's buffers for a chunk of tokens, and every token's embedding and result.
local function decoder_bytes(config, tokens)
    local queries = config.num_attention_heads * config.head_dim
    local keys = config.num_key_value_heads * config.head_dim
    local chunk = config.hidden_size + 2 * queries + 2 * keys + 2 * config.intermediate_size + config.head_dim
    return FLOAT * (2 * tokens * config.hidden_size + math.min(tokens, CHUNK_ROWS) * chunk + 2 * config.vocab_size)
end

-- Operands rounded to bfloat16: the widest input of a layer, or attention's queries, keys and values.
local function rounded_bytes(config, together, tokens)
    local vision = config.vision_encoder_config
    local keys = 2 * config.num_key_value_heads * config.head_dim
    return WORKSPACE + 2 * math.max(together * 3 * vision.hidden_size, MLP_ROWS * vision.intermediate_size,
        CHUNK_ROWS * config.intermediate_size, tokens * keys)
end

--- Bytes that a model needs on a device.
-- @tparam table config of the model, as `layout.read` gives it
-- @tparam int weights bytes of its files
-- @tparam[opt] table given context (tokens), frames (pictures encoded together), cells (of each picture), compute
--   ("f32" or "bf16"); see `footprint.USUAL`
-- @treturn table {weights =, context =, activations =, total =}
function footprint.needs(config, weights, given)
    given = given or {}
    local tokens = given.context or footprint.USUAL.context
    local each = given.cells or footprint.USUAL.cells
    local cells = (given.frames or footprint.USUAL.frames) * each
    local together = math.min(cells, math.max(each, GROUP_CELLS))
    local element = given.compute == "bf16" and 2 or FLOAT
    local row = 2 * element * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    local activations = encoder_bytes(config.vision_encoder_config, cells, together) + decoder_bytes(config, tokens)
    if given.compute == "bf16" then activations = activations + rounded_bytes(config, together, tokens) end
    local needs = { weights = weights, context = row * (tokens + 256), activations = activations + MARGIN }
    needs.total = needs.weights + needs.context + needs.activations
    return needs
end

--- Raises unless a device has room for a model, before anything of it is loaded.
-- @tparam string device
-- @tparam table config of the model
-- @tparam int weights bytes of its files
-- @tparam string path of the model, for the message
-- @raise what is needed and what is free
function footprint.check(device, config, weights, path)
    local available, total = core.device_memory(device)
    if not available then return end
    local needs = footprint.needs(config, weights, { compute = core.compute(device) })
    if needs.total <= available then return end
    error(("%s does not fit on %s: %.0f MiB are needed (%.0f of weights, %.0f for a context of %d tokens, %.0f of "
        .. "activations for one picture of %d cells), %.0f of %.0f MiB are free"):format(path, device,
        needs.total / MIB, needs.weights / MIB, needs.context / MIB, footprint.USUAL.context, needs.activations / MIB,
        footprint.USUAL.cells, available / MIB, total / MIB), 0)
end

return footprint
