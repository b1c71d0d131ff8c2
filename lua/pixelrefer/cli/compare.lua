--- The command that compares object tokenizers.
-- @module pixelrefer.cli.compare
local arguments = require "pixelrefer.cli.arguments"
local progress = require "pixelrefer.cli.progress"
local settings = require "pixelrefer.cli.settings"

local commands = {}

-- The function that a file returns.
local function load_function(path, name)
    local chunk, reason = loadfile(path)
    if not chunk then error(("--%s: %s"):format(name, reason), 0) end
    local found = chunk(path)
    if type(found) ~= "function" then
        error(("--%s: %s returns a %s, expected a function"):format(name, path, type(found)), 0)
    end
    return found
end

-- Writes a file; it is there whole or not at all.
local function write_file(path, content)
    local part = path .. ".part"
    local file, reason = io.open(part, "wb")
    if not file then error(reason, 0) end
    local ok, closed
    ok, reason = file:write(content)
    closed, reason = file:close(), reason
    if ok and closed then ok, reason = os.rename(part, path) end
    if ok and closed then return end
    os.remove(part)
    error(("%s: %s"):format(path, reason or "cannot be written"), 0)
end

commands.compare = {
    spec = settings.merged(settings.MODEL, settings.GENERATION, settings.MEDIA, {
        tokenizer = "repeated", out = "path", root = "path", score = "path", limit = "integer", examples = "integer",
    }),
    run = function(given, words)
        if #words ~= 1 then arguments.fail("compare takes one dataset, found %d", #words) end
        if not given.model then arguments.fail("--model DIR is missing") end
        local compare, json = require "pixelrefer.compare", require "pixelrefer.json"
        local tokenizers, lines = {}, {}
        for i, pair in ipairs(given.repeated) do tokenizers[i] = pair[2] end
        local score = given.score and load_function(given.score, "score")
        progress.show("loading %s", given.model)
        local model = require("pixelrefer.model").load(given.model, {
            device = given.device, compute = given.compute, threads = given.threads, weights = given.weights,
            kv = given.kv,
        })
        local base = given.out and given.out:gsub("%.%w+$", "")
        local result = compare.run(model, words[1], {
            tokenizers = #tokenizers > 0 and tokenizers or nil,
            root = given.root, limit = given.limit, examples = not base and 0 or given.examples, score = score,
            media = settings.pick(given, settings.MEDIA), generation = settings.pick(given, settings.GENERATION),
            report = base and function(answer)
                answer.tokens, answer.cells = json.array(answer.tokens or {}), json.array(answer.cells or {})
                lines[#lines + 1] = json.encode(answer) .. "\n"
            end,
            progress = function(count) progress.show("%d questions", count) end,
        })
        progress.clear()
        for _, problem in ipairs(result.problems) do io.stderr:write("pixelrefer: ", problem, "\n") end
        if base then write_file(base .. ".jsonl", table.concat(lines)) end
        if #result.examples > 0 then
            require("pixelrefer.image").save(base .. ".png", compare.picture(result))
        end
        if not (io.stdout:write(compare.markdown(result)) and io.stdout:flush()) then
            error("stdout: it cannot be written", 0)
        end
        return 0
    end,
}

return commands
