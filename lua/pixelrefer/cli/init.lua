--- The command line.
--
-- Nothing but the answer goes to stdout; progress and errors go to stderr. Exit codes: 0, 1 for an error, 2 for wrong
-- usage, 130 when Ctrl-C stopped the work.
-- @module pixelrefer.cli
local arguments = require "pixelrefer.cli.arguments"
local interruption = require "pixelrefer.interruption"
local options = require "pixelrefer.options"
local progress = require "pixelrefer.cli.progress"
local regions = require "pixelrefer.cli.regions"
local settings = require "pixelrefer.cli.settings"

local cli = {}

local USAGE = [[
usage:
  pixelrefer describe MEDIA [--model DIR] REGION...            one answer per region
  pixelrefer ask [MEDIA] "PROMPT with <region>" REGION...      one answer about all of them
  pixelrefer info DIR | MEDIA                                  what is in a checkpoint, a picture, a video
  pixelrefer info DIR --device NAME [--context N] [--frames N] [--cells N]
                                                               the memory that it needs there
  pixelrefer tokenize --model DIR TEXT|-                       ids on one line (--decode: back to text)
  pixelrefer draw MEDIA REGION... -o out.png                   the picture with its regions
  pixelrefer annotate DATASET --model DIR --out FILE [--task "PROMPT with <region>"]...
                                                               every region's answer, one a line; goes on where it was
  pixelrefer merge SHARD... --out FILE                         the shards of a job as one file
  pixelrefer coco DATASET FILE --out FILE.json                 a job's answers as COCO with captions
  pixelrefer compare DATASET --tokenizer NAME|FILE.lua... -o OUT
                                                               object tokenizers side by side
  pixelrefer pull NAME [--revision R] [--endpoint URL]         a checkpoint from a hub into the cache
  pixelrefer models                                            the checkpoints in the caches
  pixelrefer quantize DIR OUT [--weights int8|int4] [--group N]
                                                               a checkpoint with weights of fewer bits
  pixelrefer repl [--model DIR]                                a prompt: LuaJIT with the library at hand
  pixelrefer run SCRIPT.lua [ARGUMENT...]                      a script with the library's paths set

REGION: --box x0,y0,x1,y1 | --mask file.png | --rle file.json | --polygon "x,y x,y x,y"
        on a video each begins with its frame, as in --mask 12:dog.png;
        one object in several frames joins them with ";": --mask "0:a.png;12:b.png"

options:
  --model DIR              checkpoint directory, or the name of one in the caches; describe and ask do without
  --tokenizer NAME|FILE.lua                                    the object tokenizer, in place of SAOT
  --prompt TEXT            describe: the question (default "Describe <region> in detail.")
  --json                   text, ids, tokens of each region, seconds of each stage
  --alternatives N         with --json: the N likeliest of each token, with log-probabilities
  --stream                 print the answer as it comes
  --sample --temperature X --top-k N --top-p X --repetition-penalty X --seed N --max-new-tokens N
  --local-crop own|first   Lite: each region its own crop, or the reference's first
  --fps X --max-frames N --start S --end S                     how a video is sampled
  --threads N --device NAME                                    where it is computed
  --compute f32|bf16|int8|auto                                 in what products are computed (docs/weights.md)
  --weights int8|int4      quantise the matrices while loading: a half or a quarter of the memory
  --kv TYPE                of the context: float32, float16 or bfloat16
annotate:
  DATASET                  COCO or LVIS JSON; questions as JSON or JSON lines; a folder of pictures with masks/NAME.png
  --task PROMPT            asked about every region; {name} is a field of its record; several give several answers
  --where EXPRESSION       which regions: Lua over the fields, as in 'area > 400 and category ~= "sky"'
  --each FILE.lua          in place of tasks: a file that returns function(region, ask)
  --root DIR --masks DIR   where pictures and a folder's masks are
  --shard K/N              every N-th picture from the K-th on
  --retry                  ask again what failed, and keep the answers
  --together N             answer N questions of a picture together: faster, the same answers
  --slurm N [--submit]     write (and submit) an array job of N shards and the job that merges them
compare:
  DATASET                  questions with answers, as JSON or JSON lines; OUT gets OUT.jsonl and OUT.png
  --score FILE.lua         what is right: a file that returns function(expected, text, record) -> boolean
  --limit N --examples N   questions that are asked, and drawn
]]

local GENERATION, MEDIA, MODEL, TOKENIZER = settings.GENERATION, settings.MEDIA, settings.MODEL, settings.TOKENIZER
local OUTPUT = { json = "flag", stream = "flag" }
local SHIPPED = "shapes-vision-object"
local merged, pick = settings.merged, settings.pick

-- Writes to stdout; a full disk is an error.
local function write(...)
    local ok, reason = io.stdout:write(...)
    if ok then ok, reason = io.stdout:flush() end
    if not ok then error("stdout: " .. tostring(reason), 0) end
end

local function need_model(given)
    if not given.model then arguments.fail("--model DIR is missing") end
    return given.model
end

-- Without --model a small one answers that comes with the library, and it is said.
local function load_model(given)
    local model = require "pixelrefer.model"
    if not given.model then
        io.stderr:write("pixelrefer: no --model given: ", SHIPPED, " answers, which knows the small world of coloured ",
                        "shapes and nothing else\n")
    end
    local name = given.model or SHIPPED
    progress.show("loading %s", name)
    return model.load(name, {
        device = given.device, compute = given.compute, threads = given.threads, tokenizer = given.tokenizer,
        weights = given.weights, kv = given.kv,
        progress = function(stage, done, all)
            progress.show("%s %s: %.1f of %.1f GB", stage, name, done / 1e9, all / 1e9)
        end,
    })
end

-- The picture or video that a path names. PixelRefer-Lite sees only the frames that carry masks.
local function open_media(path, given, model)
    local media = require "pixelrefer.media"
    if path == "" then arguments.fail("a picture or video expected, found ''") end
    progress.show("opening %s", path)
    if media.kind(path) == "image" then
        for name in pairs(MEDIA) do
            if given[(name:gsub("%-", "_"))] then arguments.fail("--%s: %s is a picture, not a video", name, path) end
        end
        return media.load(path).image
    end
    local sampling = pick(given, MEDIA)
    if #given.repeated > 0 then
        sampling.frame_ids = regions.frames(given.repeated)
        if model and model.framework == "object_only" and next(pick(given, MEDIA)) == nil then sampling.way = "ids" end
    end
    return media.load(path, sampling).video
end

local function generation_options(given)
    local generation = pick(given, GENERATION)
    generation.progress = function(tokens) progress.show("%d tokens", tokens) end
    return generation
end

local function answer_json(answer)
    local json = require "pixelrefer.json"
    return json.encode {
        text = answer.text,
        ids = json.array(answer.ids),
        tokens = json.array(answer.tokens),
        cells = json.array(answer.cells),
        alternatives = answer.alternatives,
        logprobs = answer.logprobs,
        seconds = answer.seconds,
        prompt_tokens = answer.prompt_tokens,
        stopped = answer.stopped,
    }
end

local function check_output(given)
    if given.stream and given.json then arguments.fail("--stream shows the text as it comes, --json all at the end") end
    if given.alternatives and not given.json then arguments.fail("--alternatives are in the JSON: add --json") end
end

-- Prints an answer that is whole; true when Ctrl-C stopped it.
local function print_answer(scene, answer, given)
    progress.clear()
    answer.seconds.encode = scene.seconds and scene.seconds.encode
    write(given.json and answer_json(answer) or answer.text, "\n")
    return answer.stopped == "interrupted"
end

-- Asks one question and prints the answer, with --stream as it comes; true when Ctrl-C stopped it.
local function ask(scene, text, list, given)
    local generation = generation_options(given)
    progress.show("reading the prompt")
    if not given.stream then return print_answer(scene, scene:ask(text, list, generation), given) end
    generation.progress = nil
    local pieces, answer = scene:stream(text, list, generation)
    progress.clear()
    require("pixelrefer.core").interruptible(function()
        for piece in pieces do write(piece) end
    end)
    write("\n")
    return answer.stopped == "interrupted"
end

-- Describes each region in a call of its own, as many together as are decoded together.
local function describe(scene, text, list, given)
    local together, generation, stopped = require "pixelrefer.together", generation_options(given), false
    generation.prompt = text
    for first = 1, #list, together.GROUP do
        progress.show("reading the prompts")
        local part = { unpack(list, first, math.min(#list, first + together.GROUP - 1)) }
        for _, answer in ipairs(scene:describe(part, generation)) do
            stopped = print_answer(scene, answer, given) or stopped
        end
        if stopped then return true end
    end
    return false
end

local commands = {}
for name, command in pairs(require "pixelrefer.cli.annotate") do commands[name] = command end
for name, command in pairs(require "pixelrefer.cli.compare") do commands[name] = command end

commands.describe = {
    spec = merged(MODEL, TOKENIZER, GENERATION, MEDIA, OUTPUT, regions.OPTIONS, { prompt = "string" }),
    run = function(given, words)
        if #words ~= 1 then arguments.fail("describe takes one picture or video, found %d", #words) end
        if #given.repeated == 0 then arguments.fail("describe needs a region: --box, --mask, --rle or --polygon") end
        check_output(given)
        local model = load_model(given)
        local media = open_media(words[1], given, model)
        local list = regions.read(given.repeated, media)
        progress.show("encoding")
        local scene = model:encode(media)
        if not given.stream then return describe(scene, given.prompt, list, given) and 130 or 0 end
        local text = given.prompt or require("pixelrefer.prompt").DESCRIBE
        for _, region in ipairs(list) do
            if ask(scene, text, { region }, given) then return 130 end
        end
        return 0
    end,
}

commands.ask = {
    spec = merged(MODEL, TOKENIZER, GENERATION, MEDIA, OUTPUT, regions.OPTIONS),
    run = function(given, words)
        if #words < 1 or #words > 2 then arguments.fail("ask takes a picture or video (or none) and a question") end
        if #words == 1 and #given.repeated > 0 then arguments.fail("regions without a picture or video") end
        check_output(given)
        local model, text = load_model(given), words[#words]
        if #words == 1 then return ask(model:text(), text, {}, given) and 130 or 0 end
        local media = open_media(words[1], given, model)
        local list = regions.read(given.repeated, media)
        if #list == 0 and model.framework == "object_only" then
            progress.clear()
            io.stderr:write("pixelrefer: PixelRefer-Lite is shown regions alone: without one it does not see ",
                words[1], "\n")
        end
        progress.show("encoding")
        return ask(model:encode(media), text, list, given) and 130 or 0
    end,
}

commands.info = {
    spec = merged({
        json = "flag", device = "string", compute = "string",
        context = "integer", frames = "integer", cells = "integer",
    }),
    run = function(given, words)
        if #words ~= 1 then arguments.fail("info takes one checkpoint directory, picture or video") end
        if words[1] == "" then arguments.fail("a checkpoint directory, picture or video expected, found ''") end
        local rows = require("pixelrefer.cli.info")(words[1], given)
        if given.json then
            local record = {}
            for _, row in ipairs(rows) do record[row[1]] = row[2] end
            write(require("pixelrefer.json").encode(record), "\n")
        else
            for _, row in ipairs(rows) do write(("%-18s %s\n"):format(row[1], tostring(row[2]))) end
        end
        return 0
    end,
}

commands.tokenize = {
    spec = merged({ model = "path", decode = "flag" }),
    run = function(given, words)
        if #words ~= 1 then arguments.fail("tokenize takes one text, or - for standard input") end
        local text = words[1] == "-" and io.stdin:read("*a") or words[1]
        local checkpoint = require "pixelrefer.checkpoint"
        local tokenizer = require("pixelrefer.tokenizer").load(checkpoint.resolve(need_model(given)))
        if given.decode then
            local ids = {}
            for word in text:gmatch("%S+") do
                local id = tonumber(word)
                if not id or id ~= math.floor(id) then
                    arguments.fail("--decode: token ids expected, found '%s'", word)
                end
                ids[#ids + 1] = id
            end
            write(tokenizer:decode(ids), "\n")
        else
            write(table.concat(tokenizer:encode(text), " "), "\n")
        end
        return 0
    end,
}

commands.draw = {
    spec = merged(MEDIA, regions.OPTIONS, { out = "path" }),
    run = function(given, words)
        if #words ~= 1 then arguments.fail("draw takes one picture or video") end
        if not given.out then arguments.fail("draw needs -o out.png") end
        local media = open_media(words[1], given)
        local draw, image = require "pixelrefer.draw", require "pixelrefer.image"
        local list, picture = regions.read(given.repeated, media), media
        local masks = {}
        if type(media) ~= "userdata" then -- a video: the frame of the first region, and the regions on it
            local first = list[1] and (list[1].frame or list[1][1].frame)
            picture = first and media:frame(first) or media.frames[1]
            for _, region in ipairs(list) do
                for _, part in ipairs(region.mask and { region } or region) do
                    if part.frame == first then masks[#masks + 1] = part.mask end
                end
            end
        else
            masks = list
        end
        image.save(given.out, draw.overlay(picture, masks))
        progress.clear()
        return 0
    end,
}

commands.repl = {
    spec = merged(MODEL, TOKENIZER),
    run = function(given, words)
        if #words > 0 then arguments.fail("repl takes options only, found '%s'", words[1]) end
        local variables = { pixelrefer = require "pixelrefer", model = given.model and load_model(given) or nil }
        progress.clear()
        require("pixelrefer.cli.repl").run(variables)
        return 0
    end,
}

commands.pull = {
    spec = merged({ revision = "path", endpoint = "path" }),
    run = function(given, words)
        if #words ~= 1 then arguments.fail("pull takes one name, such as org/model") end
        local terminal = progress.on_terminal
        write(require("pixelrefer.hub").pull(words[1], {
            revision = given.revision, endpoint = given.endpoint, bar = terminal,
            say = function(text) if terminal then io.stderr:write(text, "\n") end end,
        }), "\n")
        return 0
    end,
}

commands.quantize = {
    spec = merged({ weights = "string", group = "integer" }),
    run = function(given, words)
        if #words ~= 2 then arguments.fail("quantize takes a checkpoint and the directory to write") end
        require("pixelrefer.quantize.write")(words[1], words[2], {
            weights = given.weights, group = given.group,
            progress = function(done, all) progress.show("quantizing: %d of %d tensors", done, all) end,
        })
        progress.clear()
        write(words[2], "\n")
        return 0
    end,
}

commands.models = {
    spec = merged(),
    run = function(_, words)
        if #words > 0 then arguments.fail("models takes nothing, found '%s'", words[1]) end
        for _, row in ipairs(require "pixelrefer.cli.models"()) do
            write(("%-40s %-14s %9.1f MiB  %s\n"):format(row.name, row.framework, row.bytes / 2 ^ 20, row.path))
        end
        return 0
    end,
}

local function run_script(words)
    local script = words[1]
    if not script then arguments.fail("run takes a script") end
    local own = { [0] = script }
    for i = 2, #words do own[i - 1] = words[i] end
    _G.arg = own
    local chunk, reason = loadfile(script)
    if not chunk then error(reason, 0) end
    chunk(unpack(own))
    return 0
end

-- Runs the command and returns the exit code.
local function dispatch(words)
    local name = table.remove(words, 1)
    if not name or name == "help" or name == "--help" or name == "-h" then
        write(USAGE)
        return name and 0 or 2
    end
    if name == "run" then return run_script(words) end
    local command = commands[name]
    if not command then
        local known = { "run" }
        for other in pairs(commands) do known[#known + 1] = other end
        arguments.fail("unknown command '%s'%s", name, options.hint(name, known))
    end
    local given, rest = arguments.parse(words, command.spec)
    if given.help then
        write(USAGE)
        return 0
    end
    return command.run(given, rest)
end

--- Runs a command line.
-- @tparam table words as the global `arg`
-- @treturn int exit code
function cli.main(words)
    local copy = {}
    for i = 1, #words do copy[i] = words[i] end
    local ok, result = xpcall(dispatch, function(reason)
        if os.getenv("PIXELREFER_TRACEBACK") then return debug.traceback(tostring(reason), 2) end
        return reason
    end, copy)
    progress.clear()
    if ok then return result end
    local message = tostring(result)
    if message:sub(1, #arguments.USAGE) == arguments.USAGE then
        io.stderr:write("pixelrefer: ", message:sub(#arguments.USAGE + 1), "\n",
                        "try 'pixelrefer --help'\n")
        return 2
    end
    if interruption.is(message) then
        io.stderr:write("pixelrefer: interrupted\n")
        return 130
    end
    io.stderr:write("pixelrefer: ", (message:gsub("^[^:\n]+%.lua:%d+: ", "")), "\n")
    return 1
end

return cli
