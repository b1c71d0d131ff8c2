-- The shapes world: the same from a seed, masks that are exact, answers that agree with what is drawn, files that the
-- reader of datasets takes.
local ffi = require "ffi"
local bit = require "bit"

package.path = "examples/?.lua;" .. package.path
local answers = require "shapes.answers"
local dataset = require "pixelrefer.dataset"
local draw = require "shapes.draw"
local files = require "support.files"
local image = require "pixelrefer.image"
local mask = require "pixelrefer.mask"
local outline = require "shapes.outline"
local questions = require "shapes.questions"
local random = require "shapes.random"
local world = require "shapes.world"

local SEED = 2 ^ 16 + require("support.seed") % 2 ^ 16

local function bytes_of(scene)
    local parts = {}
    for frame = 1, scene.frames do
        parts[#parts + 1] = ffi.string(scene.rgb[frame], scene.width * scene.height * 3)
        parts[#parts + 1] = ffi.string(scene.ids[frame], scene.width * scene.height)
    end
    return table.concat(parts)
end

-- Whether a point is inside a polygon, by the sum of the angles that it sees: another way than the drawing's.
local function is_inside(points, x, y)
    local turn, total = 0, #points
    for i = 1, total, 2 do
        local ax, ay = points[i] - x, points[i + 1] - y
        local bx, by = points[(i + 1) % total + 1] - x, points[(i + 2) % total + 1] - y
        turn = turn + math.atan2(ax * by - ay * bx, ax * bx + ay * by)
    end
    return math.abs(turn) > math.pi
end

describe("random numbers of the shapes world", function()
    it("are the same everywhere, and others in another stream", function()
        local source, words = random.new(7, 3), {}
        for i = 1, 4 do words[i] = bit.tohex(source:word()) end
        assert.same({ "365fc903", "5cb479d0", "184c089e", "61904017" }, words)
        assert.are_not.equal(random.new(7, 3):word(), random.new(7, 4):word())
        assert.are_not.equal(random.new(7, 3):word(), random.new(8, 3):word())
    end)

    it("are even", function()
        local source, counts = random.new(1, 1), { 0, 0, 0, 0, 0 }
        for _ = 1, 10000 do
            local k = source:integer(1, 5)
            counts[k] = counts[k] + 1
        end
        for _, count in ipairs(counts) do assert.is_true(math.abs(count - 2000) < 200) end
    end)
end)

describe("the shapes world", function()
    it("is the same from the same seed, alone or in company", function()
        for _, kind in ipairs { "picture", "clip" } do
            local first = world.make(SEED, 5, kind)
            world.make(SEED, 4, kind)
            local again = world.make(SEED, 5, kind)
            assert.is_true(bytes_of(first) == bytes_of(again))
            assert.same(questions.make(first), questions.make(again))
            assert.is_false(bytes_of(first) == bytes_of(world.make(SEED, 6, kind)))
            assert.is_false(bytes_of(first) == bytes_of(world.make(SEED + 1, 5, kind)))
        end
    end)

    it("has outlines of area 1 around their centre", function()
        for _, shape in ipairs(world.SHAPES) do
            local points, doubled = outline.place(shape, 0, 0, 1, 0.3), 0
            for i = 1, #points, 2 do
                local x1, y1 = points[(i + 1) % #points + 1], points[(i + 2) % #points + 1]
                doubled = doubled + points[i] * y1 - x1 * points[i + 1]
            end
            assert.near(2, math.abs(doubled), 1e-9)
        end
    end)

    it("has exact masks: of each pixel the last object drawn whose outline holds its centre", function()
        for index = 1, 3 do
            local scene = world.make(SEED, index, "picture")
            local at, wrong = 0, 0
            local polygons = {}
            for k, object in ipairs(scene.objects) do
                polygons[k] = outline.place(object.shape, object.x, object.y, object.area, object.angle)
            end
            for y = 0, scene.height - 1 do
                for x = 0, scene.width - 1 do
                    local top = 0
                    for k, points in ipairs(polygons) do
                        if is_inside(points, x + 0.5, y + 0.5) then top = k end
                    end
                    if top ~= scene.ids[1][at] then wrong = wrong + 1 end
                    at = at + 1
                end
            end
            assert.equal(0, wrong)
        end
    end)

    it("shows most of each object in every frame, in its colour", function()
        for _, kind in ipairs { "picture", "clip" } do
            for index = 1, 10 do
                local scene = world.make(SEED, index, kind)
                for frame = 1, scene.frames do
                    local facts = draw.ids(scene, frame - 1, ffi.new("uint8_t[?]", scene.width * scene.height))
                    for k, object in ipairs(scene.objects) do
                        assert.is_true(scene.seen[frame][k].pixels >= 0.8 * facts[k].full)
                        local colour = frame > 2 and object.later_colour or object.colour
                        local near, wanted = 0, draw.COLOURS[colour]
                        for at = 0, scene.width * scene.height - 1 do
                            local off = 0
                            for channel = 0, 2 do
                                local value = scene.rgb[frame][3 * at + channel]
                                off = math.max(off, math.abs(value - wanted[channel + 1]))
                            end
                            if scene.ids[frame][at] == k and off <= 15 then near = near + 1 end
                        end
                        assert.is_true(near >= 0.25 * scene.seen[frame][k].pixels, colour .. " " .. object.filling)
                    end
                end
            end
        end
    end)
end)

describe("questions of the shapes world", function()
    -- Centre of an object by the pixels that show it.
    local function centre(scene, frame, k)
        local x, y, count = 0, 0, 0
        for at = 0, scene.width * scene.height - 1 do
            if scene.ids[frame][at] == k then
                x, y, count = x + at % scene.width, y + math.floor(at / scene.width), count + 1
            end
        end
        return x / count, y / count, count
    end

    local RANK = { small = 1, medium = 2, large = 3 }

    -- What the scene says about a question, in the words that an answer is judged by.
    local function truth(scene, made)
        local i, j = made.regions[1], made.regions[2]
        local a, b = scene.objects[i], scene.objects[j]
        local kind, question = made.kind, made.question
        local ax, ay = centre(scene, 1, i)
        if kind == "describe" then return ("%s %s %s %s"):format(a.size, a.filling, a.colour, a.shape) end
        if a[kind] and kind ~= "direction" and kind ~= "speed" then return a[kind] end
        if kind == "larger" then return RANK[a.size] > RANK[b.size] and "first" or "second" end
        if kind == "left" or kind == "above" then
            local bx, by = centre(scene, 1, j)
            local holds = kind == "left" and ax < bx or kind == "above" and ay < by
            if question:find("^Which") then return holds and "first" or "second" end
            return holds and "yes" or "no"
        end
        if kind == "same_colour" then return a.colour == b.colour and "yes" or "no" end
        if kind == "count" then
            local count = 0
            for _, object in ipairs(scene.objects) do count = count + (object.colour == a.colour and 1 or 0) end
            return ({ "one", "two", "three", "four", "five", "six" })[count]
        end
        if kind == "direction" or kind == "speed" then
            local dx, dy = 3 * a.dx, 3 * a.dy
            if dx == 0 and dy == 0 then return "still" end
            if kind == "speed" then return math.abs(dx + dy) > 30 and "fast" or "slowly" end
            if dx ~= 0 then return dx < 0 and "left" or "right" end
            return dy < 0 and "up" or "down"
        end
        local constant = question:find("constant") ~= nil
        local verdict = (a.later_colour ~= nil) ~= constant and "yes" or "no"
        return ("%s %s %s"):format(verdict, a.colour, a.later_colour or "")
    end

    it("have the answers that the picture gives, of every kind", function()
        local asked = {}
        for _, kind in ipairs { "picture", "clip" } do
            for index = 1, 60 do
                local scene = world.make(SEED, index, kind)
                for _, made in ipairs(questions.make(scene)) do
                    asked[made.kind] = (asked[made.kind] or 0) + 1
                    if made.kind == "touch" or made.kind == "cover" then
                        local said = answers.parse(made.answer)
                        local neighbours = {}
                        for other, edges in pairs(scene.seen[1][made.regions[1]].borders) do
                            local hidden = scene.seen[1][other].hides[made.regions[1]] or 0
                            if edges >= 4 and (made.kind == "touch" or hidden >= 10) then
                                neighbours[#neighbours + 1] = scene.objects[other]
                            end
                        end
                        if said.absence then
                            assert.equal(0, #neighbours)
                        else
                            assert.equal(1, #neighbours)
                            assert.equal(neighbours[1].colour, said.colour[1])
                            assert.equal(neighbours[1].shape, said.shape[1])
                        end
                    else
                        local expected = truth(scene, made)
                        assert.is_true(answers.right(made.kind, expected, made.answer),
                                       ("%s: %s: %s, not %s"):format(made.kind, made.question, made.answer, expected))
                    end
                end
            end
        end
        for _, kind in ipairs(questions.KINDS) do assert.is_true((asked[kind] or 0) >= 15, kind) end
    end)

    it("favour no answer", function()
        local counts = {}
        for index = 1, 400 do
            local scene = world.make(SEED, index, "picture")
            for _, made in ipairs(questions.make(scene)) do
                local said = answers.parse(made.answer)
                local of = counts[made.kind] or {}
                counts[made.kind] = of
                for _, attribute in ipairs { "verdict", "which", "number", "absence" } do
                    local word = said[attribute] and said[attribute][1]
                    if word then of[word] = (of[word] or 0) + 1 end
                end
            end
        end
        local function even(a, b, share) assert.is_true(a > share * (a + b) and b > share * (a + b), a .. " " .. b) end
        even(counts.larger.first, counts.larger.second, 0.4)
        even(counts.left.yes, counts.left.no, 0.4)
        even(counts.above.first, counts.above.second, 0.4)
        even(counts.same_colour.yes, counts.same_colour.no, 0.38)
        for _, number in ipairs { "two", "three" } do even(counts.count.one, counts.count[number], 0.3) end
        even(counts.count.one, counts.count.four, 0.2)
    end)
end)

describe("answers of the shapes world", function()
    it("are judged by what they say, not how", function()
        assert.is_true(answers.right("describe", "A small striped red star.", "It is a red star, small and striped."))
        assert.is_false(answers.right("describe", "A small striped red star.", "A small striped red heart."))
        assert.is_false(answers.right("describe", "A small striped red star.", "A striped red star."))
        assert.is_false(answers.right("colour", "Red.", "Red or blue."))
        assert.is_true(answers.right("same_colour", "Red and blue: no.", "No."))
        assert.is_false(answers.right("same_colour", "Red and blue: no.", ""))
        assert.is_true(answers.right("touch", "Nothing.", "nothing touches it"))
        assert.is_false(answers.right("touch", "Nothing.", "A red star."))
        assert.is_false(answers.right("change", "Yes, from red to blue.", "Yes, from blue to red."))
    end)
end)

describe("examples/shapes/generate.lua", function()
    local folder
    setup(function() folder = files.directory() end)
    teardown(function() files.remove(folder) end)

    it("writes files that the dataset reader takes, with the scenes' pictures and masks", function()
        local command = "bin/pixelrefer run examples/shapes/generate.lua '%s' --seed %d --pictures 2 --clips 2"
        assert.equal(0, os.execute(command:format(folder, SEED)))
        for _, name in ipairs { "dataset.jsonl", "dataset-vision-object.jsonl" } do
            local kinds = {}
            for record, problem in dataset.open(folder .. "/" .. name) do
                assert.is_nil(problem)
                local kind = record.image and "picture" or "clip"
                local path = record.image or record.video[1]
                local scene = world.make(SEED, tonumber(path:match("(%d%d%d%d%d%d)")), kind)
                kinds[record.extra.kind] = true
                local picture = image.load(path)
                assert.is_true(picture:bytes() == ffi.string(scene.rgb[1], scene.width * scene.height * 3))
                local region = record:regions(1)[1]
                local first = kind == "picture" and region or (region.mask or region[1].mask)
                local matches
                for k = 1, #scene.objects do
                    local own = {}
                    for at = 0, scene.width * scene.height - 1 do
                        own[at + 1] = scene.ids[1][at] == k and "\1" or "\0"
                    end
                    matches = matches or table.concat(own) == first:bytes()
                end
                assert.is_true(matches)
                assert.is_true(mask.area(first) > 100)
                if kind == "clip" then
                    assert.equal(name == "dataset.jsonl" and 2 or 1, #record:frames())
                    assert.equal(4, #record:media().frames)
                end
            end
            assert.is_true(kinds.describe and kinds.direction)
        end
    end)

    it("says how it is used", function()
        local pipe = io.popen("bin/pixelrefer run examples/shapes/generate.lua x --pictures 2>&1")
        assert.matches("usage: pixelrefer run examples/shapes/generate.lua OUT", pipe:read("*a"))
        pipe:close()
    end)
end)

describe("examples/shapes/accuracy.lua", function()
    local REFER = "spec/fixtures/golden/models/refer"
    local LITE = "spec/fixtures/golden/models/lite_sharded_bin"

    local function run(words)
        local pipe = io.popen("bin/pixelrefer run examples/shapes/accuracy.lua " .. words .. " 2>/dev/null; echo $?")
        local out = pipe:read("*a")
        pipe:close()
        return out
    end

    it("asks models of both frameworks and counts per kind", function()
        local folder = files.directory()
        local words = "%s %s --seed %d --pictures 2 --clips 1 --answers %s/a.jsonl"
        local out = run(words:format(REFER, LITE, SEED, folder))
        assert.matches("seed %d+, 2 pictures, 1 clips\n", out)
        assert.matches("\ndescribe +%d+%.%d %% %(%d of [234]%) +%d+%.%d %% %(%d of [234]%)\n", out)
        assert.matches("\ndirection +%d+%.%d %% %(%d of 1%) +%d+%.%d %% %(%d of 1%)\n", out)
        assert.matches("\nswap ", out)
        assert.matches("\n0\n$", out)
        local lines = select(2, files.read(folder .. "/a.jsonl"):gsub("\n", ""))
        assert.is_true(lines >= 2 * 2 * 8)
        files.remove(folder)
    end)

    it("can leave OCI out", function()
        assert.matches("OCI left out\n", run(LITE .. " --pictures 1 --clips 0 --no-context"))
    end)

    it("says how it is used", function()
        assert.matches("\n?1\n$", run("--pictures 2"))
        assert.matches("\n?1\n$", run(LITE .. " --pictures x"))
    end)
end)
