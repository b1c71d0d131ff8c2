-- Annotation jobs: what is written, going on after any end, shards, what is refused.
local annotate = require "pixelrefer.annotate"
local coco = require "pixelrefer.annotate.coco"
local command = require "support.command"
local dataset = require "pixelrefer.dataset"
local files = require "support.files"
local image = require "pixelrefer.image"
local jobs = require "support.jobs"
local json = require "pixelrefer.json"
local merge = require "pixelrefer.annotate.merge"
local pixelrefer = require "pixelrefer"
local seed = require "support.seed"
local tensor = require "pixelrefer.tensor"
local together = require "pixelrefer.together"

local REFER = "spec/fixtures/golden/models/refer"
local LITE = "spec/fixtures/golden/models/lite_sharded_bin"

describe("annotate", function()
    local folder, instances, model, lite, out
    setup(function()
        folder = files.directory()
        instances = jobs.write(folder)
        model, lite = pixelrefer.load(REFER), pixelrefer.load(LITE)
        out = folder .. "/out.jsonl"
    end)
    teardown(function() files.remove(folder) end)
    after_each(function()
        os.remove(out)
        os.remove(out .. ".log")
    end)

    local function options(changes)
        local given = { model = model, out = out, max_new_tokens = 3 }
        for key, value in pairs(changes or {}) do given[key] = value end
        return given
    end

    -- The objects of a file's lines.
    local function lines_of(path)
        local list = {}
        for line in io.lines(path or out) do list[#list + 1] = json.decode(line) end
        return list
    end

    -- Runs a job and returns the file's content, without the file.
    local function run(changes, path)
        local summary = annotate.run(path or instances, options(changes))
        local text = files.read(out)
        os.remove(out)
        return text, summary
    end

    local function refused(expected, changes, path)
        assert.error_matches(function() annotate.run(path or instances, options(changes)) end, expected, 1, true)
    end

    it("writes each region's answer, pictures and regions in their order, equal to describe's", function()
        local states = {}
        local summary = annotate.run(instances, options { progress = function(state) states[#states + 1] = state end })
        assert.same({ 12, 1, 12, 0 }, { #states, states[12].share, states[12].answers, states[12].left })
        assert.same({ 12, 0, 4, 0, 0 }, { summary.answers, summary.failed, summary.scenes, summary.filtered,
            summary.stored })
        local list, at = lines_of(), 1
        assert.equal("vision_object", list[1].job.model.framework)
        for sample in dataset.samples(instances) do
            local scene = model:encode(sample.media())
            for _, region in ipairs(sample.regions) do
                at = at + 1
                local answer = scene:describe(region.masks(), { max_new_tokens = 3 })[1]
                assert.same({ region.id, region.number, sample.name, annotate.TASK, answer.text },
                    { list[at].id, list[at].region, list[at].image, list[at].prompt, list[at].text })
                assert.same({ answer.ids, answer.tokens }, { list[at].ids, list[at].tokens })
            end
        end
        assert.same({ ["end"] = { answers = 12, failed = 0, scenes = 4 } }, list[at + 1])
        assert.equal(at + 1, #list)
        assert.equal(14, #lines_of(out .. ".log"))
    end)

    it("encodes a picture once for all its regions and prompts", function()
        local count, encode = 0, model.encode
        local counting = setmetatable({ encode = function(...)
            count = count + 1
            return encode(...)
        end }, { __index = model })
        run { model = counting, tasks = { "<region>?", "<region>!" } }
        assert.equal(4, count)
    end)

    it("fills prompts with the record's fields, and leaves out what the filter does", function()
        local tasks = { "A {category} <region> of {image.file_name}?", "<region>" }
        annotate.run(instances, options { tasks = tasks, where = 'category == "right" and id > 3' })
        local list = lines_of()
        assert.same({ "A right <region> of 1.png?", "<region>" }, { list[2].prompt, list[3].prompt })
        assert.same({ 4, 4, 6, 6, 7 }, { list[2].id, list[3].id, list[4].id, list[5].id, list[6].id })
        assert.same({ 1, 2 }, { list[2].task, list[3].task })
        os.remove(out)
        assert.equal(6, select(2, run { where = function(region) return region.id % 2 == 0 end }).filtered)
    end)

    it("takes a function for each region", function()
        files.write(folder .. "/each.lua", [[return function(region, ask, sample)
            if region.number == 1 then return "plain " .. region.fields.category end
            if region.number == 2 then return ask("<region>?") end
            return { name = sample.name, longer = #ask("<region>!", { max_new_tokens = 5 }).ids }
        end]])
        annotate.run(instances, options { each = folder .. "/each.lua" })
        local list = lines_of()
        assert.equal("plain right", list[2].text)
        assert.equal(3, #list[3].ids)
        assert.same({ name = "0.png", longer = 5 }, list[4].result)
        refused("either tasks or each", { each = function() end, tasks = "<region>" })
        os.remove(out)
        local _, summary = run { each = function(region) return region.number == 1 and error("no") or true end }
        assert.equal(12, summary.failed)
        assert.matches("the function returned boolean", summary.problems[2].error)
    end)

    it("goes on from any place where the file was cut, to the same bytes #slow", function()
        local random = tensor.generator(seed)
        local sampled = { sample = true, temperature = 1, seed = 7, tasks = { "<region>?", "<region>!" } }
        for _, changes in ipairs { {}, sampled, { model = lite } } do
            local whole = run(changes)
            for _ = 1, 5 do
                files.write(out, whole:sub(1, random:random() % (#whole + 1)))
                local again, summary = run(changes)
                assert.equal(whole, again)
                assert.equal(summary.scenes, 4)
            end
        end
    end)

    it("answers several regions together to the same bytes, from any place where the file was cut #slow", function()
        local random = tensor.generator(seed)
        local sampled = { sample = true, temperature = 1, seed = 7, tasks = { "<region>?", "<region>!" } }
        for _, changes in ipairs { {}, sampled, { model = lite, where = "id ~= 5" } } do
            local alone = run(changes)
            os.remove(out .. ".log")
            for _, count in ipairs { 2, 3, 8 } do
                changes.together = count
                assert.equal(alone, (run(changes)))
                local logged = lines_of(out .. ".log")
                assert.equal(select(2, alone:gsub("\n", "")), #logged) -- begun, an answer each, ended
                for i = 2, #logged - 1 do assert.is_true(logged[i].stages.decode > 0 and logged[i].seconds > 0) end
                assert.is_true(logged[2].stages.encode > 0)
                files.write(out, alone:sub(1, random:random() % (#alone + 1)))
                assert.equal(alone, (run(changes)))
                os.remove(out .. ".log")
            end
        end
        refused("'together' must be an integer of at least 1, got 0", { together = 0 })
    end)

    it("answers as many at a time as it was told, those of a picture", function()
        local ask, groups = together.ask, {}
        finally(function() together.ask = ask end)
        together.ask = function(questions, ...)
            groups[#groups + 1] = #questions
            return ask(questions, ...)
        end
        run()
        assert.same({}, groups)
        run { together = 2, where = "image.file_name == '0.png'" }
        assert.same({ 2 }, groups) -- and the third alone
        run { together = 8 }
        assert.same({ 2, 3, 3, 3, 3 }, groups)
    end)

    it("begins to read the picture that comes next of its own shard, once it has this one", function()
        local ahead, load, order = image.ahead, image.load, {}
        finally(function() image.ahead, image.load = ahead, load end)
        image.load = function(path)
            order[#order + 1] = "load " .. path:match("[^/]+$")
            return load(path)
        end
        image.ahead = function(path)
            order[#order + 1] = "ahead " .. path:match("[^/]+$")
            return ahead(path)
        end
        run { shard = { 1, 2 } }
        assert.same({ "load 0.png", "ahead 2.png", "load 2.png" }, order) -- 1.png is another shard's
        order = {}
        run()
        assert.same({ "load 0.png", "ahead 1.png", "load 1.png" }, { order[1], order[2], order[3] })
    end)

    it("says which of several that were answered together failed, and answers the others", function()
        local object = json.read(instances)
        object.annotations[2].segmentation = { { 1, 2 } }
        object.annotations[3].category_id = nil
        object.images[3].file_name = "gone.png"
        local path = files.write(folder .. "/broken.json", json.encode(object))
        local given = { tasks = "Is <region> {category}?" }
        local alone, summary = run(given, path)
        assert.equal(5, summary.failed)
        given.together = 4
        assert.equal(alone, (run(given, path)))
    end)

    it("asks each region with a seed of its own when it samples, whatever the order", function()
        local given = { sample = true, temperature = 1, seed = 3 }
        annotate.run(instances, options(given))
        local list, seeds = lines_of(), {}
        for i = 2, 13 do seeds[list[i].seed] = true end
        local count = 0
        for _ in pairs(seeds) do count = count + 1 end
        assert.equal(12, count)
        local sample = dataset.samples(instances)()
        local answer = model:encode(sample.media()):ask(annotate.TASK, sample.regions[2].masks(),
            { sample = true, temperature = 1, seed = list[3].seed, max_new_tokens = 3 })
        assert.equal(list[3].text, answer.text)
    end)

    it("refuses to go on with other settings, models or data, and says what differs", function()
        annotate.run(instances, options())
        local before = files.read(out)
        refused("generation.max_new_tokens: 3 there, 4 now", { max_new_tokens = 4 })
        refused('model.framework: "vision_object" there, "object_only" now', { model = lite })
        refused('tasks: ["Describe <region> in detail."] there, ["<region>?"] now', { tasks = "<region>?" })
        refused('where: nothing there, "id > 2" now', { where = "id > 2" })
        refused("shard: nothing there, [1,2] now", { shard = { 1, 2 } })
        refused("model.object_tokenizer", { model = model:withTokenizer("mask_average") })
        refused("dataset.bytes", nil, files.write(folder .. "/instances2.json", files.read(instances) .. " "))
        local swapped = files.read(instances):gsub('"id":1,', '"id":3,', 1)
        files.make_directories(folder .. "/other")
        refused("it was changed", { root = folder }, files.write(folder .. "/other/instances.json", swapped))
        assert.equal(before, files.read(out))
        files.write(out, '{"my": "own"}\n')
        refused("this is no file of results")
        files.write(out, "precious")
        refused("this is no file of results")
        assert.equal("precious", files.read(out))
        refused("not a regular file", { out = "/dev/full" })
        refused("/nowhere/out.jsonl", { out = "/nowhere/out.jsonl" })
        os.remove(out)
        refused("a text with one <region> expected, found 2", { tasks = { "<region> <region>" } })
        refused("where: ", { where = "id >" })
        refused("did you mean 'tasks'", { task = "<region>" })
        refused("1 <= k <= n", { shard = { 3, 2 } })
        assert.is_nil(io.open(out))
    end)

    it("refuses to go on with other steps of an object tokenizer, however it was given", function()
        local function first(features) return features:select(1, 1):narrow(1, 1, 1) end
        local function second(features) return features:select(1, 1):narrow(1, 2, 1) end
        for _, give in ipairs {
            function(pool) return { model = REFER, tokenizer = { name = "own", pool = pool } } end,
            function(pool) return { model = model:withTokenizer { name = "own", pool = pool } } end,
        } do
            os.remove(out)
            annotate.run(instances, options(give(first)))
            annotate.run(instances, options(give(first)))
            refused("model.object_tokenizer: \"own ", give(second))
        end
    end)

    it("knows a function by its code, in every process", function()
        local code, said = require("pixelrefer.annotate.fingerprint").code, {}
        local text = "return function(x) local t = { a = 1, b = 2, c = 3, d = %d } "
            .. "return function() return t[x] end end"
        for i = 1, 8 do
            said[i] = command.lua(([[
                local f = loadstring("%s")()
                for i = 1, 200 do f(i)() end
                print(require("pixelrefer.annotate.fingerprint").code(f))
            ]]):format(text:format(4)))
            assert.equal(said[1], said[i])
        end
        assert.equal(said[1], code(loadstring(text:format(4))()) .. "\n")
        assert.not_equal(said[1], code(loadstring(text:format(5))()) .. "\n")
        assert.equal("built in", code(print))
    end)

    it("lists what fails with its reason and goes on", function()
        local object = json.read(instances)
        object.images[2].file_name, object.annotations[2].segmentation = "interrupted.png", { { 1, 2 } }
        object.annotations[3].category_id = nil
        object.images[3].width = 71
        local path = files.write(folder .. "/broken.json", json.encode(object))
        local _, summary = run({ tasks = "Is <region> {category}?" }, path)
        assert.same({ 4, 8, 4 }, { summary.answers, summary.failed, summary.scenes })
        assert.matches("^annotation 2: ", summary.problems[1].error)
        assert.matches("no field 'category'", summary.problems[2].error)
        assert.matches("interrupted.png", summary.problems[3].error) -- which is not Ctrl-C
        assert.matches("the mask is 56 x 71, its picture 56 x 70", summary.problems[6].error)
        assert.matches("^where: attempt to compare", select(2, run { where = "nothing > 2" }).problems[1].error)
    end)

    it("asks again what failed, and keeps the answers, wherever it was stopped #slow", function()
        local questions = 0
        local each = function(_, ask)
            questions = questions + 1
            return ask "<region>?"
        end
        local expected = run { each = each }
        local gone = folder .. "/1.png"
        assert(os.rename(gone, gone .. ".away"))
        annotate.run(instances, options { each = each })
        assert(os.rename(gone .. ".away", gone))
        local broken, failed = files.read(out), select(2, files.read(out):gsub('"error"', ""))
        assert.is_true(failed > 0)
        assert.equal(failed, annotate.run(instances, options { each = each }).failed) -- as it is
        for _, share in ipairs { 0, 0.3, 0.6, 0.9, 1 } do
            files.write(out, broken)
            files.write(out .. ".retry", expected:sub(1, math.floor(share * #expected)))
            questions = 0
            local summary = annotate.run(instances, options { each = each, retry = true })
            assert.equal(expected, files.read(out))
            assert.is_nil(io.open(out .. ".retry"))
            assert.same({ 12, 0 }, { summary.answers, summary.failed })
            assert.is_true(questions <= failed)
        end
        for _, at_a_time in ipairs { 1, 5 } do
            os.remove(out)
            local given = { tasks = { "<region>?", "Is <region> {category}?" }, together = at_a_time }
            local whole = run(given)
            assert(os.rename(gone, gone .. ".away"))
            annotate.run(instances, options(given))
            assert(os.rename(gone .. ".away", gone))
            given.retry = true
            assert.equal(whole, (run(given)))
        end
    end)

    it("refuses a file that another process is writing", function()
        local results = require "pixelrefer.annotate.results"
        local open = results.open(out, { a = 1 })
        refused("another process is writing it")
        open:close()
    end)

    it("keeps its file from the processes that it starts", function()
        local each = function() return io.popen("ls -l /proc/self/fd"):read("*a") end
        local text = run { each = each, where = function(region) return region.id == 1 end }
        assert.matches("0 -> ", text, 1, true)
        assert.not_matches("/out%.jsonl\\n", text) -- the log may be there
    end)

    it("asks a dataset's own questions, or every mask; videos frame by frame", function()
        local rle = { size = { 56, 70 }, counts = { 300, 2000, 1620 } }
        files.make_directories(folder .. "/clip")
        for k = 0, 2 do
            image.save(("%s/clip/%d.png"):format(folder, k), (tensor.rand(56, 70, 3, { seed = k }) * 255):byte())
        end
        local path = files.write(folder .. "/d.jsonl", json.encode { image = "0.png", id = "a", masks = { rle, rle },
            conversations = { { from = "human", value = "Is <region> like <region>?" },
                { from = "gpt", value = "No." } } }
            .. "\n" .. json.encode { video = "clip", id = "b", masks = { { ["1"] = rle } },
            conversations = { { from = "human", value = "<video>\nWhat is <region>?" } } } .. "\n")
        for _, each in ipairs { model, lite } do
            annotate.run(path, options { model = each })
            local list = lines_of()
            assert.same({ "Is <region> like <region>?", "a", 2 }, { list[2].prompt, list[2].id, #list[2].tokens })
            assert.same({ "b", 1 }, { list[3].id, #list[3].tokens })
            os.remove(out)
            assert.equal(3, select(2, run({ model = each, tasks = "<region>?" }, path)).answers)
        end
    end)

    it("takes an object's first frame where the model takes one", function()
        local rle = { size = { 56, 70 }, counts = { 300, 2000, 1620 } }
        files.make_directories(folder .. "/frames")
        for k = 0, 2 do image.save(("%s/frames/%d.png"):format(folder, k), tensor.zeros(56, 70, 3):byte()) end
        local path = files.write(folder .. "/frames.jsonl", json.encode { video = "frames", id = "c",
            masks = { { ["0"] = rle, ["2"] = rle } },
            conversations = { { from = "human", value = "What is <region>?" } } })
        for _, tasks in ipairs { false, "<region>?" } do
            local given = { tasks = tasks or nil }
            assert.same({ 1, 0 }, { select(2, run(given, path)).answers, select(2, run(given, path)).failed })
            given.model = lite
            assert.equal(1, select(2, run(given, path)).answers)
        end
    end)

    it("joins shards to the bytes of one run, however they were stopped", function()
        local given = { tasks = { "<region>?", "<region>!" } }
        local whole, paths, random = run(given), {}, tensor.generator(seed)
        for k = 1, 3 do
            given.shard = { k, 3 }
            local shard = run(given)
            files.write(out, shard:sub(1, random:random() % #shard))
            paths[k] = ("%s/shard%d"):format(folder, k)
            files.write(paths[k], (run(given)))
        end
        local merged = folder .. "/merged"
        assert.same({ answers = 24, failed = 0, scenes = 4 }, merge.run({ paths[3], paths[1], paths[2] }, merged))
        assert.equal(whole, files.read(merged))

        local function fails(expected, list)
            assert.error_matches(function() merge.run(list, merged) end, expected, 1, true)
            assert.equal(whole, files.read(merged))
            assert.is_nil(io.open(merged .. ".tmp"))
        end
        fails("shard 2 of 3 is missing", { paths[1], paths[3] })
        fails("are both shard 1", { paths[1], paths[2], paths[3], paths[1] })
        fails("this is no shard", { merged })
        local second = files.read(paths[2])
        local function with(text) return { paths[1], files.write(folder .. "/bad", text), paths[3] } end
        fails("shard 2 of 3 is not complete", with(second:gsub("[^\n]*\n$", "")))
        fails("6 answers expected, found 5", with((second:gsub("\n[^\n]*\n", "\n", 1))))
        fails("comes twice or too late", with((second:gsub("\n([^\n]*\n)", "\n%1%1", 1))))
        fails("are not of one job", with((second:gsub('"seed":0', '"seed":1', 1))))
        fails("scene 3 is not of shard 2 of 3", with((second:gsub('"scene":2', '"scene":3'))))
    end)

    it("writes COCO with captions", function()
        annotate.run(instances, options { tasks = { "<region>?", "<region>!" }, where = "id ~= 5" })
        local path, list = folder .. "/captions.json", lines_of()
        assert.same({ annotations = 11, images = 4 }, coco.write(instances, out, path))
        local written = json.read(path)
        assert.same({ 4, 11, 2 }, { #written.images, #written.annotations, #written.categories })
        local first = written.annotations[1]
        assert.same({ 1, 99, list[2].text, { list[2].text, list[3].text } },
            { first.id, first.image_id, first.caption, first.captions })
        assert.same(json.read(instances).annotations[1].segmentation, first.segmentation)
        assert.is_nil(first.category)
        assert.equal(11, (function()
            local count = 0
            for sample in dataset.samples(path, { root = folder }) do count = count + #sample.regions end
            return count
        end)())
        local rich = json.read(instances)
        rich.annotations[1].keypoints, rich.images[1].neg_category_ids = { 1, 2, 2 }, { 7 }
        rich.annotations[1].attributes, rich.categories[1].synonyms = { colour = "red" }, { "a", "b" }
        rich.annotations[1].iscrowd = json.null
        coco.write(files.write(folder .. "/rich.json", json.encode(rich)), out, path)
        written = json.read(path)
        assert.same({ { 1, 2, 2 }, { colour = "red" } },
            { written.annotations[1].keypoints, written.annotations[1].attributes })
        assert.equal(0, written.annotations[1].iscrowd)
        assert.same({ { 7 }, { "a", "b" } }, { written.images[1].neg_category_ids, written.categories[1].synonyms })
        local text = files.read(out)
        files.write(out, (text:gsub("[^\n]*\n$", "")))
        assert.error_matches(function() coco.write(instances, out, path) end, "the job is not complete")
        os.remove(out)
        annotate.run(instances, options { each = function() return { 1 } end })
        assert.error_matches(function() coco.write(instances, out, path) end,
            "none of its 12 answers is a text: what is to be a caption %-%-each returns as one")
    end)
end)

describe("the command annotate", function()
    local folder, instances, words, out
    setup(function()
        folder = files.directory()
        instances = jobs.write(folder)
        out = folder .. "/out.jsonl"
    end)
    teardown(function() files.remove(folder) end)
    before_each(function()
        words = { "annotate", instances, "--model", REFER, "--out", out, "--max-new-tokens", "3" }
    end)
    after_each(function()
        os.remove(out)
        os.remove(out .. ".log")
    end)

    local function whole()
        local code, stdout, stderr = command.run(folder, words)
        assert.same({ 0, "" }, { code, stdout }, stderr)
        local text = files.read(out)
        os.remove(out)
        os.remove(out .. ".log")
        return text, stderr
    end

    it("annotates, merges, writes COCO and sums up", function()
        local text, stderr = whole()
        assert.matches("out.jsonl: 12 answers about 4 scenes in %d+ s\n$", stderr)
        local shards = {}
        for k = 1, 2 do
            shards[k] = folder .. "/shard" .. k
            words[6] = shards[k]
            words[9], words[10] = "--shard", k .. "/2"
            assert.equal(0, (command.run(folder, words)))
        end
        assert.equal(0, (command.run(folder, { "merge", shards[1], shards[2], "--out", out })))
        assert.equal(text, files.read(out))
        local code, _, err = command.run(folder, { "coco", instances, out, "-o", folder .. "/captions.json" })
        assert.equal(0, code, err)
        assert.matches("12 annotations of 4 images", err)
    end)

    it("answers wrong usage with 2", function()
        local function usage(expected, ...)
            local code, _, stderr = command.run(folder, { ... })
            assert.equal(2, code)
            assert.matches(expected, stderr, 1, true)
        end
        usage("--model DIR is missing", "annotate", instances, "--out", out)
        usage("annotate needs --out FILE", "annotate", instances, "--model", REFER)
        usage("annotate takes one dataset", "annotate", "--model", REFER, "--out", out)
        usage("K/N with 1 <= K <= N", "annotate", instances, "--model", REFER, "--out", out, "--shard", "3/2")
        usage("merge needs --out", "merge", "a")
        usage("coco takes a dataset and a job's file", "coco", "a", "-o", "b")
    end)

    -- In place of Slurm: runs each task of an array at once, the last one first, and prints a job's number.
    local SBATCH = [[#!/bin/bash
for script; do :; done
count=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
echo "$@" >>"$(dirname "$0")/submitted"
if [ "$count" ]; then
    for ((k = count; k > 0; k--)); do SLURM_ARRAY_TASK_ID=$k bash "$script" || exit 1; done >&2
    echo "17;cluster"
else
    bash "$script" >&2 && echo 18
fi
]]

    it("writes and submits a cluster's jobs, which give the bytes of one run", function()
        words[#words + 1], words[#words + 2] = "--task", "What's <region>, $HOME?"
        local text = whole()
        files.write(folder .. "/sbatch", SBATCH)
        os.execute("chmod +x " .. command.quoted(folder .. "/sbatch"))
        words[#words + 1], words[#words + 2] = "--slurm", "3"
        local code, written = command.run(folder, words)
        assert.equal(0, code)
        assert.matches("#SBATCH --array=1-3", written, 1, true)
        assert.matches("sbatch --dependency=afterok:${array%%;*} ", written, 1, true)
        assert.is_nil(io.open(out))
        words[#words + 1] = "--submit"
        local _, told, stderr = command.run(folder, words, ('PATH=%s:"$PATH"'):format(folder))
        assert.matches("# submitted: array job 17, merge job 18\n$", told, 1, false)
        assert.matches("afterok:17 ", files.read(folder .. "/submitted"), 1, true)
        assert.equal(text, files.read(out), stderr)
        words[#words] = nil
        words[#words] = "0"
        assert.equal(2, (command.run(folder, words)))
    end)

    it("is killed twenty times at any moment and has the same bytes in the end", function()
        local expected = files.write(folder .. "/expected", (whole()))
        local line = { "spec/support/kill_job.sh", 20, 1, seed % 32768, expected, out, "bin/pixelrefer" }
        for i, word in ipairs(line) do line[i] = command.quoted(tostring(word)) end
        for _, word in ipairs(words) do line[#line + 1] = command.quoted(word) end
        local pipe = io.popen(table.concat(line, " ") .. " 2>&1")
        local said = pipe:read("*a")
        pipe:close()
        assert.matches("20 kills, %d+ runs, %d+ of them before the last kill\n$", said)
    end)

    it("stops with a clear error when the disk is full, and goes on afterwards", function()
        local text = whole()
        words[#words + 1] = "--threads"
        words[#words + 1] = "1"
        local code, _, stderr = command.run(folder, words, "trap '' XFSZ; ulimit -f 3;")
        assert.equal(1, code)
        assert.matches("out.jsonl: File too large; the same command goes on from here", stderr)
        local part = files.read(out)
        assert.equal("\n", part:sub(-1))
        assert.equal(part, text:sub(1, #part))
        assert.equal(text, (whole()))
    end)

    it("stops at Ctrl-C with 130 and whole lines", function()
        local text = whole()
        local endless = folder .. "/endless"
        files.make_directories(endless)
        for _, name in ipairs(require("pixelrefer.core").list_directory(REFER)) do
            if name ~= "generation_config.json" then
                files.write(endless .. "/" .. name, files.read(REFER .. "/" .. name))
            end
        end
        files.write(endless .. "/generation_config.json", '{"eos_token_id": [700]}')
        local line = ("bin/pixelrefer annotate %s --model %s --out %s --max-new-tokens 20000 2>%s & pid=$!; tries=0;"
            .. " until [ -s %s.log ] || [ $tries -gt 600 ]; do sleep 0.1; tries=$((tries + 1)); done;"
            .. " kill -INT $pid; wait $pid; echo $?"):format(instances, endless, out, folder .. "/stderr", out)
        local pipe = io.popen("bash -c " .. command.quoted("set -m; " .. line) .. " 2>/dev/null")
        assert.equal("130", pipe:read("*l"))
        pipe:close()
        assert.matches("pixelrefer: interrupted", files.read(folder .. "/stderr"))
        assert.equal(1, select(2, files.read(out):gsub("\n", "")))
        assert.equal("\n", files.read(out):sub(-1))
        os.remove(out)
        assert.equal(text, (whole()))
    end)
end)
