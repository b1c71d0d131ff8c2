-- Names the linker sees: global functions and data begin with pxr_, and the module gives out its opener alone.
local source = require "lint.source"

local OPENER = "luaopen_pixelrefer_core"

return function(report, build)
    for _, path in ipairs(source.files(build .. "/obj/csrc", "-name '*.o'")) do
        for _, line in ipairs(source.command(("nm -g --defined-only '%s'"):format(path))) do
            local name = line:match("%S+%s+%a%s+(%S+)$")
            if name and not name:match("^pxr_") and name ~= OPENER then
                local file = path:gsub("^.*/obj/", ""):gsub("%.o$", ".c")
                report(file, 1, "the global symbol %s does not start with pxr_", name)
            end
        end
    end
    local module = build .. "/pixelrefer/core.so"
    for _, line in ipairs(source.command(("nm -D '%s'"):format(module))) do
        local kind, name = line:match("(%a)%s+(%S+)$")
        name = name:gsub("@.*", "")
        if kind == "U" and name:match("^pxr_") then
            report(module, 1, "%s is used and nowhere defined", name)
        elseif kind:match("[TDBRVW]") and line:match("^%x") and name ~= OPENER then
            report(module, 1, "the module gives out %s", name)
        end
    end
end
