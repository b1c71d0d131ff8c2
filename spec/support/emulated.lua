-- The emulated device takes orders from the environment: PIXELREFER_EMU_MEMORY (bytes of the card),
-- PIXELREFER_EMU_FAULT (a kernel that fails).
local ffi = require "ffi"

pcall(ffi.cdef, "int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);")

local emulated = {}

--- Calls a function while the card has `bytes` bytes.
-- @tparam number bytes
-- @tparam function call
-- @return what pcall returns
function emulated.with_memory(bytes, call, ...)
    ffi.C.setenv("PIXELREFER_EMU_MEMORY", ("%d"):format(bytes), 1)
    local results = { pcall(call, ...) }
    ffi.C.unsetenv("PIXELREFER_EMU_MEMORY")
    return unpack(results)
end

return emulated
