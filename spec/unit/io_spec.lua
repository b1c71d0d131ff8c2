-- Files of tensors: what NumPy, PyTorch and safetensors wrote is read as they meant it, what we write they could read,
-- and every lie in a file is refused in words.
local core = require "pixelrefer.core"
local lfs = require "lfs"

local json = require "pixelrefer.json"

local files = require "support.files"

local FIXTURES = "spec/fixtures/io/"
local little = files.little
local READERS = {
    npy = function(path) return { array = core.read_npy(path) } end,
    bin = core.read_torch,
    safetensors = core.read_safetensors,
}

local function flatten(value, into)
    if type(value) ~= "table" then
        into[#into + 1] = value
        return into
    end
    for _, item in ipairs(value) do flatten(item, into) end
    return into
end

--- {dtype, shape, values in row-major order}
local function describe_tensor(tensor)
    return { dtype = tensor:dtype(), shape = tensor:size(), values = flatten(tensor:totable(), {}) }
end

local function tensor_of(values, dtype)
    return core.tensor.from_table(values, dtype)
end

describe("files of tensors", function()
    local directory

    before_each(function() directory = files.directory() end)
    after_each(function() files.remove(directory) end)

    local function temporary(name, content)
        return files.write(directory .. "/" .. name, content)
    end

    --- The message with which a reader refuses a file.
    local function refusal(read, path)
        local ok, message = pcall(read, path)
        assert.is_false(ok, path .. " was not refused")
        assert.is_truthy(message:find(path, 1, true), "no path in: " .. message)
        return message
    end

    for name, tensors in pairs(json.read(FIXTURES .. "expected.json")) do
        it("reads " .. name .. " as it was written", function()
            local found = READERS[name:match("%.(%w+)$")](FIXTURES .. name)
            for tensor_name, expected in pairs(tensors) do
                assert.is_truthy(found[tensor_name], tensor_name)
                assert.same(expected, describe_tensor(found[tensor_name]), tensor_name)
                found[tensor_name] = nil
            end
            assert.is_nil(next(found))
        end)
    end

    it("refuses what is no regular file with something in it", function()
        for _, read in pairs { core.read_safetensors, core.read_torch, core.read_npy } do
            assert.matches("No such file", refusal(read, directory .. "/nothing"))
            assert.matches("is a directory", refusal(read, directory))
            assert.matches("is empty", refusal(read, temporary("empty", "")))
            assert.matches("is not a regular file", refusal(read, "/dev/zero"))
            os.execute("mkfifo " .. directory .. "/fifo")
            assert.matches("is not a regular file", refusal(read, directory .. "/fifo"))
            os.remove(directory .. "/fifo")
            assert.has_error(function() read("") end)
            assert.has_error(function() read("a\0b") end)
        end
    end)

    it("says which file it is, whatever its name", function()
        local here = lfs.currentdir()
        finally(function() lfs.chdir(here) end)
        lfs.chdir(directory)
        for _, name in ipairs { "n", "other" } do -- "npy: .." begins with the first
            temporary(name, "junk")
            assert.equal(name .. ": npy:", refusal(core.read_npy, name):match("^.-: npy:"))
        end
    end)

    it("refuses names and metadata that the file could not keep", function()
        local path, one = directory .. "/names.safetensors", tensor_of { 1 }
        for _, metadata in ipairs { { ["k\0b"] = "v" }, { k = "v\0w" } } do
            assert.error_matches(function() core.write_safetensors(path, { a = one }, metadata) end,
                "metadata 'k' has NUL bytes")
        end
        local made = setmetatable({ dtype = "float32", shape = { 1 } }, { __index = function() return "a" end })
        assert.error_matches(function() core.safetensors_writer(path, { made }) end, "tensor 1: name: a string")
    end)

    it("maps privately: writing into a tensor leaves the file as it was", function()
        local path = directory .. "/w.safetensors"
        core.write_safetensors(path, { w = tensor_of { 1, 2, 3 } })
        core.read_safetensors(path).w:fill_(9)
        assert.same({ 1, 2, 3 }, core.read_safetensors(path).w:totable())
    end)

    it("keeps the mapping as long as a tensor of the file lives", function()
        local path = directory .. "/w.safetensors"
        core.write_safetensors(path, { a = tensor_of { 1, 2 }, b = tensor_of { 3 } })
        local b = core.read_safetensors(path).b
        collectgarbage()
        collectgarbage()
        os.remove(path)
        assert.same({ 3 }, b:totable())
    end)

    -- ---- safetensors -----------------------------------------------------------------------------------------

    describe("safetensors", function()
        local function file_of(header, data)
            return temporary("x.safetensors", little(#header, 8) .. header .. data)
        end

        local function refused(header, data)
            return refusal(core.read_safetensors, file_of(header, data or ""))
        end

        local function entry(dtype, shape, from, to)
            return ('{"dtype":"%s","shape":[%s],"data_offsets":[%s,%s]}'):format(dtype, shape, from, to)
        end

        it("gives back metadata", function()
            local _, metadata = core.read_safetensors(FIXTURES .. "plain.safetensors")
            assert.same({ format = "pt", note = "größer" }, metadata)
        end)

        it("writes what it reads, all types, sorted and aligned", function()
            local path = directory .. "/t.safetensors"
            local tensors = {}
            for _, dtype in ipairs { "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8" } do
                tensors[dtype] = tensor_of({ { 1, 2, 3 }, { 4, 5, 6 } }, dtype)
            end
            tensors.strided = tensors.float32:t()
            tensors.empty = core.tensor.empty({ 0, 3 }, "float32")
            core.write_safetensors(path, tensors, { made = "by a test" })
            local found, metadata = core.read_safetensors(path)
            assert.same({ made = "by a test" }, metadata)
            for name, tensor in pairs(tensors) do assert.same(describe_tensor(tensor), describe_tensor(found[name])) end
            assert.is_true(found.strided:isContiguous())
            local content = files.read(path)
            local header = json.decode(content:sub(9, 8 + content:byte(1) + 256 * content:byte(2)))
            assert.equal(0, (8 + content:byte(1) + 256 * content:byte(2)) % 64)
            assert.equal(0, header.int64.data_offsets[1])
            core.write_safetensors(path, tensors, { made = "by a test" })
            assert.equal(content, files.read(path))
        end)

        it("begins at any byte", function()
            local path = file_of('{"a":' .. entry("U8", "1", 0, 1) .. ',"b":' .. entry("F32", "2", 1, 9) .. "}",
                "\7" .. tensor_of({ 1.5, -2 }):bytes())
            assert.same({ 1.5, -2 }, core.read_safetensors(path).b:totable())
        end)

        it("takes an empty header", function()
            assert.same({}, (core.read_safetensors(file_of("{}", ""))))
        end)

        it("refuses a header that is cut, too long or no JSON object", function()
            assert.matches("too few for a header", refusal(core.read_safetensors, temporary("s", "1234567")))
            assert.matches("has only 10 %(truncated",
                refusal(core.read_safetensors, temporary("s", little(3, 8) .. "{}")))
            assert.matches("at most 100000000", refusal(core.read_safetensors, temporary("s", ("\255"):rep(8) .. "{}")))
            assert.matches("does not begin with '{'", refused(" {}"))
            assert.matches("does not begin with '{'", refused("[]"))
            assert.matches("does not begin with '{'", refusal(core.read_safetensors, temporary("s", little(0, 8))))
            assert.matches("not valid JSON", refused('{"a":'))
            assert.matches("not valid JSON", refused('{} {'))
            assert.matches("not valid JSON: duplicate", refused('{"a":{},"a":{}}'))
            assert.matches("not valid JSON", refused('{"a\\u0000b":{}}'))
            assert.matches("not valid JSON", refused('{"\255":{}}'))
            assert.matches("not valid JSON: maximum parsing depth", refused('{"a":' .. ("["):rep(100000)))
        end)

        it("refuses entries that are no tensors", function()
            assert.matches('"a" has no "dtype"', refused('{"a":3}'))
            assert.matches('"a" has no "dtype"', refused('{"a":{"shape":[],"data_offsets":[0,4]}}'))
            assert.matches('"a" has no "shape"', refused('{"a":{"dtype":"F32","data_offsets":[0,4]}}'))
            assert.matches('"a" has no "shape"', refused('{"a":{"dtype":"F32","shape":3,"data_offsets":[0,4]}}'))
            assert.matches('"a" has no "data_offsets"', refused('{"a":{"dtype":"F32","shape":[]}}'))
            assert.matches('"a" has no "data_offsets"', refused('{"a":' .. entry("F32", "", 0, '4,5') .. "}", "1234"))
            assert.matches('"a" has no "data_offsets"', refused('{"a":' .. entry("F32", "", "0.5", "4") .. "}", "1234"))
            assert.matches("size 2 of its shape", refused('{"a":' .. entry("F32", "1,-1", 0, 4) .. "}", "1234"))
            assert.matches("size 1 of its shape", refused('{"a":' .. entry("F32", '"1"', 0, 4) .. "}", "1234"))
            assert.matches("has 7 dims; at most 6",
                refused('{"a":' .. entry("F32", "1,1,1,1,1,1,1", 0, 4) .. "}", "1234"))
        end)

        it("names the tensor and the type that it does not know", function()
            for _, dtype in ipairs { "F64", "I16", "U16", "U32", "U64", "F8_E4M3", "f32" } do
                local message = refused('{"layer.weight":' .. entry(dtype, "", 0, 8) .. "}", "12345678")
                assert.matches('"layer.weight" has the type ' .. dtype, message)
            end
            assert.matches("has the type F64",
                refusal(core.read_safetensors, FIXTURES .. "refused_float64.safetensors"))
        end)

        it("refuses shapes that do not fit their bytes", function()
            assert.matches("F32 %[2%], which 4 bytes cannot hold",
                refused('{"a":' .. entry("F32", "2", 0, 4) .. "}", "1234"))
            assert.matches("cannot hold exactly", refused('{"a":' .. entry("F32", "1", 0, 8) .. "}", "12345678"))
            assert.matches("cannot hold exactly",
                refused('{"a":' .. entry("F32", "4294967296,4294967296,4294967296", 0, 4) .. "}", "1234"))
            assert.matches("cannot hold exactly",
                refused('{"a":' .. entry("F32", "4611686018427387905", 0, 4) .. "}", "1234"))
            assert.matches("not valid JSON: too big integer",
                refused('{"a":' .. entry("F32", "99999999999999999999", 0, 4) .. "}"))
        end)

        it("refuses offsets outside, holes, overlaps and bytes that nobody owns", function()
            assert.matches("lies at bytes 0 to 8, but the file holds 4",
                refused('{"a":' .. entry("F32", "2", 0, 8) .. "}", "1234"))
            assert.matches("lies at bytes 4 to 0", refused('{"a":' .. entry("F32", "0", 4, 0) .. "}", "1234"))
            assert.matches("lies at bytes %-4 to 0", refused('{"a":' .. entry("F32", "1", -4, 0) .. "}", "1234"))
            local two = '{"a":%s,"b":%s}'
            assert.matches('"b" begins at byte 2, .* ends at 4 %(overlap%)',
                refused(two:format(entry("U8", "4", 0, 4), entry("U8", "4", 2, 6)), "123456"))
            assert.matches('"b" begins at byte 0, .* %(overlap%)',
                refused(two:format(entry("U8", "4", 0, 4), entry("U8", "4", 0, 4)), "1234"))
            assert.matches('"b" begins at byte 5, .* ends at 4 %(hole%)',
                refused(two:format(entry("U8", "4", 0, 4), entry("U8", "1", 5, 6)), "123456"))
            assert.matches("end at byte 4, but the file holds 6",
                refused('{"a":' .. entry("U8", "4", 0, 4) .. "}", "123456"))
            assert.matches("end at byte 0, but the file holds 1", refused("{}", "1"))
        end)

        it("refuses metadata that is not strings", function()
            assert.matches("__metadata__ is not a JSON object", refused('{"__metadata__":[]}'))
            assert.matches('__metadata__ "k" is not a string', refused('{"__metadata__":{"k":1}}'))
        end)
    end)

    describe("the safetensors writer", function()
        it("writes tensor by tensor, in any order, and names the file at the end", function()
            local path = directory .. "/s.safetensors"
            local writer = core.safetensors_writer(path, { { name = "a", dtype = "bfloat16", shape = { 2, 2 } },
                { name = "b", dtype = "int64", shape = {} } }, { format = "pt" })
            writer:write("b", tensor_of(5, "int64"))
            writer:write("a", tensor_of({ { 1, 2 }, { 3, 4 } }, "bfloat16"):t())
            assert.is_nil(core.path_kind(path))
            writer:close()
            local found = core.read_safetensors(path)
            assert.same({ { 1, 3 }, { 2, 4 } }, found.a:totable())
            assert.equal(5, found.b:item())
            assert.has_error(function() writer:close() end)
        end)

        it("refuses what was not declared so, and leaves no file behind", function()
            local path = directory .. "/s.safetensors"
            local writer = core.safetensors_writer(path, { { name = "a", dtype = "float32", shape = { 2 } } })
            assert.error_matches(function() writer:write("b", tensor_of { 1, 2 }) end, 'no tensor "b" was declared')
            assert.error_matches(function() writer:write("a", tensor_of { 1 }) end,
                "declared as float32 %[2%], got float32 %[1%]")
            assert.error_matches(function() writer:write("a", tensor_of({ 1, 2 }, "int32")) end, "got int32")
            assert.error_matches(function() writer:close() end, '"a" was declared but not written')
            writer = core.safetensors_writer(path, { { name = "a", dtype = "float32", shape = { 2 } } })
            writer:write("a", tensor_of { 1, 2 })
            assert.error_matches(function() writer:write("a", tensor_of { 1, 2 }) end, "was written already")
            writer:free()
            assert.same({}, core.list_directory(directory))
        end)

        it("refuses declarations that make no file", function()
            local path = directory .. "/s.safetensors"
            local function refused(list, metadata)
                local ok, message = pcall(core.safetensors_writer, path, list, metadata)
                assert.is_false(ok)
                return message
            end
            local a = { name = "a", dtype = "float32", shape = { 1 } }
            assert.matches('"a" is declared twice', refused { a, a })
            assert.matches("cannot be called", refused { { name = "", dtype = "float32", shape = {} } })
            assert.matches("cannot be called", refused { { name = "__metadata__", dtype = "float32", shape = {} } })
            assert.matches("is not UTF%-8", refused { { name = "\255", dtype = "float32", shape = {} } })
            assert.matches("tensor 1: name", refused { { name = "a\0", dtype = "float32", shape = {} } })
            assert.matches("tensor 1: name", refused { { dtype = "float32", shape = {} } })
            assert.matches("tensor 2: no such dtype: 'float64'",
                refused { a, { name = "b", dtype = "float64", shape = {} } })
            assert.matches("tensor 1: shape", refused { { name = "a", dtype = "float32" } })
            assert.matches("tensor 1: shape",
                refused { { name = "a", dtype = "float32", shape = { 1, 1, 1, 1, 1, 1, 1 } } })
            assert.matches("size 2 of its shape", refused { { name = "a", dtype = "float32", shape = { 1, -1 } } })
            assert.matches("size 1 of its shape", refused { { name = "a", dtype = "float32", shape = { 1.5 } } })
            assert.matches("size %d+ of dim 2",
                refused { { name = "a", dtype = "float32", shape = { 2 ^ 40, 2 ^ 40 } } })
            assert.matches("cannot be written", refused { { name = "a", dtype = "float32", shape = { 2 ^ 50 } } })
            assert.matches("strings to strings", refused({ a }, { k = 1 }))
            assert.matches("is not UTF%-8", refused({ a }, { k = "\255" }))
            assert.same({}, core.list_directory(directory))
        end)
    end)

    describe("tensor.load and tensor.save", function()
        local tensor = require "pixelrefer.tensor"

        it("go by the path's ending", function()
            local x, path = tensor_of { 1, 2 }, directory .. "/x."
            tensor.save(path .. "npy", x)
            assert.same({ 1, 2 }, tensor.load(path .. "npy"):totable())
            tensor.save(path .. "safetensors", { a = x }, { made = "here" })
            local loaded, metadata = tensor.load(path .. "safetensors")
            assert.same({ 1, 2 }, loaded.a:totable())
            assert.same({ made = "here" }, metadata)
            local torch = tensor.load("spec/fixtures/golden/models/lite_sharded_bin/pytorch_model-00001-of-00002.bin")
            assert.is_true(tensor.isTensor(select(2, next(torch))))
        end)

        it("refuse other endings and values", function()
            local x = tensor_of { 1 }
            assert.error_matches(function() tensor.load "x.txt" end, "'x%.txt': a path that ends in %.npy, ")
            assert.error_matches(function() tensor.load() end, "'nil': a path that ends in ")
            assert.error_matches(function() tensor.save("x.pt", x) end, "ends in %.npy or %.safetensors expected")
            assert.error_matches(function() tensor.save("x.npy", { x }) end, "a tensor expected, got a table")
            assert.error_matches(function() tensor.save("x.safetensors", x) end,
                "a table of tensors by name expected, got a userdata")
        end)
    end)

    describe("writing", function()
        it("replaces a file whole, follows links, and spares everything else", function()
            local path, link = directory .. "/a.npy", directory .. "/link.npy"
            core.write_npy(path, tensor_of { 1 })
            os.execute(("ln -s a.npy '%s'"):format(link))
            core.write_npy(link, tensor_of { 1, 2 })
            assert.same({ 1, 2 }, core.read_npy(path):totable())
            assert.same({ "a.npy", "link.npy" }, core.list_directory(directory))
            assert.error_matches(function() core.write_npy(directory, tensor_of { 1 }) end, "it is a directory")
            assert.error_matches(function() core.write_npy("/dev/full", tensor_of { 1 }) end,
                "it is not a regular file")
            assert.error_matches(function() core.write_npy(directory .. "/none/a.npy", tensor_of { 1 }) end,
                "No such file")
        end)

        it("fails on a full disk and leaves nothing half-written", function()
            local path = directory .. "/w.safetensors"
            files.write(path, "before")
            local script = files.write(directory .. "/write.lua", ([[
                package.cpath, package.path = %q, %q
                local core = require "pixelrefer.core"
                local w = core.tensor.empty({ 100000 }, "float32"):fill_(1)
                print(select(2, pcall(core.write_safetensors, %q, { w = w })))
                print(select(2, pcall(core.write_npy, %q, w)))
                local declared = { { name = "w", dtype = "float32", shape = { 100000 } } }
                print(select(2, pcall(core.safetensors_writer, %q, declared)))
            ]]):format(package.cpath, package.path, path, path, path))
            -- A limit on the size of files acts as a disk that is full: 8 blocks of 1024 bytes.
            local command = ("trap '' XFSZ; ulimit -f 8; luajit '%s' 2>&1"):format(script)
            local shell = assert(io.popen(command))
            local output = shell:read("*a")
            shell:close()
            local _, count = output:gsub("cannot be written: File too large", "")
            assert.equal(3, count, output)
            assert.equal("before", files.read(path))
            assert.same({ "w.safetensors", "write.lua" }, core.list_directory(directory))
        end)
    end)

    -- ---- .npy ------------------------------------------------------------------------------------------------

    describe(".npy", function()
        local function file_of(header, data, version)
            return temporary("x.npy", "\147NUMPY" .. string.char(version or 1, 0)
                .. little(#header, (version or 1) == 1 and 2 or 4) .. header .. data)
        end

        local function refused(header, data)
            return refusal(core.read_npy, file_of(header, data or ""))
        end

        local PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n"

        it("reads Fortran order as strides", function()
            local array = core.read_npy(FIXTURES .. "fortran.npy")
            assert.same({ 1, 2, 6 }, array:stride())
            assert.is_false(array:isContiguous())
        end)

        it("writes what it reads, byte for byte as NumPy does", function()
            local path = directory .. "/a.npy"
            for _, name in ipairs { "f4", "f2", "i8", "i4", "i1", "u1", "scalar", "empty" } do
                core.write_npy(path, core.read_npy(FIXTURES .. name .. ".npy"))
                assert.equal(files.read(FIXTURES .. name .. ".npy"), files.read(path), name)
            end
            core.write_npy(path, core.read_npy(FIXTURES .. "fortran.npy"))
            assert.same(core.read_npy(FIXTURES .. "fortran.npy"):totable(), core.read_npy(path):totable())
            assert.error_matches(function() core.write_npy(path, tensor_of({ 1 }, "bfloat16")) end,
                "NumPy has no bfloat16")
        end)

        it("gathers a strided tensor that is larger than its buffer", function()
            local path = directory .. "/large.npy"
            local large = tensor_of({ 1 }):expand({ 700000 })
            core.write_npy(path, large)
            local found = core.read_npy(path)
            assert.same({ 700000 }, found:size())
            assert.equal(1, found:select(1, 700000):item())
        end)

        it("refuses other types by name", function()
            assert.matches("the type '<f8' is not supported", refusal(core.read_npy, FIXTURES .. "refused_f8.npy"))
            assert.matches("the type '>f4' is not", refusal(core.read_npy, FIXTURES .. "refused_big_endian.npy"))
            assert.matches("the array is structured", refusal(core.read_npy, FIXTURES .. "refused_structured.npy"))
        end)

        it("refuses what is no header", function()
            assert.matches("does not begin as", refusal(core.read_npy, temporary("x", "\147NUMPX\1\0")))
            assert.matches("does not begin as", refusal(core.read_npy, temporary("x", "\147NU")))
            assert.matches("version 4.0", refusal(core.read_npy, file_of(PLAIN, "1234", 4)))
            assert.matches("%(truncated%)", refusal(core.read_npy, temporary("x", "\147NUMPY\1\0")))
            assert.matches("%(truncated%)", refusal(core.read_npy, temporary("x", "\147NUMPY\1\0\255\255{")))
            assert.matches("%(truncated%)", refusal(core.read_npy, temporary("x", "\147NUMPY\2\0\255\255\255\255{")))
            assert.matches("is not a dict", refused("[]"))
            assert.matches("is not a dict of strings", refused("{1: 2}"))
            assert.matches("is not a dict of strings", refused("{'descr"))
            assert.matches("unknown or repeated key", refused("{'x': 1}"))
            assert.matches("unknown or repeated key", refused("{'shape': (), 'shape': ()}"))
            assert.matches("lacks a comma", refused("{'shape': () 'descr': '<f4'}"))
            assert.matches("lacks 'descr'", refused("{'shape': ()}"))
            assert.matches("goes on behind", refused(PLAIN .. "x", "1234"))
            assert.matches("neither True nor False", refused("{'fortran_order': 1}"))
            assert.matches("no shape tuple", refused("{'shape': 3}"))
            for _, shape in ipairs { "(1 2)", "(,)", "(-1,)", "(1", "(99999999999999999999,)" } do
                assert.matches("no tuple of sizes", refused("{'shape': " .. shape .. "}"), shape)
            end
            assert.matches("more than 6 dims", refused("{'shape': (1,1,1,1,1,1,1)}"))
        end)

        it("refuses fewer and more bytes than the shape needs", function()
            assert.matches("float32 %[1%] needs more bytes, found 3", refused(PLAIN, "123"))
            assert.matches("float32 %[1%] needs fewer bytes, found 8", refused(PLAIN, "12345678"))
            local huge = PLAIN:gsub("%(1,%)", "(4611686018427387904, 4611686018427387904)")
            assert.matches("needs", refused(huge, "1234"))
        end)
    end)
end)

describe("an allocation that fails, wherever it is", function()
    local directory

    before_each(function() directory = files.directory() end)
    after_each(function() files.remove(directory) end)

    local function settled_memory()
        collectgarbage()
        collectgarbage()
        return core.memory()
    end

    it("is an error, leaks nothing and leaves no file", function()
        local path = directory .. "/x"
        local w = tensor_of({ { 1, 2 }, { 3, 4 } })
        local strided = w:t()
        local calls = {
            function() return core.read_safetensors(FIXTURES .. "plain.safetensors") end,
            function() return core.read_torch(FIXTURES .. "views.bin") end,
            function() return core.read_torch(FIXTURES .. "module.bin") end,
            function() return core.read_npy(FIXTURES .. "f4.npy") end,
            function() return core.list_directory(FIXTURES) end,
            function() core.write_npy(path, strided) end,
            function() core.write_safetensors(path, { a = w, b = strided }, { format = "pt" }) end,
        }
        for number, call in ipairs(calls) do
            call()
            os.remove(path)
            local before, failures = settled_memory(), 0
            while true do
                core.memory_fail_at(core.memory_allocations() + failures + 1)
                local ok, message = pcall(call)
                core.memory_fail_at(0)
                if ok then break end
                failures = failures + 1
                assert.is_truthy(message:find("memory", 1, true), message)
                assert.same({}, core.list_directory(directory))
                assert.equal(before, settled_memory(), number .. ", allocation " .. failures)
            end
            assert.is_true(failures > 0, "call " .. number)
            os.remove(path)
        end
    end)
end)

describe("paths", function()
    it("says what stands there", function()
        assert.equal("directory", core.path_kind("spec"))
        assert.equal("file", core.path_kind("Makefile"))
        assert.equal("other", core.path_kind("/dev/null"))
        assert.is_nil(core.path_kind("/nothing/here"))
    end)

    it("lists directories in order", function()
        local names = core.list_directory("spec/fuzz/corpus")
        local sorted = { unpack(names) }
        table.sort(sorted)
        assert.same(sorted, names)
        assert.error_matches(function() core.list_directory("Makefile") end,
            "Makefile: cannot be listed: Not a directory")
    end)
end)
