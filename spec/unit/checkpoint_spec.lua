-- Checkpoints: found by path or name, opened with every weight as Python reads it, and refused in words.
local bit = require "bit"
local ffi = require "ffi"

local checkpoint = require "pixelrefer.checkpoint"
local core = require "pixelrefer.core"
local json = require "pixelrefer.json"

local files = require "support.files"
local shared = require "support.shared"

ffi.cdef "int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);"

--- zlib's crc32 of a string.
local function crc32(text)
    local table_of_bytes = {}
    for byte = 0, 255 do
        local value = byte
        for _ = 1, 8 do
            local odd = bit.band(value, 1) == 1
            value = bit.rshift(value, 1)
            if odd then value = bit.bxor(value, 0xedb88320) end
        end
        table_of_bytes[byte] = value
    end
    local state = bit.bnot(0)
    local bytes = ffi.cast("const uint8_t *", text)
    for i = 0, #text - 1 do
        state = bit.bxor(bit.rshift(state, 8), table_of_bytes[bit.band(bit.bxor(state, bytes[i]), 0xff)])
    end
    return tonumber(ffi.cast("uint32_t", bit.bnot(state)))
end

--- A golden model: the committed ones always, the others when they are there.
local function golden_model(name)
    local committed = "spec/fixtures/golden/models/" .. name
    return core.path_kind(committed) and committed or shared.path("golden/models/" .. name)
end

describe("checkpoint.open", function()
    for model, expected in pairs(json.read("spec/fixtures/io/golden_checksums.json")) do
        it("reads every tensor of " .. model .. " as Python does", function()
            local opened = checkpoint.open(golden_model(model))
            local found = {}
            for name, tensor in pairs(opened.tensors) do
                found[name] = { tensor:dtype(), tensor:size(), crc32(tensor:bytes()) }
            end
            assert.same(expected, found)
            assert.is_string(opened.config.model_type)
            assert.is_number(opened.preprocessor_config.min_pixels)
            assert.same({ 502, 500 }, opened.generation_config.eos_token_id)
            assert.is_true(#opened.files >= 1 and opened.bytes > 1000000)
        end)
    end

    local directory

    before_each(function() directory = files.directory() end)
    after_each(function() files.remove(directory) end)

    local function write(name, content)
        return files.write(directory .. "/" .. name, content)
    end

    local function write_shard(name, ...)
        local tensors = {}
        for _, tensor_name in ipairs { ... } do tensors[tensor_name] = core.tensor.from_table({ 1, 2 }, "float32") end
        core.write_safetensors(directory .. "/" .. name, tensors)
    end

    local function write_index(map)
        write("model.safetensors.index.json", json.encode { weight_map = map })
    end

    local function refused()
        local ok, message = pcall(checkpoint.open, directory)
        assert.is_false(ok)
        assert.is_truthy(message:find(directory, 1, true), "no path in: " .. message)
        return message
    end

    it("needs a config.json that is an object", function()
        assert.matches("no config.json there", refused())
        write("config.json", "")
        assert.matches("config.json: not valid JSON: .*line 1, column 1", refused())
        write("config.json", '{"a": 1,\n "b": tru}')
        assert.matches("config.json: not valid JSON: .*%(line 2, column 7%)", refused())
        write("config.json", ("["):rep(100000))
        assert.matches("config.json: not valid JSON: .*nested", refused())
        write("config.json", "[1]")
        assert.matches("config.json: a JSON object expected", refused())
        write("config.json", "3")
        assert.matches("config.json: a JSON object expected", refused())
        write("config.json", "{}")
        write("generation_config.json", "[1]")
        assert.matches("generation_config.json: a JSON object expected", refused())
    end)

    it("needs weights, and takes safetensors before .bin, one file before many", function()
        write("config.json", "{}")
        assert.matches("none of model.safetensors, model.safetensors.index.json, pytorch_model.bin, "
            .. "pytorch_model.bin.index.json is there", refused())
        write("pytorch_model.bin", files.read("spec/fixtures/io/module.bin"))
        assert.is_truthy(checkpoint.open(directory).tensors["0.weight"])
        write_shard("shard", "sharded")
        write_index { sharded = "shard" }
        assert.is_truthy(checkpoint.open(directory).tensors.sharded)
        write_shard("model.safetensors", "single")
        assert.is_truthy(checkpoint.open(directory).tensors.single)
        assert.same({}, checkpoint.open(directory).generation_config)
    end)

    it("merges shards, each of which holds what the index says", function()
        write("config.json", "{}")
        write_shard("one", "a", "b")
        write_shard("two", "c")
        write_index { a = "one", b = "one", c = "two" }
        local opened = checkpoint.open(directory)
        assert.is_truthy(opened.tensors.a and opened.tensors.b and opened.tensors.c)
        assert.same({ directory .. "/one", directory .. "/two" }, opened.files)
        write_index { a = "one", b = "two", c = "two" }
        assert.matches("one: holds 'b', which model.safetensors.index.json does not place here", refused())
        write_index { a = "one", b = "one", c = "two", d = "two", e = "two" }
        assert.matches("two: lacks 'd' and 1 more, which", refused())
        write_index { a = "one", b = "one", c = "three" }
        assert.matches("three: model.safetensors.index.json names this shard, but it is not there", refused())
        write_shard("two", "c", "a")
        write_index { a = "one", b = "one", c = "two" }
        assert.matches("two: holds 'a'", refused())
    end)

    it("refuses an index that is none", function()
        write("config.json", "{}")
        write("model.safetensors.index.json", "{}")
        assert.matches('"weight_map" is missing', refused())
        write("model.safetensors.index.json", '{"weight_map": ["a"]}')
        assert.matches('"weight_map": an object expected, found a list', refused())
        write("model.safetensors.index.json", '{"weight_map": {}}')
        assert.matches("the weight_map is empty", refused())
        write("model.safetensors.index.json", '{"weight_map": {"a": 3}}')
        assert.matches('"weight_map.a": a string expected, found 3', refused())
        for _, shard in ipairs { "../model.safetensors", "/etc/passwd", "", ".", ".." } do
            write_index { a = shard }
            assert.matches("is no file name", refused())
        end
    end)
end)

describe("checkpoint.resolve", function()
    local home, before = nil, {}
    local VARIABLES = { "HOME", "PIXELREFER_HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME" }

    before_each(function()
        home = files.directory()
        for _, name in ipairs(VARIABLES) do
            before[name] = os.getenv(name)
            ffi.C.unsetenv(name)
        end
        ffi.C.setenv("HOME", home, 1)
    end)

    after_each(function()
        for _, name in ipairs(VARIABLES) do
            ffi.C.unsetenv(name)
            if before[name] then ffi.C.setenv(name, before[name], 1) end
        end
        files.remove(home)
    end)

    --- A repository as Hugging Face's library lays it out: snapshots of links into blobs.
    local function make_repository(hub, name, revision)
        local repository = hub .. "/models--" .. name
        local snapshot = repository .. "/snapshots/" .. revision
        for _, folder in ipairs { "/blobs", "/refs", "/snapshots/" .. revision } do
            files.make_directories(repository .. folder)
        end
        files.write(repository .. "/refs/main", revision)
        files.write(repository .. "/blobs/0a", "{}")
        core.write_safetensors(repository .. "/blobs/0b", { w = core.tensor.from_table({ 1 }, "float32") })
        for file, blob in pairs { ["config.json"] = "0a", ["model.safetensors"] = "0b" } do
            os.execute(("ln -s ../../blobs/%s '%s/%s'"):format(blob, snapshot, file))
        end
        return snapshot
    end

    local function refused(name)
        local ok, message = pcall(checkpoint.resolve, name)
        assert.is_false(ok)
        return message
    end

    it("takes a directory", function()
        assert.equal(home, checkpoint.resolve(home))
        files.write(home .. "/file", "")
        assert.matches("this is a file", refused(home .. "/file"))
        assert.matches("expected, got nil", refused(nil))
        assert.matches("expected, got 3", refused(3))
    end)

    it("finds a name in our own cache", function()
        local path = home .. "/.cache/pixelrefer/PixelRefer-Lite-2B"
        files.make_directories(path)
        assert.equal(path, checkpoint.resolve("PixelRefer-Lite-2B"))
        files.make_directories(home .. "/mine/PixelRefer-Lite-2B")
        ffi.C.setenv("PIXELREFER_HOME", home .. "/mine", 1)
        assert.equal(home .. "/mine/PixelRefer-Lite-2B", checkpoint.resolve("PixelRefer-Lite-2B"))
    end)

    it("finds a name in Hugging Face's cache, through its links", function()
        local snapshot = make_repository(home .. "/.cache/huggingface/hub", "DAMO--PixelRefer-Lite-2B", "0123abc")
        assert.equal(snapshot, checkpoint.resolve("PixelRefer-Lite-2B"))
        assert.equal(snapshot, checkpoint.resolve("DAMO/PixelRefer-Lite-2B"))
        assert.equal(1, checkpoint.open("DAMO/PixelRefer-Lite-2B").tensors.w:nElement())
        assert.matches("no checkpoint 'other/PixelRefer%-Lite%-2B'", refused("other/PixelRefer-Lite-2B"))
        assert.matches("no checkpoint 'Lite%-2B'", refused("Lite-2B"))
    end)

    it("honours HF_HOME and HF_HUB_CACHE", function()
        local by_home = make_repository(home .. "/hf/hub", "org--M", "1")
        local by_cache = make_repository(home .. "/cache", "org--M", "2")
        ffi.C.setenv("HF_HOME", home .. "/hf", 1)
        assert.equal(by_home, checkpoint.resolve("M"))
        ffi.C.setenv("HF_HUB_CACHE", home .. "/cache", 1)
        assert.equal(by_cache, checkpoint.resolve("org/M"))
    end)

    it("says when a name is not clear", function()
        local hub = home .. "/.cache/huggingface/hub"
        make_repository(hub, "a--M", "1")
        make_repository(hub, "b--M", "1")
        assert.matches("'M' can mean models%-%-a%-%-M or models%-%-b%-%-M in .*: say org/name", refused("M"))
    end)

    it("takes the snapshot of refs/main, else the only one", function()
        local hub = home .. "/.cache/huggingface/hub"
        local first = make_repository(hub, "a--M", "1")
        files.make_directories(hub .. "/models--a--M/snapshots/2")
        assert.equal(first, checkpoint.resolve("M"))
        os.remove(hub .. "/models--a--M/refs/main")
        assert.matches("no refs/main, and 2 snapshots", refused("M"))
        files.remove(hub .. "/models--a--M/snapshots/2")
        assert.equal(first, checkpoint.resolve("M"))
        files.write(hub .. "/models--a--M/refs/main", "../../../..")
        assert.matches("refs/main names the snapshot '../../../..', which is not there", refused("M"))
        files.write(hub .. "/models--a--M/refs/main", "7")
        assert.matches("refs/main names the snapshot '7', which is not there", refused("M"))
    end)

    it("says where it looked", function()
        ffi.C.setenv("HF_HOME", home .. "/hf", 1)
        assert.equal(("no checkpoint 'org/M': looked for the directory org/M, %s/.cache/pixelrefer/org/M, "
            .. "%s/hf/hub/models--org--M, %s/.cache/huggingface/hub/models--org--M"):format(home, home, home),
                refused("org/M"))
        assert.equal("no checkpoint '../M': looked for the directory ../M", refused("../M"))
    end)
end)
