-- Pulling checkpoints: from a hub that behaves, and from one that breaks off, lies, and refuses.
local checkpoint = require "pixelrefer.checkpoint"
local command = require "support.command"
local core = require "pixelrefer.core"
local ffi = require "ffi"
local files = require "support.files"
local hub = require "pixelrefer.hub"
local hub_server = require "support.hub"
local listing = require "pixelrefer.hub.listing"
local places = require "pixelrefer.places"

ffi.cdef "int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);"

-- Bytes of no pattern.
local function noise(length, seed)
    local bytes, state = {}, seed
    for i = 1, length do
        state = (state * 1103515245 + 12345) % 2 ^ 31
        bytes[i] = string.char(math.floor(state / 65536) % 256)
    end
    return table.concat(bytes)
end

local CONTENTS = {
    ["config.json"] = '{"model_type":"pixelrefer_qwen2"}',
    ["merges.txt"] = "a b\n",
    ["empty.txt"] = "",
    ["model-00001-of-00002.safetensors"] = noise(200000, 1),
    ["model-00002-of-00002.safetensors"] = noise(1000, 2),
    ["model.safetensors.index.json"] = "{}",
    ["pytorch_model.bin"] = "not wanted",
    ["training_args.bin"] = "not wanted",
    ["README.md"] = "not wanted",
}
local WEIGHTS = "model-00001-of-00002.safetensors"
local FEW = { ["config.json"] = CONTENTS["config.json"], [WEIGHTS] = CONTENTS[WEIGHTS] }
local WANTED = { "config.json", "empty.txt", "merges.txt", WEIGHTS, "model-00002-of-00002.safetensors",
    "model.safetensors.index.json" }

describe("pulling", function()
    local folder, server

    local preload = os.getenv("LD_PRELOAD") -- a sanitizer's runtime, in which curl would hang

    setup(function()
        ffi.C.unsetenv("LD_PRELOAD")
        ffi.C.setenv("no_proxy", "127.0.0.1,localhost", 1)
    end)
    teardown(function()
        if preload then ffi.C.setenv("LD_PRELOAD", preload, 1) end
    end)
    before_each(function() folder, server = files.directory(), nil end)
    after_each(function()
        if server then server.stop() end
        files.remove(folder)
    end)

    local function serve(behaviour, contents)
        server = hub_server.start(folder .. "/hub", contents or CONTENTS, behaviour)
    end

    local function pull(given)
        local settings = { endpoint = server.endpoint, folder = folder .. "/model", pause = 0 }
        for key, value in pairs(given or {}) do settings[key] = value end
        return hub.pull("org/model", settings)
    end

    local function message(given)
        local fine, reason = pcall(pull, given)
        assert.is_false(fine)
        return reason
    end

    local function there()
        local names = core.list_directory(folder .. "/model")
        table.sort(names)
        return names
    end

    local function assert_whole()
        assert.same(WANTED, there())
        for _, name in ipairs(WANTED) do
            assert.is_true(CONTENTS[name] == files.read(folder .. "/model/" .. name), name)
        end
    end

    -- The requests for a file, as what their Range and Authorization were.
    local function requests(name)
        local found = {}
        for _, line in ipairs(server.log()) do
            local path, rest = line:match("^(%S+) (.*)$")
            if path:sub(-#name) == name then found[#found + 1] = rest end
        end
        return found
    end

    it("gets what a checkpoint needs, once", function()
        serve()
        assert.equal(folder .. "/model", pull())
        assert_whole()
        local before = #server.log()
        pull()
        assert.equal(before + 1, #server.log()) -- the listing
        assert_whole()
    end)

    it("goes on where a connection broke off", function()
        serve('if request.path:find("00001", 1, true) and request.count < 4 then response.cut = 50000 end')
        pull { tries = 2 }
        assert_whole()
        assert.same({ "- -", "bytes=50000- -", "bytes=100000- -", "bytes=150000- -" }, requests(WEIGHTS))
    end)

    it("goes on where another pull broke off", function()
        serve('if request.path:find("00001", 1, true) and request.count == 1 then response.cut = 50000 end')
        assert.matches("model%-00001.-: ", message { tries = 1 })
        assert.equal(50000, #files.read(folder .. "/model/" .. WEIGHTS .. ".part"))
        assert.is_nil(core.path_kind(folder .. "/model/" .. WEIGHTS))
        assert.is_nil(core.path_kind(folder .. "/model/config.json"))
        pull()
        assert_whole()
        assert.same({ "- -", "bytes=50000- -" }, requests(WEIGHTS))
    end)

    it("gives up on a server that never gets on", function()
        serve('if request.path:find("00001", 1, true) then response.cut = 0 end', FEW)
        message { tries = 3 }
        assert.equal(3, #requests(WEIGHTS))
        assert.is_nil(core.path_kind(folder .. "/model/" .. WEIGHTS))
    end)

    it("begins anew where the server cannot go on, and where what is left is something else", function()
        serve([[
            if request.path:find("00001", 1, true) and request.headers.range then
                response = { status = 200, headers = {}, body = response.body }
            end]])
        files.make_directories(folder .. "/model")
        files.write(folder .. "/model/" .. WEIGHTS .. ".part", CONTENTS[WEIGHTS]:sub(1, 700))
        files.write(folder .. "/model/merges.txt.part", "xy")
        files.write(folder .. "/model/model-00002-of-00002.safetensors.part", ("x"):rep(2000))
        pull()
        assert_whole()
        assert.same({ "bytes=700- -", "- -" }, requests(WEIGHTS))
        assert.same({ "bytes=2- -", "- -" }, requests("merges.txt"))
        assert.same({ "- -" }, requests("model-00002-of-00002.safetensors"))
    end)

    it("refuses bytes that do not have the listed hash, and keeps nothing of them", function()
        for _, name in ipairs { WEIGHTS, "config.json" } do
            serve(('if request.path:find(%q, 1, true) then response.body = response.body:gsub("^.", "#") end')
                  :format(name), FEW)
            assert.matches(name:gsub("%p", "%%%0") .. ": its sha%d+ is %x+, the hub lists %x+", message())
            assert.is_nil(core.path_kind(folder .. "/model/" .. name))
            assert.is_nil(core.path_kind(folder .. "/model/" .. name .. ".part"))
            assert.is_nil(core.path_kind(folder .. "/model/config.json"))
            server.stop()
            files.remove(folder .. "/hub")
            files.remove(folder .. "/model")
        end
    end)

    it("refuses sizes that are not the listed ones", function()
        local lies = {
            ["has 200000 of the 200001 bytes"] = [[
                for _, entry in ipairs(response.entries or {}) do
                    if entry.lfs then entry.lfs.size = entry.lfs.size + 1 end
                end]],
            ["sends more than the 199999 bytes"] = [[
                for _, entry in ipairs(response.entries or {}) do
                    if entry.lfs then entry.lfs.size = entry.lfs.size - 1 end
                end]],
            ["sends more than the 200000 bytes"] = [[
                if request.path:find("00001", 1, true) then response.endless = true end]],
            ["sends 100 of the 200000 bytes"] = [[
                if request.path:find("00001", 1, true) then
                    response = { status = 200, headers = {}, body = response.body:sub(1, 100) }
                end]],
        }
        for expected, behaviour in pairs(lies) do
            serve(behaviour, FEW)
            assert.matches(expected, message { tries = 2 }, 1, true)
            assert.is_nil(core.path_kind(folder .. "/model/" .. WEIGHTS))
            assert.is_nil(core.path_kind(folder .. "/model/config.json"))
            server.stop()
            files.remove(folder .. "/hub")
            files.remove(folder .. "/model")
        end
    end)

    it("reads a listing of several pages, from the same server only", function()
        serve([[
            if response.entries then
                local number = tonumber(request.query:match("cursor=(%d+)")) or 1
                local count = #response.entries
                response.entries = { response.entries[number] }
                if number < count then
                    response.headers.Link = ('<http://%s%s?recursive=true&cursor=%d>; rel="next"'):format(
                        request.headers.host, request.path, number + 1)
                end
            end]])
        pull()
        assert_whole()
        server.stop()
        files.remove(folder .. "/hub")
        serve([[response.headers.Link = '<http://localhost:1/x>; rel="next"']], FEW)
        assert.matches("the listing goes on elsewhere: http://localhost:1/x", message(), 1, true)
        server.stop()
        files.remove(folder .. "/hub")
        serve([[response.headers.Link = ('<%s>; rel="next"'):format(request.path)]], FEW)
        assert.matches("more than 20 pages", message(), 1, true)
    end)

    it("says what a server refuses", function()
        local function refused(status, expected, given)
            serve(("response = { status = %d, headers = {}, body = 'a page' }"):format(status), FEW)
            assert.matches(expected, message(given), 1, true)
            server.stop()
            files.remove(folder .. "/hub")
        end
        refused(401, "(401): either there is no such model, or it needs a token, which HF_TOKEN does not give")
        refused(403, "gives, but not one that may read it", { token = "abc" })
        refused(404, "does not have it (404), or not in the revision 'main'")
        refused(500, "500", { tries = 2 })
        assert.same({}, there())
    end)

    it("tries again after a server's own errors", function()
        serve("if request.count < 3 then response = { status = 503, headers = {}, body = 'busy' } end")
        pull()
        assert_whole()
    end)

    it("gives a token to the hub alone, and to no process's arguments", function()
        serve([[
            if request.path:find("00001", 1, true) then
                if request.headers.host:find("127", 1, true) then
                    local seen = io.popen("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
                    local file = io.open(arg[1] .. "/seen", "w")
                    file:write(seen:read("*a"):find("secret" .. "-token", 1, true) and "yes" or "no")
                    file:close()
                    local port = request.headers.host:match("%d+$")
                    response.headers.Location = "http://localhost:" .. port .. request.path
                    response.status, response.body = 302, ""
                end
            end]])
        pull { token = "secret-token" }
        assert_whole()
        assert.same({ "- Bearer secret-token", "- -" }, requests(WEIGHTS))
        assert.same({ "- Bearer secret-token" }, requests("merges.txt"))
        assert.equal("no", files.read(folder .. "/hub/seen"))
    end)

    it("takes another revision, and leaves nothing of the first that could be loaded with it", function()
        serve()
        pull()
        server.stop()
        files.remove(folder .. "/hub")
        local single = { ["config.json"] = CONTENTS["config.json"], ["model.safetensors"] = "other" }
        serve(nil, single)
        pull { revision = "refs/pr/1" }
        assert.same({ "config.json", "empty.txt", "merges.txt", "model.safetensors" }, there())
        assert.matches("/tree/refs%%2Fpr%%2F1 ", server.log()[1])
    end)

    it("lets one process at a time into a folder", function()
        serve()
        files.make_directories(folder .. "/model")
        local descriptor = ffi.C.open(folder .. "/model", 0)
        assert.equal(0, ffi.C.flock(descriptor, 2))
        assert.matches("is being pulled by another process", message(), 1, true)
        ffi.C.close(descriptor)
        pull()
        assert_whole()
    end)

    -- What stands before a command: the library needs a sanitizer's runtime again, curl still must not have it.
    local function with_runtime()
        if not preload then return "" end
        files.write(folder .. "/curl", "#!/bin/sh\nPATH=${PATH#*:} exec env -u LD_PRELOAD curl \"$@\"\n")
        os.execute(("chmod +x '%s/curl'"):format(folder))
        return ("LD_PRELOAD='%s' PATH='%s':\"$PATH\" "):format(preload, folder)
    end

    it("is a command, whose checkpoints are found by their names", function()
        serve()
        local cache = folder .. "/cache"
        local prefix = with_runtime() .. ("PIXELREFER_HOME='%s' HF_HOME='%s/hf' HF_HUB_CACHE= XDG_CACHE_HOME='%s/xdg' "
            .. "HF_ENDPOINT='%s' no_proxy=127.0.0.1 env -u HF_TOKEN"):format(cache, folder, folder, server.endpoint)
        local code, out, err = command.run(folder, { "pull", "org/model" }, prefix)
        assert.equal(0, code, err)
        assert.equal(cache .. "/org/model\n", out)
        assert.equal("", err)
        code, out = command.run(folder, { "models" }, prefix)
        assert.equal(0, code)
        assert.matches("^org/model +vision_object +0%.2 MiB  " .. cache:gsub("%p", "%%%0") .. "/org/model\n", out)
        for _, name in ipairs { "org/model", "model" } do
            code, _, err = command.run(folder, { "info", name }, prefix)
            assert.equal(1, code)
            assert.matches(cache .. "/org/model/model", err, 1, true) -- found: its index is empty
        end
        code, out, err = command.run(folder, { "pull", "org/none", "--endpoint", server.endpoint .. "/x" }, prefix)
        assert.same({ 1, "" }, { code, out })
        assert.matches("^pixelrefer: org/none: ", err)
        assert.equal(2, (command.run(folder, { "pull" }, prefix)))
    end)
end)

describe("pull's arguments", function()
    local function refused(expected, name, given)
        local fine, reason = pcall(hub.pull, name, given)
        assert.is_false(fine)
        assert.matches(expected, reason, 1, true)
    end

    it("are what they should be", function()
        for _, name in ipairs { "", "../x", "org/../x", "org/model/x", "org/$(touch x)", "-org/model", "org/mo del" } do
            refused("a name like 'org/model' expected", name)
        end
        for _, revision in ipairs { "", "../main", "a/../b", "main?x", "a b", "-x" } do
            refused("expected as the revision", "org/model", { revision = revision })
        end
        for _, endpoint in ipairs { "file:///etc", "ftp://x", "http://", "http://a b", "https://x?y=", 'http://x"y' } do
            refused("an address like", "org/model", { endpoint = endpoint })
        end
        refused("characters that no token has", "org/model", { token = "a\nb" })
        refused("did you mean 'revision'", "org/model", { revison = "main" })
    end)
end)

describe("a hub's listing", function()
    local SHA1, SHA256 = ("a"):rep(40), ("b"):rep(64)

    local function file(path, changes)
        local entry = { type = "file", path = path, size = 5, oid = SHA1 }
        for key, value in pairs(changes or {}) do entry[key] = value end
        return entry
    end

    local function names(...)
        local found = {}
        for i, one in ipairs(listing.files({ ... }, "hub")) do found[i] = one.name end
        return found
    end

    local function refused(expected, ...)
        local fine, reason = pcall(listing.files, { file "config.json", file "model.safetensors", ... }, "hub")
        assert.is_false(fine)
        assert.matches(expected, reason, 1, true)
    end

    it("gives the files of a checkpoint, config.json as the last", function()
        assert.same({ "a.txt", "pytorch_model.bin", "config.json" },
                    names(file "config.json", file "pytorch_model.bin", file "a.txt", file "x.py", file "deep/a.txt",
                          { type = "directory", path = "deep" }))
        assert.same({ "model.safetensors", "config.json" },
                    names(file "config.json", file "pytorch_model.bin", file "model.safetensors"))
        local lfs = { oid = SHA256, size = 9 }
        local large = listing.files({ file "config.json", file("model.safetensors", { lfs = lfs }) }, "hub")[1]
        assert.same({ name = "model.safetensors", size = 9, kind = "sha256", hash = SHA256 }, large)
    end)

    it("is refused when it leads elsewhere, repeats or makes no sense", function()
        for _, path in ipairs { "../x.json", "/etc/x.json", "a/../../x.json", "a//x.json", "./x.json", "x\n.json", "",
                                "a\\x.json", "x\0.json", ".." } do
            refused("a path inside the repository expected", file(path))
        end
        refused("not a file name that a checkpoint has", file "-x.json")
        refused("not a file name that a checkpoint has", file "$(x).json")
        refused("not a file name that a checkpoint has", file ".hidden.json")
        refused("listed twice", file "model.safetensors")
        refused("\"size\"", file("x.json", { size = -1 }))
        refused("\"size\"", file("x.json", { size = 1e300 }))
        refused("\"size\"", file("x.json", { size = "5" }))
        refused("a SHA-1 expected", file("x.json", { oid = "'; rm x" }))
        refused("a SHA-256 expected", file("x.json", { lfs = { oid = SHA1, size = 5 } }))
        refused("\"lfs\"", file("x.json", { lfs = 3 }))
        refused("\"path\"", { type = "file" })
        refused("an object expected", 5)
        assert.is_false((pcall(listing.files, { file "config.json" }, "hub")))
        assert.is_false((pcall(listing.files, { file "model.safetensors" }, "hub")))
    end)
end)

describe("the caches' folders", function()
    it("are made with those above them", function()
        local folder = files.directory()
        places.make(folder .. "/a/b")
        places.make(folder .. "/a/b")
        assert.equal("directory", core.path_kind(folder .. "/a/b"))
        files.write(folder .. "/file", "")
        assert.is_false((pcall(places.make, folder .. "/file/b")))
        files.remove(folder)
        assert.is_table(checkpoint.list())
    end)
end)
