-- How often models answer right about the shapes world: fresh scenes, the library's own pipelines, accuracy per kind.
--
--     pixelrefer run examples/shapes/accuracy.lua MODEL... [--seed N] [--pictures N] [--clips N] [--first N]
--                    [--weights int8|int4] [--compute f32|bf16|int8|auto] [--answers FILE] [--no-context]
--
-- Beside the kinds of questions: "small", those about one object's looks when it is a small one; "swap", pairs of one
-- question about two objects that differ in what is asked, right when both answers are. --answers writes each answer as
-- a line of JSON. --no-context leaves out OCI (Object-Only), so that object tokens know nothing but their own crop:
-- questions about the rest of the picture must get worse.
package.path = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/../?.lua;" .. package.path
local answers = require "shapes.answers"
local json = require "pixelrefer.json"
local media = require "shapes.media"
local pixelrefer = require "pixelrefer"
local questions = require "shapes.questions"
local random = require "shapes.random"
local world = require "shapes.world"

local LOOKS = { describe = true, colour = true, shape = true, size = true, filling = true }
local NUMBERS = { seed = 1, pictures = 660, clips = 500, first = 1 }
local WORDS = { answers = true, weights = true, compute = true }
local USAGE = "usage: pixelrefer run examples/shapes/accuracy.lua MODEL... [--seed N] [--pictures N] [--clips N] "
    .. "[--first N] [--weights KIND] [--compute PRECISION] [--answers FILE] [--no-context]"

local function read_arguments(words)
    local given, models, at = { context = true }, {}, 1
    for name, number in pairs(NUMBERS) do given[name] = number end
    while at <= #words do
        local option, value = words[at]:match("^%-%-(.+)$"), words[at + 1]
        if option == "no-context" then
            given.context = false
        elseif WORDS[option] then
            given[option], at = value or error(USAGE, 0), at + 1
        elseif option then
            local number = NUMBERS[option] and tonumber(value)
            if not number or number % 1 ~= 0 or number < 0 then error(USAGE, 0) end
            given[option], at = number, at + 1
        else
            models[#models + 1] = words[at]
        end
        at = at + 1
    end
    if #models == 0 then error(USAGE, 0) end
    return models, given
end

-- ---- asking ------------------------------------------------------------------------------------------------------

local function ask(encoded, scene, framework, question, numbers)
    local regions = {}
    for i, number in ipairs(numbers) do regions[i] = media.region(scene, number, framework) end
    return encoded:ask(question, regions, { max_new_tokens = 32 }).text
end

-- A question about one object and the same about another that differs in what is asked; nil when there is none.
local function swapped(list, scene, source)
    local about_one = {}
    for _, made in ipairs(list) do
        if scene.objects[1][made.kind] and scene.kind == "picture" then about_one[#about_one + 1] = made end
    end
    for _, made in ipairs(source:shuffle(about_one)) do
        local own = scene.objects[made.regions[1]]
        for number, other in ipairs(scene.objects) do
            if other[made.kind] ~= own[made.kind] then return made, number, other[made.kind] end
        end
    end
    return nil
end

-- ---- counting ----------------------------------------------------------------------------------------------------

local function count(counts, kind, right)
    counts[kind] = counts[kind] or { right = 0, asked = 0 }
    counts[kind].asked = counts[kind].asked + 1
    if right then counts[kind].right = counts[kind].right + 1 end
end

local function judge_scene(model, scene, index, counts, file)
    local list = questions.make(scene)
    local encoded, texts = model:encode(media.open(scene)), {}
    for i, made in ipairs(list) do
        local text = ask(encoded, scene, model.framework, made.question, made.regions)
        local right = answers.right(made.kind, made.answer, text)
        texts[made] = right
        count(counts, made.kind, right)
        if LOOKS[made.kind] and scene.objects[made.regions[1]].size == "small" then count(counts, "small", right) end
        if file then
            assert(file:write(json.encode { scene = index, media = scene.kind, number = i, kind = made.kind,
                question = made.question, expected = made.answer, text = text, right = right }, "\n"))
        end
    end
    local made, other, expected = swapped(list, scene, random.new(scene.look, 2))
    if made then
        local text = ask(encoded, scene, model.framework, made.question, { other })
        count(counts, "swap", texts[made] and answers.right(made.kind, expected, text))
    end
    encoded:free()
end

local function judge(path, given, file)
    local model, counts = pixelrefer.load(path, { weights = given.weights, compute = given.compute }), {}
    if not given.context and model.framework == "object_only" then
        model.infusion = { forward = function(_, _, tokens) return tokens end }
    end
    for _, part in ipairs { { "picture", given.pictures }, { "clip", given.clips } } do
        for index = given.first, given.first + part[2] - 1 do
            pixelrefer.tensor.scope(function()
                judge_scene(model, world.make(given.seed, index, part[1]), index, counts, file)
            end)
            if index % 20 == 0 then io.stderr:write(("\r%s: %s %d of %d "):format(path, part[1], index, part[2])) end
        end
    end
    io.stderr:write("\r", (" "):rep(70), "\r")
    return counts
end

local paths, given = read_arguments(arg)
local file = given.answers and assert(io.open(given.answers, "wb"))
local columns = {}
for i, path in ipairs(paths) do columns[i] = judge(path, given, file) end
if file then assert(file:close()) end

print(("seed %d, %d pictures, %d clips%s"):format(given.seed, given.pictures, given.clips,
                                                   given.context and "" or ", OCI left out"))
for i, path in ipairs(paths) do print(("  (%d) %s"):format(i, path)) end
local kinds = {}
for i, kind in ipairs(questions.KINDS) do kinds[i] = kind end
kinds[#kinds + 1], kinds[#kinds + 2] = "small", "swap"
for _, kind in ipairs(kinds) do
    local cells = {}
    for i = 1, #paths do
        local counted = columns[i][kind]
        cells[i] = counted and ("%6.1f %% (%d of %d)"):format(100 * counted.right / counted.asked, counted.right,
                                                            counted.asked) or "-"
    end
    print(("%-12s %s"):format(kind, table.concat(cells, "   ")))
end
