--- The command line's words: options, their values, what is left over.
-- @module pixelrefer.cli.arguments
local options = require "pixelrefer.options"

local arguments = {}

--- A mistake in how the command was used (exit code 2), as opposed to an error in its work (1).
arguments.USAGE = "pixelrefer usage: "

--- Raises a usage error.
-- @tparam string format as string.format
-- @param ... its values
function arguments.fail(format, ...)
    error(arguments.USAGE .. format:format(...), 0)
end

local function number(text, name)
    local value = tonumber(text)
    if not value or value ~= value then arguments.fail("--%s: a number expected, found '%s'", name, text) end
    return value
end

local readers = {
    string = function(text) return text end,
    path = function(text, name)
        if text == "" then arguments.fail("--%s: a path expected, found ''", name) end
        return text
    end,
    number = number,
    integer = function(text, name)
        local value = number(text, name)
        if value ~= math.floor(value) then arguments.fail("--%s: an integer expected, found '%s'", name, text) end
        return value
    end,
}

--- Reads the words of one command.
-- @tparam table words everything behind the command's name
-- @tparam table spec option name (with dashes) -> "flag", "string", "path" (not empty), "number", "integer", or
--   "repeated" (not empty; their order among all repeated options is kept)
-- @treturn table options by name (dashes become underscores); `repeated` lists {name, value} in order
-- @treturn table words that are no options
function arguments.parse(words, spec)
    local known, given, rest = {}, { repeated = {} }, {}
    for name in pairs(spec) do known[#known + 1] = name end
    local i, only_words = 1, false
    while i <= #words do
        local word = words[i]
        if only_words or word == "-" or word:sub(1, 1) ~= "-" then
            rest[#rest + 1] = word
        elseif word == "--" then
            only_words = true
        else
            if word == "-o" then word = "--out" end
            if word == "-h" then word = "--help" end
            local name, value = word:match("^%-%-([^=]+)=(.*)$")
            name = name or word:match("^%-%-(.+)$") or word:sub(2)
            local kind = spec[name]
            if not kind then arguments.fail("unknown option '%s'%s", word, options.hint(name, known)) end
            if kind == "flag" then
                if value then arguments.fail("--%s takes no value", name) end
                value = true
            else
                if not value then
                    i = i + 1
                    value = words[i]
                    if not value then arguments.fail("--%s needs a value", name) end
                end
                if kind == "repeated" then
                    if value == "" then arguments.fail("--%s needs a value, found ''", name) end
                    table.insert(given.repeated, { name, value })
                else
                    value = readers[kind](value, name)
                end
            end
            if kind ~= "repeated" then given[(name:gsub("%-", "_"))] = value end
        end
        i = i + 1
    end
    return given, rest
end

return arguments
