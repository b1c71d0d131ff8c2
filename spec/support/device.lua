-- Devices that a machine may not have. A test that needs one skips without it; REQUIRE_CUDA=1 makes that a failure.
local core = require "pixelrefer.core"

local skip = require "support.skip"

local device = {}

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
