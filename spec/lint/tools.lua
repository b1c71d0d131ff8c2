-- The linters of others: luacheck over all Lua, clang-format over all C and the kernels. One that is not installed is a
-- skip.
local source = require "lint.source"

local function installed(tool)
    return source.command(("command -v %s"):format(tool))[1] ~= nil
end

local tools = {}

--- luacheck with .luacheckrc.
function tools.luacheck(report)
    if not installed("luacheck") then return "luacheck is not installed" end
    local files = source.files("lua spec examples bin", "-name '*.lua' -o -path 'bin/*'")
    if #files == 0 then return nil end
    local command = "luacheck --no-color --codes --formatter plain " .. table.concat(files, " ") .. " 2>&1"
    for _, line in ipairs(source.command(command)) do
        local path, number, text = line:match("^([^:]+):(%d+):%d+: (.*)$")
        if path then report(path, tonumber(number), "%s", text) end
    end
end

--- clang-format with .clang-format: only asks whether `make format` would change anything.
function tools.format(report)
    if not installed("clang-format") then return "clang-format is not installed" end
    local files = source.files("csrc spec kernels", "-name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh'")
    local command = "clang-format --dry-run " .. table.concat(files, " ") .. " 2>&1"
    local seen = {}
    for _, line in ipairs(source.command(command)) do
        local path, number = line:match("^([^:]+):(%d+):%d+: warning")
        if path and not seen[path] then
            seen[path] = true
            report(path, tonumber(number), "is not laid out as 'make format' does it")
        end
    end
end

return tools
