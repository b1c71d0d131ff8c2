-- What the test runner prints: a line a spec file, every failure in full, each reason for skipping once, and at the
-- very end `N passed, N failed, N skipped`. Errors outside of tests (a file that does not load, a setup) are failures.

local seed = require "support.seed"
local skip = require "support.skip"

--- The first line of a message, without the place it was raised at.
local function first_line(message)
    return (message:match("^[^\n]*"):gsub("^[^ ]+:%d+: ", ""))
end

local function failure_text(failure)
    local message = failure.message
    if type(message) == "table" and not getmetatable(message) then message = require("pl.pretty").write(message) end
    local trace = failure.element.trace or failure.trace or {}
    local lines = {
        ("FAILED  %s"):format(failure.name),
        ("        %s:%s"):format(trace.short_src or "?", trace.currentline or "?"),
    }
    for line in (tostring(message) .. "\n"):gmatch("(.-)\n") do lines[#lines + 1] = "        " .. line end
    return table.concat(lines, "\n")
end

return function(options)
    local busted = require "busted"
    local handler = require "busted.outputHandlers.base"()
    local file = { passed = 0, failed = 0, skipped = 0 }

    local function write(...)
        io.write(...)
        io.flush()
    end

    local function failed()
        return handler.failuresCount + handler.errorsCount
    end

    handler.fileStart = function()
        file = { passed = handler.successesCount, failed = failed(), skipped = handler.pendingsCount }
        return nil, true
    end

    handler.testStart = function(element)
        if element.descriptor == "it" then skip.pending = element.env.pending end
        return nil, true
    end

    handler.fileEnd = function(element)
        local counts = {
            passed = handler.successesCount - file.passed,
            failed = failed() - file.failed,
            skipped = handler.pendingsCount - file.skipped,
        }
        write(("%-44s %5d passed%s%s\n"):format((element.name:gsub("^%./", "")), counts.passed,
            counts.failed > 0 and (", %d FAILED"):format(counts.failed) or "",
            counts.skipped > 0 and (", %d skipped"):format(counts.skipped) or ""))
        return nil, true
    end

    handler.suiteEnd = function()
        for _, list in ipairs { handler.failures, handler.errors } do
            for _, failure in ipairs(list) do
                write("\n", failure_text(failure), "\n")
                if options.verbose and failure.trace then write(failure.trace.traceback or "", "\n") end
            end
        end
        local reasons, count = {}, {}
        for _, pending in ipairs(handler.pendings) do
            local reason = type(pending.message) == "string" and first_line(pending.message) or pending.name
            if not count[reason] then reasons[#reasons + 1] = reason end
            count[reason] = (count[reason] or 0) + 1
        end
        for i, reason in ipairs(reasons) do
            write(i == 1 and "\n" or "", ("skipped %d: %s\n"):format(count[reason], reason))
        end
        write(("seed %d (SEED=%d repeats this run), %.1f s\n"):format(seed, seed, handler.getDuration()))
        write(("%d passed, %d failed, %d skipped\n"):format(handler.successesCount, failed(), handler.pendingsCount))
        return nil, true
    end

    busted.subscribe({ "file", "start" }, handler.fileStart)
    busted.subscribe({ "test", "start" }, handler.testStart)
    busted.subscribe({ "file", "end" }, handler.fileEnd)
    busted.subscribe({ "suite", "end" }, handler.suiteEnd)
    return handler
end
