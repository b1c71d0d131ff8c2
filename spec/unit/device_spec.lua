-- Opening devices: plugins that are missing or odd, drivers that are, and a process that stays usable behind it.
local ffi = require "ffi"

local command = require "support.command"
local core = require "pixelrefer.core"
local device = require "support.device"
local files = require "support.files"
local skip = require "support.skip"
local tensor = require "pixelrefer.tensor"

ffi.cdef "int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);"

local BUILD = os.getenv("BUILD") or "build"

--- The error of opening a device; nil when it opens.
local function refusal(name)
    local ok, message = pcall(tensor.zeros, 1, { device = name })
    return not ok and tostring(message) or nil
end

describe("a device", function()
    local folder
    local ordinal = 10 -- each test opens a card that nobody has asked for

    setup(function() folder = files.directory() end)
    teardown(function() files.remove(folder) end)
    after_each(function()
        ffi.C.unsetenv("PIXELREFER_CUDA_PLUGIN")
        assert.equal(6, tensor.ones(2, 3):sum()) -- usable, whatever has failed
    end)

    --- What opening a CUDA device says with a plugin of ours.
    local function with_plugin(path)
        ffi.C.setenv("PIXELREFER_CUDA_PLUGIN", path, 1)
        ordinal = ordinal + 1
        return refusal("cuda:" .. ordinal)
    end

    local function odd_plugin(flags)
        local path = ("%s/odd%d.so"):format(folder, ordinal)
        local line = "env -u LD_PRELOAD cc -shared -fPIC -Icsrc -o %s spec/support/odd_plugin.c %s"
        assert.equal(0, os.execute(line:format(path, flags)))
        return path
    end

    it("that nobody knows is named with those that there are", function()
        for _, name in ipairs { "gpu", "cuda:", "cuda:x", "cuda:1000", "cuda1", "cpu:0", "" } do
            assert.equal(('there is no device "%s": "cpu", "cuda", "cuda:1", "emu"'):format(name), refusal(name))
        end
    end)

    it("without a plugin beside the module carries the loader's words", function()
        local empty = folder .. "/empty"
        files.make_directories(empty .. "/pixelrefer")
        assert.equal(0, os.execute(("cp '%s/pixelrefer/core.so' '%s/pixelrefer/'"):format(BUILD, empty)))
        local script = 'for _, name in ipairs { "cuda", "emu" } do print(select(2, pcall('
            .. 'require("pixelrefer.tensor").zeros, 1, { device = name }))) end'
        local said = command.output_of(("LUA_PATH='%s' LUA_CPATH='%s/?.so;;' luajit -e '%s' 2>&1"):format(package.path,
            empty, script))
        for _, name in ipairs { "cuda", "emu" } do
            local expected = ('device "%s": its plugin cannot be loaded: %s/pixelrefer/libpixelrefer_%s.so: cannot '
                .. 'open shared object file: No such file or directory'):format(name, empty, name)
            assert.is_truthy(said:find(expected, 1, true), said)
        end
    end)

    it("whose plugin is somewhere else is looked for there alone", function()
        local said = with_plugin(folder .. "/nowhere.so")
        assert.equal(('device "cuda:%d": PIXELREFER_CUDA_PLUGIN names %s/nowhere.so: No such file or directory'):format(
            ordinal, folder), said)
        assert.is_truthy(with_plugin(files.write(folder .. "/text.so", "no library")):find("text.so: ", 1, true))
    end)

    it("whose plugin lacks a library carries the loader's words", function()
        local lost = folder .. "/liblost.so"
        assert.equal(0, os.execute(("env -u LD_PRELOAD cc -shared -fPIC -o %s -x c /dev/null"):format(lost)))
        local path = odd_plugin(("-Wl,--no-as-needed -L%s -llost"):format(folder))
        assert(os.remove(lost))
        assert.is_truthy(with_plugin(path):find("liblost.so: cannot open shared object file", 1, true))
    end)

    it("takes no library for a plugin, no plugin of another version, none for other devices", function()
        assert.is_truthy(with_plugin(odd_plugin("-DNO_SYMBOL")):find("is no plugin: it has no pxr_backend_v1", 1, true))
        assert.is_truthy(with_plugin(odd_plugin("-DGIVEN=0")):find("pxr_backend_v1 gives no backend", 1, true))
        assert.is_truthy(with_plugin(odd_plugin("-DABI=77")):find("is of another version (ABI 77, this module's is ",
            1, true))
        assert.is_truthy(with_plugin(odd_plugin("-DSIZE=8")):find("is of another version", 1, true))
        assert.is_truthy(with_plugin(odd_plugin("'-DNAME=\"emu\"'")):find('is the plugin of "emu"', 1, true))
    end)

    it("that its backend refuses carries the backend's words", function()
        local said = with_plugin(odd_plugin(""))
        assert.equal(('device "cuda:%d": no card today'):format(ordinal), said)
    end)

    it("of CUDA opens, or says what the driver says", function()
        if not core.path_kind(BUILD .. "/pixelrefer/libpixelrefer_cuda.so") then
            return skip.because("needs the CUDA plugin (make cuda)", "REQUIRE_CUDA")
        end
        local said = refusal("cuda")
        if not said then return end
        assert.is_truthy(said:match('^device "cuda": .*CUDA') or said:match('^device "cuda": .*libcublasLt'), said)
        assert.equal(said, refusal("cuda")) -- again and again
        if os.getenv("REQUIRE_CUDA") == "1" then error(said, 0) end
    end)

    it("once open is one device", function()
        device.require("emu")
        local x = tensor.ones(2, { device = "emu" })
        assert.equal("emu", x:device())
        assert.equal("emu", tensor.ones(2, { device = "emu:0" }):device())
        assert.is_truthy(refusal("emu:1"):find('^device "emu:1": '))
    end)
end)
