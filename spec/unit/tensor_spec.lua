-- The Tensor object: making, viewing, indexing, converting, printing; its errors; the life of its memory.
local cjson = require "cjson"
local ffi = require "ffi"

local core = require "pixelrefer.core"
local shared = require "support.shared"
local tensor = require "pixelrefer.tensor"

local DTYPES = { "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8" }

local function grid()
    return tensor.fromTable { { 1, 2, 3, 4 }, { 5, 6, 7, 8 }, { 9, 10, 11, 12 } }
end

--- Asserts that a call raises and that the message holds each of the given pieces.
local function assert_raises(f, ...)
    local ok, message = pcall(f)
    assert.is_false(ok, "no error was raised")
    for _, piece in ipairs { ... } do
        assert.is_truthy(tostring(message):find(piece, 1, true), ("'%s' lacks '%s'"):format(message, piece))
    end
end

describe("making tensors", function()
    it("takes sizes as numbers or a table, then options", function()
        assert.same({ 2, 3 }, tensor.zeros(2, 3):size())
        assert.same({ 2, 3 }, tensor.zeros({ 2, 3 }, { dtype = "int8" }):size())
        assert.equal("int8", tensor.zeros(2, { dtype = "int8" }):dtype())
        assert.same({}, tensor.ones({}):size())
        assert.equal(1, tensor.ones():item())
        assert.equal("cpu", tensor.empty(1, { device = "cpu" }):device())
    end)

    it("fills every type", function()
        for _, dtype in ipairs(DTYPES) do
            assert.same({ { 3, 3 }, { 3, 3 } }, tensor.full({ 2, 2 }, 3, { dtype = dtype }):totable())
            assert.same({ 0, 0 }, tensor.zeros(2, { dtype = dtype }):totable())
        end
        assert.same({ 0.5, 0.5 }, tensor.ones(2, { dtype = "float16" }):fill_(0.5):totable())
        assert.same({}, tensor.zeros(0):totable())
        assert.same({ {}, {} }, tensor.zeros(2, 0):totable())
    end)

    it("counts as Lua's for does", function()
        assert.same({ 1, 2, 3 }, tensor.range(1, 3):totable())
        assert.same({ 0, 0.5, 1 }, tensor.range(0, 1, 0.5):totable())
        assert.same({ 3, 2, 1 }, tensor.range(3, 1, -1, { dtype = "int32" }):totable())
        assert.same({}, tensor.range(2, 1):totable())
        assert.equal(11, tensor.range(0, 1, 0.1):nElement())
        assert.same({ 0, 1, 2 }, tensor.arange(3):totable())
        assert.same({ 1, 2 }, tensor.arange(1, 3):totable())
        assert.same({ 3, 2 }, tensor.arange(3, 1, -1, { dtype = "int32" }):totable())
        assert.equal(10, tensor.arange(0, 1, 0.1):nElement())
        assert.equal("int64", tensor.arange(3, { dtype = "int64" }):dtype())
        assert.same({ 0, 0.25, 0.5, 0.75, 1 }, tensor.linspace(0, 1, 5):totable())
        assert.same({ 7 }, tensor.linspace(7, 9, 1):totable())
        assert.same({ { 1, 0, 0 }, { 0, 1, 0 } }, tensor.eye(2, 3):totable())
    end)

    it("says what is wrong", function()
        assert_raises(function() tensor.zeros(2, { dtpe = "int8" }) end, "tensor.zeros", "dtpe", "did you mean 'dtype'")
        assert_raises(function() tensor.zeros(2, { dtype = "int9" }) end, "int9", "float32, float16")
        assert_raises(function() tensor.zeros { 2, dtype = "int8" } end, "'dtype' stands among the sizes")
        assert_raises(function() tensor.zeros(-1) end, "size 1 must be an integer of at least 0, got -1")
        assert_raises(function() tensor.zeros(1.5) end, "got 1.5")
        assert_raises(function() tensor.zeros(2, "3") end, "argument 2 is a string")
        assert_raises(function() tensor.zeros(1, 1, 1, 1, 1, 1, 1) end, "at most 6 sizes")
        assert_raises(function() tensor.zeros(2 ^ 40, 2 ^ 40) end, "overflows")
        assert_raises(function() tensor.zeros(2 ^ 50) end, "memory")
        assert_raises(function() tensor.range(1, 2, 0) end, "step must not be 0")
        assert_raises(function() tensor.range(0, 1e30, 1) end, "more numbers than")
        assert_raises(function() tensor.range(0 / 0, 1) end, "first must be a number, got")
        assert_raises(function() tensor.zeros(2, { device = "tpu" }) end, "tpu")
        assert_raises(function() tensor.zeros(2):to("int9") end, "'int9' is no type, and no device")
        assert_raises(function() tensor.zeros(2, { dtype = "uint8" }):fill_(300) end, "300 does not fit uint8")
        assert_raises(function() tensor.zeros(2, { dtype = "int64" }):fill_(0.5) end, "0.5 does not fit int64")
        assert_raises(function() tensor.zeros(2, { dtype = "int32" }):fill_(0 / 0) end, "does not fit int32")
    end)
end)

describe("tables, strings and pointers", function()
    it("go there and back in every type", function()
        for _, dtype in ipairs(DTYPES) do
            local values = { { 0, 1, 2 }, { 3, 4, 127 } }
            local x = tensor.fromTable(values, dtype)
            assert.equal(dtype, x:dtype())
            assert.same(values, x:totable())
            assert.same(values, tensor.fromString(x:bytes(), dtype, { 2, 3 }):totable())
            assert.same({ { 0, 3 }, { 1, 4 }, { 2, 127 } }, x:t():totable())
            assert.equal(x:t():contiguous():bytes(), x:t():bytes())
        end
        assert.equal(2.5, tensor.fromTable(2.5):item())
        assert.same({ 1, 0 }, tensor.fromTable({ true, false }, "uint8"):totable())
        assert.same({ 0, 3 }, tensor.fromTable({ {}, {} }):size()[2] == 0 and { 0, 3 })
        assert.equal("", tensor.zeros(0):bytes())
    end)

    it("says where a table is not rectangular or no number", function()
        assert_raises(function() tensor.fromTable { { 1, 2 }, { 3 } } end, "depth 2", "has 1 elements, the first 2")
        assert_raises(function() tensor.fromTable { { 1 }, 2 } end, "depth 2, got number")
        assert_raises(function() tensor.fromTable { 1, "x" } end, "element 2", "string")
        assert_raises(function() tensor.fromTable({ 1, 2.5 }, "int32") end, "element 2", "2.5", "int32")
        assert_raises(function() tensor.fromTable({ 256 }, "uint8") end, "256", "uint8")
        assert_raises(function() tensor.fromTable { { { { { { { 1 } } } } } } } end, "deeper than the 6 dims")
        assert_raises(function() tensor.fromString("abc", "float32", { 1 }) end, "4 bytes expected", "got 3")
    end)

    it("keeps 64 bits, and says so where a Lua number cannot", function()
        local x = tensor.full({ 2 }, 2 ^ 53, { dtype = "int64" })
        assert.equal(2 ^ 53, x[1])
        x:add_(1)
        assert_raises(function() return x[1] end, "9007199254740993", "data()")
        assert_raises(function() return x:totable() end, "no exact Lua number")
        assert.equal(9007199254740993LL, x:data()[1])
        assert.is_truthy(tostring(x):find("9007199254740993", 1, true))
        local limits = tensor.fromTable({ math.huge, -math.huge, 0 / 0 }):long():data()
        assert.equal(9223372036854775807LL, limits[0])
        assert.equal(-9223372036854775807LL - 1, limits[1])
        assert.equal(0LL, limits[2])
    end)

    it("wraps foreign memory and holds its owner", function()
        local array = ffi.new("float[6]", 1, 2, 3, 4, 5, 6)
        local watch = setmetatable({ array }, { __mode = "v" })
        local x = tensor.fromPointer(array, "float32", { 2, 3 }, array)
        x[{ 1, 2 }] = 9
        assert.equal(9, array[1])
        local row = x:select(1, 2)
        array, x = nil, nil -- luacheck: ignore
        collectgarbage() collectgarbage()
        assert.is_not_nil(watch[1])
        assert.same({ 4, 5, 6 }, row:totable())
        row = nil -- luacheck: ignore
        collectgarbage() collectgarbage() collectgarbage()
        assert.is_nil(watch[1])
        assert_raises(function() tensor.fromPointer(ffi.new "float[1]", "float32", { 1 }) end, "an anchor is needed")
    end)

    it("reads elements at any byte", function()
        local bytes = ffi.new("uint8_t[64]")
        for _, dtype in ipairs(DTYPES) do
            local source = tensor.fromTable({ 1, 2, 3, 4 }, dtype)
            ffi.copy(bytes + 1, source:bytes(), #source:bytes())
            local x = tensor.fromPointer(bytes + 1, dtype, { 4 }, bytes)
            assert.same({ 1, 2, 3, 4 }, x:totable())
            assert.same({ 2, 4, 6, 8 }, (x + x):totable())
            assert.equal(10, x:sum())
            assert.same({ 4, 3, 2, 1 }, (x:sort(1, true)):totable())
            x:add_(1)
            assert.same({ 2, 3, 4, 5 }, x:clone():totable())
        end
    end)
end)

describe("views", function()
    it("share their elements", function()
        local x = grid()
        local row, column = x:select(1, 2), x:narrow(2, 3, 1)
        row:fill_(0)
        assert.equal(0, column[2][1])
        assert.is_true(row:sharesStorage(x))
        assert.is_false(x:clone():sharesStorage(x))
        assert.is_true(x:contiguous():sharesStorage(x))
        assert.is_false(x:t():contiguous():sharesStorage(x))
        assert.is_true(x:to("float32"):sharesStorage(x))
    end)

    it("take parts", function()
        local x = grid()
        assert.same({ { 2, 3 }, { 6, 7 }, { 10, 11 } }, x:narrow(2, 2, 2):totable())
        assert.same({ 4, 8, 12 }, x:select(-1, -1):totable())
        assert.same({ { 1, 3 }, { 5, 7 }, { 9, 11 } }, x:slice(2, 1, 4, 2):totable())
        assert.same({ { 9, 10, 11, 12 } }, x:slice(1, -1):totable())
        assert.same({ 3, 0 }, x:narrow(2, 5, 0):size())
        assert.same({ { 1, 2 }, { 2, 3 }, { 3, 4 } }, x[1]:unfold(1, 2, 1):totable())
        assert.same({ { 1, 2 }, { 3, 4 } }, x[1]:unfold(1, 2, 2):totable())
    end)

    it("reorder and reshape", function()
        local x = grid()
        assert.same({ 4, 3 }, x:t():size())
        assert.same({ 1, 4 }, x:t():stride())
        assert.is_false(x:t():isContiguous())
        assert.same({ 2, 4, 3 }, tensor.zeros(3, 2, 4):permute(2, 3, 1):size())
        assert.same({ 2, 4, 3 }, tensor.zeros(3, 2, 4):permute { 2, -1, 1 }:size())
        assert.same({ 6, 2 }, x:view(-1, 2):size())
        assert.same({ 12 }, x:view { 12 }:size())
        assert.same({ 1, 5, 9, 2, 6, 10, 3, 7, 11, 4, 8, 12 }, x:t():reshape(-1):totable())
        assert.same({ 3, 1, 4 }, x:unsqueeze(2):size())
        assert.same({ 3, 4, 1 }, x:unsqueeze(-1):size())
        assert.same({ 3, 4 }, x:unsqueeze(2):squeeze(2):size())
        assert.same({ 3, 4 }, x:view(1, 3, 1, 4):squeeze():size())
        assert.same({ { 1, 1, 1 }, { 2, 2, 2 } }, tensor.fromTable({ { 1 }, { 2 } }):expand(2, 3):totable())
        assert.same({ 2, 3 }, tensor.zeros(3):expandAs(tensor.zeros(2, 3)):size())
        assert.same({ 0, 3 }, tensor.zeros(3, 0):reshape(0, 3):size())
    end)

    it("split, chunk, cat and stack", function()
        local x = grid()
        local left, right = unpack(x:split(3, 2))
        assert.same({ 3, 3 }, left:size())
        assert.same({ 3, 1 }, right:size())
        assert.equal(2, #x:chunk(2, 1))
        assert.is_true(tensor.equal(x, tensor.cat(x:split(1, 2), 2)))
        assert.is_true(tensor.equal(x, tensor.cat(x:chunk(3), -2)))
        assert.same({ { 1, 3 }, { 2, 4 } },
            tensor.stack({ tensor.fromTable { 1, 2 }, tensor.fromTable { 3, 4 } }, 2):totable())
        assert.equal("float32", tensor.cat({ x:byte(), x:half(), x }, 1):dtype())
        assert.equal("int32", tensor.cat({ x:byte(), x:char() }, 1):dtype())
        assert_raises(function() tensor.cat({ x, x:t() }, 1) end, "tensor 2 is [4x3]", "[3x4]")
        assert_raises(function() tensor.cat {} end, "at least one")
        assert_raises(function() tensor.cat { x, 3 } end, "element 2 of the list is a number")
        assert_raises(function() x:split(0) end, "positive integer", "got 0")
    end)

    it("say what does not fit", function()
        local x = grid()
        assert_raises(function() x:narrow(3, 1, 1) end, "narrow", "a dim from 1 to 2 expected, got 3")
        assert_raises(function() x:narrow(1, 3, 2) end, "elements 3 to 4", "[3x4]")
        assert_raises(function() x:narrow(1, 1, 9) end, "from 0 to 3 expected, got 9")
        assert_raises(function() x:select(1, 4) end, "an index from 1 to 3 expected, got 4")
        assert_raises(function() x:select(1, 1.5) end, "got 1.5")
        assert_raises(function() x:view(5, 2) end, "[3x4]", "[5x2]")
        assert_raises(function() x:t():view(12) end, "contiguous")
        assert_raises(function() x:permute(1, 1) end, "appears twice")
        assert_raises(function() x:permute(1) end, "2 dims expected, got 1")
        assert_raises(function() x:expand(6, 4) end, "cannot be expanded to 6")
        local one = tensor.ones(1, 1, 1)
        assert_raises(function() one:expand(2 ^ 5, 2 ^ 6, 2 ^ 53) end, "more elements than can be counted")
        assert.equal(0, tensor.ones(0, 1, 1):expand(0, 2 ^ 53, 2 ^ 53):nElement())
        local windows = tensor.ones(1):expand(2 ^ 40):unfold(1, 2 ^ 20, 1)
        assert_raises(function() windows:unfold(1, 2 ^ 20, 1) end, "more elements than can be counted")
        assert_raises(function() x:squeeze(1) end, "not of size 1")
        assert_raises(function() x:unfold(1, 4, 1) end, "from 1 to 3 expected, got 4")
        assert_raises(function() tensor.zeros(2, 2, 2):t() end, "a matrix expected, got 3 dims")
        assert_raises(function() x:expand(2, 3, 4):fill_(1) end, "expanded view")
    end)
end)

describe("indexing", function()
    it("selects, ranges and gives numbers", function()
        local x = grid()
        assert.equal(3, #x)
        assert.same({ 5, 6, 7, 8 }, x[2]:totable())
        assert.equal(7, x[2][3])
        assert.equal(12, x[-1][-1])
        assert.equal(7, x[{ 2, 3 }])
        assert.same({ 3, 7, 11 }, x[{ {}, 3 }]:totable())
        assert.same({ { 6, 7 } }, x[{ { 2 }, { 2, 3 } }]:totable())
        assert.same({ { 1, 3 }, { 9, 11 } }, x[{ { 1, 3, 2 }, { 1, -1, 2 } }]:totable())
        assert.same({ 9, 10, 11, 12 }, x[{ -1 }]:totable())
        assert.same({ 3, 4 }, x[{}]:size())
        assert.same({ 1, 3, 1 }, x:view(3, 1, 4)[{ { 1 }, 1, { 1, 3 } }]:view(1, 3, 1):size())
    end)

    it("assigns numbers and tensors", function()
        local x = grid()
        x[1] = 0
        x[{ 2, 3 }] = -1
        x[{ {}, { 1, 2 } }] = tensor.fromTable({ 20, 21 }, "int32")
        x[3] = x[1]
        assert.same({ { 20, 21, 0, 0 }, { 20, 21, -1, 8 }, { 20, 21, 0, 0 } }, x:totable())
    end)

    it("takes masks", function()
        local x = grid()
        assert.same({ 10, 11, 12 }, x[x:gt(9)]:totable())
        assert.same({}, x[x:gt(99)]:totable())
        x[x:gt(9)] = 0
        assert.equal(45, x:sum())
        x[x:eq(0)] = tensor.fromTable { 7, 8, 9 }
        assert.same({ 9, 7, 8, 9 }, x[3]:totable())
        x[tensor.fromTable({ { 1 }, { 0 }, { 0 } }, "uint8")] = tensor.fromTable(5)
        assert.same({ 5, 5, 5, 5 }, x[1]:totable())
    end)

    it("copies safely between overlapping views", function()
        local x = tensor.range(1, 5)
        x:narrow(1, 2, 4):copy_(x:narrow(1, 1, 4))
        assert.same({ 1, 1, 2, 3, 4 }, x:totable())
        local y = grid():narrow(2, 1, 3)
        y:add_(y:t())
        assert.same({ { 2, 7, 12 }, { 7, 12, 17 }, { 12, 17, 22 } }, y:totable())
    end)

    it("says what is out of range", function()
        local x = grid()
        assert_raises(function() return x[4] end, "index 4 is out of range for dim 1 of a tensor [3x4]")
        assert_raises(function() return x[0] end, "index 0 is out of range")
        assert_raises(function() return x[{ 1, 5 }] end, "index 5 is out of range")
        assert_raises(function() return x[{ 1, 2, 3 }] end, "3 indices for a tensor [3x4]")
        assert_raises(function() return x[{ { 3, 2 } }] end, "the range from 3 to 2 is empty")
        assert_raises(function() return x[{ { 1, 2, 3, 4 } }] end, "a range is")
        assert_raises(function() return x[{ "a" }] end, "number expected as an index of dim 1, got string")
        assert_raises(function() return x[true] end, "not by a boolean")
        assert_raises(function() return x[x] end, "must be uint8, got float32")
        assert_raises(function() x[1] = "a" end, "a number or a tensor expected", "string")
        assert_raises(function() x.colour = 1 end, "no field 'colour'")
        assert_raises(function() x[1] = tensor.zeros(3) end, "[3]", "[4]")
        assert_raises(function() x:byte()[1] = 256 end, "256 does not fit uint8")
        assert_raises(function() return tensor.fromTable(1)[1] end, "item()")
        assert_raises(function() return x:item() end, "one element", "[3x4]")
        assert_raises(function() x[x:gt(6)] = tensor.zeros(5) end, "6 ones", "5 elements")
        assert.is_nil(x.colour)
    end)
end)

describe("a method's wrong argument", function()
    it("is told by the method's name and counted without the tensor, in tail calls and under pcall too", function()
        local x = tensor.ones(3, 4)
        local expected = "bad argument #2 to 'narrow' (an index from 1 to 3 expected, got 7)"
        assert.error_matches(function() return x:narrow(1, 7, 3) end, expected, 1, true)
        assert.error_matches(function() local _ = x:narrow(1, 7, 3) end, expected, 1, true)
        assert.matches(expected, select(2, pcall(x.narrow, x, 1, 7, 3)), 1, true)
        assert.error_matches(function() return x:topk("a") end, "#1 to 'topk' (number expected, got string)", 1, true)
        assert.error_matches(function() return x:matmul(3) end,
            "#1 to 'matmul' (pixelrefer.Tensor expected, got number)", 1, true)
        assert.error_matches(function() return x:add("s") end, "#1 to 'add' (a tensor or a number", 1, true)
        assert.matches("calling 'narrow' on bad self", select(2, pcall(x.narrow)), 1, true)
        local freed = tensor.ones(2)
        freed:free()
        assert.error_matches(function() return freed:exp() end, "calling 'exp' on bad self (this tensor was freed)",
            1, true)
    end)
end)

describe("arithmetic", function()
    it("refuses a second operand, which Torch7 scales by", function()
        local x, y = tensor.ones(3), tensor.ones(3)
        for _, name in ipairs { "add", "add_", "sub", "mul_", "div", "eq", "floorDivide" } do
            for _, given in ipairs { { 2, y }, { y, 2 } } do
                assert.error_matches(function() local _ = x[name](x, given[1], given[2]) end,
                    "one operand expected, got more: instead of Torch7's x:add(2, y) write x + 2 * y", 1, true)
            end
        end
        assert.same({ 1, 1, 1 }, x:totable())
    end)

    it("has operators with numbers on both sides", function()
        local x = tensor.fromTable { 1, 2, 4 }
        assert.same({ 3, 4, 6 }, (x + 2):totable())
        assert.same({ 9, 8, 6 }, (10 - x):totable())
        assert.same({ 8, 4, 2 }, (8 / x):totable())
        assert.same({ 2, 4, 16 }, (2 ^ x):totable())
        assert.same({ 1, 0, 0 }, (x % 2):totable())
        assert.same({ -1, -2, -4 }, (-x):totable())
        assert.same({ 1, 4, 16 }, (x * x):totable())
        assert.is_true(x == x)
        assert.is_false(x == x:clone())
    end)

    it("works in place where the name ends with _", function()
        local x = tensor.fromTable { 1, 2, 4 }
        assert.is_true(x:add_(1):mul_(2):sqrt_():clamp_(nil, 3) == x)
        assert.same({ 2, 3 }, { x[1], x[3] })
        assert.same({ 1, 2 }, tensor.fromTable({ 3, 4 }, "int8"):sub_(2):totable())
        assert_raises(function() x:byte():div_(2) end, "float32", "uint8")
        assert_raises(function() x:byte():add_(0.5) end, "float32 and cannot be written into a tensor of uint8")
        assert_raises(function() x:add_(tensor.zeros(2, 3)) end, "[2x3]", "does not broadcast to [3]")
        assert_raises(function() x:byte():exp_() end, "uint8", "float")
    end)

    it("refuses what has no meaning", function()
        local x = tensor.fromTable { { 1, 2, 3 } }
        assert_raises(function() return x + tensor.zeros(2) end, "[1x3] and [2] do not broadcast")
        assert_raises(function() return x + "1" end, "a tensor or a number expected, got string")
        assert_raises(function() return x:add() end, "a tensor or a number expected, got nil")
        assert_raises(function() return x:long() % 0 end, "divided by zero")
        assert_raises(function() return x:long():floorDivide(0) end, "divided by zero")
        assert_raises(function() return x:matmul(x) end, "[1x3] and [1x3] cannot be multiplied")
        assert_raises(function() return x:pairwiseDistance(tensor.zeros(2, 2)) end, "[1x3] and [2x2]")
        assert_raises(function() return x:gelu("fast") end, "fast")
        assert_raises(function() return x:sum(3) end, "a dim from 1 to 2")
        assert_raises(function() return tensor.zeros(0):max() end, "no extremum")
        assert_raises(function() return x:topk(4) end, "from 0 to 3 expected, got 4")
        assert_raises(function() return tensor.where(x, 1, 2) end, "uint8", "float32")
        assert_raises(function() return x:norm(-1) end, "at least 0")
    end)

    it("names an index that is out of range", function()
        local x = grid()
        local index = tensor.fromTable({ 1, 4 }, "int64")
        assert_raises(function() x:indexSelect(1, index) end, "index_select", "index 4 (element 2", "dim 1 of size 3")
        assert_raises(function() x:indexSelect(1, index - 1) end, "index 0 (element 1")
        assert_raises(function() x:indexAdd_(1, index, tensor.zeros(2, 4)) end, "index_add", "index 4")
        assert_raises(function() x:gather(2, index:view(1, 2) * 2) end, "gather", "index 8")
        assert_raises(function() x:gather(1, index) end, "index is [2], but x is [3x4]")
        assert_raises(function() x:indexSelect(1, x[1]) end, "integer type", "float32")
        assert_raises(function() x:indexSelect(1, index:view(1, 2)) end, "one dim", "got 2 dims")
        assert_raises(function() x:resizeBilinear(-1, 2) end, "got -1")
        assert_raises(function() x:gridSample(tensor.zeros(2, 3)) end, "points [n,2] expected, got [2x3]")
        assert_raises(function() tensor.zeros(0, 2, 1):resizeBilinear(2, 2) end, "resize_bilinear", "[0x2x1]")
    end)

    it("compares whole tensors", function()
        local x = grid()
        assert.is_true(tensor.equal(x, x:clone()))
        assert.is_true(tensor.equal(x, x:int()))
        assert.is_false(tensor.equal(x, x:t()))
        assert.is_true(tensor.allclose(x, x + 1e-6))
        assert.is_false(tensor.allclose(x, x + 1e-2))
        assert.is_true(tensor.allclose(x, x + 1e-2, 0.1))
        local huge = tensor.fromTable { math.huge, 1 }
        assert.is_true(tensor.allclose(huge, huge))
        assert.is_false(tensor.allclose(huge, -huge))
        assert.is_false(tensor.allclose(huge, huge * 0 + 1))
        assert.is_false(tensor.equal(huge * 0, huge * 0))
    end)
end)

describe("random numbers", function()
    it("permute as torch does", function()
        assert.same({ 5, 1, 2, 4, 3 }, tensor.randperm(5, 0):totable())
        local path = shared.path "golden/units/randperm.json"
        if not path then return end
        local file = assert(io.open(path))
        local cases = cjson.decode(file:read "*a")
        file:close()
        for _, case in ipairs(cases) do
            local generator = tensor.generator(case.seed)
            for i, call in ipairs(case.calls) do
                local found = tensor.randperm(call.n, generator) - 1
                assert.same(call.perm, found:totable(), ("seed %s, call %d"):format(case.seed, i))
            end
        end
    end)

    it("repeat with a seed, whatever the layout and threads", function()
        for _, dtype in ipairs { "float32", "float16", "bfloat16" } do
            local drawn = tensor.rand(200000, { seed = 5, dtype = dtype })
            assert.is_true(drawn:float():max() < 1 and drawn:float():min() >= 0, dtype)
            assert.is_true(math.abs(drawn:float():mean() - 0.5) < 5e-3, dtype)
        end
        local x = tensor.rand(100, 7, { seed = 5 })
        assert.is_true(tensor.equal(x, tensor.rand(700, { seed = 5 }):view(100, 7)))
        assert.is_false(tensor.equal(x, tensor.rand(100, 7, { seed = 6 })))
        tensor.manualSeed(3)
        local a = tensor.randn(4)
        local b = tensor.randn(4)
        tensor.manualSeed(3)
        assert.is_true(tensor.equal(a, tensor.randn(4)))
        assert.is_false(tensor.equal(a, b))
        local generator = tensor.generator(9)
        local first = tensor.rand(3, { generator = generator })
        assert.is_false(tensor.equal(first, tensor.rand(3, { generator = generator })))
    end)

    it("have the distribution they claim", function()
        local x = tensor.rand(40000, { seed = 1 })
        assert.is_true(x:min() >= 0 and x:max() < 1)
        assert.is_true(math.abs(x:mean() - 0.5) < 0.01 and math.abs(x:var() - 1 / 12) < 0.002)
        local y = tensor.randn(40000, { seed = 1, dtype = "float32" })
        assert.is_true(math.abs(y:mean()) < 0.02 and math.abs(y:std() - 1) < 0.02)
        assert.is_true(math.abs(y:pow(4):mean() - 3) < 0.2)
        assert_raises(function() tensor.rand(3, { dtype = "int8" }) end, "random_fill", "int8")
    end)
end)

describe("printing", function()
    it("looks like Torch", function()
        assert.equal(" 1  0\n 0  1\n[float32 tensor of size 2x2]", tostring(tensor.eye(2)))
        assert.equal(" 0.5000\n-1.2500\n[float32 tensor of size 2]", tostring(tensor.fromTable { 0.5, -1.25 }))
        assert.equal("[int8 tensor of size 0x3]", tostring(tensor.zeros(0, 3, { dtype = "int8" })))
        assert.equal(" 7\n[uint8 tensor of no dims]", tostring(tensor.fromTable(7, "uint8")))
        assert.equal("1e-07 *\n 1.0000\n 2.0000\n[float32 tensor of size 2]", tostring(tensor.fromTable { 1e-7, 2e-7 }))
        assert.equal("(1,.,.) =\n  1  2\n\n(2,.,.) =\n  3  4\n\n[float32 tensor of size 2x1x2]",
            tostring(tensor.range(1, 4):view(2, 1, 2)))
        assert.is_truthy(tostring(tensor.fromTable { 0 / 0, math.huge, -math.huge, 0.5 }):find "nan\n +inf\n +%-inf\n")
    end)

    it("groups columns and cuts what is large", function()
        local wide = tostring(tensor.range(1, 40):view(1, 40) + 0.5)
        assert.is_truthy(wide:find("Columns 1 to 10", 1, true) or wide:find("Columns 1 to 8", 1, true))
        local large = tostring(tensor.zeros(1000, 1000))
        assert.is_truthy(large:find("...", 1, true))
        assert.is_true(#large < 1000)
        assert.is_true(#tostring(tensor.zeros(20, 20, 20)) < 3000)
        local x = tensor.zeros(2)
        x:free()
        assert.equal("[freed tensor]", tostring(x))
    end)
end)

describe("memory", function()
    local function settle()
        collectgarbage() collectgarbage()
        return core.memory()
    end

    it("returns to where it was", function()
        local before = settle()
        do
            local kept = {}
            for i = 1, 50 do kept[i] = (tensor.rand(10, 10, { seed = i }) + 1):t():reshape(-1):sort() end
            assert.equal(50, #kept)
            assert.is_true(core.memory() > before)
        end
        for _ = 1, 20 do pcall(function() return tensor.zeros(3) + tensor.zeros(4) end) end
        assert.equal(before, settle())
    end)

    it("is given back at once by free, with the storage's last view", function()
        local before = settle()
        local x = tensor.zeros(1000)
        local view = x:narrow(1, 1, 10)
        x:free()
        x:free()
        assert.is_true(core.memory() > before)
        assert.equal(0, view[1])
        assert_raises(function() return x:size() end, "freed")
        assert_raises(function() return view + x end, "freed")
        assert.is_true(x:isFreed())
        view:free()
        assert.equal(before, core.memory())
    end)

    it("is given back by scopes, except what they return", function()
        local before = settle()
        local outside = tensor.ones(10)
        local leaked
        local sum, list = tensor.scope(function(a, n)
            local b = a * 2
            leaked = b + 1
            local inner = tensor.scope(function() return (b + b) * n end)
            return inner:clone(), { b, { deep = inner } }
        end, outside, 3)
        assert.equal(12, sum[1])
        assert.equal(2, list[1][1])
        assert.equal(12, list[2].deep[1])
        assert.is_true(leaked:isFreed())
        assert.equal(1, outside[1])
        for _, x in ipairs { sum, list[1], list[2].deep, outside } do x:free() end
        assert.equal(before, core.memory())
    end)

    it("is given back when a scope's function raises, and the error goes on", function()
        local before = settle()
        local made
        assert_raises(function()
            tensor.scope(function()
                made = tensor.zeros(100)
                error("on purpose")
            end)
        end, "on purpose")
        assert.is_true(made:isFreed())
        assert.equal(before, core.memory())
        tensor.zeros(1):free()
    end)

    it("of another coroutine is left alone by a scope", function()
        local other = coroutine.wrap(function()
            while true do coroutine.yield(tensor.ones(2)) end
        end)
        local x
        tensor.scope(function() x = other() end)
        assert.same({ 1, 1 }, x:totable())
        local run = coroutine.wrap(function()
            return tensor.scope(function()
                local y = tensor.ones(3)
                coroutine.yield()
                return (y + 1):sum()
            end)
        end)
        run()
        local z = tensor.ones(4)
        assert.equal(6, run())
        assert.equal(4, z:sum())
    end)

    it("is collected even without free, while tensors are made", function()
        local before = settle()
        local most = 0
        for _ = 1, 1000 do
            local x = tensor.empty(2 ^ 20 / 4) -- 1 MiB each, 1 GiB in all
            x[1] = 1
            most = math.max(most, core.memory())
        end
        assert.is_true(most - before < 600 * 2 ^ 20)
        settle()
    end)

    it("that cannot be had is an error, at every allocation, and nothing leaks", function()
        local x, index = grid(), tensor.fromTable({ 2, 1 }, "int64")
        local work = {
            function() return tensor.fromTable({ { 1, 2 } }, "float16") end,
            function() return x:t():half() + x:t():int() end,
            function() return x:sort(2), x:topk(1, 1), x:max(1) end,
            function() return x:indexSelect(1, index), x:nonzero(), x[x:gt(3)] end,
            function() return x:sum(), x:mean(1), x:t():reshape(-1) end,
            function() return tensor.where(x:gt(2), x, 0), x:softmax(1), x:matmul(x:t()) end,
            function() x[{ {}, 1 }] = x[{ {}, 2 }] end,
            function() return tensor.cat({ x, x }, 1), x:resizeBilinear(2, 2) end,
            function() return x:gridSample(x:view(6, 2):half()) end,
        }
        for number, f in ipairs(work) do
            pcall(f)
            local before, allocation, failed = settle(), 0, 0
            repeat
                allocation = allocation + 1
                core.memory_fail_at(core.memory_allocations() + allocation)
                local ok, message = pcall(f)
                core.memory_fail_at(0)
                if not ok and tostring(message):find "memory" then failed = failed + 1 end
                message = nil -- luacheck: ignore
                assert.equal(before, settle(), ("work %d, allocation %d"):format(number, allocation))
            until ok or allocation > 200
            assert.is_true(failed > 0 and allocation <= 200, ("work %d: %d failures"):format(number, failed))
        end
    end)
end)

describe("any number of threads", function()
    it("gives the same bits", function()
        local threads = core.threads()
        local x = tensor.randn(300, 700, { seed = 11 })
        local function results()
            local values, places = x:sort(2)
            return {
                (x * 1.5 + x:t():reshape(300, 700)):bytes(), x:exp():bytes(), x:sum(1):bytes(), x:sum(2):bytes(),
                x:mean(1):bytes(), x:softmax(1):bytes(), values:bytes(), places:bytes(), x:cumsum(2):bytes(),
                x:half():bytes(), x:t():clone():bytes(), tensor.randn(300, 700, { seed = 2 }):bytes(),
                x:view(300, 70, 10):resizeBilinear(100, 100):bytes(), x:t():contiguous():t():sum(1):bytes(),
            }
        end
        core.threads(1)
        local alone = results()
        assert.equal(alone[3], alone[14]) -- nor do strides matter
        for count = 2, 4 do
            core.threads(count)
            local found = results()
            for i, bytes in ipairs(alone) do
                assert.is_true(bytes == found[i], ("result %d, %d threads"):format(i, count))
            end
        end
        core.threads(threads)
    end)
end)
