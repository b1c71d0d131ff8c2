--- Values as a prompt echoes them: tensors and objects as they print, tables shortly.
-- @module pixelrefer.repl.show
local tensor = require "pixelrefer.tensor"

local WIDTH = 100   -- characters of a line
local ENTRIES = 20  -- of a table that are shown; inside another, fewer
local INSIDE = 6
local DEPTH = 3

-- What __tostring says, for values that have one of their own.
local function own_text(value)
    local class = type(value) == "table" and getmetatable(value)
    return type(class) == "table" and class.__tostring and tostring(value) or nil
end

local function title(x)
    if x:isFreed() then return "[freed tensor]" end
    return ("[%s tensor of size %s]"):format(x:dtype(), x:dim() > 0 and table.concat(x:size(), "x") or "1")
end

local function quote(text)
    if #text > WIDTH then text = text:sub(1, WIDTH - 3) .. "..." end
    return '"' .. text:gsub('[%c"\\]', function(character)
        return ({ ["\n"] = "\\n", ["\t"] = "\\t", ['"'] = '\\"', ["\\"] = "\\\\" })[character]
            or ("\\%d"):format(character:byte())
    end) .. '"'
end

local RANK = { number = 1, string = 2 }

-- Numbers, then strings, then the rest, each in order.
local function before(a, b)
    local first, second = RANK[type(a)] or 3, RANK[type(b)] or 3
    if first ~= second then return first < second end
    if first == 3 then return tostring(a) < tostring(b) end
    return a < b
end

local function sorted_keys(map)
    local keys, length = {}, #map
    for key in next, map do
        if type(key) ~= "number" or key < 1 or key > length or key % 1 ~= 0 then keys[#keys + 1] = key end
    end
    table.sort(keys, before)
    return keys
end

local brief

local function key_text(key)
    if type(key) == "string" then return key:match("^[%a_][%w_]*$") and key or "[" .. quote(key) .. "]" end
    return "[" .. tostring(key) .. "]"
end

-- A table's entries as texts, as many as are shown, and how many there are in all.
local function entries(map, depth, seen)
    local most = depth == 1 and ENTRIES or INSIDE
    local list, keys = {}, sorted_keys(map)
    for i = 1, math.min(#map, most) do list[i] = brief(rawget(map, i), depth, seen) end
    for i = 1, math.min(#keys, most - #list) do
        list[#list + 1] = key_text(keys[i]) .. " = " .. brief(rawget(map, keys[i]), depth, seen)
    end
    return list, #map + #keys
end

local function table_text(map, depth, seen)
    if seen[map] then return "{...}" end
    if next(map) == nil then return "{}" end
    if depth > DEPTH then return "{...}" end
    seen[map] = true
    local list, count = entries(map, depth, seen)
    seen[map] = nil
    if count > #list then list[#list + 1] = ("... %d more"):format(count - #list) end
    local line = "{ " .. table.concat(list, ", ") .. " }"
    if #line <= WIDTH and not line:find("\n", 1, true) or depth > 1 then return line end
    return "{\n  " .. table.concat(list, ",\n  ") .. "\n}"
end

-- One value inside a table.
function brief(value, depth, seen)
    if type(value) == "string" then return quote(value) end
    if tensor.isTensor(value) then return title(value) end
    local text = own_text(value)
    if text then return text:match("^[^\n]*") .. (text:find("\n", 1, true) and "..." or "") end
    if type(value) == "table" then return table_text(value, depth + 1, seen) end
    return tostring(value)
end

--- A value as text.
-- @param value anything
-- @treturn string
return function(value)
    if type(value) == "table" and not own_text(value) then return table_text(value, 1, {}) end
    local class = type(value) == "userdata" and getmetatable(value)
    if type(class) == "table" and class.__name and not class.__tostring then
        return ("%s (%s)"):format(class.__name, tostring(value):gsub("^userdata: ", ""))
    end
    return tostring(value)
end
