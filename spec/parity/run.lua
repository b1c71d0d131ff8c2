-- make parity: compares the library with a directory of golden tensors (models, cases, units, each of them optional).
--
--     luajit spec/parity/run.lua [--golden DIR] [--device NAME] [--compute f32|bf16] [--case NAME]
--         [--threads N] [--once]
--
-- --once asks each question only once, stage by stage, and not again without looking.
-- One line for each case and stage with its largest error, then `N passed, N failed, N skipped`; exit code 1 on a miss,
-- and when there was nothing to compare.

local cases = require "parity.cases"
local places = require "parity.places"
local report = require "parity.report"
local units = require "parity.units"

local KNOWN = { golden = true, device = true, compute = true, case = true, threads = true }

local function usage(message)
    io.stderr:write(message, "\nusage: run.lua [--golden DIR] [--device NAME] [--compute f32|bf16] [--case NAME] "
        .. "[--threads N] [--once]\n")
    os.exit(2)
end

local options, next_argument = {}, 1
while arg[next_argument] do
    local given, value = arg[next_argument], arg[next_argument + 1]
    local name = given:match("^%-%-(.+)$")
    if given == "--once" then
        options.once, next_argument = true, next_argument + 1
    else
        if not name or not KNOWN[name] then usage(("unknown argument '%s'"):format(given)) end
        if not value then usage(("%s needs a value"):format(given)) end
        options[name], next_argument = value, next_argument + 2
    end
end
options.threads = tonumber(options.threads)

local golden = options.golden
if not golden then
    local shared = (os.getenv("PIXELREFER_SHARED") or "../shared") .. "/golden"
    golden = places.exists(shared) and shared or "spec/fixtures/golden"
end
if not places.exists(golden) then usage(("no directory '%s'"):format(golden)) end

local result = report.new()
if not options.case then
    for _, name in ipairs(units.names(golden)) do units.run(golden, name, result) end
end
for _, name in ipairs(options.case and { options.case } or cases.names(golden)) do
    cases.run(golden, name, result, options)
end
print(result:summary())
os.exit((result.failed > 0 or result.passed + result.skipped == 0) and 1 or 0, true)
