--- Object tokenizers side by side: the same questions of a dataset, answered with each.
--
--     local compare = require "pixelrefer.compare"
--     local result = compare.run(model, "val.jsonl", { tokenizers = { "saot", "my.lua" }, limit = 100 })
--     print(compare.markdown(result))
--     image.save("compare.png", compare.picture(result))
--
-- A picture or clip is encoded once for all of them; each question is asked in a conversation of its own, so that no
-- answer depends on another. Where `config.json` names another object tokenizer than the one in use
-- ("object_tokenizer"; "saot" unless it says so), the answers are those of weights that never saw such tokens:
-- "without retraining".
-- @module pixelrefer.compare
local canvas = require "pixelrefer.draw.canvas"
local dataset = require "pixelrefer.dataset"
local draw = require "pixelrefer.draw"
local inside = require "pixelrefer.inside"
local interruption = require "pixelrefer.interruption"
local object_tokenizer = require "pixelrefer.object_tokenizer"
local options = require "pixelrefer.options"
local Scene = require "pixelrefer.scene"

local compare = {}

-- ---- asking ------------------------------------------------------------------------------------------------------

--- Whether two texts say the same: case, blanks and the final full stop do not count. The score unless another is
-- given.
-- @tparam string expected
-- @tparam string text
-- @treturn boolean
function compare.sameText(expected, text)
    local function plain(s) return (s:lower():gsub("%s+", " "):gsub("^ ", ""):gsub("[ .]+$", "")) end
    return plain(expected) == plain(text)
end

--- Options of @{run}.
-- @table CompareOptions
-- @field tokenizers names, paths, tables or functions, as `model:withTokenizer` takes them (all that are shipped)
-- @field root the folder of the dataset's relative paths
-- @field limit at most so many questions
-- @field score function(expected, text, record) -> boolean; nil where it cannot tell (@{sameText})
-- @field examples so many questions are kept for the picture, the first about each picture or clip (4)
-- @field media options of `pixelrefer.video.load`
-- @field generation options of `session:ask` (`max_new_tokens` 64)
-- @field report function(answer) for each answer: see @{run}
-- @field progress function(count) after each question
local RUN = {
    tokenizers = "table", root = "string", limit = { type = "integer", min = 1, default = math.huge },
    score = { type = "function", default = compare.sameText }, examples = { type = "integer", min = 0, default = 4 },
    media = "table", generation = "table", report = "function", progress = "function",
}

-- A record's picture or clip. PixelRefer-Lite sees only the frames of a clip that carry masks.
local function load_media(record, model, given)
    local sampling = {}
    for key, value in pairs(given or {}) do sampling[key] = value end
    if model.framework == "object_only" and next(sampling) == nil then sampling.way = "ids" end
    return record:media(sampling)
end

local function sum(list)
    local total = 0
    for _, value in ipairs(list) do total = total + (value or 0) end
    return total
end

-- Asks one variant, and counts.
local function ask(variant, question, settings)
    local scene = Scene.new(variant.model, question.scene, question.scene.encoded)
    local ok, answer = pcall(scene.ask, scene, question.text, question.regions, settings.generation)
    scene:free()
    if not ok then
        if interruption.is(answer) then error(answer, 0) end
        variant.failed = variant.failed + 1
        return { tokenizer = variant.name, problem = tostring(answer) }
    end
    if answer.stopped == "interrupted" then error("interrupted", 0) end
    local right
    if question.expected then right = settings.score(question.expected, answer.text, question.record) end
    variant.questions, variant.regions = variant.questions + 1, variant.regions + #answer.tokens
    variant.tokens, variant.cells = variant.tokens + sum(answer.tokens), variant.cells + sum(answer.cells)
    for _, name in ipairs { "objects", "prefill", "decode" } do
        variant.seconds[name] = variant.seconds[name] + (answer.seconds[name] or 0)
    end
    if right ~= nil then
        variant.known, variant.right = variant.known + 1, variant.right + (right and 1 or 0)
    end
    return {
        tokenizer = variant.name, text = answer.text, tokens = answer.tokens, cells = answer.cells,
        seconds = answer.seconds, right = right, without_retraining = variant.without_retraining,
    }
end

-- What the picture shows of a question: its regions, and each variant's tokens of the first one.
local function keep_example(result, question, answers)
    local example = { question = question.text, expected = question.expected, variants = {} }
    for i, variant in ipairs(result.variants) do
        local scene, shown = Scene.new(variant.model, question.scene, question.scene.encoded), { answer = answers[i] }
        local ok, regions = pcall(inside.regions, scene, question.regions)
        local region = ok and regions[1]
        if region then
            if not example.picture then
                local masks = {}
                for _, one in ipairs(regions) do
                    if one.frame == region.frame then masks[#masks + 1] = one.mask end
                end
                example.picture = draw.overlay(region.picture, masks)
            end
            shown.picture = region.assignment
                and draw.tokens(region.picture, region.item, region.assignment, { crop = true })
                or region.item.picture:clone()
        end
        example.variants[i] = shown
    end
    result.examples[#result.examples + 1] = example
end

local function ask_all(result, question, settings)
    local answers = {}
    for i, variant in ipairs(result.variants) do
        local answer = ask(variant, question, settings)
        answer.line, answer.turn = question.record.line, question.turn
        answer.question, answer.expected = question.text, question.expected
        answers[i] = answer
        if settings.report then settings.report(answer) end
    end
    if #result.examples < settings.examples and result.shown ~= question.scene then
        keep_example(result, question, answers)
        result.shown = question.scene
    end
    result.questions = result.questions + 1
    if settings.progress then settings.progress(result.questions) end
end

-- Calls f(...); what it raises is the record's problem, and nil is returned.
local function attempt(result, record, f, ...)
    local ok, value = pcall(f, ...)
    if ok then return value end
    local reason = tostring(value)
    if interruption.is(reason) then error(value, 0) end
    local problem = ("%s:%d: %s"):format(result.dataset, record.line, (reason:gsub("^line %d+: ", "")))
    result.problems[#result.problems + 1] = problem
    return nil
end

-- What a record looks at, as a key: records about one picture or clip, its frames with masks included, share a scene.
local function media_key(record)
    local paths = record.image or record.video or ""
    if type(paths) == "table" then paths = table.concat(paths, "\n") end
    return paths .. "\n" .. table.concat(record:frames(), ",")
end

local function encode(record, model, settings)
    local media = load_media(record, model, settings.media)
    return media and model:encode(media)
end

-- All questions of a record that have a region. The scene serves the next record, too, if it is about the same.
local function ask_record(result, record, settings, kept)
    local model, key = result.model, media_key(record)
    local one_frame = model.framework == "vision_object" -- PixelRefer is shown an object in its first
    if kept.key ~= key then
        kept.scene = attempt(result, record, encode, record, model, settings)
        kept.key = kept.scene and key
    end
    for i, turn in ipairs(record.turns) do
        if not kept.scene or result.questions >= settings.limit then return end
        local regions = turn.count > 0 and attempt(result, record, record.regions, record, i, one_frame)
        if regions then
            ask_all(result, {
                record = record, turn = i, text = turn.question, expected = turn.answer, scene = kept.scene,
                regions = regions,
            }, settings)
        end
    end
end

local function new_variant(model, given)
    local variant = model:withTokenizer(given)
    local name = variant.object_tokenizer.name
    return {
        name = name, model = variant,
        without_retraining = not object_tokenizer.isTrained(model.config, name),
        questions = 0, regions = 0, tokens = 0, cells = 0, known = 0, right = 0, failed = 0,
        seconds = { objects = 0, prefill = 0, decode = 0 },
    }
end

--- Asks the questions of a dataset with each object tokenizer. Questions without a region are left out; a record that
-- cannot be read or asked is listed and the rest goes on.
-- @tparam Model model
-- @tparam string path a dataset, as `pixelrefer.dataset` reads it
-- @tparam[opt] table given @{CompareOptions}. `report` gets {tokenizer, line, turn, question, expected, text, tokens,
--   cells, seconds, right, without_retraining}, or in place of an answer a `problem`
-- @treturn table `variants` (name, questions, regions, tokens, cells, seconds, known, right, failed,
--   without_retraining: sums), `questions`, `problems` (texts), `examples`, `dataset`, `model`
function compare.run(model, path, given)
    local settings = options.check(given, RUN, "compare")
    local generation = { max_new_tokens = 64 }
    for key, value in pairs(settings.generation or {}) do generation[key] = value end
    settings.generation = generation
    local result = { model = model, dataset = path, questions = 0, variants = {}, problems = {}, examples = {} }
    for i, tokenizer in ipairs(settings.tokenizers or object_tokenizer.NAMES) do
        result.variants[i] = new_variant(model, tokenizer)
    end
    if #result.variants == 0 then error("compare: no tokenizer is given", 0) end
    local kept = {}
    for record, problem in dataset.open(path, { root = settings.root }) do
        if record then
            ask_record(result, record, settings, kept)
        else
            result.problems[#result.problems + 1] = tostring(problem)
        end
        if result.questions >= settings.limit then break end
    end
    return result
end

-- ---- the table ---------------------------------------------------------------------------------------------------

local NOTE = "without retraining"

local function time_text(seconds)
    return seconds < 1 and ("%.3g ms"):format(seconds * 1000) or ("%.3g s"):format(seconds)
end

--- A comparison as a Markdown table: means of a region (tokens, cells under the mask) and of a question (seconds of the
-- object tokenizer with the encoding of its crops, and of the whole answer).
-- @tparam table result of @{run}
-- @treturn string
function compare.markdown(result)
    local lines = {
        ("%s (%s), trained with %s; %s: %d question%s%s"):format(result.model.path:match("[^/]+/?$"),
            result.model.framework == "object_only" and "Object-Only" or "Vision-Object",
            result.model.config.object_tokenizer, result.dataset:match("[^/]+$"), result.questions,
            result.questions == 1 and "" or "s",
            #result.problems > 0 and (", %d left out"):format(#result.problems) or ""),
        "",
        "| object tokenizer | tokens | cells | tokenizing | answer | right | |",
        "|---|---:|---:|---:|---:|---:|---|",
    }
    for _, v in ipairs(result.variants) do
        local regions, questions = math.max(1, v.regions), math.max(1, v.questions)
        local notes = { v.without_retraining and NOTE or nil }
        if v.failed > 0 then notes[#notes + 1] = ("%d failed"):format(v.failed) end
        lines[#lines + 1] = ("| %s | %.1f | %s | %s | %s | %s | %s |"):format(v.name, v.tokens / regions,
            v.cells > 0 and ("%.1f"):format(v.cells / regions) or "-", time_text(v.seconds.objects / questions),
            time_text((v.seconds.objects + v.seconds.prefill + v.seconds.decode) / questions),
            v.known > 0 and ("%.1f %% (%d of %d)"):format(100 * v.right / v.known, v.right, v.known) or "-",
            table.concat(notes, ", "))
    end
    return table.concat(lines, "\n") .. "\n"
end

-- ---- the picture -------------------------------------------------------------------------------------------------

local WIDTH, SIDE, GAP, HEAD, TEXT = 320, 240, 20, 76, 124 -- pixels of a column, its picture, around it, above, below
local GREY, RED, GREEN = { 120, 120, 120 }, { 190, 30, 30 }, { 0, 120, 60 }

-- The question without its modal tag, its regions numbered as the overlay does.
local function spoken(question)
    local number = 0
    return (question:gsub("<image>", ""):gsub("<video>", ""):gsub("<region>", function()
        number = number + 1
        return ("<%d>"):format(number)
    end))
end

local function draw_answer(sheet, x, y, shown)
    local answer = shown.answer
    if shown.picture then sheet:paste(x, y, WIDTH, SIDE, shown.picture) end
    local color = answer.problem and RED or answer.right == true and GREEN or answer.right == false and RED or nil
    sheet:paragraph(x, y + SIDE + 10, WIDTH, 80, answer.problem or answer.text, { scale = 2, color = color })
    if not answer.tokens then return end
    local counts = ("%d tokens"):format(answer.tokens[1])
    if answer.cells[1] then counts = ("%d cells, %s"):format(answer.cells[1], counts) end
    sheet:text(x, y + SIDE + TEXT - 24, counts, { scale = 2, color = GREY })
end

--- A comparison as a picture: a line for each kept question, with its regions and, for each object tokenizer, the cells
-- that each token of the first region took (on the crop that is encoded) and the answer; green is right, red is wrong.
-- @tparam table result of @{run}
-- @treturn Tensor uint8 [h,w,3]
-- @raise a comparison without a kept question
function compare.picture(result)
    if #result.examples == 0 then error("compare.picture: there is no question to show", 0) end
    local row = SIDE + TEXT + GAP
    local sheet = canvas.new(HEAD + #result.examples * row, GAP + (#result.variants + 1) * (WIDTH + GAP))
    for i, variant in ipairs(result.variants) do
        local x = GAP + i * (WIDTH + GAP)
        sheet:text(x, 20, variant.name, { scale = 2 })
        if variant.without_retraining then sheet:text(x, 46, NOTE, { scale = 2, color = GREY }) end
    end
    for e, example in ipairs(result.examples) do
        local y = HEAD + (e - 1) * row
        sheet:fill(GAP, y - GAP / 2, sheet.width - GAP, y - GAP / 2 + 1, { 210, 210, 210 })
        if example.picture then sheet:paste(GAP, y, WIDTH, SIDE, example.picture) end
        sheet:paragraph(GAP, y + SIDE + 10, WIDTH, 60, spoken(example.question), { scale = 2 })
        if example.expected then
            sheet:paragraph(GAP, y + SIDE + TEXT - 44, WIDTH, 40, example.expected, { scale = 2, color = GREY })
        end
        for i, shown in ipairs(example.variants) do draw_answer(sheet, GAP + i * (WIDTH + GAP), y, shown) end
    end
    return sheet.picture
end

return compare
