-- A directory of the golden form, and where what it lacks may lie: a model in ../shared/golden/models; a tokenizer or a
-- clip in ../data beside it, in media/ inside it, then in ../shared/data.

local json = require "cjson"

local places = {}

local SHARED = os.getenv("PIXELREFER_SHARED") or "../shared"

--- Whether a file or folder is there.
function places.exists(path)
    local file = io.open(path, "rb") -- opens a folder too
    if file then file:close() end
    return file ~= nil
end

--- The whole content of a file.
function places.read(path)
    local file = assert(io.open(path, "rb"))
    local content = file:read("*a")
    file:close()
    return content
end

--- A JSON file as Lua values.
function places.json(path)
    return json.decode(places.read(path))
end

--- The sorted names in a folder; none when there is no folder.
function places.list(folder)
    local names = {}
    if not places.exists(folder) then return names end
    local pipe = assert(io.popen(("ls -1 '%s'"):format(folder:gsub("'", "'\\''"))))
    for name in pipe:lines() do names[#names + 1] = name end
    pipe:close()
    table.sort(names)
    return names
end

local function first(candidates)
    for _, path in ipairs(candidates) do
        if places.exists(path) then return path end
    end
    return nil
end

--- The folder of a checkpoint, nil when there is none.
-- @tparam string golden the golden directory
-- @tparam string name such as "refer"
function places.model(golden, name)
    return first {
        golden .. "/models/" .. name,
        SHARED .. "/golden/models/" .. name,
        "../shared/golden/models/" .. name,
    }
end

--- A tokenizer's folder or a clip, nil when there is none.
-- @tparam string golden the golden directory
-- @tparam string name such as "tokenizer_tiny" or "dog.mp4"
function places.media(golden, name)
    local candidates = {}
    for _, folder in ipairs { golden .. "/../data", golden .. "/media", SHARED .. "/data", "../shared/data" } do
        candidates[#candidates + 1] = folder .. "/" .. name
        candidates[#candidates + 1] = folder .. "/media/" .. name
    end
    return first(candidates)
end

return places
