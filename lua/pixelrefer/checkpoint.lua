--- Checkpoint directories as the hub has them: found by path or name, opened with all their weights mapped.
--
--     local checkpoint = require "pixelrefer.checkpoint"
--     local opened = checkpoint.open("PixelRefer-Lite-2B")
--     print(opened.path, opened.config.model_type, opened.tensors["model.norm.weight"])
--
-- @module pixelrefer.checkpoint

local core = require "pixelrefer.core"
local json = require "pixelrefer.json"
local places = require "pixelrefer.places"

local checkpoint = {}

local environment = places.environment

-- ---- finding a directory -----------------------------------------------------------------------------------------

local function read_line(path)
    local file = core.path_kind(path) == "file" and io.open(path, "r")
    local line = file and file:read("*l")
    if file then file:close() end
    return line
end

--- Folders that hold checkpoints under their own names.
local function own_caches()
    return { places.cache() }
end

--- Where the small models lie that come with the library: beside the installed modules, or in a checkout.
local function shipped_folders()
    local modules = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$")
    return { modules .. "/models", modules .. "/../../examples/models" }
end

--- Hugging Face's caches, in the order in which its library would choose one.
local function hub_caches()
    local home, found, seen = environment("HOME"), {}, {}
    local cache = environment("XDG_CACHE_HOME") or home and home .. "/.cache"
    local hub_home = environment("HF_HOME")
    for _, folder in ipairs {
        environment("HF_HUB_CACHE") or false,
        hub_home and hub_home .. "/hub" or false,
        cache and cache .. "/huggingface/hub" or false,
        home and home .. "/.cache/huggingface/hub" or false,
    } do
        if folder and not seen[folder] then
            seen[folder] = true
            found[#found + 1] = folder
        end
    end
    return found
end

--- The folders `models--org--name` in a hub cache that a name can mean: "org/name", or "name" of any org.
local function repositories(hub, name)
    if core.path_kind(hub) ~= "directory" then return {} end
    local org, model = name:match("^([^/]+)/([^/]+)$")
    local found = {}
    for _, folder in ipairs(core.list_directory(hub)) do
        local its_org, its_model = folder:match("^models%-%-(.-)%-%-(.+)$")
        if its_model == (model or name) and (not org or its_org == org) then found[#found + 1] = folder end
    end
    return found
end

--- The snapshot that refs/main names, or the only one there is.
local function snapshot_of(repository)
    local revision = read_line(repository .. "/refs/main")
    if revision then
        local path = repository .. "/snapshots/" .. revision
        if revision:match("^%w+$") and core.path_kind(path) == "directory" then return path end
        error(("%s: refs/main names the snapshot '%s', which is not there"):format(repository,
            revision:sub(1, 80)), 0)
    end
    local snapshots = repository .. "/snapshots"
    local names = core.path_kind(snapshots) == "directory" and core.list_directory(snapshots) or {}
    if #names == 1 then return snapshots .. "/" .. names[1] end
    error(("%s: no refs/main, and %d snapshots to choose from"):format(repository, #names), 0)
end

--- The folders "org/name" of a cache of our own that a name can mean, of any org.
local function pulled(cache, name)
    local found = {}
    for _, org in ipairs(core.path_kind(cache) == "directory" and core.list_directory(cache) or {}) do
        local both = org .. "/" .. name
        if core.path_kind(cache .. "/" .. both) == "directory" then found[#found + 1] = both end
    end
    return found
end

--- The directory of a checkpoint.
-- @tparam string name_or_dir a directory; or a name in our own cache (`$PIXELREFER_HOME`, else `~/.cache/pixelrefer`)
-- or in Hugging Face's (`HF_HUB_CACHE`, `HF_HOME/hub`, `~/.cache/huggingface/hub`): "org/name", or the name alone; or a
-- small model that comes with the library: "shapes-vision-object", "shapes-object-only"
-- @treturn string its path
-- @raise where it was looked for
function checkpoint.resolve(name_or_dir)
    if type(name_or_dir) ~= "string" or name_or_dir == "" then
        error(("a checkpoint's directory or name expected, got %s"):format(name_or_dir == "" and "an empty string"
            or tostring(name_or_dir)), 0)
    end
    local kind = core.path_kind(name_or_dir)
    if kind == "directory" then return name_or_dir end
    if kind then error(name_or_dir .. ": a checkpoint is a directory, this is a file", 0) end

    local looked = { "the directory " .. name_or_dir }
    if name_or_dir:match("^%w[%w._-]*$") or name_or_dir:match("^%w[%w._-]*/%w[%w._-]*$") then
        for _, cache in ipairs(own_caches()) do
            local path = cache .. "/" .. name_or_dir
            if core.path_kind(path) == "directory" then return path end
            local found = pulled(cache, name_or_dir)
            if #found == 1 then return cache .. "/" .. found[1] end
            if #found > 1 then
                error(("'%s' can mean %s in %s"):format(name_or_dir, table.concat(found, " or "), cache), 0)
            end
            looked[#looked + 1] = path
        end
        for _, hub in ipairs(hub_caches()) do
            local found = repositories(hub, name_or_dir)
            if #found == 1 then return snapshot_of(hub .. "/" .. found[1]) end
            if #found > 1 then
                error(("'%s' can mean %s in %s: say org/name"):format(name_or_dir, table.concat(found, " or "), hub), 0)
            end
            looked[#looked + 1] = ("%s/models--%s"):format(hub,
                name_or_dir:find("/") and name_or_dir:gsub("/", "--") or "*--" .. name_or_dir)
        end
        for _, folder in ipairs(shipped_folders()) do
            local path = folder .. "/" .. name_or_dir
            if core.path_kind(path) == "directory" then return path end
        end
    end
    error(("no checkpoint '%s': looked for %s"):format(name_or_dir, table.concat(looked, ", ")), 0)
end

local function add(list, name, path)
    if core.path_kind(path .. "/config.json") == "file" then list[#list + 1] = { name = name, path = path } end
end

--- All checkpoints in the caches, of whatever model.
-- @treturn {table,...} {name =, path =}; what `resolve` would take first comes first
function checkpoint.list()
    local list = {}
    local function folders(path) return core.path_kind(path) == "directory" and core.list_directory(path) or {} end
    for _, cache in ipairs(own_caches()) do
        for _, name in ipairs(folders(cache)) do
            local path = cache .. "/" .. name
            add(list, name, path)
            for _, model in ipairs(folders(path)) do add(list, name .. "/" .. model, path .. "/" .. model) end
        end
    end
    for _, hub in ipairs(hub_caches()) do
        for _, folder in ipairs(folders(hub)) do
            local org, model = folder:match("^models%-%-(.-)%-%-(.+)$")
            local fine, path = pcall(snapshot_of, hub .. "/" .. folder)
            if org and fine then add(list, org .. "/" .. model, path) end
        end
    end
    return list
end

-- ---- opening one -------------------------------------------------------------------------------------------------

local FORMATS = { -- in the order of preference
    { single = "model.safetensors", read = core.read_safetensors },
    { single = "pytorch_model.bin", read = core.read_torch },
}

local function file_bytes(path)
    local file, reason = io.open(path, "rb")
    if not file then error(reason, 0) end
    local bytes = file:seek("end")
    file:close()
    return bytes
end

--- The index's shards in order, each with the names it should hold.
local function read_index(path)
    local map = json.field(json.read_object(path), "weight_map", "object", nil, path)
    local shards, order = {}, {}
    for name, shard in pairs(map) do
        json.check(shard, "string", nil, "weight_map." .. tostring(name), path)
        if shard:find("/", 1, true) or shard:find("%z") or shard == "" or shard == "." or shard == ".." then
            error(("%s: the shard '%s' is no file name"):format(path, shard), 0)
        end
        if not shards[shard] then
            shards[shard] = {}
            order[#order + 1] = shard
        end
        table.insert(shards[shard], name)
    end
    if #order == 0 then error(path .. ": the weight_map is empty", 0) end
    table.sort(order)
    return map, shards, order
end

local function first_of(names)
    table.sort(names)
    return #names == 1 and ("'%s'"):format(names[1]) or ("'%s' and %d more"):format(names[1], #names - 1)
end

--- Whether a shard holds exactly what the index says.
local function check_shard(path, tensors, expected, map, index)
    local missing, surplus = {}, {}
    for _, name in ipairs(expected) do
        if not tensors[name] then missing[#missing + 1] = name end
    end
    local shard = path:match("[^/]+$")
    for name in pairs(tensors) do
        if map[name] ~= shard then surplus[#surplus + 1] = name end
    end
    if #missing > 0 then
        error(("%s: lacks %s, which %s places here"):format(path, first_of(missing), index), 0)
    elseif #surplus > 0 then
        error(("%s: holds %s, which %s does not place here"):format(path, first_of(surplus), index), 0)
    end
end

local function read_sharded(directory, index, read)
    local map, shards, order = read_index(directory .. "/" .. index)
    local merged, files = {}, {}
    for i, shard in ipairs(order) do
        local path = directory .. "/" .. shard
        if core.path_kind(path) ~= "file" then
            error(("%s: %s names this shard, but it is not there"):format(path, index), 0)
        end
        local tensors = read(path)
        check_shard(path, tensors, shards[shard], map, index)
        for name, tensor in pairs(tensors) do merged[name] = tensor end
        files[i] = path
    end
    return merged, files
end

--- All weights of a directory, and the files they came from.
local function read_weights(directory)
    local looked = {}
    for _, format in ipairs(FORMATS) do
        local single, index = directory .. "/" .. format.single, format.single .. ".index.json"
        if core.path_kind(single) == "file" then
            local tensors = format.read(single)
            return tensors, { single }
        end
        if core.path_kind(directory .. "/" .. index) == "file" then
            return read_sharded(directory, index, format.read)
        end
        looked[#looked + 1] = format.single
        looked[#looked + 1] = index
    end
    error(("%s: no weights: none of %s is there"):format(directory, table.concat(looked, ", ")), 0)
end

local function read_optional(path)
    return core.path_kind(path) and json.read_object(path) or {}
end

--- Opens a checkpoint. Weights are views of the mapped files: nothing is copied.
-- @tparam string name_or_dir as for checkpoint.resolve
-- @treturn table {path = directory, config = config.json, generation_config = and preprocessor_config = theirs or
-- empty, tensors = name -> Tensor over all shards, files = list of the weight files, bytes = their total size}
-- @raise what is missing or wrong, and in which file
function checkpoint.open(name_or_dir)
    local path = checkpoint.resolve(name_or_dir)
    if core.path_kind(path .. "/config.json") ~= "file" then
        error(path .. ": no config.json there: not a checkpoint", 0)
    end
    local opened = {
        path = path,
        config = json.read_object(path .. "/config.json"),
        generation_config = read_optional(path .. "/generation_config.json"),
        preprocessor_config = read_optional(path .. "/preprocessor_config.json"),
        bytes = 0,
    }
    opened.tensors, opened.files = read_weights(path)
    for _, file in ipairs(opened.files) do opened.bytes = opened.bytes + file_bytes(file) end
    return opened
end

return checkpoint
