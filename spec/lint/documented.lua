-- Public names carry their documentation: functions of C headers a comment, Lua's an ldoc comment that names every
-- parameter, bound ones their @function.
local source = require "lint.source"

--- Functions declared in a header. A comment holds for the lines right under it, up to the next blank one. Bodies
-- that a header gives to its includer (`static` without `inline`, and the lanes' PXR_INLINE and
-- PXR_TEMPLATE) are no interface.
local function check_header(report, path)
    local documented, in_comment = false, nil
    local lines = source.lines(path)
    for number, line in ipairs(lines) do
        if in_comment then
            if line:find("*/", 1, true) then in_comment = nil end
        elseif line:match("^%s*/%*") then
            if line:match("^/%*%*") then documented = true end
            if not line:find("*/", 1, true) then in_comment = true end
        elseif line:match("^%s*$") then
            documented = false
        else
            local name = line:match("^[%a_][%w_ %*]-[ %*]([%w_]+)%(")
            local body = line:match("^PXR_INLINE") or line:match("^PXR_TEMPLATE")
                or line:match("^static ") and not line:match("^static inline")
            if name and not line:match("^typedef") and not body and not documented then
                report(path, number, "%s has no /** */ comment", name)
            end
        end
    end
end

local function parameters(list)
    local names = {}
    for name in list:gmatch("[%w_]+") do
        if name ~= "self" then names[#names + 1] = name end
    end
    return names
end

--- The tables of a Lua file that others see: what it returns, and its classes.
local function public_tables(text)
    local tables = {}
    for name in text:gmatch("\nreturn ([%w_]+)%s*$") do tables[name] = true end
    for name in text:gmatch("\n([%w_]+)%.__index%s*=") do tables[name] = true end
    return tables
end

--- Functions that a Lua file puts into a public table: `function module.name` and `function Class:name`.
local function check_lua(report, path)
    local lines, public = source.lines(path), public_tables(source.read(path))
    for number, line in ipairs(lines) do
        local name, list = line:match("^function%s+([%w_.:]+)%s*%(([^)]*)%)")
        if not name then name, list = line:match("^([%w_]+%.[%w_.]+)%s*=%s*function%s*%(([^)]*)%)") end
        if name and public[name:match("^[%w_]+")] and not name:match("[.:]_") then
            local comment, above = {}, number - 1
            while above >= 1 and lines[above]:match("^%-%-") do
                table.insert(comment, 1, lines[above])
                above = above - 1
            end
            local text = table.concat(comment, "\n")
            if not text:match("^%-%-%-") then
                report(path, number, "%s has no ldoc comment", name)
            else
                for _, parameter in ipairs(parameters(list)) do
                    if not text:match("@t?param[^\n]*%f[%w_]" .. parameter .. "%f[^%w_]") then
                        report(path, number, "the comment of %s does not name @param %s", name, parameter)
                    end
                end
            end
        end
    end
end

--- Functions that the binding registers: each has `@function name` in its file.
local function check_binding(report, path)
    local text = source.read(path)
    local named = {}
    for name in text:gmatch("@function%s+([%w_.:]+)") do named[name:match("[%w_]+$")] = true end
    for at, name in text:gmatch('(){%s*"([%w_]+)"%s*,%s*[%a_][%w_]*%s*}') do
        if not name:match("^__") and not named[name] then
            report(path, source.line_at(text, at), "no comment with @function %s", name)
        end
    end
end

return function(report)
    for _, path in ipairs(source.files("csrc", "-name '*.h'")) do check_header(report, path) end
    for _, path in ipairs(source.files("lua", "-name '*.lua'")) do check_lua(report, path) end
    for _, path in ipairs(source.files("csrc/lua", "-name '*.c'")) do check_binding(report, path) end
end
