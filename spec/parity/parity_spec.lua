-- The golden runner as tests: the committed part always, the whole directory when it lies beside the checkout.

local cases = require "parity.cases"
local report = require "parity.report"
local units = require "parity.units"

local shared = require "support.shared"

--- Runs one unit or case and turns its lines into one verdict.
local function judge(run, golden, name)
    local lines = {}
    local result = report.new(function(line) lines[#lines + 1] = line end)
    run(golden, name, result)
    assert(result.failed == 0, "\n" .. table.concat(lines))
    if result.passed == 0 and result.skipped > 0 then pending(table.concat(lines)) end
end

for _, golden in ipairs { "spec/fixtures/golden", shared.find "golden" } do
    describe("golden " .. golden, function()
        for _, name in ipairs(units.names(golden)) do
            it("unit " .. name, function() judge(units.run, golden, name) end)
        end
        for _, name in ipairs(cases.names(golden)) do
            it("case " .. name, function() judge(cases.run, golden, name) end)
        end
    end)
end
