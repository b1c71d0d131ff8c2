-- Object tokenizers side by side over a dataset; and one that is not shipped, as a user would write it from the docs,
-- in both frameworks, from Lua and on the command line, on a picture and on a clip.

local command = require "support.command"
local compare = require "pixelrefer.compare"
local files = require "support.files"
local json = require "pixelrefer.json"
local make_media = dofile "examples/make_media.lua"
local pixelrefer = require "pixelrefer"

local MODELS = { refer = "spec/fixtures/golden/models/refer", lite = "spec/fixtures/golden/models/lite_sharded_bin" }
local RINGS = "spec/fixtures/rings.lua" -- the tokenizer that is not shipped
local SHORT = { max_new_tokens = 3 }
local HEIGHT, WIDTH = 112, 140

local folder, models = nil, {}

local function path(name)
    return folder .. "/" .. name
end

-- What each line of the dataset asks, of the files that `setup` writes.
local function write_dataset(answer)
    local picture, objects = make_media.draw(HEIGHT, WIDTH, 0.7)
    pixelrefer.image.save(path("picture.png"), picture)
    local times, names, balls = { 0, 1, 2 }, {}, {}
    for i, seconds in ipairs(times) do
        local frame, own = make_media.draw(HEIGHT, WIDTH, seconds / 2)
        names[i], balls[i] = ("frame%d.png"):format(i - 1), own.ball
        pixelrefer.image.save(path(names[i]), frame)
    end
    pixelrefer.image.save(path("ball.png"), objects.ball * 255)
    files.make_directories(path("clip"))
    for i, name in ipairs(names) do files.write(path(("clip/%d.png"):format(i)), files.read(path(name))) end
    pixelrefer.image.save(path("ball-0.png"), balls[1] * 255)
    local rle = pixelrefer.mask.toRle
    local function talk(question, expected)
        return { { from = "human", value = question }, { from = "gpt", value = expected } }
    end
    local records = {
        { image = "picture.png", masks = { rle(objects.ball) }, conversations = talk("<image>\n<region>?", answer) },
        { image = "picture.png", masks = { rle(objects.sun), rle(objects.house) },
          conversations = talk("Is <region> above <region>?", "Yes.") },
        { video = names, timestamps = times, masked_video = { names[1], names[3] },
          masks = { { ["0"] = rle(balls[1]), ["2"] = rle(balls[3]) } },
          conversations = talk("<video>\nWhat does <region> do?", "It rolls.") },
        { image = "nowhere.png", masks = { rle(objects.ball) }, conversations = talk("<region>?", "A ball.") },
        { conversations = talk("Hello?", "Hello.") },
    }
    local lines = {}
    for i, record in ipairs(records) do lines[i] = json.encode(record) .. "\n" end
    table.insert(lines, 3, "{ broken\n")
    files.write(path("dataset.jsonl"), table.concat(lines))
    return picture, objects.ball, balls
end

local function run(...)
    return command.run(folder, { ... })
end

describe("comparing object tokenizers", function()
    local picture, ball

    setup(function()
        folder = files.directory()
        for name, directory in pairs(MODELS) do models[name] = pixelrefer.load(directory) end
        picture, ball = write_dataset("?")
    end)
    teardown(function() files.remove(folder) end)

    for name in pairs(MODELS) do
        it("asks each the same questions, and counts: " .. name, function()
            local model, given = models[name], { "saot", "mask_average", RINGS }
            local alone = {}
            for i, tokenizer in ipairs(given) do
                alone[i] = model:withTokenizer(tokenizer):encode(picture):ask("<image>\n<region>?", { ball }, SHORT)
            end
            write_dataset(alone[2].text)

            local reported = {}
            local result = compare.run(model, path("dataset.jsonl"), {
                tokenizers = given, generation = SHORT, report = function(answer) reported[#reported + 1] = answer end,
            })
            assert.equal(3, result.questions)
            assert.equal(9, #reported)
            assert.equal(2, #result.problems)
            assert.matches("dataset.jsonl:3: not valid JSON", result.problems[1])
            assert.matches("dataset.jsonl:5: .*nowhere.png", result.problems[2])
            for i, variant in ipairs(result.variants) do
                local own = reported[i]
                assert.equal(alone[i].text, own.text)
                assert.same(alone[i].tokens, own.tokens)
                assert.same(alone[i].cells, own.cells)
                assert.equal(alone[i].text == alone[2].text, own.right)
                assert.equal(name == "lite" and 5 or 4, variant.regions) -- Lite sees the clip's object twice
                assert.equal(3, variant.known)
                assert.equal(0, variant.failed)
                assert.equal(i > 1, variant.without_retraining)
                local tokens = 0
                for k = i, 9, 3 do for _, count in ipairs(reported[k].tokens) do tokens = tokens + count end end
                assert.equal(tokens, variant.tokens)
            end
            assert.equal(result.variants[2].regions, result.variants[2].tokens) -- one token each

            local table_of_it = compare.markdown(result)
            assert.matches("| mask_average | 1%.0 | %d+%.%d | [%d.]+ m?s | [%d.]+ m?s | [%d.]+ %% %(%d of 3%) | "
                .. "without retraining |", table_of_it)
            assert.matches("| rings | 5%.0 | .*| without retraining |", table_of_it)
            assert.matches("3 questions, 2 left out", table_of_it)
            assert.matches("| saot | [^\n]+|  |\n", table_of_it)
            assert.equal(2, #result.examples)
            local drawn = compare.picture(result)
            assert.same({ 76 + 2 * 384, 20 + 4 * 340, 3 }, drawn:size())
        end)
    end

    it("takes a score of one's own, a limit, and goes on where one tokenizer fails", function()
        local broken = { name = "broken", pool = function() error("no idea") end }
        local seen = {}
        local result = compare.run(models.refer, path("dataset.jsonl"), {
            tokenizers = { broken, "mask_average" }, generation = SHORT, limit = 2,
            score = function(expected, text, record)
                seen[#seen + 1] = { expected, text, record.line }
                if record.line == 2 then return true end
            end,
        })
        assert.equal(2, result.questions)
        assert.equal(2, result.variants[1].failed)
        assert.equal(1, result.variants[2].known)
        assert.equal(1, result.variants[2].right)
        assert.equal("Yes.", seen[2][1])
        assert.matches("| broken | 0.0 | %- | 0 ms | 0 ms | %- | without retraining, 2 failed |",
                       compare.markdown(result))
        assert.same(3, compare.picture(result):dim())
        assert.error_matches(function() compare.run(models.refer, path("dataset.jsonl"), { tokenisers = {} }) end,
                             "did you mean 'tokenizers'")
        assert.error_matches(function() compare.run(models.refer, path("no.jsonl")) end, "no.jsonl: No such file")
    end)

    it("takes texts for the same whatever their case, blanks and full stop", function()
        assert.is_true(compare.sameText("A red star.", " a  red star"))
        assert.is_false(compare.sameText("A red star.", "A red circle."))
    end)

    it("knows what the weights were trained with from config.json", function()
        local directory = path("trained")
        assert.equal(0, os.execute(("mkdir %s && ln -s \"$PWD\"/%s/* %s && rm %s/config.json"):format(directory,
            MODELS.refer, directory, directory)))
        local config = json.read(MODELS.refer .. "/config.json")
        config.object_tokenizer = "mask_average"
        files.write(directory .. "/config.json", json.encode(config))
        local model = pixelrefer.load(directory)
        assert.same({ 1 }, model:describe(picture, ball, SHORT).tokens)
        local result = compare.run(model, path("dataset.jsonl"), {
            tokenizers = { "saot", "mask_average" }, generation = SHORT, limit = 1,
        })
        assert.is_true(result.variants[1].without_retraining)
        assert.is_false(result.variants[2].without_retraining)
        config.object_tokenizer = RINGS -- a file that config.json names is not run
        files.write(directory .. "/config.json", json.encode(config))
        assert.error_matches(function() pixelrefer.load(directory) end, "trained with the object tokenizer")
        assert.equal("rings", pixelrefer.load(directory, { tokenizer = RINGS }).object_tokenizer.name)
    end)

    it("is a command that prints the table and writes lines and a picture", function()
        local code, out, err = run("compare", path("dataset.jsonl"), "--model", MODELS.lite, "--tokenizer", "saot",
                                   "--tokenizer", RINGS, "--max-new-tokens", "3", "--limit", "3", "-o", path("out.png"))
        assert.equal(0, code, err)
        assert.matches("| rings | 5%.0 |", out)
        assert.matches("left out", out)
        assert.matches("dataset.jsonl:3: not valid JSON", err)
        local lines = {}
        for line in io.lines(path("out.jsonl")) do lines[#lines + 1] = json.decode(line) end
        assert.equal(6, #lines)
        assert.equal("rings", lines[2].tokenizer)
        assert.same({ 5 }, lines[2].tokens)
        assert.is_false(lines[2].right)
        assert.is_number(lines[2].seconds.decode)
        assert.equal(3, pixelrefer.image.load(path("out.png")):dim())
        code, out, err = run("compare", path("dataset.jsonl"), "--model", MODELS.lite, "--tokenizer", "sato")
        assert.same({ 1, "" }, { code, out })
        assert.matches("no shipped one is named 'sato', did you mean 'saot'?", err, 1, true)
        files.write(path("score.lua"), "return 3")
        code, out, err = run("compare", path("dataset.jsonl"), "--model", MODELS.lite, "--score", path("score.lua"))
        assert.same({ 1, "" }, { code, out })
        assert.matches("returns a number, expected a function", err, 1, true)
        assert.equal(2, (run("compare", "--model", MODELS.lite)))
    end)
end)

describe("a tokenizer that is not shipped", function()
    local picture, ball, balls

    setup(function()
        folder = files.directory()
        picture, ball, balls = write_dataset("?")
    end)
    teardown(function() files.remove(folder) end)

    it("has at most 30 lines", function()
        local _, count = files.read(RINGS):gsub("\n", "")
        assert.is_true(count <= 30)
    end)

    for name, directory in pairs(MODELS) do
        it("runs from Lua and on the command line, on a picture and on a clip: " .. name, function()
            local model = pixelrefer.load(directory, { tokenizer = RINGS })
            local answer = model:describe(picture, ball, SHORT)
            assert.same({ 5 }, answer.tokens)
            assert.same(answer.ids, pixelrefer.load(directory):withTokenizer(dofile(RINGS)):describe(picture, ball,
                                                                                                  SHORT).ids)
            assert.not_same(answer.ids, pixelrefer.load(directory):describe(picture, ball, SHORT).ids)

            local clip = pixelrefer.video.load(path("clip"), { frame_ids = { 0 } })
            local scene, object = model:encode(clip), { mask = balls[1], frame = 0 }
            local in_clip = scene:ask("<video>\nDescribe <region> in detail.", { object }, SHORT)
            assert.same({ 5 }, in_clip.tokens)
            local region = pixelrefer.inside.regions(scene, { object })[1]
            local drawn = pixelrefer.draw.tokens(region.picture, region.item, region.assignment)
            assert.same({ HEIGHT, WIDTH, 3 }, drawn:size())

            for _, asked in ipairs { { "picture.png", path("ball.png"), answer },
                                     { "clip", "0:" .. path("ball-0.png"), in_clip } } do
                local code, out, err = run("describe", path(asked[1]), "--model", directory, "--mask", asked[2],
                                           "--tokenizer", RINGS, "--max-new-tokens", "3", "--json")
                assert.equal(0, code, err)
                assert.same({ 5 }, json.decode(out).tokens)
                if asked[1] == "picture.png" then assert.same(asked[3].ids, json.decode(out).ids) end
            end
        end)
    end
end)
