-- Files of at most 800 lines, functions of at most 90 (about 60 is the aim).
local source = require "lint.source"

local FILE_LINES, FUNCTION_LINES = 800, 90

--- Calls found(first_line, last_line, name) for each C function: its braces stand alone at the line's begin.
local function c_functions(lines, found)
    local first
    for number, line in ipairs(lines) do
        if line == "{" then
            first = number
        elseif line:match("^}") and first then
            local head = number
            for back = first - 1, math.max(1, first - 8), -1 do
                if lines[back]:match("^[%a_].*%(") then head = back break end
            end
            found(first, number, lines[head]:match("([%w_]+)%s*%(") or "?")
            first = nil
        end
    end
end

--- The same for named Lua functions: `end` stands under the line that opens.
local function lua_functions(lines, found)
    local open = {}
    for number, line in ipairs(lines) do
        local indent, rest = line:match("^(%s*)(.*)$")
        local name = rest:match("^local%s+function%s+([%w_.:]+)") or rest:match("^function%s+([%w_.:]+)")
            or rest:match("^([%w_.]+)%s*=%s*function%f[%W]") or rest:match("^local%s+([%w_]+)%s*=%s*function%f[%W]")
        if name and not rest:match("%f[%w]end%s*[,)]?$") then
            open[#open + 1] = { indent = indent, first = number, name = name }
        elseif #open > 0 and open[#open].indent == indent and rest:match("^end%f[%W]") then
            local top = table.remove(open)
            found(top.first, number, top.name)
        end
    end
end

return function(report)
    local names = "-name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cc' -o -name '*.lua' -o -path 'bin/*'"
    for _, path in ipairs(source.files("csrc kernels lua bin examples spec", names)) do
        local lines = source.lines(path)
        if #lines > FILE_LINES then report(path, 1, "%d lines (at most %d)", #lines, FILE_LINES) end
        local each = path:match("%.[ch][uc]?h?$") and c_functions or lua_functions
        each(lines, function(first, last, name)
            if last - first > FUNCTION_LINES then
                report(path, first, "%s has %d lines (at most %d)", name, last - first + 1, FUNCTION_LINES)
            end
        end)
    end
end
