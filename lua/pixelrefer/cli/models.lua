--- What `pixelrefer models` lists.
-- @module pixelrefer.cli.models
local checkpoint = require "pixelrefer.checkpoint"
local core = require "pixelrefer.core"
local json = require "pixelrefer.json"
local layout = require "pixelrefer.layout"

local function bytes_of(folder)
    local bytes = 0
    for _, name in ipairs(core.list_directory(folder)) do
        local file = core.path_kind(folder .. "/" .. name) == "file" and io.open(folder .. "/" .. name, "rb")
        if file then
            bytes = bytes + file:seek("end")
            file:close()
        end
    end
    return bytes
end

--- The checkpoints in the caches that are ours; of what is in Hugging Face's caches the rest is passed over.
-- @treturn {table,...} {name =, path =, framework =, bytes =}
return function()
    local rows = {}
    for _, found in ipairs(checkpoint.list()) do
        local fine, config = pcall(json.read_object, found.path .. "/config.json")
        found.framework = fine and layout.FRAMEWORKS[config.model_type]
        found.bytes = bytes_of(found.path)
        if found.framework then rows[#rows + 1] = found end
    end
    return rows
end
