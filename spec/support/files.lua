-- Files that a test makes and that vanish with it.
local ffi = require "ffi"

local core = require "pixelrefer.core"

ffi.cdef "int mkdir(const char *path, unsigned mode); int rmdir(const char *path); int getpid(void);"

local files = {}

local made = 0

local function make(path)
    assert(ffi.C.mkdir(path, tonumber("700", 8)) == 0, "cannot make " .. path)
end

--- A new, empty directory.
-- @treturn string its path
function files.directory()
    made = made + 1
    local path = ("%s/pixelrefer-test-%d-%d"):format(os.getenv("TMPDIR") or "/tmp", ffi.C.getpid(), made)
    make(path)
    return path
end

--- Makes a directory and those above it.
-- @tparam string path below a directory that is there
function files.make_directories(path)
    local built = path:sub(1, 1) == "/" and "" or "."
    for part in path:gmatch("[^/]+") do
        built = built .. "/" .. part
        if not core.path_kind(built) then make(built) end
    end
end

--- Removes a directory with all that is in it; links are removed, not followed.
-- @tparam string path
function files.remove(path)
    for _, name in ipairs(core.list_directory(path)) do
        local inner = path .. "/" .. name
        if not os.remove(inner) then files.remove(inner) end
    end
    assert(os.remove(path))
end

--- Writes a file.
-- @tparam string path
-- @tparam string content
-- @treturn string the path
function files.write(path, content)
    local file = assert(io.open(path, "wb"))
    assert(file:write(content))
    assert(file:close())
    return path
end

--- The content of a file.
-- @tparam string path
-- @treturn string
function files.read(path)
    local file = assert(io.open(path, "rb"))
    local content = file:read("*a")
    file:close()
    return content
end

--- A number as bytes, the lowest first.
-- @tparam int number
-- @tparam int count of bytes
-- @treturn string
function files.little(number, count)
    local bytes = {}
    for i = 1, count do
        bytes[i] = string.char(number % 256)
        number = math.floor(number / 256)
    end
    return table.concat(bytes)
end

return files
