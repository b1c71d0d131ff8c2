-- The runner's lines and counts.

local report = {}
report.__index = report

--- A report that begins with nothing.
-- @tparam ?function write gets each line; io.write when absent
function report.new(write)
    return setmetatable({ passed = 0, failed = 0, skipped = 0, write = write or io.write }, report)
end

local function limit_text(limit)
    if limit.norm then return ("%g of the norm"):format(limit.norm) end
    if not limit or (limit.absolute == 0 and limit.relative == 0) then return "equal" end
    if limit.relative == 0 then return ("%g"):format(limit.absolute) end
    return ("%g + %g rel"):format(limit.absolute, limit.relative)
end

--- Writes one compared stage and counts it.
-- @tparam string where "case refer_image" or "unit kmeans"
-- @tparam string stage such as "region0.crop"
-- @tparam table verdict as compare.tensors gives it
function report:add(where, stage, verdict)
    local count = verdict.passed and "passed" or "failed"
    self[count] = self[count] + 1
    local word, why = verdict.passed and "ok    " or "FAILED", verdict.why and ("  (" .. verdict.why .. ")") or ""
    local line = ("%-36s %-28s %s  error %-10.3g limit %s%s\n")
    self.write(line:format(where, stage, word, verdict.error, limit_text(verdict.limit), why))
end

--- Counts something that could not be compared at all as failed.
function report:fail(where, stage, why)
    self.failed = self.failed + 1
    self.write(("%-36s %-28s FAILED  (%s)\n"):format(where, stage, why))
end

--- Counts a skip, with its reason.
function report:skip(where, why)
    self.skipped = self.skipped + 1
    self.write(("%-36s %-28s skipped (%s)\n"):format(where, "", why))
end

--- The last line, "N passed, N failed, N skipped".
function report:summary()
    return ("%d passed, %d failed, %d skipped"):format(self.passed, self.failed, self.skipped)
end

return report
