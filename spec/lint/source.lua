-- What the lint rules read: the project's files, and C text without its comments and strings.
local source = {}

local cache = {}

--- The lines a command prints.
function source.command(command)
    local lines = {}
    local pipe = assert(io.popen(command))
    for line in pipe:lines() do lines[#lines + 1] = line end
    pipe:close()
    return lines
end

--- The files below some folders whose names match one of the patterns, sorted.
-- @tparam string folders blank-separated; those that do not exist are passed over
-- @tparam string names a find expression such as "-name '*.c'"
function source.files(folders, names)
    return source.command(("find %s \\( %s \\) -type f 2>/dev/null | sort"):format(folders, names))
end

--- A file's text.
function source.read(path)
    if not cache[path] then
        local file = assert(io.open(path, "rb"))
        cache[path] = file:read("*a")
        file:close()
    end
    return cache[path]
end

--- A file's lines.
function source.lines(path)
    local lines = {}
    local text = source.read(path)
    if text:sub(-1) ~= "\n" then text = text .. "\n" end
    for line in text:gmatch("(.-)\n") do lines[#lines + 1] = line end
    return lines
end

--- C text with comments and the insides of strings blanked; line breaks stay where they are.
function source.bare_c(text)
    local function blank(match) return (match:gsub("[^\n]", " ")) end
    local out, i = {}, 1
    while true do
        local at = text:find("[/\"']", i)
        if not at then
            out[#out + 1] = text:sub(i)
            return table.concat(out)
        end
        out[#out + 1] = text:sub(i, at - 1)
        local two, stop = text:sub(at, at + 1), nil
        if two == "/*" then
            stop = select(2, text:find("*/", at + 2, true)) or #text
        elseif two == "//" then
            stop = (text:find("\n", at, true) or #text + 1) - 1
        elseif text:sub(at, at) ~= "/" then
            local quote = text:sub(at, at)
            stop = at + 1
            while stop <= #text and text:sub(stop, stop) ~= quote do
                stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
            end
        end
        if not stop then
            out[#out + 1] = text:sub(at, at)
            i = at + 1
        elseif text:sub(at, at) == "/" then
            out[#out + 1] = blank(text:sub(at, stop))
            i = stop + 1
        else
            out[#out + 1] = text:sub(at, at) .. blank(text:sub(at + 1, stop - 1)) .. text:sub(at, at)
            i = stop + 1
        end
    end
end

--- The number of the line that holds a byte.
function source.line_at(text, at)
    local _, breaks = text:sub(1, at - 1):gsub("\n", "")
    return breaks + 1
end

return source
