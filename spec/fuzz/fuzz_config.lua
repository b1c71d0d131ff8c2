-- Fuzzes what reads JSON in Lua: a checkpoint's config.json, generation and preprocessor configs and index.
-- usage: luajit spec/fuzz/fuzz_config.lua SECONDS
--
-- Takes a committed checkpoint, changes bytes, values and structure of one of its JSON files, and opens it: the outcome
-- must be a model's layout or one error message, soon. Ends with `N passed, N failed, N skipped`.

local checkpoint = require "pixelrefer.checkpoint"
local ffi = require "ffi"
local json = require "pixelrefer.json"
local layout = require "pixelrefer.layout"

local seconds = tonumber(arg[1] or "10")
local seed = tonumber(os.getenv("SEED") or "20260501")
math.randomseed(seed)

local FILES = { "config.json", "generation_config.json", "preprocessor_config.json", "pytorch_model.bin.index.json" }
local ODD = {
    0, -1, 1, 2, 0.5, 1e300, -1e300, 2 ^ 31, 2 ^ 53, 2 ^ 63, 1e-300, "", "x", "32", true, false, json.null,
    json.array {}, {}, json.array { 1, 2 }, json.array { json.array {} }, { a = 1 }, ("["):rep(5000),
}
local WORDS = {
    "[", "]", "{", "}", ",", ":", '"', "null", "1e999", "-", "\\u0000", "\255", "\0", ("["):rep(3000), "NaN",
}

ffi.cdef "int symlink(const char *target, const char *path);"

local function read(path)
    local file = assert(io.open(path, "rb"))
    local content = file:read("*a")
    file:close()
    return content
end

local function write(path, content)
    os.remove(path)
    local file = assert(io.open(path, "wb"))
    file:write(content)
    file:close()
end

local function pick(list) return list[math.random(#list)] end

local function change_bytes(text)
    for _ = 1, math.random(1, 4) do
        local at = math.random(0, #text)
        local cut = math.random() < 0.5 and math.random(0, 8) or 0
        local put = math.random() < 0.5 and pick(WORDS) or string.char(math.random(0, 255))
        text = text:sub(1, at) .. put .. text:sub(at + 1 + cut)
    end
    return text
end

-- Replaces, drops or adds values somewhere in a decoded object.
local function change_values(object)
    local keys = {}
    for key in pairs(object) do keys[#keys + 1] = key end
    if #keys == 0 then return object end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    local key = pick(keys)
    local value = object[key]
    if type(value) == "table" and math.random() < 0.6 then
        change_values(value)
    elseif math.random() < 0.2 and type(key) == "string" then
        object[key] = nil
    else
        object[key] = pick(ODD)
    end
    return object
end

local function changed(text)
    if math.random() < 0.4 then return change_bytes(text) end
    local object = json.decode(text)
    for _ = 1, math.random(1, 3) do change_values(object) end
    return json.encode(object)
end

-- A directory that looks like the checkpoint, file by file.
local function mirror(source)
    local folder = os.tmpname()
    os.remove(folder)
    os.execute(("mkdir -p '%s'"):format(folder))
    local pipe = io.popen(("cd '%s' && pwd && ls"):format(source))
    local whole = pipe:read("*l")
    for name in pipe:lines() do ffi.C.symlink(whole .. "/" .. name, folder .. "/" .. name) end
    pipe:close()
    return folder
end

local function attempt(folder) return layout.read(checkpoint.open(folder)) end

local runs, failed = 0, 0
for _, model in ipairs { "refer", "lite_sharded_bin" } do
    local source = "spec/fixtures/golden/models/" .. model
    local folder = mirror(source)
    local deadline = os.time() + math.ceil(seconds / 2)
    while os.time() < deadline and failed == 0 do
        local name = pick(FILES)
        local file = io.open(source .. "/" .. name)
        if file then
            file:close()
            local original = read(source .. "/" .. name)
            local ok, content = pcall(changed, original)
            if ok then
                write(folder .. "/" .. name, content)
                local began = os.clock()
                local fine, reason = pcall(attempt, folder)
                if not fine and (type(reason) ~= "string" or reason:find("^[^\n]-%.lua:%d+: ")
                                 or reason:find("stack traceback", 1, true)) or os.clock() - began > 5 then
                    failed = failed + 1
                    print(("%s with the content below: %s"):format(name, tostring(reason)))
                    print(content)
                end
                os.remove(folder .. "/" .. name)
                ffi.C.symlink(os.getenv("PWD") .. "/" .. source .. "/" .. name,
                              folder .. "/" .. name)
                runs = runs + 1
            end
        end
    end
    os.execute(("rm -rf '%s'"):format(folder))
end
print(("config: %d runs, %d s, seed %d"):format(runs, seconds, seed))
print(("%d passed, %d failed, 0 skipped"):format(failed == 0 and 1 or 0, failed))
os.exit(failed == 0 and 0 or 1, true)
