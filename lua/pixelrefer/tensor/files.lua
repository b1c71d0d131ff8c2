--- Tensors in files that others read and write: `.npy`, safetensors, PyTorch's.
-- @module pixelrefer.tensor.files
local core = require "pixelrefer.core"

local files = {}

local READ = {
    npy = core.read_npy,
    safetensors = core.read_safetensors,
    bin = core.read_torch,
    pt = core.read_torch,
    pth = core.read_torch,
}
local WRITE = { npy = core.write_npy, safetensors = core.write_safetensors }
local WRITTEN = { [core.write_npy] = "userdata", [core.write_safetensors] = "table" }

local function by_ending(path, known, endings)
    local ending = type(path) == "string" and path:match("%.(%w+)$")
    local f = ending and known[ending:lower()]
    if f then return f end
    error(("'%s': a path that ends in %s expected"):format(tostring(path), endings), 3)
end

--- Reads a file. What comes is a view of the mapped file: elements are read when they are used, and writing into a
-- tensor changes memory, never the file.
-- @tparam string path ends in .npy, .safetensors, .bin, .pt or .pth
-- @treturn Tensor|table the tensor of a .npy file, else name -> Tensor
-- @treturn[opt] table the metadata of a safetensors file: string -> string
-- @raise another ending, a file that is not there or not what its ending says
function files.load(path)
    return by_ending(path, READ, ".npy, .safetensors, .bin, .pt or .pth")(path)
end

--- Writes a file, whole or not at all.
-- @tparam string path ends in .npy or .safetensors
-- @tparam Tensor|table value a tensor (.npy; any type but bfloat16, which NumPy lacks) or name -> Tensor (.safetensors)
-- @tparam[opt] table metadata of a safetensors file: string -> string
-- @raise another ending, a value that does not go with it, a full disk
function files.save(path, value, metadata)
    local write = by_ending(path, WRITE, ".npy or .safetensors")
    if type(value) ~= WRITTEN[write] then
        error(("%s: %s expected, got a %s"):format(path, write == core.write_npy and "a tensor" or
            "a table of tensors by name", type(value)), 2)
    end
    write(path, value, metadata)
end

return files
