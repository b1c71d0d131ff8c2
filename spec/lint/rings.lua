-- The rings of docs/architecture.md: every #include and every require points down or stays at home.
local source = require "lint.source"

-- What each room of csrc may include, beside itself.
local ROOMS = {
    core = {},
    cpu = { "core", "ops/backend.h", "ops/ops.h", "ops/ops.def" },
    ops = { "core", "cpu/cpu.h" }, -- the CPU backend is linked in: ops/device.c opens it
    io = { "core", "ops" },
    media = { "core", "ops" },
    text = { "core", "ops" },
    model = { "core", "ops", "media" }, -- of media the resizes
    lua = { "core", "ops", "cpu", "io", "media", "text", "model" },
}

local LUA_HEADERS = { ["lua.h"] = true, ["lauxlib.h"] = true, ["lualib.h"] = true, ["luajit.h"] = true }

-- Modules from outside that the Lua layer may require.
local LIBRARIES = { cjson = true, ffi = true, bit = true, jit = true, ["table.new"] = true, ["table.clear"] = true }

local function may_include(room, header)
    local home = header:match("^([^/]+)/")
    if home == room then return true end
    for _, allowed in ipairs(ROOMS[room]) do
        if allowed == home or allowed == header then return true end
    end
    return false
end

local function check_includes(report)
    for _, path in ipairs(source.files("csrc", "-name '*.[ch]' -o -name '*.def'")) do
        local room = path:match("^csrc/([^/]+)/")
        for number, line in ipairs(source.lines(path)) do
            local quoted, system = line:match('^%s*#%s*include%s+"([^"]+)"'), line:match("^%s*#%s*include%s+<([^>]+)>")
            if room and not ROOMS[room] then
                report(path, number, "the room '%s' is not in the rings (spec/lint/rings.lua)", room)
                break
            elseif room and quoted and not may_include(room, quoted) then
                report(path, number, "%s may not include \"%s\"", room, quoted)
            elseif room ~= "lua" and (LUA_HEADERS[system] or LUA_HEADERS[quoted]) then
                report(path, number, "only csrc/lua includes %s", system or quoted)
            end
        end
    end
end

--- Module name -> { path, requires = { {name, line}, ... } } of the Lua layer.
local function lua_modules()
    local modules = {}
    for _, path in ipairs(source.files("lua", "-name '*.lua'")) do
        local name = path:match("^lua/(.*)%.lua$"):gsub("/", "."):gsub("%.init$", "")
        local requires = {}
        for number, line in ipairs(source.lines(path)) do
            local code = line:gsub("%-%-.*", "")
            for wanted in code:gmatch("require%s*%(?%s*[\"']([%w_.]+)[\"']") do
                -- Only the main chunk's own requires make an order of loading; an inner one is a late lookup.
                requires[#requires + 1] = { name = wanted, line = number, late = line:match("^%s") ~= nil }
            end
        end
        modules[name] = { path = path, requires = requires }
    end
    return modules
end

local function check_requires(report)
    local modules = lua_modules()
    local state = {}

    local function visit(name, trail)
        state[name] = "open"
        for _, wanted in ipairs(modules[name].requires) do
            if modules[wanted.name] and not wanted.late then
                if state[wanted.name] == "open" then
                    report(modules[name].path, wanted.line, "a circle of requires: %s > %s", trail, wanted.name)
                elseif not state[wanted.name] then
                    visit(wanted.name, trail .. " > " .. wanted.name)
                end
            end
        end
        state[name] = "done"
    end

    for name, module in pairs(modules) do
        for _, wanted in ipairs(module.requires) do
            local known = modules[wanted.name] or wanted.name == "pixelrefer.core" or LIBRARIES[wanted.name]
                or LIBRARIES[wanted.name:match("^[^.]+")]
            if not known then report(module.path, wanted.line, "the Lua layer may not require '%s'", wanted.name) end
        end
        if not state[name] then visit(name, name) end
    end
end

return function(report)
    check_includes(report)
    check_requires(report)
end
