--- What a job's answers depend on, in few words: two jobs of equal fingerprints give the same bytes.
-- @module pixelrefer.annotate.fingerprint
local bit = require "bit"
local core = require "pixelrefer.core"
local ffi = require "ffi"
local json = require "pixelrefer.json"
local util = require "jit.util"
local whole_file = require "pixelrefer.whole_file"

local fingerprint = {}

local OFFSET, PRIME = 14695981039346656037ULL, 1099511628211ULL -- of FNV-1a
local EXACT = 0x1fffffffffffffULL -- a Lua number holds 53 bits
local SAMPLE_VALUES = 1024 -- of a tensor's first and last row

local FILES = { "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "vocab.json",
    "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json" }

-- FNV-1a of a text, going on from `hash`.
local function fnv(text, hash)
    local bytes = ffi.cast("const uint8_t *", text)
    hash = hash or OFFSET
    for i = 0, #text - 1 do hash = bit.bxor(hash, bytes[i]) * PRIME end
    return hash
end

--- A text's hash: no secret, but enough to tell two settings apart.
-- @tparam string text
-- @treturn string 16 digits
function fingerprint.hash(text)
    return bit.tohex(fnv(text))
end

--- A seed for one answer, which depends on the job's seed and on what is asked, not on when.
-- @tparam int seed the job's
-- @tparam int scene number of the sample
-- @tparam int region its number in the sample
-- @tparam int task the prompt's number
-- @treturn int 0 to 2^53 - 1
function fingerprint.seed(seed, scene, region, task)
    local hash = fnv(("%d:%d:%d:%d"):format(seed, scene, region, task))
    return tonumber(bit.band(bit.bxor(hash, bit.rshift(hash, 32)), EXACT))
end

local function sorted_keys(map)
    local keys = {}
    for key in pairs(map) do keys[#keys + 1] = key end
    table.sort(keys)
    return keys
end

-- A table of constants, whose order in memory is another in each process.
local function put_table(constants, into)
    local words = {}
    for key, value in pairs(constants) do
        words[#words + 1] = ("%s %s = %s %s"):format(type(key), tostring(key), type(value), tostring(value))
    end
    table.sort(words)
    into[#into + 1] = "{" .. table.concat(words, "\n") .. "}"
end

-- A function's instructions and constants, and those of the functions in it.
local function put_function(prototype, into)
    local info = util.funcinfo(prototype)
    into[#into + 1] = ("function %d"):format(info.params)
    for i = 1, info.bytecodes - 1 do into[#into + 1] = ("%d"):format((util.funcbc(prototype, i))) end
    for i = -info.gcconsts, info.nconsts - 1 do
        local value = util.funck(prototype, i)
        if type(value) == "proto" then
            put_function(value, into)
        elseif type(value) == "table" then
            put_table(value, into)
        else
            into[#into + 1] = type(value) == "number" and ("%.17g"):format(value) or tostring(value)
        end
    end
end

--- What a function does, as a text that is the same in every process; its upvalues do not count.
-- @tparam function given
-- @treturn string "built in" when it is not written in Lua
function fingerprint.code(given)
    local ok, dumped = pcall(string.dump, given, true)
    if not ok then return "built in" end
    local into = {}
    put_function(loadstring(dumped), into) -- a copy, in whose instructions no compiler has left its marks
    return table.concat(into, "\n")
end

-- Names, types and shapes of all weights, and values of each tensor's first and last row.
local function hash_weights(weights)
    local hash = OFFSET
    for _, part in ipairs(sorted_keys(weights)) do
        for _, name in ipairs(sorted_keys(weights[part])) do
            local tensor = weights[part][name]
            hash = fnv(("%s.%s %s %s"):format(part, name, tensor:dtype(), table.concat(tensor:size(), "x")), hash)
            local rows = tensor:dim() > 0 and tensor:size(1) or 0
            for _, row in ipairs(rows > 1 and { 1, rows } or { rows > 0 and 1 or nil }) do
                local values = tensor:narrow(1, row, 1):contiguous():view(-1)
                hash = fnv(values:narrow(1, 1, math.min(values:size(1), SAMPLE_VALUES)):bytes(), hash)
            end
        end
    end
    return bit.tohex(hash)
end

-- An object tokenizer's: its name, and its file's content or the code of the steps that are its own.
local function tokenizer_of(model, path)
    local given = model.object_tokenizer
    if path and core.path_kind(path) == "file" then
        return given.name .. " " .. fingerprint.hash(whole_file.read(path))
    end
    local hash = OFFSET
    for _, step in ipairs(sorted_keys(given.own)) do
        hash = fnv(step .. "\n" .. fingerprint.code(given.own[step]), hash)
    end
    return given.name .. (next(given.own) and " " .. bit.tohex(hash) or "")
end

--- A model's: its framework, configuration and tokenizer files, weights (of each tensor name, type, shape and some
-- values), and object tokenizer. Where it lies does not count.
-- @tparam Model model
-- @tparam[opt] string tokenizer_path the object tokenizer's own file
-- @treturn table
function fingerprint.model(model, tokenizer_path)
    local files = OFFSET
    for _, name in ipairs(FILES) do
        local path = model.path .. "/" .. name
        if core.path_kind(path) == "file" then files = fnv(name .. "\n" .. whole_file.read(path), files) end
    end
    return {
        framework = model.framework,
        files = bit.tohex(files),
        weights = hash_weights(model.weights),
        object_tokenizer = tokenizer_of(model, tokenizer_path),
    }
end

-- "a.b.c" -> value as JSON, of all that is in a table.
local function flatten(value, prefix, into)
    if type(value) ~= "table" or value[1] ~= nil or next(value) == nil then
        into[prefix] = json.encode(value)
        return into
    end
    for key, inner in pairs(value) do flatten(inner, prefix == "" and key or prefix .. "." .. key, into) end
    return into
end

--- Where two fingerprints differ.
-- @tparam table before
-- @tparam table now
-- @treturn {string,...} such as "generation.seed: 1 there, 2 now", sorted
function fingerprint.differences(before, now)
    local first, second, list = flatten(before, "", {}), flatten(now, "", {}), {}
    for key, value in pairs(first) do
        if second[key] ~= value then
            list[#list + 1] = ("%s: %s there, %s now"):format(key, value, second[key] or "nothing")
        end
    end
    for key, value in pairs(second) do
        if first[key] == nil then list[#list + 1] = ("%s: nothing there, %s now"):format(key, value) end
    end
    table.sort(list)
    return list
end

return fingerprint
