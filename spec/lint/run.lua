-- `make lint`: runs every rule over the tree and ends with `N passed, N failed, N skipped`, counted in rules.
-- usage: luajit spec/lint/run.lua BUILD
local build = arg[1] or "build"
local tools = require "lint.tools"

local RULES = {
    { "rings", require "lint.rings" },
    { "kernels", require "lint.kernels" },
    { "calls", require "lint.calls" },
    { "symbols", require "lint.symbols" },
    { "lengths", require "lint.lengths" },
    { "documented", require "lint.documented" },
    { "luacheck", tools.luacheck },
    { "format", tools.format },
}

local passed, failed, skipped = 0, 0, 0
for _, rule in ipairs(RULES) do
    local findings = 0
    local skip = rule[2](function(path, line, text, ...)
        findings = findings + 1
        print(("%s:%d: %s [%s]"):format(path, line, text:format(...), rule[1]))
    end, build)
    if findings > 0 then
        failed = failed + 1
    elseif skip then
        skipped = skipped + 1
        print(("skipped %s: %s"):format(rule[1], skip))
    else
        passed = passed + 1
    end
end
print(("%d passed, %d failed, %d skipped"):format(passed, failed, skipped))
os.exit(failed == 0 and 0 or 1)
