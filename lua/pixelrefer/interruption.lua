--- What Ctrl-C raises in long work, told from other errors.
-- @module pixelrefer.interruption

local interruption = {}

local REASON = "interrupted" -- as core/interrupt.c says it

--- Whether an error is Ctrl-C's: it says so alone, or behind where it was raised; a path that has the word does not.
-- @param reason what pcall gave
-- @treturn boolean
function interruption.is(reason)
    local first = tostring(reason):match("^[^\n]*")
    return first == REASON or first:find(": " .. REASON .. "$") ~= nil
end

return interruption
