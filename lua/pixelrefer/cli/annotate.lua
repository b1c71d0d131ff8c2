--- The commands about annotation jobs: annotate, merge, coco.
-- @module pixelrefer.cli.annotate
local arguments = require "pixelrefer.cli.arguments"
local ffi = require "ffi"
local progress = require "pixelrefer.cli.progress"
local settings = require "pixelrefer.cli.settings"

ffi.cdef "char *realpath(const char *path, char *resolved);"

local PLACES = { root = "path", masks = "path" }
local JOB = { task = "repeated", where = "string", each = "path", out = "path", shard = "string",
    together = "integer", retry = "flag" }
local SLURM = { slurm = "integer", submit = "flag" }

local commands = {}

local function duration(seconds)
    if seconds < 100 then return ("%d s"):format(math.ceil(seconds)) end
    if seconds < 6000 then return ("%d min"):format(math.ceil(seconds / 60)) end
    return ("%.1f h"):format(seconds / 3600)
end

local function show(state)
    progress.show("%d answers, %d failed, %d%%, %.2f a second%s", state.answers, state.failed,
        math.floor(100 * state.share), state.rate, state.left and ", " .. duration(state.left) .. " left" or "")
end

local function plural(count, word)
    return ("%d %s%s"):format(count, word, count == 1 and "" or "s")
end

local function summarize(summary, out)
    io.stderr:write(("%s: %s about %s in %s"):format(out, plural(summary.answers, "answer"),
        plural(summary.scenes, "scene"), duration(summary.seconds)))
    if summary.stored > 0 then io.stderr:write((", %d of them there before"):format(summary.stored)) end
    if summary.filtered > 0 then io.stderr:write((", %s left out"):format(plural(summary.filtered, "region"))) end
    io.stderr:write("\n")
    for i, entry in ipairs(summary.problems) do
        if i == 1 then io.stderr:write(summary.failed, " failed:\n") end
        io.stderr:write(("  scene %d%s%s: %s\n"):format(entry.scene,
            entry.region and (", region %d"):format(entry.region) or "",
            entry.id ~= nil and (" (id %s)"):format(tostring(entry.id)) or "", entry.error))
    end
    if summary.failed > #summary.problems then
        io.stderr:write(("  and %d more: see the lines with an \"error\"\n"):format(summary.failed - #summary.problems))
    end
end

local function read_shard(text)
    if not text then return nil end
    local k, n = text:match("^(%d+)/(%d+)$")
    k, n = tonumber(k), tonumber(n)
    if not k or k < 1 or k > n then arguments.fail("--shard: K/N with 1 <= K <= N expected, found '%s'", text) end
    return { k, n }
end

local function tasks_of(given)
    if #given.repeated == 0 then return nil end
    local tasks = {}
    for i, pair in ipairs(given.repeated) do tasks[i] = pair[2] end
    return tasks
end

-- The command's own path, as another working directory finds it too.
local function program()
    local path = arg and arg[0] or "pixelrefer"
    local resolved = path:find("/", 1, true) and ffi.C.realpath(path, ffi.new("char[4097]")) -- PATH_MAX and one
    return resolved and resolved ~= nil and ffi.string(resolved) or path
end

-- The job as it was given, in one order, without what differs between its shards.
local function words_of(given, words, spec)
    local line, names = { program(), "annotate", words[1] }, {}
    for name in pairs(spec) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        local value = given[(name:gsub("%-", "_"))]
        if value ~= nil and name ~= "out" and not SLURM[name] then
            line[#line + 1] = "--" .. name
            if value ~= true then line[#line + 1] = tostring(value) end
        end
    end
    for _, pair in ipairs(given.repeated) do
        line[#line + 1], line[#line + 2] = "--" .. pair[1], pair[2]
    end
    return line
end

local function prepare_slurm(given, words, spec)
    if given.slurm < 1 then arguments.fail("--slurm: at least one task expected, found %d", given.slurm) end
    if given.shard then arguments.fail("--slurm makes the shards: leave --shard out") end
    io.stdout:write(require("pixelrefer.annotate.slurm").prepare(words_of(given, words, spec), program(), given.out,
        given.slurm, given.submit))
    return 0
end

commands.annotate = {
    spec = settings.merged(settings.MODEL, settings.TOKENIZER, settings.GENERATION, settings.MEDIA, PLACES, JOB, SLURM),
    run = function(given, words)
        if #words ~= 1 then arguments.fail("annotate takes one dataset, found %d", #words) end
        if not given.model then arguments.fail("--model DIR is missing") end
        if not given.out then arguments.fail("annotate needs --out FILE") end
        if given.alternatives then arguments.fail("--alternatives is for ask and describe") end
        if given.submit and not given.slurm then arguments.fail("--submit belongs to --slurm N") end
        if given.slurm then return prepare_slurm(given, words, commands.annotate.spec) end
        local options = settings.pick(given, settings.merged(settings.MODEL, settings.TOKENIZER, settings.GENERATION,
            settings.MEDIA, PLACES, { where = "string", each = "path", out = "path", together = "integer",
            retry = "flag" }))
        options.help, options.tasks, options.shard = nil, tasks_of(given), read_shard(given.shard)
        options.progress = show
        progress.show("opening %s", words[1])
        local summary = require("pixelrefer.annotate").run(words[1], options)
        progress.clear()
        summarize(summary, given.out)
        return summary.failed > 0 and summary.answers == 0 and 1 or 0
    end,
}

commands.merge = {
    spec = settings.merged({ out = "path" }),
    run = function(given, words)
        if #words == 0 then arguments.fail("merge takes the shards' files") end
        if not given.out then arguments.fail("merge needs --out FILE") end
        local total = require("pixelrefer.annotate.merge").run(words, given.out)
        io.stderr:write(("%s: %s about %s, %d failed\n"):format(given.out, plural(total.answers, "answer"),
            plural(total.scenes, "scene"), total.failed))
        return 0
    end,
}

commands.coco = {
    spec = settings.merged(PLACES, { out = "path" }),
    run = function(given, words)
        if #words ~= 2 then arguments.fail("coco takes a dataset and a job's file") end
        if not given.out then arguments.fail("coco needs --out FILE.json") end
        local counts = require("pixelrefer.annotate.coco").write(words[1], words[2], given.out,
            settings.pick(given, PLACES))
        io.stderr:write(("%s: %s of %s\n"):format(given.out, plural(counts.annotations, "annotation"),
            plural(counts.images, "image")))
        return 0
    end,
}

return commands
