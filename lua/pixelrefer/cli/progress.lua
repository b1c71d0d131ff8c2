--- One line on a terminal that says what is going on; nothing where stderr is no terminal.
-- @module pixelrefer.cli.progress
local ffi = require "ffi"

ffi.cdef "int isatty(int fd);"

local progress = {}

--- Whether standard error is a terminal.
progress.on_terminal = ffi.C.isatty(2) == 1
local shown = false

--- Shows a stage in place of the one before.
-- @tparam string format as string.format
-- @param ... its values
function progress.show(format, ...)
    if not progress.on_terminal then return end
    io.stderr:write("\r\27[K", format:format(...))
    io.stderr:flush()
    shown = true
end

--- Clears the line.
function progress.clear()
    if not shown then return end
    io.stderr:write("\r\27[K")
    io.stderr:flush()
    shown = false
end

return progress
