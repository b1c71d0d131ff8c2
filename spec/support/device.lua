-- Devices that a machine may not have. A test that needs one skips without it; REQUIRE_CUDA=1 makes that a failure.
local core = require "pixelrefer.core"

local skip = require "support.skip"

local device = {
    name = os.getenv("DEVICE") or "cpu", -- what the specs of the ops run on
}

device.is_cpu = device.name == "cpu"
device.is_slow = device.name == "emu" -- emulated: large shapes are for others

--- A tensor on the device under test.
-- @tparam Tensor x
-- @treturn Tensor
function device.put(x)
    return device.is_cpu and x or x:to(device.name)
end

--- Calls a function; an op that the device under test does not have ends the test as skipped.
-- @tparam function compute
-- @return what it returns
function device.attempt(compute, ...)
    local results = { pcall(compute, ...) }
    if results[1] then return unpack(results, 2, 3) end
    local op = not device.is_cpu and tostring(results[2]):match("([%w_]+) is not on " .. device.name)
    if op then return skip.because(("%s is not on %s"):format(op, device.name)) end
    error(results[2], 0)
end

--- Whether a device can be opened, and the reason when it cannot.
-- @tparam string name "cpu", "cuda", "emu"
function device.available(name)
    local ok, reason = pcall(core.tensor.empty, { 0 }, "float32", name)
    return ok, not ok and tostring(reason) or nil
end

--- For use inside a test: marks it as skipped when the device is not there.
-- @tparam string name "cuda", "emu"
function device.require(name)
    local ok, reason = device.available(name)
    if ok then return name end
    return skip.because(("needs the device '%s'"):format(name), "REQUIRE_" .. name:upper(), reason)
end

return device
