-- Bad input, at the command line and in the library: one clear error that says what, where, expected and found; never a
-- crash, a hang, or an answer made of garbage.

local command = require "support.command"
local core = require "pixelrefer.core"
local files = require "support.files"
local json = require "pixelrefer.json"
local pixelrefer = require "pixelrefer"

local tensor = pixelrefer.tensor
local MODELS = "spec/fixtures/golden/models/"
local SHORT = { max_new_tokens = 2 }

local folder

local function in_folder(name, content)
    local path = folder .. "/" .. name
    return content and files.write(path, content) or path
end

-- A picture of 140 x 168 pixels, and a region of it.
local function drawing()
    local image = (tensor.arange(0, 140 * 168 * 3) % 251):byte():view(140, 168, 3)
    return image, pixelrefer.mask.box(image, 10, 10, 70, 60)
end

-- A copy of a committed checkpoint with one file changed: links for all others.
local function broken(model, name, content)
    local copy = folder .. "/" .. model
    os.execute(("rm -rf %s && mkdir %s && ln -s $PWD/%s%s/* %s"):format(copy, copy, MODELS, model, copy))
    os.remove(copy .. "/" .. name)
    if type(content) == "function" then
        content = json.encode(content(json.read(MODELS .. model .. "/" .. name)))
    end
    if content then files.write(copy .. "/" .. name, content) end
    return copy
end

local function raises(expected, work, ...)
    local ok, message = pcall(work, ...)
    assert.is_false(ok, "no error; expected: " .. expected)
    assert.matches(expected, tostring(message), 1, true)
    assert.is_nil(tostring(message):find("attempt to", 1, true), message)
end

setup(function() folder = files.directory() end)
teardown(function() os.execute("rm -rf " .. folder) end)

describe("the command line and bad input", function()
    local picture

    setup(function()
        picture = in_folder("picture.png")
        pixelrefer.image.save(picture, (drawing()))
    end)

    -- Exit code 1 and one line that holds `expected`; or 2 and the hint about --help.
    local function fails(code, expected, ...)
        local found, out, err = command.run(folder, { ... })
        assert.equal(code, found, err)
        assert.equal("", out)
        assert.matches(expected, err, 1, true)
        assert.equal(code, select(2, err:gsub("\n", "")), err)
        assert.is_nil(err:find("attempt to", 1, true), err)
        assert.is_nil(err:find("bad argument", 1, true), err)
    end

    local function ask(code, expected, ...)
        fails(code, expected, "ask", picture, "<region>", "--model", MODELS .. "refer", ...)
    end

    it("names the file and the mask in it that is wrong", function()
        local function rle(expected, content)
            local path = in_folder("mask.json", content)
            ask(1, path .. ": " .. expected, "--rle", path)
        end
        rle("an RLE, an annotation or a list of them expected", "3")
        rle("an RLE, an annotation or a list of them expected", "null")
        rle("mask 2: a table expected, got number", '[{"size":[140,168],"counts":[0,23520]},7]')
        rle("no masks in it", "{}")
        rle("polygons or an RLE expected", '{"segmentation":true}')
        rle("polygon 1 has four numbers", '{"segmentation":[[1,2,3,4]]}')
        rle("the runs of an RLE cover 10 pixels, but the mask has 140 x 168", '{"size":[140,168],"counts":[5,5]}')
        rle("the RLE is 1000000000 x 5, the picture 140 x 168", '{"size":[1e9,5],"counts":[5,5]}')
        rle("not valid JSON: Found too many nested", ("["):rep(100000))
        rle("not valid JSON", '{"size":[140,168],"coun')
    end)

    it("says where a box or polygon is wrong", function()
        ask(1, "--polygon: polygon 1 has four numbers", "--polygon", "1,2 3,4")
        ask(1, "--polygon: y 2 of a polygon is 2e+06", "--polygon", "1,2 3,2e6 5,6")
        ask(1, "--box: the box 0,0,169,1 is not inside", "--box", "0,0,169,1")
        ask(2, "--box needs a value", "--box", "")
    end)

    it("refuses what would wait for ever", function()
        local fifo = in_folder("fifo")
        os.execute("mkfifo " .. fifo)
        ask(1, "fifo: not a regular file", "--rle", fifo)
        ask(1, "fifo: is not a regular file", "--mask", fifo)
        fails(1, "fifo is no regular file", "info", fifo)
        local model = broken("refer", "vocab.json")
        os.execute(("mkfifo %s/vocab.json"):format(model))
        fails(1, "vocab.json: not a regular file", "tokenize", "--model", model, "x")
    end)

    it("tells empty words from paths", function()
        fails(2, "a picture or video expected", "ask", "", "Hello?", "--model", MODELS .. "refer")
        fails(2, "--model: a path expected", "ask", "Hello?", "--model", "")
        fails(2, "--out: a path expected", "draw", picture, "-o", "")
        fails(2, "a checkpoint directory, picture or video expected", "info", "")
        fails(2, "--decode: token ids expected, found '1.5'", "tokenize", "--model", MODELS .. "refer", "--decode",
              "1.5")
    end)

    it("says that an indexed mask without any region is empty", function()
        ask(1, "region 1: the mask is empty", "--mask", "spec/fixtures/pictures/mask_indexed_empty.png")
    end)

    it("leaves nothing behind when a picture cannot be written", function()
        fails(1, "/dev/full", "draw", picture, "-o", "/dev/full", "--box", "0,0,9,9")
        fails(1, "it is a directory", "draw", picture, "-o", folder, "--box", "0,0,9,9")
        for _, name in ipairs(core.list_directory(folder)) do assert.is_nil(name:find("%.tmp$"), name) end
    end)
end)

for _, name in ipairs { "refer", "lite_sharded_bin" } do
    describe("bad calls of the model " .. name, function()
        local model, image, mask, scene

        setup(function()
            model = pixelrefer.load(MODELS .. name)
            image, mask = drawing()
            scene = model:encode(image)
        end)

        local function ask(regions, given, text)
            return scene:ask(text or "<region>", regions, given or SHORT)
        end

        it("says which region is none", function()
            raises("regions: a mask or a list of masks expected, found number", ask, 5)
            raises("regions: a mask or a list of masks expected, found userdata", ask, io.stdout)
            raises("region 2: a mask expected, found string", ask, { mask, "x" }, nil, "<region><region>")
            raises("region 1: a mask expected, found userdata", ask, { model.encoder })
            raises("region 1: a mask tensor expected, found nil", ask, { { { 1 } } })
            raises("region 1: a frame is a number, found string", ask, { { mask = mask, frame = "0" } })
            raises("there is no picture -1", ask, { { mask = mask, frame = -1 } })
            raises("this tensor was freed", function()
                local freed = mask:clone()
                freed:free()
                ask { freed }
            end)
            raises("regions: a mask or a list of masks expected, found nil", scene.describe, scene)
            raises("describe: the options must be a table", scene.describe, scene, { mask }, "x")
        end)

        it("takes masks of any type and strides for their non-zero pixels", function()
            local expected = ask { mask }
            local turned = mask:t():contiguous():t()
            for _, other in ipairs { mask:float(), mask:long(), mask * 255, mask:char() * -1, turned } do
                assert.same(expected.ids, ask({ other }).ids)
            end
        end)

        it("says what is no picture", function()
            raises("encode: an image (tensor or path), a list of images or a video expected, found nil", model.encode,
                   model)
            raises("expected, found userdata", model.encode, model, io.stdout)
            raises("encode: image 2: a uint8 tensor [h,w,3] expected, found number", model.encode, model, { image, 5 })
            raises("image 1: a uint8 tensor [h,w,3] expected, found float32 [140x168x3]", model.encode, model,
                   image:float())
            raises("found uint8 [0x5x3]", model.encode, model, tensor.zeros(0, 5, 3, { dtype = "uint8" }))
            raises("a video expected, found table", model.encode, model, { frames = 5 })
        end)

        it("refuses to draw from logits that are no numbers", function()
            local function with(replacement, given)
                given = given or {}
                given.inspect = function(stage, value)
                    if stage == "first_logits" then return replacement(value) end
                end
                return ask({ mask }, given)
            end
            for _, given in ipairs { {}, { temperature = 1 } } do
                raises("is NaN", with, function(x) return x * (0 / 0) end, given)
                raises("is infinite", with, function(x) return x * 0 + math.huge end, given)
                raises("no id is left", with, function(x) return x * 0 - math.huge end, given)
            end
        end)

        it("takes sampling to its limits", function()
            local greedy = ask({ mask }, { max_new_tokens = 4 }).ids
            assert.same(greedy, ask({ mask }, { max_new_tokens = 4, temperature = 1e-9 }).ids)
            assert.same(greedy, ask({ mask }, { max_new_tokens = 4, temperature = 1e-40 }).ids)
            assert.same(greedy, ask({ mask }, { max_new_tokens = 4, temperature = 1, top_p = 0 }).ids)
            assert.same(greedy, ask({ mask }, { max_new_tokens = 4, temperature = 1, top_k = 1 }).ids)
            assert.same(greedy, ask({ mask }, { max_new_tokens = 4, sample = false, top_k = 50 }).ids)
            raises("top_k and top_p are for sampling", ask, { mask }, { top_k = 50 })
            raises("top_k and top_p are for sampling", ask, { mask }, { top_p = 0.5 })
            raises("'repetition_penalty' must be a number from 0.01 to 100, got 0", ask, { mask },
                   { repetition_penalty = 0 })
            raises("'seed' must be an integer from 0", ask, { mask }, { seed = -1 })
        end)

        it("stays usable when parts are freed under it", function()
            local session = scene:session()
            local nextPiece = session:stream("Hello?", nil, { max_new_tokens = 9 })
            nextPiece()
            session:free()
            assert.is_nil(nextPiece())
            assert.is_true(#session:ask("Again?", nil, SHORT).ids > 0)

            local other = model:encode(image)
            nextPiece = other:stream("Hello?", nil, { max_new_tokens = 9 })
            nextPiece()
            other:free()
            assert.is_string(nextPiece())
            assert.same(ask({ mask }).ids, other:ask("<region>", { mask }, SHORT).ids)

            session = scene:session()
            session:ask("Hello?", nil, SHORT)
            session.cache:free()
            raises("this object was freed", session.ask, session, "Again?", nil, SHORT)
            raises("pixelrefer.Decoder expected", model.decoder.forward, model.encoder)
        end)

        it("goes on as before after a turn that failed", function()
            local function failing(at)
                return { max_new_tokens = 2, inspect = function(stage) if stage == at then error("boo") end end }
            end
            local plain, tried = scene:session(), scene:session()
            for _, text in ipairs { "Hello?", "Again?" } do
                for _, at in ipairs { "prompt_ids", "decoder.layer1", "first_logits" } do
                    raises("boo", tried.ask, tried, text, nil, failing(at))
                    raises("boo", tried.score, tried, text, nil, { "a" }, { inspect = failing(at).inspect })
                end
                assert.same(plain:ask(text, nil, SHORT).ids, tried:ask(text, nil, SHORT).ids)
            end
        end)

        it("closes an answer that was left before its first piece", function()
            local session, ids = scene:session(), {}
            session:stream("Hello?", nil, SHORT)
            session:ask("Again?", nil, { max_new_tokens = 2, inspect = function(stage, value)
                if stage == "prompt_ids" then ids = value:totable() end
            end })
            assert.equal(model.tokenizer:id("<|im_end|>"), ids[1])
            for _, id in ipairs(ids) do assert.not_equal(model.image_id, id) end
        end)

        it("keeps sessions apart that run by turns", function()
            local given = { max_new_tokens = 12 }
            local first, a = scene:session():stream("What is <region>?", { mask }, given)
            local second, b = scene:session():stream("Who?", nil, given)
            for _ = 1, 40 do
                first()
                second()
            end
            assert.same(ask({ mask }, given, "What is <region>?").ids, a.ids)
            assert.same(ask(nil, given, "Who?").ids, b.ids)
        end)

        it("streams inside a coroutine", function()
            local pieces = coroutine.wrap(function()
                for piece in scene:stream("Hello?", nil, { max_new_tokens = 4 }) do coroutine.yield(piece) end
            end)
            local text = ""
            for piece in pieces do text = text .. piece end
            assert.equal(ask({}, { max_new_tokens = 4 }, "Hello?").text, (text:gsub("^%s+", ""):gsub("%s+$", "")))
        end)

        it("names the region whose shape is too long", function()
            local line = tensor.zeros(5, 2000, 3, { dtype = "uint8" })
            local short, long = pixelrefer.mask.box(line, 0, 0, 40, 5), pixelrefer.mask.box(line, 0, 0, 2000, 1)
            raises("region 2: a picture of 14 x 4004 has an aspect ratio above 200", function()
                model:encode(line):ask("<region><region>", { short, long }, SHORT)
            end)
        end)

        it("asks about many regions, bytes that are no text, and nothing", function()
            local many = {}
            for i = 1, 100 do many[i] = pixelrefer.mask.box(image, i % 60, i % 50, i % 60 + 40, i % 50 + 30) end
            assert.equal(100, #ask(many, nil, ("<region>"):rep(100)).tokens)
            assert.is_true(#ask({ mask }, nil, "\255\254a\0b<region>\240\159").ids > 0)
            assert.is_true(#ask({}, nil, "").ids > 0)
        end)

        it("says what answers to score are none", function()
            local session = scene:session()
            raises("score: a list of answers expected, found nil", session.score, session, "<region>", { mask })
            raises("score: answer 2: a text expected, found number", session.score, session, "<region>", { mask },
                   { "a", 5 })
        end)
    end)
end

describe("a checkpoint", function()
    it("whose budget of cells no picture fits into says so", function()
        local model = pixelrefer.load(broken("refer", "config.json", function(config)
            config.mm_max_length = 1
            return config
        end))
        raises("picture 1: 20 x 1400 pixels do not fit into its budget of", model.encode, model,
               tensor.zeros(20, 1400, 3, { dtype = "uint8" }))
    end)

    it("with wrong values in generation_config.json is refused", function()
        local function config(expected, content)
            raises(expected, pixelrefer.load, broken("refer", "generation_config.json", content))
        end
        config('generation_config.json: "repetition_penalty": a number from 0.01 to 100 expected, found "x"',
               '{"repetition_penalty":"x"}')
        config('generation_config.json: "top_k": an integer', '{"top_k":-1}')
        config('generation_config.json: "eos_token_id', '{"eos_token_id":["x"]}')
    end)
end)

describe("a tensor's metamethods", function()
    it("called by hand with too few or too many arguments say what is missing", function()
        local x = tensor.ones(2, 2)
        local class = getmetatable(x)
        raises("new value, got nil", class.__newindex, x)
        raises("not by a nil", class.__index, x)
        raises("new value, got nil", class.__newindex, x, 1)
        raises("new value, got nil", class.__newindex, x, x:gt(0))
        raises("new value, got string", function() x[x:gt(0)] = "1" end)
        assert.equal(class.__index(x, "dim"), class.__index(x, "dim", 1, 2))
    end)
end)

describe("the prompt's functions", function()
    it("say what they were given in place of texts and lists", function()
        local prompt = pixelrefer.prompt
        raises("prompt.regions: the text must be a string, got nil", prompt.regions)
        raises("prompt.regions: the counts must be a table, got nil", prompt.regions, "x")
        raises("prompt.withoutMedia: the text must be a string, got number", prompt.withoutMedia, 5)
        raises("prompt.content: the text must be a string, got nil", prompt.content, nil, { kind = "image" })
        raises("prompt.render: message 1 must be a table, got string", prompt.render, { "x" })
        raises("prompt.spreadImages: the counts must be a table, got nil", prompt.spreadImages, "x")
    end)
end)
