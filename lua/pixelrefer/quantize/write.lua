--- A checkpoint directory with quantised weights, made of another checkpoint.
-- @module pixelrefer.quantize.write
local checkpoint = require "pixelrefer.checkpoint"
local core = require "pixelrefer.core"
local layout = require "pixelrefer.layout"
local options = require "pixelrefer.options"
local places = require "pixelrefer.places"
local quantize = require "pixelrefer.quantize"
local whole_file = require "pixelrefer.whole_file"

local OPTIONS = { weights = { type = "string", default = "int8" }, group = "integer", progress = "function" }

--- The types and shapes of a matrix's integers and scales.
local function declared(weight, settings)
    local rows, columns = unpack(weight.shape)
    local integers, scales = quantize.names(weight.full_name)
    local is_byte = quantize.bits(weight.part, weight.name, settings) == 8
    return { name = integers, dtype = is_byte and "int8" or "uint8",
             shape = { rows, is_byte and columns or math.ceil(columns / 2) } },
        { name = scales, dtype = "float16", shape = { rows, math.ceil(columns / settings.group) } }
end

local function write_weights(path, parts, settings, progress)
    local config, tensors = parts.config, parts.weights
    local has_head = not config.tie_word_embeddings
    local list, entries, done = layout.weights(parts.framework, config, has_head), {}, 0
    for _, weight in ipairs(list) do
        weight.tensor = tensors[weight.part][weight.name]
        weight.is_taken = quantize.takes(weight.part, weight.name, weight.shape)
        if weight.is_taken then
            entries[#entries + 1], entries[#entries + 2] = declared(weight, settings)
        else
            entries[#entries + 1] = { name = weight.full_name, dtype = weight.tensor:dtype(), shape = weight.shape }
        end
    end
    local writer = core.safetensors_writer(path, entries, { format = "pt" })
    for _, weight in ipairs(list) do
        if weight.is_taken then
            local integers, scales = quantize.matrix(weight.tensor, weight.part, weight.name, settings)
            local integers_name, scales_name = quantize.names(weight.full_name)
            writer:write(integers_name, integers)
            writer:write(scales_name, scales)
            integers:free()
            scales:free()
        else
            writer:write(weight.full_name, weight.tensor)
        end
        done = done + 1
        if progress then progress(done, #list) end
    end
    writer:close()
end

local function is_weights(name)
    return name:find("%.safetensors$") or name:find("%.bin$") or name:find("%.index%.json$") or name:find("%.pth?$")
end

--- Copies what is not weights; config.json says what the weights are now.
local function write_others(from, to, settings)
    for _, name in ipairs(core.list_directory(from)) do
        local path = from .. "/" .. name
        if core.path_kind(path) == "file" and not is_weights(name) then
            local text = whole_file.read(path)
            if name == "config.json" then
                text = text:gsub("{", ('{\n  "quantization_config": {"method": "pixelrefer", "bits": %d, "group": %d},')
                    :format(settings.bits, settings.group), 1)
            end
            whole_file.write(to .. "/" .. name, function(output) output(text) end)
        end
    end
end

local function remove(folder)
    for _, name in ipairs(core.list_directory(folder)) do os.remove(folder .. "/" .. name) end
    os.remove(folder)
end

--- Writes a quantised copy of a checkpoint. The folder has its name only when it is complete.
-- @tparam string source a directory or a name, as for `load`
-- @tparam string target a directory that does not exist yet
-- @tparam[opt] table given weights ("int8" or "int4"), group (weights that share a scale: a power of two, 16 to 1024;
--   int8: 128, int4: 32), progress (called with the number of tensors written and their count)
-- @raise a checkpoint that is quantised already, a target that is there, a weight that is not finite, a full disk
return function(source, target, given)
    given = options.check(given, OPTIONS, "quantize")
    local settings = quantize.settings(given.weights, given.group)
    local files = checkpoint.open(source)
    local parts = layout.read(files)
    if parts.config.quantization then
        error(("%s: its weights have %d bits already"):format(files.path, parts.config.quantization.bits), 0)
    end
    if core.path_kind(target) then error(target .. ": is there already", 0) end
    local temporary = target .. ".partial"
    if core.path_kind(temporary) == "directory" then remove(temporary) end -- of a run that was killed
    places.make(temporary)
    local ok, reason = pcall(function()
        write_weights(temporary .. "/model.safetensors", parts, settings, given.progress)
        write_others(files.path, temporary, settings)
        local renamed, why = os.rename(temporary, target)
        if not renamed then error(why, 0) end
    end)
    if ok then return end
    remove(temporary)
    error(reason, 0)
end
