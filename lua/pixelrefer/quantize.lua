--- Weights of eight or four bits: matrices whose rows are integers, with a float16 scale for each group of neighbours.
--
-- A matrix `x.weight` [N,K] becomes `x.qweight` (int8 [N,K], or uint8 [N,ceil(K/2)] with two values of four bits in a
-- byte: stored as q + 8, the earlier one in the low half) and `x.scales` (float16 [N,ceil(K/group)]). Norms, biases,
-- the patch embedding and the object tokenizer's layers stay as they are: they are small, and a tokenizer written in
-- Lua reads its own. In either kind embeddings, the head and all that sees (vision encoder, projector, OCI) have eight
-- bits: what they lose no later layer finds again, and four bits would not make them faster.
--
--     local model = pixelrefer.load("PixelRefer-7B", { weights = "int4" })
--     pixelrefer.quantize("PixelRefer-7B", "PixelRefer-7B-int4", { weights = "int4" }) -- once, to a directory
--
-- @module pixelrefer.quantize
local core = require "pixelrefer.core"
local weights = require "pixelrefer.weights"

local quantize = {}

--- Bits and group of each kind of weights that `load` and `quantize` take.
quantize.KINDS = { int8 = { bits = 8, group = 128 }, int4 = { bits = 4, group = 32 } }

local SMALLEST_ROW = 16 -- weights: the smallest group
local PARTS = { vision_encoder = true, projector = true, infusion = true, decoder = true }
local EIGHT_BITS = { ["embed_tokens.weight"] = true, ["lm_head.weight"] = true }

--- Whether rows can be cut into groups of this size.
-- @tparam int group
-- @treturn bool a power of two, 16 to 1024
function quantize.is_group(group)
    for shift = 4, 10 do
        if group == 2 ^ shift then return true end
    end
    return false
end

--- The names of what stands in a matrix's place.
-- @tparam string name ends in "weight"
-- @treturn string of the integers
-- @treturn string of the scales
function quantize.names(name)
    return (name:gsub("weight$", "qweight")), (name:gsub("weight$", "scales"))
end

--- How a kind of weights is made.
-- @tparam string kind "int8" or "int4"
-- @tparam[opt] int group in place of the kind's own
-- @treturn table {bits =, group =}
-- @raise another kind, a group that cannot be
function quantize.settings(kind, group)
    local settings = quantize.KINDS[kind]
    if not settings then error(("weights: 'int8' or 'int4' expected, found '%s'"):format(tostring(kind)), 0) end
    if group and not quantize.is_group(group) then
        error(("group: a power of two from 16 to 1024 expected, found %s"):format(tostring(group)), 0)
    end
    return { bits = settings.bits, group = group or settings.group }
end

--- Whether a weight is kept as integers.
-- @tparam string part of the model, as `layout.read` calls it
-- @tparam string name in the part
-- @tparam {int,...} shape
-- @treturn bool
function quantize.takes(part, name, shape)
    return PARTS[part] and name:find("weight$") ~= nil and #shape == 2 and shape[2] >= SMALLEST_ROW
end

--- The bits of a matrix: the kind's own in the decoder's layers, eight elsewhere.
-- @tparam string part of the model, as `layout.read` calls it
-- @tparam string name in the part
-- @tparam table settings {bits =, group =}
-- @treturn int
function quantize.bits(part, name, settings)
    return part == "decoder" and not EIGHT_BITS[name] and settings.bits or 8
end

--- A matrix's integers and scales. The file's pages that it was read from are given back.
-- @tparam Tensor tensor
-- @tparam string part of the model
-- @tparam string name in its part
-- @tparam table settings {bits =, group =}
-- @treturn Tensor
-- @treturn Tensor
-- @raise a weight that is not finite
function quantize.matrix(tensor, part, name, settings)
    local ok, integers, scales = pcall(core.quantize, tensor, quantize.bits(part, name, settings), settings.group)
    if not ok then error(("%s: %s"):format(name, integers), 0) end
    core.forget(tensor)
    return integers, scales
end

--- The weights of a model with its matrices quantised; others are the same tensors.
-- @tparam table parts part -> name -> Tensor, as `layout.read` returns them
-- @tparam table settings {bits =, group =}
-- @tparam[opt] function progress told the bytes that were quantised, and those of all that will be
-- @treturn table part -> name -> Tensor
function quantize.weights(parts, settings, progress)
    return weights.replace(parts, function(part, name, tensor)
        return quantize.takes(part, name, tensor:size())
    end, function(name) return { quantize.names(name) } end, function(tensor, part, name)
        return { quantize.matrix(tensor, part, name, settings) }
    end, progress)
end

return quantize
