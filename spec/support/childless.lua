-- Runs first where a sanitizer's runtime is preloaded: keeps it out of child processes, whose shell it may break.
local ffi = require "ffi"
ffi.cdef "int unsetenv(const char *name);"
ffi.C.unsetenv("LD_PRELOAD")
package.loaded["support.childless"] = true
