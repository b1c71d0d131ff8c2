-- Datasets as samples: COCO and LVIS files, the reference's, folders with mask PNGs.
local dataset = require "pixelrefer.dataset"
local files = require "support.files"
local image = require "pixelrefer.image"
local json = require "pixelrefer.json"
local mask = require "pixelrefer.mask"
local tensor = require "pixelrefer.tensor"

local FIXTURE = "spec/fixtures/coco/"

describe("dataset.samples", function()
    local folder
    before_each(function() folder = files.directory() end)
    after_each(function() files.remove(folder) end)

    local function all(path, given)
        local list = {}
        for sample in dataset.samples(path, given) do list[#list + 1] = sample end
        return list
    end

    local function coco(object)
        return files.write(folder .. "/d.json", type(object) == "string" and object or json.encode(object))
    end

    local function save(path, value)
        image.save(path, tensor.full({ 60, 80, 3 }, value or 0, { dtype = "uint8" }))
    end

    local function ids(sample)
        local list = {}
        for i, region in ipairs(sample.regions) do list[i] = region.id end
        return list
    end

    it("reads COCO in the order of its images, the masks as pycocotools has them", function()
        local list, expected = all(FIXTURE .. "instances.json"), json.read(FIXTURE .. "masks.json")
        assert.equal(3, #list)
        assert.same({ 9, 4, 5 }, { list[1].id, list[2].id, list[3].id })
        assert.same({ { 12, 34 }, { 31, 33 }, {} }, { ids(list[1]), ids(list[2]), ids(list[3]) })
        assert.equal("train/third.png", list[3].name)
        for _, sample in ipairs(list) do
            for number, region in ipairs(sample.regions) do
                assert.equal(number, region.number)
                assert.same(expected[tostring(region.id)], mask.toRle(region.masks()[1]))
                assert.equal(sample.id, region.fields.image.id)
            end
        end
        assert.equal("corner", list[2].regions[1].fields.category)
        assert.equal("disc", select(3, dataset.samples(FIXTURE .. "instances.json")).categories[1].name)
    end)

    it("reads the lists of a COCO file in any order, whatever else is there, and loads the pictures", function()
        save(folder .. "/a.png", 7)
        local list = all(coco([==[ { "annotations" :[ { "image_id":"x" ,"id":1,"bbox":[1.5,2,3,4],"segmentation":[]},
            {"id":2, "text":"\"image_id\": 3, ]}", "image_id":"y","segmentation":[[0,0,9,0,9,9]]},
            {"id":3, "attributes":{"image_id":1},"image_id":"x","segmentation":null,"bbox":[70,50,99,99]} ] ,
            "extra":[[1],{"a":"]"}], "number":17, "info":{"images":[]},
            "images":[{"id":"y","file_name":"b.png","width":80,"height":60},
                {"id":"x","file_name":"a.png","width":80,"height":60}], "empty":[ ] } ]==]))
        assert.equal(2, #list)
        assert.same({ { 2 }, { 1, 3 } }, { ids(list[1]), ids(list[2]) })
        assert.equal(7, list[2].media()[1][1][1])
        assert.same({ 1, 2, 5, 6 }, { mask.boundingBox(list[2].regions[1].masks()[1]) })
        assert.same({ 70, 50, 80, 60 }, { mask.boundingBox(list[2].regions[2].masks()[1]) })
        assert.error_matches(list[1].media, "b.png")
    end)

    it("tells what is broken in a COCO file where it is, and goes on", function()
        local picture = { id = 1, file_name = "a.png", width = 80, height = 60 }
        local list = all(coco { images = { picture, { file_name = "n.png" }, picture, { id = 2 }, 7 },
            annotations = { { id = 1, image_id = 1 }, 3, { id = 4, image_id = 77 }, { id = 5, image_id = 77 },
                { id = 6, image_id = 1, segmentation = { { 1, 2 } } } } })
        local problems = {}
        for i, sample in ipairs(list) do problems[i] = sample.problem or "none" end
        assert.equal("none", problems[1])
        assert.matches("an image without an id", problems[2])
        assert.matches("image 1: the id of an image before it", problems[3])
        assert.matches("image 2: no file_name", problems[4])
        assert.matches("an object expected", problems[5])
        assert.matches("no image_id$", problems[6])
        assert.equal("annotation 4 and 1 more: no image has the id 77", problems[7])
        assert.equal(7, #problems)
        assert.error_matches(list[1].regions[1].masks, "^annotation 1: neither a segmentation nor a box")
        assert.error_matches(list[1].regions[2].masks, "^annotation 6: ")
    end)

    it("refuses a COCO file that ends early, is none, or names a list twice", function()
        local function refused(expected, text)
            assert.error_matches(function() dataset.samples(coco(text)) end, expected, 1, true)
        end
        refused("the file ends within a record", '{"images": [{"id": 1')
        refused("the file ends within the list", '{"images": [{"id": 1},')
        refused("a key or '}' expected", '{"images": [], "annotations": []')
        refused("a key or '}' expected", '{"images": [] 7}')
        refused('"images": a list expected', '{"images": 7}')
        refused('"images" for a second time', '{"images": [], "images": []}')
        refused('no "annotations" there', '{"images": []}')
        refused("something stands behind", '{"images": [], "annotations": []} x')
    end)

    it("reads the reference's files: masks or questions, neighbours of one picture together", function()
        local function record(name, changes)
            local object = { image = name, id = "r", width = 80, height = 60, colour = "red",
                masks = { { { 0, 0, 9, 0, 9, 9 } }, { segmentation = { { 0, 0, 20, 0, 20, 9 } }, colour = "blue" } },
                conversations = { { from = "human", value = "<region>?" }, { from = "gpt", value = "A." },
                    { from = "human", value = "<region>!" } } }
            for key, value in pairs(changes or {}) do object[key] = value end
            return json.encode(object)
        end
        local path = files.write(folder .. "/d.jsonl", table.concat({ record("a.png"), record("a.png"), "{}",
            record("a.png"), record("b.png"),
            record(nil, { masks = json.null, conversations = { { from = "human", value = "" } } }) }, "\n"))
        save(folder .. "/a.png", 3)
        local list = all(path)
        assert.equal(5, #list)
        assert.same({ 4, 2, 2 }, { #list[1].regions, #list[3].regions, #list[4].regions })
        assert.matches("d.jsonl:3: ", list[2].problem)
        assert.matches("line 6: no picture or video", list[5].problem)
        assert.same({ "red", "blue" }, { list[1].regions[1].fields.colour, list[1].regions[2].fields.colour })
        assert.equal(3, list[1].media()[1][1][1])
        list = all(path, { questions = true })
        local question = list[1].regions[2]
        assert.same({ "<region>!", 2, "r" }, { question.question, question.number, question.id })
        assert.equal(1, #question.masks())
        local _, share = dataset.samples(path)
        assert.is_true(share() <= 1)
    end)

    it("reads a folder of pictures and videos with their masks", function()
        files.make_directories(folder .. "/masks/b")
        files.make_directories(folder .. "/masks/clip")
        files.make_directories(folder .. "/clip")
        for _, name in ipairs { "a.png", "b.jpg.png", "c.png", "b.png", "masks/a.png", "masks/b/one.png",
            "masks/b/two.png" } do
            save(("%s/%s"):format(folder, name), 9)
        end
        local indexed = files.read("spec/fixtures/pictures/mask_indexed.png")
        for k = 0, 2 do
            save(("%s/clip/%d.png"):format(folder, k), k)
            if k > 0 then files.write(("%s/masks/clip/%d.png"):format(folder, k), indexed) end
        end
        local list = all(folder)
        local names = {}
        for i, sample in ipairs(list) do names[i] = sample.name end
        assert.same({ "a.png", "b.jpg.png", "b.png", "c.png", "clip" }, names)
        assert.same({ "a" }, ids(list[1]))
        assert.same({ "b/one", "b/two" }, ids(list[3]))
        assert.equal(4800, mask.area(list[1].regions[1].masks()[1]))
        assert.matches("c.png: no mask", list[4].problem)
        local _, indices = mask.indexedPng("spec/fixtures/pictures/mask_indexed.png")
        assert.equal(#indices, #list[5].regions)
        local object = list[5].regions[1].masks()[1]
        assert.same({ 1, 2 }, { object[1].frame, object[2].frame })
        assert.equal(1, #list[5].regions[1].masks(true)[1])
        assert.equal(2, list[5].media():frame(2)[1][1][1])
        assert.error_matches(function() dataset.samples(folder, { masks = "/nowhere" }) end, "no such folder of masks")
    end)

    it("holds little of a long COCO file", function()
        local file = assert(io.open(folder .. "/d.json", "wb"))
        file:write('{"images":[')
        for i = 1, 2000 do file:write(i > 1 and "," or "", ('{"id":%d,"file_name":"x"}'):format(i)) end
        file:write('],"annotations":[')
        local points = ("1.5,2.25,"):rep(200) .. "1,1"
        for i = 1, 20000 do
            file:write(i > 1 and "," or "",
                ('{"id":%d,"image_id":%d,"segmentation":[[%s]]}'):format(i, i % 2000 + 1, points))
        end
        file:write("]}")
        file:close()
        collectgarbage()
        local before, highest, regions = collectgarbage("count"), 0, 0
        for sample in dataset.samples(folder .. "/d.json") do
            regions = regions + #sample.regions
            if sample.id % 200 == 0 then
                collectgarbage()
                highest = math.max(highest, collectgarbage("count") - before)
            end
        end
        assert.equal(20000, regions)
        assert.is_true(highest < 3000, highest .. " KiB more, of 36 MB")
    end)
end)
