--- What is typed, as Lua: whole or not yet; run so that Ctrl-C stops it; its values, or one message.
-- @module pixelrefer.repl.evaluate
local core = require "pixelrefer.core"

local evaluate = {}

local CHUNK = "=typed"

-- How the sources of the library's functions begin. Ctrl-C does not stop those between two lines: they poll for it
-- where they can stop, and leave everything in order.
local OWN = debug.getinfo(1, "S").source:match("^(.*/)repl/[^/]*$")

-- A chunk that begins with `local` would lose its variables at its end: they are made global.
local function without_local(text)
    local rest = text:match("^%s*local%s+(function%s.*)$") or text:match("^%s*local%s+([%a_][%w_,%s]*=[^=].*)$")
    return rest or text
end

--- Compiles what was typed: an expression (with or without a leading `=`) or statements.
-- @tparam string text
-- @treturn[1] function
-- @return[2] nil when the text goes on in a further line
-- @return[3] nil
-- @treturn[3] string what is wrong with it
function evaluate.compile(text)
    local expression = text:match("^%s*=(.*)$")
    local chunk, reason = loadstring("return " .. (expression or text), CHUNK)
    local unfinished = not chunk and reason:find("near '<eof>'", 1, true)
    if not chunk and not expression then
        chunk, reason = loadstring(without_local(text), CHUNK)
        unfinished = unfinished or not chunk and reason:find("near '<eof>'", 1, true)
    end
    if chunk then return jit.off(chunk, true) or chunk end
    if unfinished then return nil end
    return nil, evaluate.message(reason)
end

--- An error as one message: without places inside the library; of a single typed line, without its number.
-- @param reason what was raised
-- @treturn string
function evaluate.message(reason)
    if type(reason) ~= "string" then
        return type(reason) == "table" and not (getmetatable(reason) or {}).__tostring
            and "an error that is a table" or tostring(reason)
    end
    local file, message = reason:match("^([^:\n]+):%d+: (.*)$")
    if file and (file == "typed" or ("@" .. file):sub(1, #OWN) == OWN) then return message end
    return reason
end

local function on_error(reason)
    local trace = debug.traceback("", 2):gsub("^\nstack traceback:", "")
    local ours = trace:find("\n[^\n]*\n%s*%[C%]: in function 'stoppable'") -- xpcall, which is below, and our own
    return { message = evaluate.message(reason), trace = tostring(reason) .. trace:sub(1, ours and ours - 1) }
end

local function collect(interrupted, fine, ...)
    if not fine then return nil, (...) end
    return { n = select("#", ...), interrupted = interrupted, ... }
end

local function uncompiled(prototype) jit.off(prototype) end

--- Runs a function until it ends, fails or Ctrl-C stops it. What it loads meanwhile (`dofile`, `require`) stays
-- uncompiled like itself, so that it can be stopped now and later.
-- @tparam function work
-- @param ... its arguments
-- @treturn[1] table its values, with their number `n`; `interrupted`: Ctrl-C was pressed, and it took note of it
-- @return[2] nil
-- @treturn[2] table message, trace (the lines of a traceback)
function evaluate.run(work, ...)
    jit.attach(uncompiled, "bc")
    local values, failure = collect(core.stoppable(OWN, xpcall, work, on_error, ...))
    jit.attach(uncompiled)
    return values, failure
end

return evaluate
