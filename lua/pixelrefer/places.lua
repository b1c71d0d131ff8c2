--- Where files of ours lie, and folders for them.
-- @module pixelrefer.places
local core = require "pixelrefer.core"
local ffi = require "ffi"

ffi.cdef "int mkdir(const char *path, unsigned mode);"

local places = {}

--- An environment variable.
-- @tparam string name
-- @treturn ?string its value; nil when it is empty, too
function places.environment(name)
    local value = os.getenv(name)
    return value ~= "" and value or nil
end

--- The folder for checkpoints: `$PIXELREFER_HOME`, `$XDG_CACHE_HOME/pixelrefer`, `~/.cache/pixelrefer`.
-- @treturn ?string nil when there is no home
function places.cache()
    local home = places.environment("HOME")
    local cache = places.environment("XDG_CACHE_HOME") or home and home .. "/.cache"
    return places.environment("PIXELREFER_HOME") or cache and cache .. "/pixelrefer"
end

--- The folder for what a program remembers from run to run: `$XDG_STATE_HOME/pixelrefer`, `~/.local/state/pixelrefer`.
-- @treturn ?string nil when there is no home
function places.state()
    local home = places.environment("HOME")
    local state = places.environment("XDG_STATE_HOME") or home and home .. "/.local/state"
    return state and state .. "/pixelrefer"
end

--- Makes a folder, and those above it.
-- @tparam string path
-- @treturn string the path
-- @raise what cannot be made
function places.make(path)
    local built = path:sub(1, 1) == "/" and "" or "."
    for part in path:gmatch("[^/]+") do
        built = built .. "/" .. part
        if not core.path_kind(built) and ffi.C.mkdir(built, tonumber("755", 8)) ~= 0
            and core.path_kind(built) ~= "directory" then
            error(("%s: this folder cannot be made"):format(built), 0)
        end
    end
    return path
end

return places
