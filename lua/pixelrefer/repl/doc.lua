--- What `:doc` says of a name: the comment above the function that the name stands for, in whatever file it is; of the
-- library's C functions, the comments that the build puts beside the module; of a module, its file's first comment.
-- @module pixelrefer.repl.doc
local complete = require "pixelrefer.repl.complete"

local function lines_of(path)
    local file = path and io.open(path, "r")
    if not file then return nil end
    local lines = {}
    for line in file:lines() do lines[#lines + 1] = line end
    file:close()
    return lines
end

local WORDS = {
    tparam = function(rest) -- {type} name words, with [opt] in front
        local optional, kind, name, words = rest:match("^(%b[]) ([^%s]+) ([%w_.]+)%s*(.*)$")
        if not optional then kind, name, words = rest:match("^%??([^%s]+) ([%w_.]+)%s*(.*)$") end
        if not name then return "  " .. rest end
        local default = optional and (optional:match("=(.*)%]$") and ", " .. optional:match("=(.*)%]$") or ", optional")
        return ("  %s (%s%s)%s%s"):format(name, kind, default or "", words == "" and "" or ": ", words)
    end,
    param = function(rest)
        local name, words = rest:match("^([%w_.]+)%s*(.*)$")
        return name and ("  %s%s%s"):format(name, words == "" and "" or ": ", words) or "  " .. rest
    end,
    treturn = function(rest) return "  -> " .. rest:gsub("^%b[] ", "") end,
    raise = function(rest) return "  raises " .. rest end,
    field = function(rest) return "  " .. rest end,
}
WORDS["return"] = WORDS.treturn

-- The lines of a comment, without its marks, as a text under a heading.
local function layout(heading, comment)
    local out = { heading }
    for _, line in ipairs(comment) do
        local tag, rest = line:match("^%s*@(%a+)%b[]%s*(.*)$")
        if tag then
            local options = line:match("^%s*@%a+(%b[])")
            rest = tag == "tparam" and options .. " " .. rest or rest
        else
            tag, rest = line:match("^%s*@(%a+)%s*(.*)$")
        end
        if not tag then
            out[#out + 1] = line
        elseif WORDS[tag] then
            out[#out + 1] = WORDS[tag](rest)
        end
    end
    return table.concat(out, "\n")
end

-- The comment whose last line is `last`, without its marks.
local function comment_above(lines, last)
    local comment = {}
    while lines[last] and lines[last]:match("^%s*%-%-") do
        table.insert(comment, 1, (lines[last]:gsub("^%s*%-%-+ ?", "")))
        last = last - 1
    end
    return #comment > 0 and comment or nil
end

local function of_lua_function(name, info)
    local lines = lines_of(info.source:match("^@(.*)$"))
    local head = lines and lines[info.linedefined]
    if not head then return nil end
    local comment = comment_above(lines, info.linedefined - 1)
    local arguments = head:match("%f[%w]function[^(]*(%b())") or "()"
    return layout(name .. arguments, comment or { "(no comment)" })
end

-- Comments of the C functions, by name: { ["Tensor:narrow"] = lines, ... }.
local function c_comments()
    local found, comment = {}, nil
    for _, line in ipairs(lines_of((package.searchpath("pixelrefer.core", package.cpath) or ""):gsub("%.so$", ".doc"))
                          or {}) do
        if line:match("^%s*/%*%*%*") then comment = {} end
        local text = line:gsub("^%s*/%*%*%* ?", ""):gsub("%s*%*/%s*$", ""):gsub("^%s?%*%s?", "")
        local name = text:match("^@function ([%w_.:]+)")
        if name then found[name:gsub("^core%.", "")] = comment end
        if comment and not name and text ~= "" then comment[#comment + 1] = text end
    end
    return found
end

local function of_c_function(path)
    local last, comments = path:match("[%w_]+$"), c_comments()
    if not last then return nil end
    local class = path:match("([%w_]+)[:.][%w_]+$")
    for _, name in ipairs { class and class .. ":" .. last or last, "Tensor:" .. last, last } do
        if comments[name] then return layout(name, comments[name]) end
    end
    for name, comment in pairs(comments) do
        if name:match("[%w_]+$") == last then return layout(name, comment) end
    end
end

-- A module: the comment at its file's begin.
local function of_module(module)
    local name
    for key, value in pairs(package.loaded) do
        if value == module and type(key) == "string" and key ~= "_G" then name = key end
    end
    local lines = name and lines_of(package.searchpath(name, package.path))
    if not lines then return nil end
    local last = 0
    while lines[last + 1] and lines[last + 1]:match("^%-%-") do last = last + 1 end
    return layout(name, comment_above(lines, last) or { "(no comment)" })
end

-- A module by its name; "Scene:ask", since the classes are what the modules of their names return.
local function of_class(path)
    if package.loaded[path] then return package.loaded[path] end
    local class, method = path:match("^([%w_]+)[.:]([%w_]+)$")
    local module = package.loaded["pixelrefer." .. (class or path):lower()]
    if class == "Tensor" then module = require("pixelrefer.core").Tensor end
    return method and module and complete.field(module, method) or not method and module or nil
end

--- The documentation of a name.
-- @tparam string path such as "pixelrefer.mask.box", "mask.box", "scene:ask", "Tensor:narrow", "pixelrefer.video"
-- @tparam table globals
-- @treturn ?string a text; nil when nothing is known
return function(path, globals)
    path = path:gsub("%s", ""):gsub("%b()$", "")
    local value = complete.resolve(path, globals) or complete.resolve("pixelrefer." .. path, globals) or of_class(path)
    if type(value) == "function" then
        local info = debug.getinfo(value, "S")
        if info.what == "C" then return of_c_function(path) end
        return of_lua_function(path, info)
    end
    if type(value) == "table" then return of_module(value) or of_module(getmetatable(value)) end
    return value == nil and of_c_function(path) or nil
end
