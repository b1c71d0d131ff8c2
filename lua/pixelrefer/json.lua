--- JSON as configuration files and results use it: read with clear errors, fields checked, written with sorted keys.
--
-- Decoding is lua-cjson's, with numbers as strict as the standard has them and nesting limited to 1000. A JSON null
-- becomes `json.null`; where a field is asked for, it counts as absent.
--
-- @module pixelrefer.json

local cjson = require("cjson").new()
local core = require "pixelrefer.core"

cjson.decode_invalid_numbers(false)

local json = {}

--- What a JSON null becomes.
json.null = cjson.null

local ARRAY = {} -- the metatable of tables that are lists even when empty

--- Marks a table as a list, so that an empty one is written as `[]`.
-- @tparam table list
-- @treturn table the same table
function json.array(list)
    return setmetatable(list, ARRAY)
end

-- ---- reading -----------------------------------------------------------------------------------------------------

local function place_of(text, character)
    local before = text:sub(1, character - 1)
    local _, newlines = before:gsub("\n", "")
    return ("line %d, column %d"):format(newlines + 1, #before:match("[^\n]*$") + 1)
end

--- Decodes a JSON text.
-- @tparam string text
-- @tparam ?string where what the text is, for messages (a path)
-- @return the value; objects and arrays are tables
-- @raise what is wrong, with its line and column
function json.decode(text, where)
    local ok, value = pcall(cjson.decode, text)
    if ok then return value end
    local what, character = value:match("^(.-) at character (%d+)")
    error(("%s: not valid JSON: %s"):format(where or "text",
        what and ("%s (%s)"):format(what, place_of(text, tonumber(character))) or value), 0)
end

--- Reads and decodes a file.
-- @tparam string path
-- @return the value
-- @raise the path, and what is wrong with the file
function json.read(path)
    if core.path_kind(path) == "other" then error(path .. ": not a regular file", 0) end -- a fifo would wait for ever
    local file, reason = io.open(path, "rb")
    if not file then error(reason, 0) end -- "path: why"
    local text, why = file:read("*a")
    file:close()
    if not text then error(("%s: %s"):format(path, why), 0) end
    return json.decode(text, path)
end

--- Reads a file that must hold an object.
-- @tparam string path
-- @treturn table
-- @raise as json.read, and when the file holds something else
function json.read_object(path)
    local value = json.read(path)
    if type(value) ~= "table" or #value > 0 then error(path .. ": a JSON object expected", 0) end
    return value
end

-- ---- fields ------------------------------------------------------------------------------------------------------

local function is_integer(value)
    return type(value) == "number" and value == math.floor(value) and math.abs(value) <= 2 ^ 53
end

local IS = {
    integer = is_integer,
    number = function(value) return type(value) == "number" and math.abs(value) < math.huge end,
    string = function(value) return type(value) == "string" end,
    boolean = function(value) return type(value) == "boolean" end,
    object = function(value) return type(value) == "table" and #value == 0 end,
    list = function(value) return type(value) == "table" and (#value > 0 or next(value) == nil) end,
}
local ARTICLE = {
    integer = "an integer", number = "a number", string = "a string", boolean = "true or false",
    object = "an object", list = "a list",
}

local function show(value)
    if value == json.null then return "null" end
    if type(value) == "string" then
        return #value > 60 and ("%q..."):format(value:sub(1, 60)) or ("%q"):format(value)
    end
    if type(value) == "table" then return #value > 0 and "a list" or "an object" end
    if is_integer(value) then return ("%d"):format(value) end
    return tostring(value)
end

local function expectation(kind, limits)
    local number = kind == "integer" and "%d" or "%g"
    local text = ARTICLE[kind]
    if limits.min and limits.max then
        return (text .. " from " .. number .. " to " .. number):format(limits.min, limits.max)
    elseif limits.min then
        return (text .. " of at least " .. number):format(limits.min)
    end
    return limits.max and (text .. " of at most " .. number):format(limits.max) or text
end

--- Checks a value that came from a JSON file.
-- @param value
-- @tparam string kind "integer", "number", "string", "boolean", "object" or "list"
-- @tparam ?table limits {min = number, max = number}
-- @tparam string name what the value is called, for messages
-- @tparam string where the file
-- @return the value
-- @raise file, name, what is expected and what was found
function json.check(value, kind, limits, name, where)
    limits = limits or {}
    local good = IS[kind](value)
    if good and limits.min then good = value >= limits.min end
    if good and limits.max then good = value <= limits.max end
    if good then return value end
    error(("%s: \"%s\": %s expected, found %s"):format(where, name, expectation(kind, limits), show(value)), 0)
end

--- A checked field of an object that came from a JSON file. An absent or null one gives `limits.default`; when there is
-- no default either, it gives nil if `limits.optional`, else an error.
-- @tparam table object
-- @tparam string key
-- @tparam string kind as for json.check
-- @tparam ?table limits {min =, max =, default =, optional = true}
-- @tparam string where the file (and the object in it, if it is nested)
-- @return the value
-- @raise file, key, what is expected and what was found
function json.field(object, key, kind, limits, where)
    local value = object[key]
    limits = limits or {}
    if value ~= nil and value ~= json.null then return json.check(value, kind, limits, key, where) end
    if limits.default ~= nil then return limits.default end
    if limits.optional then return nil end
    error(("%s: \"%s\" is missing: %s expected"):format(where, key, expectation(kind, limits)), 0)
end

-- ---- writing -----------------------------------------------------------------------------------------------------

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
    ["\t"] = "\\t" }

local function encode_string(text)
    return '"' .. text:gsub('[%c"\\]', function(character)
        return ESCAPES[character] or ("\\u%04x"):format(character:byte())
    end) .. '"'
end

local function encode_number(number)
    if number ~= number or math.abs(number) == math.huge then error("JSON has no " .. tostring(number), 0) end
    if is_integer(number) then return ("%d"):format(number) end
    for digits = 15, 17 do -- the shortest that reads back as the same number
        local text = ("%%.%dg"):format(digits):format(number)
        if tonumber(text) == number then return text end
    end
end

local encode

local function encode_list(list, depth)
    local parts = {}
    for i, value in ipairs(list) do parts[i] = encode(value, depth + 1) end
    return "[" .. table.concat(parts, ",") .. "]"
end

local function encode_object(object, depth)
    local keys, parts = {}, {}
    for key in pairs(object) do
        if type(key) ~= "string" then error("a JSON object's keys are strings, got " .. tostring(key), 0) end
        keys[#keys + 1] = key
    end
    table.sort(keys)
    for i, key in ipairs(keys) do parts[i] = encode_string(key) .. ":" .. encode(object[key], depth + 1) end
    return "{" .. table.concat(parts, ",") .. "}"
end

encode = function(value, depth)
    local kind = type(value)
    if depth > 1000 then error("nested too deeply for JSON", 0) end
    if value == nil or value == json.null then return "null" end
    if kind == "string" then return encode_string(value) end
    if kind == "number" then return encode_number(value) end
    if kind == "boolean" then return tostring(value) end
    if kind ~= "table" then error("JSON has no " .. kind, 0) end
    if #value > 0 or getmetatable(value) == ARRAY then return encode_list(value, depth) end
    return encode_object(value, depth)
end

--- Encodes a value on one line, with an object's keys sorted. A table with elements is a list; an empty one is an
-- object unless json.array marked it.
-- @param value nil, boolean, number, string, table or json.null
-- @treturn string
-- @raise for functions, userdata, NaN, infinities, mixed keys and cycles
function json.encode(value)
    return encode(value, 0)
end

return json
