--- Tensors: n-dimensional arrays, as Torch7 has them.
--
--     local tensor = require "pixelrefer.tensor"
--     local x = tensor.fromTable{ { 1, 2, 3 }, { 4, 5, 6 } }
--     print(x:t():matmul(x) + 1, x[{ {}, 2 }], x:max(2))
--
-- A tensor has an element type (float32, float16, bfloat16, int64, int32, int8, uint8), a device, and up to six dims.
-- Dims and indices count from 1, negative ones from the end. `narrow`, `select`, `transpose`, `view` and the like give
-- views: they share their elements with the tensor they come from, and keep the storage alive.
--
-- **Names.** A method gives a new tensor (`x:add(y)`); with an underscore behind its name it writes into the tensor
-- itself and returns it (`x:add_(y)`). The operators `+ - * / % ^` and unary minus are methods; comparisons are methods
-- only (`x:lt(y)`), since Lua's give one boolean: `x == y` is true when both are the same object.
--
-- **Types.** Two tensors of one type keep it; a float type wins over an integer type; two different float types give
-- float32; of two integer types the wider wins, int8 with uint8 gives int32. A number takes the tensor's type when it
-- fits; else it makes an integer tensor int64 (a whole number) or float32 (a fraction). `/` and functions like `exp`
-- turn integers into float32. Comparisons give uint8 with 0 and 1: a mask. Integer arithmetic wraps.
--
-- An int64 element comes to Lua as a number; one beyond 2^53 in size, which no number holds exactly, raises and can be
-- read through `x:data()`.
--
-- **Memory.** Elements lie outside Lua's heap. The collector frees them in the end; `x:free()` and `tensor.scope` free
-- them now (docs/memory.md).
-- @module pixelrefer.tensor

local core = require "pixelrefer.core"
local display = require "pixelrefer.tensor.display"
local files = require "pixelrefer.tensor.files"
local options = require "pixelrefer.options"
local ffi = require "ffi"
require "pixelrefer.tensor.methods"

local native = core.tensor
local Tensor = core.Tensor

local tensor = {}

--- The table of methods. A function put here is a method of every tensor.
tensor.Tensor = Tensor

--- Options of every function that makes a tensor.
-- @table CreationOptions
-- @field dtype the element type, "float32" unless said
-- @field device where it lies, "cpu" unless said
local CREATION = {
    dtype = { type = "string", default = "float32" },
    device = { type = "string", default = "cpu" },
}

--- True for a tensor.
-- @param value anything
-- @treturn boolean
function tensor.isTensor(value)
    if type(value) ~= "userdata" then return false end
    local class = getmetatable(value)
    return type(class) == "table" and class.__name == "pixelrefer.Tensor"
end

--- Sizes and options from (2, 3, { dtype = ... }) or ({ 2, 3 }, { dtype = ... }).
local function sizes_and_options(where, spec, ...)
    local count = select("#", ...)
    local sizes, given = {}, nil
    for i = 1, count do
        local argument = select(i, ...)
        if type(argument) == "number" then
            sizes[#sizes + 1] = argument
        elseif type(argument) == "table" and i == 1 and (argument[1] ~= nil or next(argument) == nil) then
            sizes = argument
            for key in pairs(sizes) do
                if type(key) ~= "number" then
                    error(("%s: '%s' stands among the sizes: options are a table of their own"):format(where,
                        tostring(key)), 3)
                end
            end
        elseif type(argument) == "table" and i == count then
            given = argument
        elseif argument ~= nil then
            error(("%s: sizes expected (numbers or one table), then options; argument %d is a %s"):format(where, i,
                type(argument)), 3)
        end
    end
    return sizes, options.check(given, spec, where)
end

--- A tensor with undefined contents.
-- @param ... sizes, or one table of them; then options
-- @tparam[opt] CreationOptions options
-- @treturn Tensor
function tensor.empty(...)
    local sizes, given = sizes_and_options("tensor.empty", CREATION, ...)
    return native.empty(sizes, given.dtype, given.device)
end

--- A tensor of zeros.
-- @param ... sizes, or one table of them; then options
-- @treturn Tensor
function tensor.zeros(...)
    local sizes, given = sizes_and_options("tensor.zeros", CREATION, ...)
    return native.empty(sizes, given.dtype, given.device):fill_(0)
end

--- A tensor of ones.
-- @param ... sizes, or one table of them; then options
-- @treturn Tensor
function tensor.ones(...)
    local sizes, given = sizes_and_options("tensor.ones", CREATION, ...)
    return native.empty(sizes, given.dtype, given.device):fill_(1)
end

--- A tensor filled with one number.
-- @tparam {int,...} sizes
-- @tparam number value
-- @tparam[opt] CreationOptions given
-- @treturn Tensor
function tensor.full(sizes, value, given)
    given = options.check(given, CREATION, "tensor.full")
    return native.empty(sizes, given.dtype, given.device):fill_(value)
end

local function check_finite(where, name, value)
    if type(value) ~= "number" or value ~= value or math.abs(value) == math.huge then
        error(("%s: %s must be a number, got %s"):format(where, name, tostring(value)), 4)
    end
end

-- first, first + step, ...: as many as `count_of` finds in (last - first) / step.
local function sequence(where, count_of, first, last, step, given)
    if type(step) == "table" then step, given = nil, step end
    step = step or 1
    given = options.check(given, CREATION, where)
    check_finite(where, "first", first)
    check_finite(where, "last", last)
    check_finite(where, "step", step)
    if step == 0 then error(where .. ": step must not be 0", 3) end
    local count = math.max(0, count_of((last - first) / step))
    if count > 2 ^ 53 then error(where .. ": these are more numbers than a tensor can hold", 3) end
    return native.sequence(count, first, step, given.dtype, given.device)
end

local function steps_within(steps) return math.floor(steps + 1e-9) + 1 end
local function steps_before(steps) return math.ceil(steps - 1e-9) end

--- The numbers from `first` to `last` in steps of `step`, `last` included when it is met (Torch7's range, Lua's `for`).
-- @tparam number first
-- @tparam number last
-- @tparam[opt=1] number step
-- @tparam[opt] CreationOptions given
-- @treturn Tensor a vector
function tensor.range(first, last, step, given)
    return sequence("tensor.range", steps_within, first, last, step, given)
end

--- The numbers from `first` up to but not including `last` in steps of `step` (PyTorch's arange); with one number, from
-- 0 up to it.
-- @tparam number first
-- @tparam[opt] number last
-- @tparam[opt=1] number step
-- @tparam[opt] CreationOptions given
-- @treturn Tensor a vector
function tensor.arange(first, last, step, given)
    if type(last) == "table" then last, step = nil, last end
    if last == nil then first, last = 0, first end
    return sequence("tensor.arange", steps_before, first, last, step, given)
end

--- `count` numbers evenly spaced from `first` to `last`, both included.
-- @tparam number first
-- @tparam number last
-- @tparam int count
-- @tparam[opt] CreationOptions given
-- @treturn Tensor a vector
function tensor.linspace(first, last, count, given)
    given = options.check(given, CREATION, "tensor.linspace")
    check_finite("tensor.linspace", "first", first)
    check_finite("tensor.linspace", "last", last)
    check_finite("tensor.linspace", "count", count)
    local step = count > 1 and (last - first) / (count - 1) or 0
    local line = native.sequence(count, first, step, given.dtype, given.device)
    if count > 1 then line[count] = last end
    return line
end

--- A matrix with ones on its diagonal.
-- @tparam int rows
-- @tparam[opt=rows] int columns
-- @tparam[opt] CreationOptions given
-- @treturn Tensor
function tensor.eye(rows, columns, given)
    if type(columns) == "table" then columns, given = nil, columns end
    given = options.check(given, CREATION, "tensor.eye")
    columns = columns or rows
    check_finite("tensor.eye", "rows", rows)
    check_finite("tensor.eye", "columns", columns)
    local eye = native.empty({ rows, columns }, given.dtype, given.device):fill_(0)
    for i = 1, math.min(rows, columns) do eye[{ i, i }] = 1 end
    return eye
end

--- A tensor of the numbers (or booleans, as 1 and 0) of nested tables, which must be rectangular.
-- @tparam table|number values
-- @tparam[opt="float32"] string dtype
-- @tparam[opt="cpu"] string device
-- @treturn Tensor
function tensor.fromTable(values, dtype, device)
    return native.from_table(values, dtype, device)
end

--- A tensor of the bytes of a string: row-major, little-endian.
-- @tparam string bytes
-- @tparam string dtype
-- @tparam {int,...} sizes
-- @tparam[opt="cpu"] string device
-- @treturn Tensor
-- @see Tensor:bytes
function tensor.fromString(bytes, dtype, sizes, device)
    return native.from_string(bytes, sizes, dtype, device)
end

local POINTERS = {
    float32 = ffi.typeof "float *", float16 = ffi.typeof "uint16_t *", bfloat16 = ffi.typeof "uint16_t *",
    int64 = ffi.typeof "int64_t *", int32 = ffi.typeof "int32_t *", int8 = ffi.typeof "int8_t *",
    uint8 = ffi.typeof "uint8_t *",
}

--- A tensor over memory that something else owns, dense and in host memory.
-- @tparam cdata pointer the first element
-- @tparam string dtype
-- @tparam {int,...} sizes
-- @param anchor whatever keeps the memory alive (the cdata array itself, a file mapping's object); it is held as long
-- as any view of the tensor
-- @treturn Tensor
function tensor.fromPointer(pointer, dtype, sizes, anchor)
    if anchor == nil then error("tensor.fromPointer: an anchor is needed: what keeps the memory alive", 2) end
    return native.from_pointer(tonumber(ffi.cast("uintptr_t", pointer)), sizes, dtype, { anchor, pointer })
end

--- The elements' address as FFI data, typed after the element type (`uint16_t *` for float16 and bfloat16); counted
-- from 0 and to be read with the strides. Only in host memory.
--
-- The pointer does not keep the tensor alive: keep `x` in a variable as long as the pointer is used.
-- @function Tensor:data
-- @treturn cdata
function Tensor:data()
    return ffi.cast(POINTERS[self:dtype()], native.pointer(self))
end

--- `condition ~= 0 ? a : b`, element by element, broadcasting.
-- @tparam Tensor condition uint8
-- @tparam Tensor|number a
-- @tparam Tensor|number b
-- @treturn Tensor
function tensor.where(condition, a, b)
    return native.where(condition, a, b)
end

-- ==== several tensors ================================================================================================

--- Tensors one behind the other along a dim. Their other sizes agree; types meet as in arithmetic.
-- @tparam {Tensor,...} list
-- @tparam[opt=1] int dim
-- @treturn Tensor
function tensor.cat(list, dim)
    dim = dim or 1
    if type(list) ~= "table" or not tensor.isTensor(list[1]) then
        error("tensor.cat: a list of tensors expected, with at least one", 2)
    end
    local sizes, dtype = list[1]:size(), list[1]
    if dim < 0 then dim = dim + #sizes + 1 end
    if not sizes[dim] then error(("tensor.cat: the tensors have %d dims, none is %d"):format(#sizes, dim), 2) end
    sizes[dim] = 0
    for i, part in ipairs(list) do
        if not tensor.isTensor(part) then
            error(("tensor.cat: element %d of the list is a %s, not a tensor"):format(i, type(part)), 2)
        end
        local own = part:size()
        for k = 1, math.max(#own, #sizes) do
            if k ~= dim and own[k] ~= sizes[k] or #own ~= #sizes then
                error(("tensor.cat: tensor %d is [%s], which does not go with [%s] along dim %d"):format(i,
                    table.concat(own, "x"), table.concat(list[1]:size(), "x"), dim), 2)
            end
        end
        sizes[dim] = sizes[dim] + own[dim]
        dtype = native.common_type(dtype, part)
    end
    local result = native.empty(sizes, dtype, list[1]:device())
    local start = 1
    for _, part in ipairs(list) do
        local length = part:size(dim)
        result:narrow(dim, start, length):copy_(part)
        start = start + length
    end
    return result
end

--- Tensors of one shape side by side along a new dim.
-- @tparam {Tensor,...} list
-- @tparam[opt=1] int dim where the new dim comes
-- @treturn Tensor
function tensor.stack(list, dim)
    if type(list) ~= "table" or not tensor.isTensor(list[1]) then
        error("tensor.stack: a list of tensors expected, with at least one", 2)
    end
    local wide = {}
    for i, part in ipairs(list) do wide[i] = part:unsqueeze(dim or 1) end
    return tensor.cat(wide, dim or 1)
end

--- True when two tensors have the same sizes and equal elements (a NaN equals nothing). Types may differ.
-- @tparam Tensor a
-- @tparam Tensor b
-- @treturn boolean
function tensor.equal(a, b)
    return a:isSameSizeAs(b) and a:eq(b):all()
end

--- True when two tensors have the same sizes and |a - b| <= atol + rtol * |b| everywhere. Equal infinities are close,
-- NaN is not.
-- @tparam Tensor a
-- @tparam Tensor b
-- @tparam[opt=1e-8] number atol
-- @tparam[opt=1e-5] number rtol
-- @treturn boolean
function tensor.allclose(a, b, atol, rtol)
    if not a:isSameSizeAs(b) then return false end
    a, b = a:float(), b:float()
    local near = (a - b):abs_():le(b:abs():mul_(rtol or 1e-5):add_(atol or 1e-8))
    local finite = b:abs():lt(math.huge)
    return near:logicalAnd(finite):logicalOr(a:eq(b)):all()
end

--- Squared Euclidean distances between the rows of two matrices.
-- @tparam Tensor a [n,D] float32
-- @tparam Tensor b [m,D] float32
-- @treturn Tensor [n,m] float32
-- @see Tensor:pairwiseDistance
function tensor.pairwiseDistance(a, b)
    return a:pairwiseDistance(b)
end

-- ==== random numbers =================================================================================================

--- A generator of random numbers: torch's CPU generator after `torch.manual_seed(seed)`.
--
-- Its methods are `randperm(n)` (a permutation of 1 .. n) and `random()` (the next 32 bits). Calls that share one
-- generator draw from one stream.
-- @tparam int seed 0 to 2^53; the low 32 bits count
-- @treturn Generator
function tensor.generator(seed)
    return native.generator(seed)
end

local default_generator = native.generator(0)

--- Starts the generator anew that is used where neither a seed nor a generator is given. It starts with seed 0, so a
-- script draws the same numbers each time it runs.
-- @tparam int seed
function tensor.manualSeed(seed)
    default_generator = native.generator(seed)
end

--- A random permutation of 1 .. n: `torch.randperm(n) + 1` after `torch.manual_seed(seed)`, to the number.
-- @tparam int n
-- @tparam[opt] int|Generator source a seed, or a generator to draw from
-- @treturn Tensor [n] int64
function tensor.randperm(n, source)
    if type(source) == "number" then source = native.generator(source) end
    return (source or default_generator):randperm(n)
end

--- Options of `rand` and `randn`.
-- @table RandomOptions
-- @field dtype a float type, "float32" unless said
-- @field device "cpu" unless said
-- @field seed the numbers' seed: the same on every device
-- @field generator or the generator that a seed is drawn from
local RANDOM = {
    dtype = CREATION.dtype, device = CREATION.device,
    seed = { type = "integer", min = 0 }, generator = "userdata",
}

local function random(where, kind, ...)
    local sizes, given = sizes_and_options(where, RANDOM, ...)
    local source = given.generator or default_generator
    local seed = given.seed or source:random() * 2 ^ 20 + math.floor(source:random() / 2 ^ 12)
    return native.random(sizes, kind, seed, given.dtype, given.device)
end

--- Random numbers, uniform from 0 (included) to 1 (not).
-- @param ... sizes, or one table of them; then RandomOptions
-- @treturn Tensor
function tensor.rand(...)
    return random("tensor.rand", 0, ...)
end

--- Random numbers of the standard normal distribution.
-- @param ... sizes, or one table of them; then RandomOptions
-- @treturn Tensor
function tensor.randn(...)
    return random("tensor.randn", 1, ...)
end

-- ==== memory =========================================================================================================

--- Marks the tensors in a value, walking through tables.
local function mark(value, kept, seen)
    if tensor.isTensor(value) then
        kept[value] = true
    elseif type(value) == "table" and not seen[value] then
        seen[value] = true
        for key, member in pairs(value) do
            mark(key, kept, seen)
            mark(member, kept, seen)
        end
    end
end

local function pack(...)
    return { n = select("#", ...), ... }
end

--- Calls a function and frees the tensors that were made meanwhile, except those that it returns (also inside returned
-- tables), whether it returns or raises.
--
-- Scopes nest: what an inner one returns belongs to the outer one. A scope sees what its own coroutine makes. Tensors
-- that the function stored elsewhere are freed too, and raise when used.
-- @tparam function f
-- @param ... its arguments
-- @return what `f` returns
function tensor.scope(f, ...)
    native.begin_scope()
    local results = pack(pcall(f, ...))
    local made = native.end_scope()
    local kept = {}
    if results[1] then mark(results, kept, {}) end
    for i = 1, made[0] do
        local x = made[i]
        if x ~= nil and not kept[x] then
            x:free()
        elseif x ~= nil then
            native.note(x)
        end
    end
    if not results[1] then error(results[2], 0) end
    return unpack(results, 2, results.n)
end

--- Reads a file of one tensor or of several: see `pixelrefer.tensor.files`.
-- @function tensor.load
-- @tparam string path
-- @treturn Tensor|table
tensor.load = files.load

--- Writes a tensor, or several by name: see `pixelrefer.tensor.files`.
-- @function tensor.save
-- @tparam string path
-- @tparam Tensor|table value
tensor.save = files.save

local class = getmetatable(native.empty({}, "uint8"))
class.__tostring = display.text

return tensor
