--- What a hub says about a repository's files, taken as what a stranger says: which files a checkpoint needs, how large
-- they are, and their hashes.
-- @module pixelrefer.hub.listing
local json = require "pixelrefer.json"

local listing = {}

local LARGEST = 2 ^ 43 -- bytes of a file

local SAFETENSORS = { "^model.*%.safetensors$", "^model.*%.safetensors%.index%.json$" }
local TORCH = { "^pytorch_model.*%.bin$", "^pytorch_model.*%.bin%.index%.json$" }
local OTHERS = { "%.json$", "%.txt$", "%.model$", "%.jinja$" }

local function matches(name, patterns)
    for _, pattern in ipairs(patterns) do
        if name:match(pattern) then return true end
    end
    return false
end

--- Whether a file holds a checkpoint's weights, or says where they are.
-- @tparam string name
-- @treturn boolean
function listing.is_weights(name)
    return matches(name, SAFETENSORS) or matches(name, TORCH)
end

-- A path that stays inside its folder.
local function check_path(path, where)
    json.check(path, "string", nil, "path", where)
    local inside = path ~= "" and not path:find("[%c\\]") and path:sub(1, 1) ~= "/"
    for part in path:gmatch("[^/]*") do inside = inside and part ~= ".." and part ~= "." end
    if not inside or path:find("//", 1, true) then
        error(("%s: \"path\": a path inside the repository expected, found %q"):format(where, path:sub(1, 80)), 0)
    end
end

local function read_hash(entry, where)
    if entry.lfs ~= nil and entry.lfs ~= json.null then
        local lfs = json.field(entry, "lfs", "object", nil, where)
        local oid = json.field(lfs, "oid", "string", nil, where .. ": \"lfs\""):gsub("^sha256:", "")
        if #oid ~= 64 or oid:find("%X") then error(where .. ": \"lfs\": \"oid\": a SHA-256 expected", 0) end
        where = where .. ": \"lfs\""
        return "sha256", oid:lower(), json.field(lfs, "size", "integer", { min = 0, max = LARGEST }, where)
    end
    local oid = json.field(entry, "oid", "string", nil, where)
    if #oid ~= 40 or oid:find("%X") then error(where .. ": \"oid\": a SHA-1 expected", 0) end
    return "sha1", oid:lower(), json.field(entry, "size", "integer", { min = 0, max = LARGEST }, where)
end

local function read_entry(entry, where)
    json.check(entry, "object", nil, "entry", where)
    check_path(entry.path, where)
    if entry.type ~= "file" or entry.path:find("/", 1, true) then return nil end -- a checkpoint has no folders
    local name = entry.path
    if not listing.is_weights(name) and not matches(name, OTHERS) then return nil end
    where = ("%s: %q"):format(where, name)
    if not name:match("^[%w_][%w._+-]*$") then error(where .. ": not a file name that a checkpoint has", 0) end
    local kind, hash, size = read_hash(entry, where)
    return { name = name, size = size, kind = kind, hash = hash }
end

--- The files of a checkpoint. Of weights in both formats only the safetensors are taken, which are preferred.
-- @tparam table entries of the tree API, all pages
-- @tparam string where they come from, for messages
-- @treturn {table,...} {name =, size =, kind = "sha256" or "sha1", hash = in hexadecimal}; `config.json` is the last
-- @raise what a hub must not say, what is missing of a checkpoint
function listing.files(entries, where)
    local files, seen, has_safetensors, has_torch, config = {}, {}, false, false, nil
    for _, entry in ipairs(entries) do
        local file = read_entry(entry, where)
        if file then
            if seen[file.name] then error(("%s: %q is listed twice"):format(where, file.name), 0) end
            seen[file.name] = true
            files[#files + 1] = file
        end
    end
    for i = #files, 1, -1 do
        local name = files[i].name
        has_safetensors = has_safetensors or matches(name, SAFETENSORS)
        has_torch = has_torch or matches(name, TORCH)
        if name == "config.json" then config = table.remove(files, i) end
    end
    if not config then error(where .. ": not a checkpoint: no config.json is listed", 0) end
    if not has_safetensors and not has_torch then error(where .. ": not a checkpoint: no weights are listed", 0) end
    if has_safetensors then
        for i = #files, 1, -1 do
            if matches(files[i].name, TORCH) then table.remove(files, i) end
        end
    end
    table.sort(files, function(a, b) return a.name < b.name end)
    files[#files + 1] = config
    return files
end

return listing
