-- Comparing what came with what was expected: every element, the largest error, and NaN or infinity never pass.

local compare = {}

--- The tolerance of float32 arithmetic (golden README): |found - expected| <= absolute + relative * |expected|.
compare.FLOAT32 = { absolute = 1e-4, relative = 1e-4 }

--- No difference at all: pictures, masks, counts, ids.
compare.EQUAL = { absolute = 0, relative = 0 }

local READABLE = { float32 = true, uint8 = true, int32 = true, int64 = true }

--- The sizes of a tensor as text, such as "[3x4]".
-- @tparam Tensor tensor
-- @treturn string
local function shape_text(tensor)
    local sizes = {}
    for dim = 1, tensor:dim() do sizes[dim] = tostring(tensor:size(dim)) end
    return "[" .. table.concat(sizes, "x") .. "]"
end

local function same_shape(a, b)
    if a:dim() ~= b:dim() then return false end
    for dim = 1, a:dim() do
        if a:size(dim) ~= b:size(dim) then return false end
    end
    return true
end

--- The same elements densely on the CPU, in a type that is read here (narrow floats widened).
local function readable(tensor)
    tensor = tensor:to("cpu")
    return (READABLE[tensor:dtype()] and tensor or tensor:float()):contiguous()
end

--- What a stage computed with bfloat16 operands may be away from float32: the norm of the difference, relative to that
-- of what is expected.
compare.BFLOAT16 = { norm = 1e-2 }

--- The norm of the difference of two tensors, relative to that of `expected`.
local function norms(found, expected, count, limit)
    local difference, size = 0, 0
    for i = 0, count - 1 do
        local a, b = tonumber(found[i]), tonumber(expected[i])
        difference, size = difference + (a - b) ^ 2, size + b ^ 2
    end
    local away = size == 0 and math.sqrt(difference) or math.sqrt(difference / size)
    local passed = away <= limit.norm
    return { passed = passed, error = away, why = not passed and ("it is %.3g away"):format(away) or nil }
end

--- The largest error of `count` numbers, where `found` and `expected` are indexed from 0.
-- @return verdict as compare.tensors gives it
local function numbers(found, expected, count, limit)
    local verdict = { passed = true, error = 0 }
    local worst = -1 -- error beyond the limit
    for i = 0, count - 1 do
        local a, b = tonumber(found[i]), tonumber(expected[i])
        local difference = a == b and 0 or math.abs(a - b)
        if difference ~= difference or difference == math.huge or a - a ~= 0 then
            return { passed = false, error = math.huge, why = ("element %d is %g, expected %.9g"):format(i, a, b) }
        end
        if difference > verdict.error then verdict.error = difference end
        local beyond = difference - (limit.absolute + limit.relative * math.abs(b))
        if beyond > 0 and beyond > worst then
            worst, verdict.passed = beyond, false
            verdict.why = ("element %d is %.9g, expected %.9g"):format(i, a, b)
        end
    end
    return verdict
end

--- Compares two tensors of the same shape. Whole numbers must be equal, whatever type they came in.
-- @tparam Tensor found what was computed, on any device
-- @tparam Tensor expected float32, uint8 or int64 on the CPU
-- @tparam ?table limit as compare.FLOAT32 or compare.BFLOAT16; by the expected type when absent
-- @treturn table `passed`; `error`, the largest absolute one; `why`, the worst element when it failed
function compare.tensors(found, expected, limit)
    local dtype = expected:dtype()
    limit = limit or (dtype == "float32" and compare.FLOAT32 or compare.EQUAL)
    if not same_shape(found, expected) then
        return {
            passed = false,
            error = math.huge,
            why = ("the shape is %s, expected %s"):format(shape_text(found), shape_text(expected)),
        }
    end
    local a, b = readable(found), readable(expected)
    local verdict = (limit.norm and norms or numbers)(a:data(), b:data(), b:nElement(), limit)
    verdict.limit = limit
    return verdict
end

--- Compares a Lua array of numbers with an int64 tensor or another array.
-- @tparam {number,...} found
-- @tparam Tensor|{number,...} expected
-- @tparam ?table limit equal when absent
-- @treturn table as compare.tensors
function compare.arrays(found, expected, limit)
    if type(expected) ~= "table" then expected = expected:totable() end
    if #found ~= #expected then
        return { passed = false, error = math.huge, why = ("%d elements, expected %d"):format(#found, #expected) }
    end
    local shift = function(array)
        return setmetatable({}, { __index = function(_, i) return array[i + 1] end })
    end
    local verdict = numbers(shift(found), shift(expected), #expected, limit or compare.EQUAL)
    verdict.limit = limit or compare.EQUAL
    return verdict
end

--- Compares two strings byte by byte.
-- @tparam string found
-- @tparam string expected
-- @treturn table as compare.tensors
function compare.strings(found, expected)
    if found == expected then return { passed = true, error = 0, limit = compare.EQUAL } end
    return { passed = false, error = math.huge, why = ("it is %q, expected %q"):format(tostring(found), expected) }
end

return compare
