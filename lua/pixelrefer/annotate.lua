--- Annotation jobs: every region of a dataset is asked about; the answers go to a file, however often it is stopped.
--
--     local annotate = require "pixelrefer.annotate"
--     local summary = annotate.run("instances.json", {
--         root = "train2017", model = "PixelRefer-Lite-2B", out = "captions.jsonl",
--         tasks = { "Describe <region>.", "Is <region> a {category}?" },
--         where = function(region) return region.area > 400 end,
--     })
--
-- Each region is asked about in a call of its own, as `scene:describe` does it; a picture is encoded once. The same
-- call goes on with a file that is there. What depends on time goes to `out .. ".log"`.
-- @module pixelrefer.annotate
local core = require "pixelrefer.core"
local dataset = require "pixelrefer.dataset"
local fingerprint = require "pixelrefer.annotate.fingerprint"
local generation = require "pixelrefer.generation"
local interruption = require "pixelrefer.interruption"
local json = require "pixelrefer.json"
local options = require "pixelrefer.options"
local prompt = require "pixelrefer.prompt"
local results = require "pixelrefer.annotate.results"
local together = require "pixelrefer.together"
local whole_file = require "pixelrefer.whole_file"

local annotate = {}

local PRECISIONS = { f32 = "float32", bf16 = "bfloat16", int8 = "int8" }

--- What is asked about a region unless a task says something else, or the dataset has questions.
annotate.TASK = prompt.DESCRIBE

local SAMPLING = { "fps", "max_frames", "start", "end" } -- how videos are looked at

local OPTIONS = {
    model = { type = "string|table", required = true }, out = { type = "string", required = true },
    tasks = "string|table", where = "string|function", each = "string|function", shard = "table",
    root = "string", masks = "string", device = "string", compute = "string", threads = "integer",
    weights = "string", kv = "string", tokenizer = "string|table|function",
    local_crop = { "own", "first" }, fps = "number", max_frames = "integer", start = "number", ["end"] = "number",
    together = { type = "integer", min = 1 }, retry = "boolean", progress = "function",
}
for name, kind in pairs(generation.OPTIONS) do OPTIONS[name] = kind end
OPTIONS.alternatives = nil

-- ---- what is asked -----------------------------------------------------------------------------------------------

-- A field by its path, "image.file_name".
local function field(fields, path)
    local value = fields
    for key in path:gmatch("[^.]+") do value = type(value) == "table" and value[key] or nil end
    if value == json.null then return nil end
    return value
end

-- A task with the record's fields in it.
local function fill(task, fields)
    return (task:gsub("{([%a_][%w_.]*)}", function(path)
        local value = field(fields, path)
        if value == nil or type(value) == "table" then
            error(("no field '%s' for the task '%s'"):format(path, task), 0)
        end
        return type(value) == "number" and json.encode(value) or tostring(value)
    end))
end

local function check_tasks(given)
    local tasks = type(given) == "string" and { given } or given
    if not tasks then return nil end
    for i, task in ipairs(tasks) do
        local count = type(task) == "string" and select(2, task:gsub("<region>", ""))
        if count ~= 1 then
            error(("annotate: task %d: a text with one <region> expected, found %s"):format(i,
                count and ("%d in '%s'"):format(count, task) or type(task)), 0)
        end
    end
    if #tasks == 0 then error("annotate: tasks: at least one expected", 0) end
    return tasks
end

-- A filter from a Lua expression over the record's fields.
local function filter_of(where)
    if type(where) ~= "string" then return where end
    local chunk, reason = loadstring("return " .. where, "=where")
    if not chunk then error(("annotate: where: %s"):format((reason:gsub("^where:1: ", ""))), 0) end
    return function(fields)
        setfenv(chunk, setmetatable({ math = math, string = string, tostring = tostring, tonumber = tonumber }, {
            __index = function(_, name) return field(fields, name) end,
        }))
        return chunk()
    end
end

local function function_of(each)
    if type(each) ~= "string" then return each end
    local chunk, reason = loadfile(each)
    if not chunk then error("annotate: " .. reason, 0) end
    local found = chunk()
    if type(found) ~= "function" then
        error(("%s: it must return a function, found %s"):format(each, type(found)), 0)
    end
    return found
end

-- What stands in the fingerprint for a function.
local function mark(given, is_path)
    if given == nil then return nil end
    if type(given) == "function" then return "function " .. fingerprint.hash(fingerprint.code(given)) end
    return is_path and fingerprint.hash(whole_file.read(given)) or given
end

-- ---- the job -----------------------------------------------------------------------------------------------------

local function pick(given, names)
    local picked = {}
    for _, name in ipairs(names) do picked[name] = given[name] end
    return picked
end

local function check_shard(shard)
    if not shard then return nil end
    local k, n = shard[1], shard[2]
    if #shard ~= 2 or type(k) ~= "number" or type(n) ~= "number" or k % 1 ~= 0 or n % 1 ~= 0 or k < 1 or k > n then
        error("annotate: shard: {k, n} with 1 <= k <= n expected", 0)
    end
    return { k, n }
end

local function bytes_of(path)
    if core.path_kind(path) == "directory" then return nil end
    local file, reason = io.open(path, "rb")
    if not file then error(reason, 0) end
    local bytes = file:seek("end")
    file:close()
    return bytes
end

-- What the past is kept in where that changes answers: attention that rounds to bfloat16 has the same bits either way.
local function kv_that_shows(model)
    local kv = model.config.kv
    local same = kv == "float32" or kv == "bfloat16" and model.compute ~= "f32"
    return not same and kv or nil
end

local function new_job(path, given)
    local model = given.model
    if type(model) == "string" then
        model = require("pixelrefer.model").load(model,
            pick(given, { "device", "threads", "compute", "tokenizer", "weights", "kv" }))
    end
    local tasks = check_tasks(given.tasks)
    if given.each and tasks then error("annotate: either tasks or each", 0) end
    if not tasks and not given.each and dataset.kind(path) ~= "conversations" then tasks = { annotate.TASK } end
    local settings = generation.settings(given, model.generation_config)
    local job = {
        model = model, tasks = tasks, where = filter_of(given.where), each = function_of(given.each),
        shard = check_shard(given.shard), settings = settings, local_crop = given.local_crop, given = given,
        sampling = pick(given, SAMPLING), together = given.together or 1, waiting = {},
        counts = { answers = 0, failed = 0, filtered = 0, stored = 0, scenes = 0 }, problems = {},
    }
    job.fingerprint = {
        version = 1,
        dataset = { name = path:match("([^/]+)/*$"), bytes = bytes_of(path) },
        model = fingerprint.model(model, type(given.tokenizer) == "string" and given.tokenizer or nil),
        device = model.device, precision = PRECISIONS[model.compute],
        kv = kv_that_shows(model),
        tasks = tasks, where = mark(given.where), each = mark(given.each, true),
        generation = settings, local_crop = given.local_crop, sampling = job.sampling, shard = job.shard,
    }
    if model.framework == "object_only" and next(job.sampling) == nil then job.sampling = { way = "ids" } end
    return job
end

-- ---- the work ----------------------------------------------------------------------------------------------------

-- Errors that end the job: what was asked for, or what another attempt may not meet again.
local function ends_job(reason)
    return interruption.is(reason) or reason:find("out of memory", 1, true)
        or reason:find("not enough memory", 1, true)
end

-- Calls work(...); a failure is a reason, without the place it was raised at.
local function attempt(work, ...)
    local ok, result = pcall(work, ...)
    if ok then return result end
    local reason = tostring(result)
    if ends_job(reason) then error(reason, 0) end
    return nil, (reason:gsub("^[^:\n]+%.lua:%d+: ", ""):gsub("^where:1: ", "where: "))
end

-- The sample's scene, encoded when the first region asks for it; or why there is none.
local function scene_of(job, sample)
    if not sample.scene and not sample.failure then
        sample.scene, sample.failure = attempt(function()
            local media = sample.media(sample.kind == "video" and job.sampling or nil)
            if job.coming then job.coming.ahead(job.coming.kind == "video" and job.sampling or nil) end
            return job.model:encode(media)
        end)
    end
    if not sample.scene then error(sample.failure, 0) end
    return sample.scene
end

local function seed_of(job, entry, task)
    local settings = job.settings
    if settings.temperature == 0 then return settings.seed end
    return fingerprint.seed(settings.seed, entry.scene, entry.region, task)
end

-- What every question is asked with.
local function options_of(job)
    local asked = pick(job.settings, { "temperature", "top_k", "top_p", "repetition_penalty", "max_new_tokens" })
    asked.sample, asked.local_crop = job.settings.temperature > 0, job.local_crop
    return asked
end

local function decode_masks(job, region)
    region.decoded = region.decoded or region.masks(job.model.framework == "vision_object")
    return region.decoded
end

-- An answer, unless it was left half way.
local function whole(answer)
    if answer.stopped == "interrupted" then error("interrupted", 0) end
    return answer
end

local function ask(job, sample, region, text, seed, own)
    local asked = options_of(job)
    asked.seed = seed
    for name, value in pairs(own or {}) do asked[name] = value end
    return whole(scene_of(job, sample):ask(text, decode_masks(job, region), asked))
end

local function put_answer(entry, answer, text, job, seed)
    entry.prompt, entry.text, entry.stopped = text, answer.text, answer.stopped
    entry.ids, entry.tokens = json.array(answer.ids), json.array(answer.tokens)
    if job.settings.temperature > 0 then entry.seed = seed end
end

-- The user's function about a region; what it returns goes into the entry.
local function call_each(job, sample, region, entry, seconds)
    local calls = 0
    local function own_ask(text, own)
        calls = calls + 1
        local seed = seed_of(job, entry, calls)
        local answer = ask(job, sample, region, text, seed, own)
        for name, value in pairs(answer.seconds) do seconds[name] = (seconds[name] or 0) + value end
        return answer, seed
    end
    local found = job.each(region, own_ask, sample)
    if type(found) == "table" and type(found.text) == "string" and type(found.ids) == "table" then
        put_answer(entry, found, nil, job, nil)
    elseif type(found) == "string" then
        entry.text = found
    elseif type(found) == "table" then
        entry.result = found
        json.encode(found)
    else
        error(("the function returned %s: an answer, a text or a table expected"):format(type(found)), 0)
    end
end

-- What an entry asks, and with which seed.
local function question_of(job, region, entry)
    local text = job.tasks and fill(job.tasks[entry.task or 1], region.fields) or region.question
    return text, seed_of(job, entry, entry.task or 1)
end

-- Answers the questions of the lines that wait, which are about one sample, together: a list of answers and nils.
local function ask_together(job, sample)
    local questions, places, answers = {}, {}, {}
    for i, line in ipairs(job.waiting) do
        if not line.problem then
            local text, seed = question_of(job, line.region, line.entry)
            places[#places + 1], questions[#questions + 1] = i, { scene = scene_of(job, sample), text = text,
                regions = decode_masks(job, line.region), seed = seed }
        end
    end
    for i, answer in ipairs(together.ask(questions, options_of(job), job.together)) do
        answers[places[i]] = whole(answer)
    end
    return answers
end

-- Fills the entry with the answer to its question; `answer` is there when it was asked together with others.
local function work(job, sample, region, entry, seconds, answer)
    if job.each then return call_each(job, sample, region, entry, seconds) end
    local text, seed = question_of(job, region, entry)
    answer = answer or ask(job, sample, region, text, seed)
    for name, value in pairs(answer.seconds) do seconds[name] = value end
    put_answer(entry, answer, text, job, seed)
end

local function log(job, record)
    job.log:write(json.encode(record), "\n")
    job.log:flush()
end

local function time()
    return os.date("!%Y-%m-%dT%H:%M:%SZ")
end

local function count(job, entry, stored)
    local counts = job.counts
    counts.answers = counts.answers + (entry.error and 0 or 1)
    counts.failed = counts.failed + (entry.error and 1 or 0)
    counts.stored = counts.stored + (stored and 1 or 0)
    if entry.error and #job.problems < 20 then job.problems[#job.problems + 1] = entry end
end

-- New answers a second.
local function rate_of(job)
    if not job.began then return 0 end
    local counts = job.counts
    return (counts.answers + counts.failed - counts.stored) / math.max(core.tick() - job.began, 1e-3)
end

-- The share of the dataset that is done; samples are read in one piece, `within` is how far this one is.
local function share_of(job)
    return job.share_before + (job.share_behind - job.share_before) * job.within
end

local function tell(job)
    if not job.given.progress then return end
    local share, elapsed = share_of(job), core.tick() - job.began
    local counts = job.counts
    local left = share > job.share_at_begin and elapsed * (1 - share) / (share - job.share_at_begin) or nil
    job.given.progress {
        scenes = counts.scenes, answers = counts.answers, failed = counts.failed, share = share, left = left,
        rate = rate_of(job),
    }
end

-- Finishes a line: {region =, entry =, problem =, within = the share of the sample that is done then}. `answer` and
-- `elapsed`, the seconds that it took, are there when it was answered with others.
local function finish(job, sample, line, answer, elapsed)
    local entry, problem, seconds, began = line.entry, line.problem, {}, core.tick()
    if not problem then
        local _, reason = attempt(work, job, sample, line.region, entry, seconds, answer)
        problem = reason
    end
    if problem then
        entry = { id = entry.id, image = entry.image, scene = entry.scene, region = entry.region, task = entry.task,
            error = problem }
    end
    job.results:append(entry)
    job.within = line.within
    count(job, entry)
    if sample.scene and not sample.encoding_logged then
        seconds.encode, sample.encoding_logged = sample.scene.seconds.encode, true
    end
    log(job, { scene = entry.scene, region = entry.region, id = entry.id, error = problem,
        seconds = core.tick() - began + (elapsed or 0), stages = seconds,
        generated = entry.ids and #entry.ids or nil })
    tell(job)
end

-- Works on the lines that wait. Where one of them cannot be answered each is asked alone, and that one says why.
local function finish_waiting(job, sample)
    local began, lines, answers, elapsed = core.tick(), job.waiting, nil, nil
    if #lines > 1 then
        answers = attempt(ask_together, job, sample)
        elapsed = answers and (core.tick() - began) / #lines
    end
    for i, line in ipairs(lines) do
        finish(job, sample, line, answers and answers[i], elapsed)
        if line.region then line.region.decoded = nil end
    end
    job.waiting = {}
end

-- One line of the file: what is there already, or new work, which waits for others to be done together with.
local function settle(job, sample, region, entry, problem, within)
    local stored, line = job.results:stored(entry)
    if stored then
        if line then
            finish_waiting(job, sample)
            job.results:append(line)
        end
        job.within = within
        return count(job, stored, true)
    end
    if not job.began then job.began, job.share_at_begin = core.tick(), share_of(job) end
    job.waiting[#job.waiting + 1] = { region = region, entry = entry, problem = problem, within = within }
    if job.each or #job.waiting >= job.together then finish_waiting(job, sample) end
end

-- What comes of one region: nothing when the filter leaves it out, else one line for each task.
local function annotate_region(job, sample, region)
    local problem, keep = region.problem, true
    if not problem and job.where then
        keep, problem = attempt(function() return job.where(region.fields) and true or false end)
    end
    if keep == false then
        job.counts.filtered = job.counts.filtered + 1
        return
    end
    local tasks = not problem and job.tasks and #job.tasks or 1
    for task = 1, tasks do
        settle(job, sample, region, {
            id = region.id, image = sample.name, scene = sample.number, region = region.number,
            task = job.tasks and #job.tasks > 1 and task or nil,
        }, problem, (region.number - 1 + task / tasks) / #sample.regions)
    end
end

-- The samples with their numbers, read ahead of their turn up to the next one that is the job's, so that its picture or
-- video can be read while another is worked on; what is wrong with the dataset is told in turn.
local function looking_ahead(job, next_sample)
    local shard, number = job.shard or { 1, 1 }, 0
    local waiting, first, last, at = {}, 1, 0, 0 -- read and not given yet: first .. last; `at`: the next of the job's
    local function read()
        last = last + 1
        local ok, sample = pcall(next_sample)
        waiting[last] = not ok and { failure = sample } or {}
        if not ok or not sample then return end
        number = number + 1
        sample.number, sample.is_ours = number, (number - 1) % shard[2] == shard[1] - 1
        waiting[last] = { sample = sample, share = job.share() }
    end
    local function find_next()
        at = math.max(at, first)
        while true do
            if at > last then read() end
            local sample = waiting[at].sample
            if not sample or sample.is_ours then return sample end
            at = at + 1
        end
    end
    return function()
        if first > last then read() end
        local current = waiting[first]
        if current.failure then error(current.failure, 0) end
        if not current.sample then return nil end
        waiting[first] = nil
        first = first + 1
        if current.sample.is_ours then
            local coming = find_next()
            job.coming = coming and coming.ahead and not coming.problem and coming or nil
        end
        return current.sample, current.share
    end
end

local function annotate_all(job, next_sample)
    for sample, share in looking_ahead(job, next_sample) do
        job.counts.scenes = sample.number
        job.share_before, job.share_behind, job.within = job.share_behind or 0, share, 0
        if sample.is_ours then
            if sample.problem then
                settle(job, sample, nil, { id = sample.id, image = sample.name, scene = sample.number },
                       sample.problem, 1)
            end
            for _, region in ipairs(sample.problem and {} or sample.regions) do annotate_region(job, sample, region) end
            finish_waiting(job, sample)
            if sample.scene then sample.scene:free() end
        end
    end
    if job.results:next() then
        error(job.results.path .. ": it goes on where the dataset ends: the dataset was changed", 0)
    end
    local summary = pick(job.counts, { "answers", "failed", "scenes" })
    if not job.results.ended then job.results:append { ["end"] = summary } end
    job.results:replace()
end

--- Runs a job, or goes on with it.
-- @tparam string path the dataset: see `dataset.samples`
-- @tparam table given
-- @tparam string|Model given.model a checkpoint's directory or name, or a model
-- @tparam string given.out the file of the answers
-- @tparam[opt] string|table given.tasks prompts with one `<region>`, each asked about every region; `{name}` is the
--   region's field. Without: the questions that a dataset in the reference's format has, else a description
-- @tparam[opt] string|function given.where which regions: a Lua expression over their fields, or a function of them
-- @tparam[opt] string|function given.each in place of tasks `each(region, ask, sample)`, or a file that returns it:
--   `ask(prompt, options)` gives an Answer about the region; it returns an Answer, a text or a table
-- @tparam[opt] table given.shard {k, n}: every n-th sample from the k-th on
-- @tparam[opt] string given.root the folder of relative paths
-- @tparam[opt] string given.masks the folder of a folder's masks
-- @tparam[opt=1] int given.together how many questions about a sample are answered at a time (see
--   `pixelrefer.together`): the same answers, faster; a kill loses those in work. An `each` has one region at a time
-- @tparam[opt] boolean given.retry ask again what failed; answers that are there are kept
-- @tparam[opt] function given.progress called after each answer with scenes, answers, failed, share (0 to 1), rate
--   (answers a second) and left (seconds; nil while unknown)
-- @param given.others device, compute, threads, tokenizer as for `load`; generation's options and local_crop as for
--   `ask`; fps, max_frames, start and `end` as for `video.load`
-- @treturn table answers, failed, scenes, filtered, stored (answers that were there already), seconds, problems (the
--   first 20 lines with an error)
-- @raise settings that differ from those that the file was begun with; a full disk; "interrupted" at Ctrl-C
function annotate.run(path, given)
    given = options.check(given, OPTIONS, "annotate")
    if type(path) ~= "string" then error("annotate: a dataset's path expected, got " .. type(path), 0) end
    local job = new_job(path, given)
    local next_sample, share = dataset.samples(path, { root = given.root, masks = given.masks,
        questions = not job.tasks and not job.each })
    job.share = share
    job.results = (given.retry and results.open_again or results.open)(given.out, job.fingerprint)
    local reason
    job.log, reason = io.open(given.out .. ".log", "ab")
    if not job.log then
        job.results:close()
        error(reason, 0)
    end
    local started = core.tick()
    local ok, failure = pcall(core.interruptible, function()
        log(job, { began = time(), threads = core.threads(), out = given.out })
        annotate_all(job, next_sample)
    end)
    local summary = job.counts
    summary.seconds, summary.problems = core.tick() - started, job.problems
    log(job, { ended = time(), answers = summary.answers, failed = summary.failed, stored = summary.stored,
        seconds = summary.seconds, rate = rate_of(job), reason = not ok and tostring(failure) or nil })
    job.log:close()
    job.results:close()
    if not ok then error(failure, 0) end
    return summary
end

return annotate
