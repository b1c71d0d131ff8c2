-- The emulated device takes orders from the environment: PIXELREFER_EMU_MEMORY (bytes of the card),
-- PIXELREFER_EMU_FAULT (a kernel that fails).
local ffi = require "ffi"

local command = require "support.command"

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

--- Runs a script in a process of its own.
-- @tparam string environment "NAME=value ..." of it
-- @tparam string script without single quotes
-- @treturn string what it prints
function emulated.run(environment, script)
    local path = ('LUA_PATH="%s" LUA_CPATH="%s"'):format(package.path, package.cpath)
    return (command.output_of(("%s %s luajit -e '%s' 2>&1"):format(environment, path, script)))
end

return emulated
