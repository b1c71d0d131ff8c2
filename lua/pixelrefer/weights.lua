--- A model's weights, tables part -> name -> Tensor as `layout.read` returns them: their bytes, others in their place,
-- the same on a device.
-- @module pixelrefer.weights
local weights = {}

local BYTES = { float32 = 4, float16 = 2, bfloat16 = 2, int8 = 1, uint8 = 1 }
local WIDENED = { float32 = 4, float16 = 2, bfloat16 = 2, int8 = 2, uint8 = 4 } -- integers as bfloat16

local function all_of()
    return true
end

-- Bytes of the weights that `takes` says, each once: a tied head is its embeddings.
local function count(parts, sizes, takes)
    local total, seen = 0, {}
    for part, tensors in pairs(parts) do
        for name, tensor in pairs(tensors) do
            if not seen[tensor] and takes(part, name, tensor) then
                total = total + tensor:nElement() * sizes[tensor:dtype()]
                seen[tensor] = true
            end
        end
    end
    return total
end

--- Bytes of a model's weights.
-- @tparam table parts part -> name -> Tensor
-- @tparam[opt="cpu"] string device other devices than the CPU hold integers as bfloat16
-- @treturn int
function weights.bytes(parts, device)
    return count(parts, (device or "cpu") == "cpu" and BYTES or WIDENED, all_of)
end

--- The weights with others in the place of some; where a tensor has several names they are made once.
-- @tparam table parts part -> name -> Tensor
-- @tparam function takes (part, name, tensor): whether a weight is replaced
-- @tparam function names (name): a list of the names of what stands in its place
-- @tparam function make (tensor, part, name): a list of the tensors with these names
-- @tparam[opt] function progress told the bytes of the weights that were replaced, and of all that will be
-- @treturn table part -> name -> Tensor
function weights.replace(parts, takes, names, make, progress)
    local replaced, made, done, all = {}, {}, 0, progress and count(parts, BYTES, takes)
    for part, tensors in pairs(parts) do
        replaced[part] = {}
        for name, tensor in pairs(tensors) do
            if not takes(part, name, tensor) then
                replaced[part][name] = tensor
            else
                if not made[tensor] then
                    made[tensor], done = make(tensor, part, name), done + tensor:nElement() * BYTES[tensor:dtype()]
                    if progress then progress(done, all) end
                end
                for i, other in ipairs(names(name)) do replaced[part][other] = made[tensor][i] end
            end
        end
    end
    return replaced
end

--- The weights on a device. Integers and their scales stay where they are: the model widens them on their way
-- (csrc/model/weights.c).
-- @tparam table parts part -> name -> Tensor
-- @tparam string device
-- @tparam[opt] function progress told the bytes that are there, and those of all that will be
-- @treturn table part -> name -> Tensor
function weights.upload(parts, device, progress)
    return weights.replace(parts, function(part, name)
        local integers, found = name:gsub("scales$", "qweight")
        return not name:find("qweight$") and (found == 0 or not parts[part][integers])
    end, function(name) return { name } end, function(tensor) return { tensor:to(device) } end, progress)
end

return weights
