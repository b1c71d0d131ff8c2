-- Results that are the same to the bit.
local core = require "pixelrefer.core"
local device = require "support.device"

local bits = {}

--- Fails unless two tensors of one type have the same bits.
-- @tparam Tensor expected
-- @tparam Tensor found
-- @tparam string what for the message
function bits.same(expected, found, what)
    if expected:contiguous():bytes() ~= found:contiguous():bytes() then error(what .. ": the bits differ", 2) end
end

--- Calls `compute` under every instruction set and with 1, 2 and 4 threads, on other devices than the CPU twice; all
-- results have the same bits.
-- @tparam string what for the message
-- @tparam function compute returns a tensor
-- @tparam[opt] string own an instruction set whose bits are its own: there they are the same for any threads
-- @treturn Tensor
function bits.everywhere(what, compute, own)
    local isa, threads = core.isa(), core.threads()
    local first = device.attempt(compute)
    if not device.is_cpu then
        bits.same(first, compute(), what .. " again")
        return first
    end
    local shared = isa ~= own and first or nil
    for _, name in ipairs(core.isas()) do
        if name ~= own then
            core.isa(name)
            local found = compute()
            shared = shared or found
            bits.same(shared, found, what .. " on " .. name)
        end
    end
    core.isa(isa)
    for _, count in ipairs { 1, 2, 4 } do
        core.threads(count)
        bits.same(first, compute(), ("%s with %d threads"):format(what, count))
    end
    core.threads(threads)
    return first
end

return bits
