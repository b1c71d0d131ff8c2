-- Skipping a test from a helper. The summary counts what was skipped and prints each reason once.
local skip = {
    pending = nil, -- the runner's own function, set by the summary when the first test starts
}

--- Ends the running test as skipped; with the given environment variable set to 1, as failed.
-- @tparam string reason
-- @tparam ?string variable such as "REQUIRE_SHARED"
-- @tparam ?string detail put behind the reason when it is a failure
function skip.because(reason, variable, detail)
    if not skip.pending or (variable and os.getenv(variable) == "1") then
        error(detail and ("%s (%s)"):format(reason, detail) or reason, 3)
    end
    skip.pending(reason)
end

return skip
