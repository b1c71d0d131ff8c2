-- Datasets: both forms of file, both kinds of media, broken records told and passed over, memory that does not grow.
local dataset = require "pixelrefer.dataset"
local files = require "support.files"
local image = require "pixelrefer.image"
local json = require "pixelrefer.json"
local mask = require "pixelrefer.mask"
local tensor = require "pixelrefer.tensor"

local RLE = { size = { 4, 6 }, counts = { 5, 3, 16 } }

local function talk(...)
    local list = {}
    for i, text in ipairs { ... } do list[i] = { from = i % 2 == 1 and "human" or "gpt", value = text } end
    return list
end

local function record(changes)
    local object = { image = "p.png", width = 6, height = 4, masks = { RLE } }
    object.conversations = talk("<region>?", "Red.")
    for key, value in pairs(changes or {}) do object[key] = value end
    return object
end

describe("dataset.open", function()
    local folder
    before_each(function() folder = files.directory() end)
    after_each(function() files.remove(folder) end)

    local function open(text, given)
        return dataset.open(files.write(folder .. "/d.json", text), given)
    end

    local function all(text, given)
        local records, problems = {}, {}
        for found, problem in open(text, given) do
            if found then records[#records + 1] = found end
            if problem then problems[#problems + 1] = tostring(problem):match("[^/]+$") end
        end
        return records, problems
    end

    local function problem_of(object)
        local records, problems = all(type(object) == "string" and object or json.encode(object))
        assert.same({ 0, 1 }, { #records, #problems })
        return problems[1]
    end

    it("reads lines and arrays alike, with their lines and paths", function()
        local one, two = json.encode(record()), json.encode(record { image = "/q.png", id = "second" })
        for _, text in ipairs {
            one .. "\n\n" .. two .. "\n", one .. "\r\n\r\n" .. two, "[" .. one .. ",\n\n" .. two .. "]",
            "\239\187\191[\n" .. one .. " , \n" .. two .. "\n]\n",
        } do
            local records, problems = all(text)
            assert.same({}, problems)
            assert.equal(2, #records)
            assert.equal(folder .. "/p.png", records[1].image)
            assert.equal("/q.png", records[2].image)
            assert.equal("second", records[2].id)
            assert.equal(records[1].line + 2 - (text:find("^\239") and 1 or 0), records[2].line)
            assert.same({ question = "<region>?", answer = "Red.", first = 1, count = 1 }, records[1].turns[1])
        end
        assert.equal("elsewhere/p.png", all(one, { root = "elsewhere" })[1].image)
        assert.same({}, (all(" [ ] ")))
        assert.same({}, (all("")))
    end)

    it("is not misled by brackets, quotes and commas in strings, at any place of a chunk", function()
        local text = 'a "]},{[" \\ \n,'
        for _, padding in ipairs { 0, 65400, 65470, 65500, 65530 } do
            local object = record { conversations = talk("<region>" .. ("x"):rep(padding) .. text, text) }
            local records, problems = all("[" .. json.encode(object) .. "," .. json.encode(record()) .. "]")
            assert.same({}, problems)
            assert.equal(2, #records)
            assert.equal(text, records[1].turns[1].answer)
        end
    end)

    it("tells broken records with file, line and reason, and goes on", function()
        local good = json.encode(record())
        local records, problems = all(good .. "\n{oops}\n" .. good .. "\n[]\n17\n" .. good)
        assert.equal(3, #records)
        assert.matches("^d.json:2: not valid JSON: Expected object key string", problems[1])
        assert.equal("d.json:4: \"conversations\" is missing: a list expected", problems[2])
        assert.equal("d.json:5: an object expected", problems[3])
        records, problems = all("[" .. good .. ",\n{\"a\": tru},\n" .. good .. "]")
        assert.equal(2, #records)
        assert.matches("^d.json:2: not valid JSON", problems[1])
        records, problems = all("[" .. good .. ",\n{\"a\": \"")
        assert.equal(1, #records)
        assert.same({ "d.json:2: the file ends within a record" }, problems)
        assert.same({ "d.json:1: the file ends within the list: ']' expected" }, select(2, all("[" .. good .. ", ")))
        assert.same({ "d.json:2: something stands behind the list's ']'" }, select(2, all("[" .. good .. "]\nx")))
    end)

    it("says what is wrong with a record", function()
        assert.matches("2 <region> tags, but there is 1 mask$",
                       problem_of(record { conversations = talk("<region> <region>", "x") }))
        assert.matches("0 <region> tags, but there is 1 mask$", problem_of(record { conversations = talk("x", "y") }))
        assert.matches("a question after a question", problem_of(record {
            conversations = { { from = "human", value = "a" }, { from = "human", value = "b" } } }))
        assert.matches('from "human" or "gpt" expected, found "cat"', problem_of(record {
            conversations = { { from = "cat", value = "a" } } }))
        assert.matches('conversations%[1%]: {"from"', problem_of(record { conversations = { { from = "human" } } }))
        assert.matches('"conversations" has no question', problem_of(record { conversations = json.array {} }))
        assert.matches('"image": a path expected', problem_of(record { image = 7 }))
        assert.matches('both "image" and "video"', problem_of(record { video = "v.mp4" }))
        assert.matches("masks%[1%]: polygons or an RLE expected", problem_of(record { masks = { "x" } }))
        assert.matches('"masks": a list expected', problem_of(record { masks = { a = 1 } }))
        local polygons = record { masks = { { { 0, 0, 4, 0, 4, 4 } } } }
        polygons.width = nil
        assert.matches('polygons need the record\'s "width" and "height"', problem_of(polygons))
        local clip = { video = "v.mp4", masks = { { x = RLE } }, conversations = talk("<region>", "x") }
        assert.matches('masks%[1%]: a frame\'s number expected, found "x"', problem_of(clip))
        clip.masks = { { RLE } }
        assert.matches('masks%[1%]: {"<frame>": annotation', problem_of(clip))
    end)

    it("decodes the masks of a turn when asked", function()
        local polygon = { { 1, 1, 5, 1, 5, 3 } }
        local records = all(json.encode(record {
            masks = { RLE, mask.toRle(mask.box({ 4, 6 }, 1, 1, 3, 3)), { segmentation = polygon } },
            conversations = talk("<region> and <region>?", "No.", "And <region>?"),
        }))
        local found = records[1]
        assert.is_nil(found.turns[2].answer)
        local regions = found:regions(1)
        assert.equal(2, #regions)
        assert.equal(mask.rle(RLE):bytes(), regions[1]:bytes())
        assert.equal(4, mask.area(regions[2]))
        assert.equal(mask.polygon({ 4, 6 }, polygon):bytes(), found:regions(2)[1]:bytes())
        assert.equal(3, #found:regions())
        local broken = all(json.encode(record { masks = { { size = { 4, 6 }, counts = "<!" } } }))[1]
        local ok, message = pcall(broken.regions, broken)
        assert.is_false(ok)
        assert.matches("^line 1: masks%[1%]: .*byte 2", message)
    end)

    it("reads videos: a folder, one path in a list, a list of frames with pictures of their own for masks", function()
        files.make_directories(folder .. "/clip")
        for k = 0, 2 do
            image.save(("%s/clip/%d.png"):format(folder, k), tensor.full({ 4, 6, 3 }, k, { dtype = "uint8" }))
        end
        local clip = { video = { "clip" }, masks = { { ["2"] = RLE, ["0"] = RLE } } }
        clip.conversations = talk("<region>", "x")
        local found = all(json.encode(clip))[1]
        assert.equal(folder .. "/clip", found.video)
        assert.same({ 0, 2 }, found:frames())
        local frames = found:regions()[1]
        assert.same({ 0, 2 }, { frames[1].frame, frames[2].frame })
        assert.equal(2, found:media():frame(2)[1][1][1])

        clip.masks = { { ["9"] = RLE }, { ["4"] = RLE } }
        clip.conversations = talk("<region><region>", "x")
        clip.video, clip.timestamps = { "clip/0.png", "clip/1.png" }, { 0, 0.5 }
        clip.masked_video = { "clip/2.png", "clip/1.png" }
        found = all(json.encode(clip))[1]
        local loaded = found:media()
        assert.same({ 0, 0.5 }, loaded.times)
        assert.equal(2, loaded:frame(9)[1][1][1])
        assert.equal(9, select(2, loaded:frame(9)))
        assert.equal(1, loaded:frame(4)[1][1][1])
        assert.equal(9, found:regions()[1].frame)

        clip.masked_video = { "clip/2.png" }
        assert.matches('"masked_video": 1 pictures for 2 frames with masks', problem_of(clip))
        clip.timestamps = { 1 }
        assert.matches('"timestamps": 2 numbers expected', problem_of(clip))
    end)

    it("holds one record, however long the file is", function()
        local object = json.encode(record { conversations = talk("<region>" .. ("x"):rep(2000), "y") })
        for _, form in ipairs { { "", "\n" }, { "[", "," } } do
            local count = 0
            local iterator = open(form[1] .. object .. (form[2] .. object):rep(4999) .. (form[1] == "[" and "]" or ""))
            collectgarbage()
            local before, highest = collectgarbage("count"), 0
            for found in iterator do
                assert.is_truthy(found)
                count = count + 1
                if count % 500 == 0 then
                    collectgarbage()
                    highest = math.max(highest, collectgarbage("count") - before)
                end
            end
            assert.equal(5000, count)
            assert.is_true(highest < 600, highest .. " KiB more")
        end
    end)

    it("passes over a line that is too long to be a record", function()
        local path = folder .. "/d.json"
        local file = assert(io.open(path, "wb"))
        file:write('{"a": "')
        for _ = 1, 70 do file:write(("x"):rep(2 ^ 20)) end
        file:write('"}\n', json.encode(record()), "\n")
        file:close()
        local iterator = dataset.open(path)
        local none, problem = iterator()
        assert.is_false(none)
        assert.matches(":1: a line of more than 67108864 bytes$", tostring(problem))
        local found = iterator()
        assert.equal(2, found.line)
        assert.is_nil(iterator())
    end)

    it("refuses a missing file and unknown options", function()
        assert.has_error(function() dataset.open("/nothing.json") end, "/nothing.json: No such file or directory")
        assert.error_matches(function() open("", { rot = "x" }) end, "unknown option 'rot', did you mean 'root'")
    end)
end)
