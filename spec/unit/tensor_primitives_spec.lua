-- Every tensor primitive against values that PyTorch computed (spec/fixtures/make_tensor_fixtures.py), on inputs that
-- lie densely, transposed, and with holes; and the list of all ops against the specs that cover them. DEVICE=name runs
-- them on another device than the CPU.
local cjson = require "cjson"

local core = require "pixelrefer.core"
local device = require "support.device"
local tensor = require "pixelrefer.tensor"
local files = require "support.files"

local WORDS = { nan = 0 / 0, inf = math.huge, ["-inf"] = -math.huge }

local function numbers(data)
    local values = {}
    for i, value in ipairs(data) do values[i] = WORDS[value] or value end
    return values
end

-- How an input may lie in memory.
local LAYOUTS = {}

function LAYOUTS.dense(x)
    return x
end

function LAYOUTS.transposed(x)
    local reversed = {}
    for dim = 1, x:dim() do reversed[dim] = x:dim() + 1 - dim end
    return x:permute(reversed):clone():permute(reversed)
end

-- Every second element of a larger tensor full of values that would be noticed.
function LAYOUTS.holes(x)
    local sizes = x:size()
    for dim, size in ipairs(sizes) do sizes[dim] = 2 * size + 1 end
    local hole = x:dtype():match("float") and 0 / 0 or 77
    local view = tensor.full(sizes, hole, { dtype = x:dtype(), device = x:device() })
    for dim = 1, x:dim() do
        local size = x:size(dim)
        view = size > 0 and view:slice(dim, 2, 2 * size, 2) or view:narrow(dim, 1, 0)
    end
    return view:copy_(x)
end

local function build(description, layout)
    local x = tensor.fromTable(numbers(description.data), description.dtype):view(description.size)
    return LAYOUTS[layout](device.put(x))
end

local function close(found, expected, tolerance)
    if expected ~= expected then return found ~= found end
    if found == expected then return true end
    return math.abs(found - expected) <= tolerance * math.max(1, math.abs(expected))
end

--- Nil when the tensor is as described, else what differs.
local function difference(found, expected, tolerance)
    if not tensor.isTensor(found) then return "a tensor expected, got " .. tostring(found) end
    if found:dtype() ~= expected.dtype then
        return ("%s expected, got %s"):format(expected.dtype, found:dtype())
    end
    local sizes, wanted = table.concat(found:size(), "x"), table.concat(expected.size, "x")
    if sizes ~= wanted then return ("size %s expected, got %s"):format(wanted, sizes) end
    local values = found:to("cpu"):reshape(found:nElement()):totable()
    local exact = tensor.fromTable(numbers(expected.data), expected.dtype):totable()
    for i, value in ipairs(exact) do
        if not close(values[i], value, tolerance) then
            return ("element %d: %.9g expected, got %.9g"):format(i, value, values[i])
        end
    end
    return nil
end

local function check_output(found, expected, tolerance)
    if type(expected) == "table" then return difference(found, expected, tolerance) end
    if type(expected) == "boolean" then
        return found ~= expected and ("%s expected, got %s"):format(tostring(expected), tostring(found)) or nil
    end
    local wanted = WORDS[expected] or expected
    return not close(found, wanted, tolerance) and ("%.9g expected, got %s"):format(wanted, tostring(found)) or nil
end

--- Runs a case in one layout; nil or what is wrong.
local function run(case, layout)
    local inputs, arguments = {}, {}
    for i, description in ipairs(case.inputs) do inputs[i] = build(description, layout) end
    for i, argument in ipairs(case.args) do
        arguments[i] = type(argument) == "table" and inputs[argument.input + 1] or WORDS[argument] or argument
    end
    local method = case.method == "where" and tensor.where or inputs[1][case.method]
    local results = { method(inputs[1], unpack(arguments, 1, #case.args)) }
    for i, expected in ipairs(case.outputs) do
        local wrong = check_output(results[i], expected, case.tolerance)
        if wrong then return ("result %d: %s"):format(i, wrong) end
    end
    return nil
end

-- One case a line; decoded when its test runs, so that the garbage collector has little to walk through.
local by_method, methods, tested, count = {}, {}, {}, 0
for line in files.read("spec/fixtures/tensor/primitives.json"):gmatch "{[^\n]+}" do
    local primitive, method = line:match '^{"primitive":"(.-)","method":"(.-)"'
    local name = primitive .. ": " .. method
    if not by_method[name] then
        by_method[name] = {}
        methods[#methods + 1] = name
    end
    count = count + 1
    table.insert(by_method[name], { number = count, line = line })
    tested[primitive] = true
end

describe("tensor primitives give what PyTorch gives:", function()
    for _, name in ipairs(methods) do
        it(name, function()
            for _, entry in ipairs(by_method[name]) do
                local case = cjson.decode(entry.line)
                for layout in pairs(LAYOUTS) do
                    local ok, wrong = pcall(device.attempt, run, case, layout)
                    if not ok and type(wrong) == "table" then error(wrong, 0) end -- skipped
                    if not ok or wrong then
                        error(("case %d, %s: %s"):format(entry.number, layout, tostring(wrong)), 0)
                    end
                end
            end
        end)
    end
end)

-- The ops whose cases are not in the fixtures, and where they are tested.
local ELSEWHERE = {
    linear = "ops_fused", linears = "ops_fused", layer_norm = "ops_fused", rms_norm = "ops_fused", rope = "ops_fused",
    rope_store = "ops_fused",
    attention = "ops_attention", attention_weights = "ops_attention", silu_mul = "ops_fused", embedding = "ops_fused",
    kmeans = "ops_fused", sample = "ops_fused", fill = "tensor", sequence = "tensor", random_fill = "tensor",
    quantize = "quantize",
}
local WORD = { fill = "fill_", sequence = "arange", random_fill = "randn" }

describe("the list of ops", function()
    it("has a test for each", function()
        local missing = {}
        for _, op in ipairs(core.ops()) do
            local place = ELSEWHERE[op]
            local found = place and files.read(("spec/unit/%s_spec.lua"):format(place)):find(WORD[op] or op, 1, true)
            if not tested[op] and not found then missing[#missing + 1] = op end
        end
        assert.same({}, missing)
    end)
end)
