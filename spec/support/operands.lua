-- What the specs of the ops compute on: tensors on the device under test, laid out in odd ways, and comparing with
-- plain numbers.
local ffi = require "ffi"

local device = require "support.device"
local tensor = require "pixelrefer.tensor"

local operands = {}

operands.FLOATS = { "float32", "float16", "bfloat16" }

--- Numbers from -1 to 1.
-- @tparam {int,...} sizes
-- @tparam[opt="float32"] string dtype
-- @treturn Tensor
function operands.uniform(sizes, dtype)
    local x = tensor.empty(sizes)
    local data = x:data()
    for i = 0, x:nElement() - 1 do data[i] = math.random() * 2 - 1 end
    return device.put(dtype and dtype ~= "float32" and x:to(dtype) or x)
end

--- A table's numbers.
-- @tparam table values nested arrays
-- @tparam[opt] string dtype
-- @treturn Tensor
function operands.of(values, dtype)
    return device.put(tensor.fromTable(values, dtype))
end

--- The same elements in a view whose rows lie apart.
-- @tparam Tensor x
-- @treturn Tensor
function operands.with_gaps(x)
    local sizes = {}
    for i = 1, x:dim() do sizes[i] = x:size(i) end
    sizes[#sizes] = sizes[#sizes] + 3
    local wide = tensor.full(sizes, 0 / 0, { device = device.name })
    local view = wide:narrow(#sizes, 2, x:size(x:dim()))
    view:copy_(x)
    return view
end

local kept = {}

--- The same elements starting at an odd byte, as in a mapped file; other devices have no such tensors.
-- @tparam Tensor x
-- @treturn Tensor
function operands.unaligned(x)
    if not device.is_cpu then return x end
    local bytes = x:bytes()
    local buffer = ffi.new("uint8_t[?]", #bytes + 64)
    ffi.copy(buffer + 1, bytes, #bytes)
    kept[#kept + 1] = buffer
    local sizes = {}
    for i = 1, x:dim() do sizes[i] = x:size(i) end
    return tensor.fromPointer(buffer + 1, x:dtype(), sizes, buffer)
end

--- Elements in row-major order.
-- @tparam Tensor x
-- @treturn table a Lua array from 0
function operands.flat(x)
    local wide = x:to("cpu"):to(x:dtype() == "int64" and "int64" or "float32"):contiguous()
    local data, values = wide:data(), {}
    for i = 0, x:nElement() - 1 do values[i] = tonumber(data[i]) end
    return values
end

--- Fails where an element is further off than `tolerance` of 1 + its magnitude.
-- @tparam table expected as flat gives it
-- @tparam Tensor found
-- @tparam number tolerance
-- @tparam string what for the message
function operands.assert_close(expected, found, tolerance, what)
    local values = operands.flat(found)
    for i = 0, found:nElement() - 1 do
        local difference = math.abs(expected[i] - values[i])
        if difference ~= difference or difference > tolerance * (1 + math.abs(expected[i])) then
            error(("%s: element %d is %.9g, expected %.9g"):format(what, i, values[i], expected[i]), 2)
        end
    end
end

return operands
