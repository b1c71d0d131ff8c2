--- What `pixelrefer info` says of a checkpoint, a picture or a video.
-- @module pixelrefer.cli.info
local checkpoint = require "pixelrefer.checkpoint"
local core = require "pixelrefer.core"
local footprint = require "pixelrefer.footprint"
local layout = require "pixelrefer.layout"
local media = require "pixelrefer.media"
local options = require "pixelrefer.options"
local weights = require "pixelrefer.weights"

local function describe_types(tensors)
    local bytes, names = {}, {}
    for _, tensor in pairs(tensors) do
        local dtype = tensor:dtype()
        if not bytes[dtype] then names[#names + 1] = dtype end
        local values = dtype == "uint8" and 2 * tensor:nElement() or tensor:nElement() -- two of four bits in a byte
        bytes[dtype] = (bytes[dtype] or 0) + values
    end
    table.sort(names)
    for i, name in ipairs(names) do
        names[i] = ("%s (%.1f M values)"):format(name == "uint8" and "four bits" or name, bytes[name] / 1e6)
    end
    return table.concat(names, ", ")
end

-- What the checkpoint needs on a device, against what is free there.
local function device_rows(config, weight_bytes, given)
    local available, total = core.device_memory(given.device)
    options.check({ compute = given.compute }, { compute = { "f32", "bf16", "int8" } }, "info")
    local compute = given.compute or core.compute(given.device)
    local asked = { context = given.context, frames = given.frames, cells = given.cells, compute = compute }
    local needs, usual = footprint.needs(config, weight_bytes, asked), footprint.USUAL
    local rows = {
        { "needed there", ("%.0f MiB: %.0f of weights, %.0f for %d tokens of context, %.0f of activations for %d x %d "
            .. "cells"):format(needs.total / 2 ^ 20, needs.weights / 2 ^ 20, needs.context / 2 ^ 20,
            given.context or usual.context, needs.activations / 2 ^ 20, given.frames or usual.frames,
            given.cells or usual.cells) },
        { "computes in", compute },
    }
    if available then
        rows[#rows + 1] = { "free on " .. given.device, ("%.0f of %.0f MiB: it %s"):format(available / 2 ^ 20,
            total / 2 ^ 20, needs.total <= available and "fits" or "does not fit") }
    end
    return rows
end

local function checkpoint_rows(path, given)
    local files = checkpoint.open(path)
    local parts = layout.read(files)
    local config, vision = parts.config, parts.config.vision_encoder_config
    local per_token = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    local rows = {
        { "framework", parts.framework == "object_only" and "Object-Only (PixelRefer-Lite)"
                       or "Vision-Object (PixelRefer)" },
        { "directory", files.path },
        { "vision encoder", ("%d layers, width %d, %d heads, MLP %d, patch %d"):format(
            vision.num_hidden_layers, vision.hidden_size, vision.num_attention_heads, vision.intermediate_size,
            vision.patch_size) },
        { "decoder", ("%d layers, width %d, %d heads (%d for keys), MLP %d, vocabulary %d"):format(
            config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.num_key_value_heads,
            config.intermediate_size, config.vocab_size) },
        { "mask_num", config.mask_num },
        { "context", ("%d tokens"):format(config.max_position_embeddings) },
        { "weights", describe_types(files.tensors) },
        { "quantised", config.quantization and ("%d bits, groups of %d"):format(config.quantization.bits,
            config.quantization.group) or "no" },
        { "memory", ("%.1f MiB of weights (mapped), %.1f KiB a token of context"):format(files.bytes / 2 ^ 20,
                                                                                      per_token / 1024) },
    }
    if given.device then
        local bytes = config.quantization and weights.bytes(parts.weights, given.device) or files.bytes
        for _, row in ipairs(device_rows(config, bytes, given)) do rows[#rows + 1] = row end
    end
    return rows
end

local function media_rows(path)
    local found = media.info(path)
    local rows = { { "kind", found.kind }, { "size", ("%d x %d"):format(found.width, found.height) } }
    if found.kind == "video" then
        rows[#rows + 1] = { "frames", found.frames }
        rows[#rows + 1] = { "rate", ("%.6g frames/s"):format(found.fps) }
        if found.duration then rows[#rows + 1] = { "duration", ("%.6g s"):format(found.duration) } end
        if found.codec then rows[#rows + 1] = { "codec", found.codec } end
        if found.rotation and found.rotation ~= 0 then rows[#rows + 1] = { "rotation", found.rotation } end
    end
    return rows
end

--- Rows {name, value} about a path or a checkpoint's name.
-- @tparam string path
-- @tparam[opt] table given of a checkpoint: device, and compute, context, frames, cells as `footprint.needs` takes them
-- @treturn table
return function(path, given)
    if core.path_kind(path .. "/config.json") or not core.path_kind(path) then
        return checkpoint_rows(path, given or {})
    end
    return media_rows(path)
end
