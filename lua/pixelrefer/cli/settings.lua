--- Options that several commands take.
-- @module pixelrefer.cli.settings
local settings = {}

--- How answers are generated.
settings.GENERATION = {
    sample = "flag", temperature = "number", ["top-k"] = "integer", ["top-p"] = "number",
    ["repetition-penalty"] = "number", seed = "integer", ["max-new-tokens"] = "integer", ["local-crop"] = "string",
    alternatives = "integer",
}

--- How a video is sampled.
settings.MEDIA = { fps = "number", ["max-frames"] = "integer", start = "number", ["end"] = "number" }

--- Which model, and where it runs.
settings.MODEL = {
    model = "path", threads = "integer", device = "string", compute = "string", weights = "string", kv = "string",
}

--- The object tokenizer.
settings.TOKENIZER = { tokenizer = "path" }

--- All options of some tables, and `--help`.
-- @param ... tables as `arguments.parse` takes them
-- @treturn table
function settings.merged(...)
    local spec = { help = "flag" }
    for _, part in ipairs { ... } do
        for name, kind in pairs(part) do spec[name] = kind end
    end
    return spec
end

--- What was given of a table's options.
-- @tparam table given as `arguments.parse` returns it
-- @tparam table spec
-- @treturn table by name, dashes as underscores
function settings.pick(given, spec)
    local picked = {}
    for name in pairs(spec) do
        local key = name:gsub("%-", "_")
        picked[key] = given[key]
    end
    return picked
end

return settings
