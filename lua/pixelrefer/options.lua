--- Option tables: known keys, checked values, filled defaults.
--
-- A function of the library that takes options says once what they are, and every caller is told the same way what is
-- wrong:
--
--     local SPEC = {
--         temperature = { type = "number", min = 0, default = 0.2 },
--         mode        = { "greedy", "sample", default = "greedy" },   -- one of these words
--         seed        = "integer",
--         regions     = "table|tensor",
--     }
--     local given = options.check({ temprature = 1 }, SPEC, "describe")
--     --> describe: unknown option 'temprature', did you mean 'temperature'?
--
-- @module pixelrefer.options

local options = {}

local TENSOR = "pixelrefer.Tensor"

--- How many letters must be changed, added, dropped or swapped with their neighbour to turn one word into the other.
-- @tparam string a
-- @tparam string b
-- @treturn integer the distance
local function distance(a, b)
    local before, row = nil, {}
    for j = 0, #b do row[j] = j end
    for i = 1, #a do
        local above = row
        row = { [0] = i }
        for j = 1, #b do
            local same = a:byte(i) == b:byte(j)
            local best = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (same and 0 or 1))
            if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
                best = math.min(best, before[j - 2] + 1)
            end
            row[j] = best
        end
        before = above
    end
    return row[#b]
end

--- The word of a list that is nearest to a mistyped one.
-- @tparam string word what was typed
-- @tparam {string,...} known the words that exist
-- @treturn ?string the nearest of them; nil when none is near enough to be meant (over a third of its letters differ)
function options.nearest(word, known)
    local folded = word:lower():gsub("-", "_")
    local best, best_distance
    for _, candidate in ipairs(known) do
        local d = distance(folded, (candidate:lower():gsub("-", "_")))
        if not best or d < best_distance or (d == best_distance and candidate < best) then
            best, best_distance = candidate, d
        end
    end
    if best and best_distance <= math.max(1, math.ceil(math.max(#word, #best) / 3)) then return best end
    return nil
end

--- The end of a message about an unknown word: the nearest known one, or all of them.
-- @tparam string word what was typed
-- @tparam {string,...} known the words that exist
-- @treturn string such as ", did you mean 'seed'?" or " (known: fps, seed)"
function options.hint(word, known)
    local near = options.nearest(word, known)
    if near then return (", did you mean '%s'?"):format(near) end
    local sorted = {}
    for i, name in ipairs(known) do sorted[i] = name end
    table.sort(sorted)
    return #sorted > 0 and (" (known: %s)"):format(table.concat(sorted, ", ")) or " (there are none)"
end

--- What a value is, in the words of a specification.
-- @param value anything
-- @treturn string "tensor" for a Tensor, else Lua's type
local function kind(value)
    if type(value) == "userdata" then
        local class = getmetatable(value)
        if type(class) == "table" and class.__name == TENSOR then return "tensor" end
    end
    return type(value)
end

local function is_integer(value)
    return type(value) == "number" and value == math.floor(value) and math.abs(value) <= 2 ^ 53
end

local function show(value)
    if type(value) == "string" then return ("'%s'"):format(value) end
    if type(value) == "number" then return ("%.14g"):format(value) end
    if type(value) == "boolean" then return tostring(value) end
    return kind(value)
end

local function has_type(value, wanted)
    for alternative in wanted:gmatch("[^|]+") do
        if alternative == "any" or kind(value) == alternative then return true end
        if alternative == "integer" and is_integer(value) then return true end
    end
    return false
end

--- "an integer", "a number or a table": a specification's type in a sentence.
local function type_text(wanted)
    local texts = {}
    for alternative in wanted:gmatch("[^|]+") do
        texts[#texts + 1] = (alternative:match("^[aeiou]") and "an " or "a ") .. alternative
    end
    return table.concat(texts, " or ")
end

local function range_text(rule)
    if rule.min and rule.max then return (" from %s to %s"):format(show(rule.min), show(rule.max)) end
    if rule.min then return (" of at least %s"):format(show(rule.min)) end
    if rule.max then return (" of at most %s"):format(show(rule.max)) end
    return ""
end

--- Why a value breaks its rule.
-- @tparam table rule of the full form
-- @param value what was given
-- @treturn ?string what was expected; nil when the value is fine
local function expectation(rule, value)
    if rule[1] then
        for _, word in ipairs(rule) do
            if word == value then return nil end
        end
        local words = {}
        for i, word in ipairs(rule) do words[i] = show(word) end
        return "one of " .. table.concat(words, ", ")
    end
    local wanted = rule.type or "any"
    local fine = has_type(value, wanted)
    if fine and type(value) == "number" then
        fine = value == value and not (rule.min and value < rule.min) and not (rule.max and value > rule.max)
    end
    if fine then return nil end
    return type_text(wanted) .. range_text(rule)
end

--- Checks an option table and fills in the defaults.
--
-- Each entry of `spec` says what one option may be: a type ("number", "integer", "string", "boolean", "function",
-- "table", "tensor", "userdata", "any", or several as "number|table"), a list of allowed words, or a table
-- `{ type =, min =, max =, default =, required = }` (`default` and `required` may stand beside a list of words, too).
-- A NaN is no number here.
-- @tparam ?table given the caller's options; nil is an empty table
-- @tparam table spec what is known, by name
-- @tparam string where the function's name, which begins the message
-- @treturn table a new table with what was given and the defaults of the rest
-- @raise an unknown option (naming the nearest known one), a value of the wrong type or out of range, a required
-- option that is missing
function options.check(given, spec, where)
    if given ~= nil and type(given) ~= "table" then
        error(("%s: the options must be a table, got %s"):format(where, show(given)), 0)
    end
    local checked = {}
    for key, value in pairs(given or {}) do
        local rule = type(key) == "string" and spec[key]
        if not rule then
            local known = {}
            for name in pairs(spec) do known[#known + 1] = name end
            error(("%s: unknown option %s%s"):format(where, show(key), options.hint(tostring(key), known)), 0)
        end
        local expected = expectation(type(rule) == "string" and { type = rule } or rule, value)
        if expected then
            error(("%s: option '%s' must be %s, got %s"):format(where, key, expected, show(value)), 0)
        end
        checked[key] = value
    end
    for name, rule in pairs(spec) do
        if type(rule) == "table" and checked[name] == nil then
            if rule.required then error(("%s: option '%s' is missing"):format(where, name), 0) end
            checked[name] = rule.default
        end
    end
    return checked
end

return options
