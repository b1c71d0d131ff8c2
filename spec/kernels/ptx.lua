-- What nvcc made of the kernels, looked at without a GPU: registers, spills, shared memory, and how wide global memory
-- is read and written. Fails on a spill, on float64 arithmetic, on a kernel of the hot path that reads narrowly. Ends
-- with `N passed, N failed, N skipped`, counted in kernels.
-- usage: luajit spec/kernels/ptx.lua BUILD [--write-docs]    behind `make cuda BUILD=BUILD`

package.path = "spec/?.lua;" .. package.path
local source = require "lint.source"

local build = arg[1] or "build"

-- Kernels that live of memory bandwidth or of tensor cores (a pattern of their full name), and the bytes that their
-- widest reads must have.
local WIDE = { { "^flash<", 16 }, { "^linear_vector<.*form%)[123]>", 16 },
    { "^linear_skinny<", 16 } }

-- Kernels that compute in float64 where the CPU does.
local FLOAT64 = { sample_rows = true, sequence_elements = true, unary_elements = true }

local BYTES = { ["8"] = 1, ["16"] = 2, ["32"] = 4, ["64"] = 8 }

local kernels, order = {}, {}

local function kernel_named(name)
    if not kernels[name] then
        kernels[name] = { name = name, registers = 0, shared = 0, spills = 0, stack = 0, reads = {},
            writes = {}, float64 = 0 }
        order[#order + 1] = name
    end
    return kernels[name]
end

--- What the assembler said, for each architecture.
local function read_log(path)
    local kernel
    for line in io.lines(path) do
        local entry = line:match("Compiling entry function '([^']+)' for 'sm_%d+'")
        if entry then kernel = kernel_named(entry) end
        local stack, stores, loads = line:match("(%d+) bytes stack frame, (%d+) bytes spill stores, (%d+) bytes "
            .. "spill loads")
        if kernel and stack then
            kernel.stack = math.max(kernel.stack, tonumber(stack))
            kernel.spills = math.max(kernel.spills, stores + loads)
        end
        local registers = line:match("Used (%d+) registers")
        if kernel and registers then
            kernel.registers = math.max(kernel.registers, tonumber(registers))
            kernel.shared = math.max(kernel.shared, tonumber(line:match("(%d+) bytes smem") or 0))
        end
    end
end

local function count(widths, bytes)
    widths[bytes] = (widths[bytes] or 0) + 1
end

--- The instructions of each kernel, as PTX.
local function read_ptx(path)
    local kernel
    for line in io.lines(path) do
        local entry = line:match("%.entry ([%w_$]+)")
        if entry then kernel = kernel_named(entry) end
        if line == "}" then kernel = nil end
        if kernel then
            local kind, rest = line:match("%f[%w](%a%a)%.global([%w_.:]*)")
            if not kind then kind, rest = line:match("%f[%w](%a%a)%.[%w_.]*global([%w_.:]*)") end
            local vector, bits = (rest or ""):match("%.?v?([24]?)%.[bufs](%d+)$")
            if (kind == "ld" or kind == "st") and BYTES[bits] then
                count(kind == "ld" and kernel.reads or kernel.writes, BYTES[bits] * (tonumber(vector) or 1))
            end
            if line:find("cp%.async%.cg%.shared%.global") then count(kernel.reads, 16) end
            if line:find("%.f64") then kernel.float64 = kernel.float64 + 1 end
        end
    end
end

local function files(pattern)
    return ipairs(source.command(("ls %s/obj/kernels/%s 2>/dev/null"):format(build, pattern)))
end

for _, path in files "*.cuda.o.log" do read_log(path) end
for _, path in files "ptx/*/*.compute_90.ptx" do read_ptx(path) end

--- Kernels by their plain name: templates have many variants.
local families, family_names = {}, {}
if #order > 0 then
    local pipe = assert(io.popen(("printf '%%s\\n' %s | c++filt -p"):format(table.concat(order, " "))))
    for _, name in ipairs(order) do
        local full = pipe:read("*l"):gsub("^void ", "")
        local plain = full:match("^[%w_]+")
        kernels[name].full = full
        if not families[plain] then
            families[plain] = {}
            family_names[#family_names + 1] = plain
        end
        table.insert(families[plain], kernels[name])
    end
    pipe:close()
end
table.sort(family_names)

local function widest(widths)
    local most = 0
    for bytes in pairs(widths) do most = math.max(most, bytes) end
    return most
end

local passed, failed = 0, 0

local function judge(plain, kernel)
    local wrong = {}
    local function demand(fine, ...) if not fine then wrong[#wrong + 1] = (...):format(select(2, ...)) end end
    demand(kernel.spills == 0, "spills %d bytes", kernel.spills)
    demand(kernel.float64 == 0 or FLOAT64[plain], "has %d float64 instructions", kernel.float64)
    demand(kernel.shared <= 48 * 1024, "has %d bytes of static shared memory", kernel.shared)
    for _, rule in ipairs(WIDE) do
        local narrow = kernel.full:match(rule[1]) and widest(kernel.reads) < rule[2]
        demand(not narrow, "reads at most %d bytes at once", widest(kernel.reads))
    end
    if #wrong == 0 then
        passed = passed + 1
    else
        failed = failed + 1
        print(("FAILED %s (%s): %s"):format(plain, kernel.name, table.concat(wrong, ", ")))
    end
end

local function range(values)
    table.sort(values)
    return values[1] == values[#values] and tostring(values[1]) or ("%d to %d"):format(values[1], values[#values])
end

local rows = { "| kernel | variants | registers a thread | local memory a thread | "
    .. "static shared memory | widest read | widest write |", "|---|---|---|---|---|---|---|" }
for _, plain in ipairs(family_names) do
    local registers, stack, shared, reads, writes = {}, {}, {}, {}, {}
    for i, kernel in ipairs(families[plain]) do
        judge(plain, kernel)
        registers[#registers + 1] = kernel.registers
        stack[i], shared[i], reads[i], writes[i] = kernel.stack, kernel.shared, widest(kernel.reads),
            widest(kernel.writes)
    end
    rows[#rows + 1] = ("| `%s` | %d | %s | %s | %s | %s | %s |"):format(plain, #families[plain], range(registers),
        range(stack), range(shared), range(reads), range(writes))
end
local text = table.concat(rows, "\n")
print(text)

if arg[2] == "--write-docs" then
    local path, open, close = "docs/performance.md", "<!-- kernels -->", "<!-- /kernels -->"
    local file = assert(io.open(path))
    local page = file:read("*a")
    file:close()
    local begin, finish = page:find(open, 1, true), page:find(close, 1, true)
    assert(begin and finish, path .. " has no marks for the table")
    file = assert(io.open(path, "w"))
    file:write(page:sub(1, begin + #open - 1), "\n", text, "\n", page:sub(finish))
    file:close()
end
if #order == 0 then
    print("no kernels below " .. build)
    failed = 1
end
print(("%d passed, %d failed, 0 skipped"):format(passed, failed))
os.exit(failed == 0 and 0 or 1)
