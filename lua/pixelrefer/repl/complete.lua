--- Completion: which names can stand at the end of a line that is being typed. Nothing is called for it; fields are
-- read past `__index` functions.
-- @module pixelrefer.repl.complete
local core = require "pixelrefer.core"

local complete = {}

-- The table in which a value's fields are looked up next.
local function class_of(value)
    local class = type(value) == "string" and { __index = string } or debug.getmetatable(value)
    if type(class) ~= "table" then return nil end
    if class.__name == "pixelrefer.Tensor" then return core.Tensor end -- its __index is a function: x[i]
    return type(class.__index) == "table" and class.__index or nil
end

--- A field, found as Lua would, but without calling anything.
-- @param value anything
-- @param key
-- @return the field; nil when there is none
function complete.field(value, key)
    for _ = 1, 10 do
        local found = type(value) == "table" and rawget(value, key)
        if found then return found end
        value = class_of(value)
        if value == nil then return nil end
    end
end

--- The value that a path names.
-- @tparam string path such as "scene.pictures[1]:size"
-- @tparam table globals
-- @return the value; nil when there is none
function complete.resolve(path, globals)
    local name, rest = path:match("^([%a_][%w_]*)(.*)$")
    local value = name and complete.field(globals, name)
    while value ~= nil and rest ~= "" do
        local index, behind = rest:match("^%[(%d+)%](.*)$")
        if not index then
            name, behind = rest:match("^[.:]([%a_][%w_]*)(.*)$")
            if not name then return nil end
        end
        value, rest = complete.field(value, tonumber(index) or name), behind
    end
    return value
end

-- The names of a value's fields that begin so; `methods`: of functions only. Private ones only when asked for.
local function names_of(value, prefix, methods)
    local found, names = {}, {}
    for _ = 1, 10 do
        if type(value) == "table" then
            for key, field in next, value do
                if type(key) == "string" and not found[key] and key:sub(1, #prefix) == prefix
                    and key:match("^[%a_][%w_]*$") and (prefix ~= "" or key:sub(1, 1) ~= "_")
                    and not key:match("^__") and (not methods or type(field) == "function") then
                    found[key] = true
                    names[#names + 1] = key
                end
            end
        end
        value = class_of(value)
        if value == nil then break end
    end
    table.sort(names)
    return names
end

-- Whether the line ends inside a string: where its text begins.
local function open_string(line)
    local quote, start
    local i = 1
    while i <= #line do
        local character = line:sub(i, i)
        if quote then
            if character == "\\" then
                i = i + 1
            elseif character == quote then
                quote = nil
            end
        elseif character == '"' or character == "'" then
            quote, start = character, i + 1
        end
        i = i + 1
    end
    return quote and start
end

-- Files that a path in a string can mean; folders end with a slash.
local function paths(text)
    local folder, prefix = text:match("^(.*/)([^/]*)$")
    folder, prefix = folder or "", prefix or text
    local place = folder == "" and "." or folder
    if core.path_kind(place) ~= "directory" then return {} end
    local found = {}
    for _, name in ipairs(core.list_directory(place)) do
        if name:sub(1, #prefix) == prefix and (prefix ~= "" or name:sub(1, 1) ~= ".") then
            local path = folder .. name
            found[#found + 1] = core.path_kind(path) == "directory" and path .. "/" or path
        end
    end
    table.sort(found)
    return found
end

--- What can stand at the end of a line.
-- @tparam string line up to the cursor
-- @tparam table globals
-- @tparam ?{string,...} commands names that may follow a ":" at the line's begin
-- @treturn int where the word begins that is completed
-- @treturn {string,...} what it can be, sorted
function complete.candidates(line, globals, commands)
    local begin, typed = line:match("^%s*():(%a*)$")
    if begin then
        local found = {}
        for _, name in ipairs(commands or {}) do
            if name:sub(1, #typed) == typed then found[#found + 1] = ":" .. name end
        end
        return begin, found
    end
    line = line:gsub("^%s*:%a+", function(command) return (" "):rep(#command) end)
    local start = open_string(line)
    if start then return start, paths(line:sub(start)) end

    local word = line:match("[%w_.:%[%]]*$"):gsub("^.*%[([^%]]*)$", "%1"):gsub("^.*%.%.", "")
    if word:match("^[^%a_]") then return #line + 1, {} end
    local path, separator, prefix = word:match("^(.*)([.:])([%w_]*)$")
    local owner, found = globals, {}
    if path then owner = complete.resolve(path, globals) else path, separator, prefix = "", "", word end
    if owner ~= nil then
        for i, name in ipairs(names_of(owner, prefix, separator == ":")) do found[i] = path .. separator .. name end
    end
    return #line - #word + 1, found
end

return complete
