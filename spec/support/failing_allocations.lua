-- Makes a function's allocations fail, one after another, and looks what becomes of it.
local core = require "pixelrefer.core"

local failing = {}

--- Bytes of the library that are in use when nothing can be collected any more. Compiled traces hold on to what they
-- were recorded with, so they go, too.
local function settled()
    local bytes
    repeat
        bytes = core.memory()
        jit.flush()
        collectgarbage()
        collectgarbage()
    until core.memory() == bytes
    return bytes
end

--- Runs a function once to warm up and once to count its allocations (those of core/memory.h), then once for each of
-- them, with that one failing. Every time it must raise a message, and must leave behind what it left before: nothing.
-- The last run, with none failing, must work again.
-- @tparam function run without arguments; it must not keep what it makes
-- @tparam[opt] table options `most`: at most so many of the allocations, evenly spread (default: all of them)
-- @treturn int the number of allocations that were made to fail
function failing.each(run, options)
    -- On a stack of its own: a slot that nobody uses any more keeps its object alive.
    local function f()
        local thread = coroutine.create(run)
        local fine, message = coroutine.resume(thread)
        if not fine then error(message, 0) end
    end
    f()
    local baseline = settled()
    local before = core.memory_allocations()
    f()
    local count = core.memory_allocations() - before
    assert(count > 0, "this function allocates nothing")
    assert(settled() <= baseline, ("leaves %d bytes behind when it works"):format(core.memory() - baseline))
    baseline = settled()

    local step = math.max(1, count / ((options or {}).most or count))
    local failed = 0
    for index = 1, count, step do
        local nth = math.floor(index)
        core.memory_fail_at(core.memory_allocations() + nth)
        local fine, message = pcall(f)
        local reached = core.memory_allocations()
        core.memory_fail_at(0)
        if fine then
            error(("allocation %d of %d failed and nobody noticed (%d made)"):format(nth, count, reached), 2)
        end
        if type(message) ~= "string" or not message:find("memory", 1, true) then
            error(("allocation %d of %d: a message about memory expected, got: %s"):format(nth, count,
                tostring(message)), 2)
        end
        message = nil -- luacheck: ignore
        local left = settled() - baseline
        if left < 0 then -- something older has gone meanwhile
            baseline, left = baseline + left, 0
        end
        if left > 0 then error(("allocation %d of %d: leaves %d bytes behind"):format(nth, count, left), 2) end
        failed = failed + 1
    end
    f()
    assert(settled() <= baseline, "leaves bytes behind after all")
    return failed
end

return failing
