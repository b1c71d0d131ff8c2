-- The prompt against the reference's chat template, and every golden case's chat and ids rebuilt from what the user
-- wrote.
local cjson = require "cjson"
local lfs = require "lfs"

local prompt = require "pixelrefer.prompt"
local shared = require "support.shared"
local tokenizer = require "pixelrefer.tokenizer"
local files = require "support.files"

local GOLDEN = "spec/fixtures/golden/"

local function read_json(path)
    return cjson.decode(files.read(path))
end

-- ---- golden cases ------------------------------------------------------------------------------------------------

local function little_endian(text, at)
    local value = 0
    for i = 5, 0, -1 do value = value * 256 + text:byte(at + i) end -- six of the eight bytes: exact in a double
    return value
end

-- The header of a safetensors file, and a function that reads an int64 tensor of it.
local function open_safetensors(path)
    local content = files.read(path)
    local length = little_endian(content, 1)
    local header = cjson.decode(content:sub(9, 8 + length))
    return header, function(name)
        local values, offsets = {}, header[name].data_offsets
        for at = offsets[1], offsets[2] - 1, 8 do values[#values + 1] = little_endian(content, 9 + length + at) end
        return values
    end
end

-- Object tokens and times of a case's regions, as prompt.regions takes them.
local function regions_of(case, header)
    local counts, times, index = {}, nil, 0
    local over_time = case.frame_times ~= nil
    if over_time then times = {} end
    for i, frames in ipairs(case.regions) do
        if over_time then counts[i], times[i] = {}, {} end
        for f, frame in ipairs(frames) do
            local count = header[("region%d.pooled"):format(index)].shape[1]
            index = index + 1
            if over_time then
                counts[i][f], times[i][f] = count, case.frame_times[frame.frame + 1]
            else
                counts[i] = count
            end
        end
    end
    return counts, times
end

-- How often a token stands in a row, for each such row.
local function runs_of(ids, wanted)
    local runs, last = {}, nil
    for position, id in ipairs(ids) do
        if id == wanted then
            if last ~= position - 1 then runs[#runs + 1] = 0 end
            runs[#runs], last = runs[#runs] + 1, position
        end
    end
    return runs
end

local function check_case(directory, models)
    local case = read_json(directory .. "/case.json")
    local config = read_json(models .. case.model .. "/config.json")
    local is_lite = config.model_type:find("lite") ~= nil
    local header, read_ids = open_safetensors(directory .. "/expected.safetensors")
    local counts, times = regions_of(case, header)
    local parts
    if is_lite then
        local text = prompt.regions(prompt.withoutMedia(case.prompt), counts, { times = times })
        parts = { { type = "text", text = text } }
    else
        local media = { kind = case.modal, times = case.times }
        parts = prompt.content(prompt.regions(case.prompt, counts), media)
    end
    local chat = prompt.render { { role = "user", content = parts } }
    assert.equal(case.expected.chat, chat)
    if not header.prompt_ids then return end
    local tok, expected = tokenizer.load(models .. case.model), read_ids("prompt_ids")
    local ids = tok:encode(prompt.spreadImages(chat, is_lite and {} or runs_of(expected, tok:id("<image>"))))
    assert.equal(table.concat(expected, " "), table.concat(ids, " "))
end

local function define_cases(root)
    for name in lfs.dir(root .. "cases") do
        if lfs.attributes(("%scases/%s/case.json"):format(root, name)) then
            it("as in the case " .. name, function() check_case(root .. "cases/" .. name, root .. "models/") end)
        end
    end
end

describe("prompt", function()
    describe("gives the chat and ids of the committed golden directory", function()
        define_cases(GOLDEN)
    end)

    describe("gives the chat and ids of the whole golden directory", function()
        if shared.find("golden/cases") then
            define_cases(shared.root .. "/golden/")
        else
            it("in all cases", function() shared.path("golden/cases") end)
        end
    end)

    it("prints times as Python does", function()
        for _, entry in ipairs(read_json(GOLDEN .. "units/time_format.json")) do
            assert.equal(entry.printed, prompt.formatTime(entry.t))
        end
        for quarter = 0, 4000 do -- ties go to the even digit
            local tenths = math.floor(quarter * 2.5)
            if quarter % 2 == 1 and tenths % 2 == 1 then tenths = tenths + 1 end
            assert.equal(("%d.%d"):format(tenths / 10, tenths % 10), prompt.formatTime(quarter / 4))
        end
        assert.equal("-0.2", prompt.formatTime(-0.25))
        assert.equal("12345678901.2", prompt.formatTime(12345678901.25))
        for _, wrong in ipairs { 0 / 0, 1 / 0, -1 / 0, 1e12, "1" } do
            assert.error_matches(function() prompt.formatTime(wrong) end, "a time in seconds expected")
        end
    end)

    it("renders chats as the reference's template", function()
        for _, entry in ipairs(read_json(GOLDEN .. "units/chat.json")) do
            assert.equal(entry.rendered, prompt.render(entry.messages))
        end
        assert.equal("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
            prompt.render { { role = "user", content = "hi" } })
        assert.error_matches(function() prompt.render { { content = "hi" } } end, "message 1 has no role")
        assert.error_matches(function() prompt.render { { role = "user", content = { { type = "audio" } } } } end,
            "'text', 'image' or 'video', got 'audio'")
    end)

    describe("content", function()
        local function shown(text, media)
            local texts = {}
            for i, part in ipairs(prompt.content(text, media)) do
                texts[i] = part.type == "text" and "'" .. part.text .. "'" or part.type
            end
            return table.concat(texts, " ")
        end

        it("is cut at the tag, pieces stripped, empty ones gone", function()
            local image = { kind = "image" }
            assert.equal("image 'What?'", shown("<image>\nWhat?", image))
            assert.equal("'Look:' image 'What?'", shown(" Look: <image> \n What? ", image))
            assert.equal("'What?' image", shown("What?\n<image>\n", image))
            assert.equal("image", shown("<image>", image))
            assert.equal("image 'a'", shown("\194\160<image>\227\128\128a\226\128\131\31", image))
            assert.equal("image '\227\128\129a\195\160'", shown("<image>\227\128\129a\195\160", image))
        end)

        it("has the picture in front without a tag", function()
            assert.equal("image 'What?'", shown("What? ", { kind = "image" }))
            assert.equal("image image 'What?'", shown("What?", { kind = "image", count = 2 }))
            assert.equal("video 'What?'", shown("What?", { kind = "video", times = { 0 } }))
            assert.equal("'What?'", shown(" What?", { kind = "text" }))
        end)

        it("takes several images", function()
            assert.equal("'A' image 'and' image '?'", shown("A <image> and <image>?", { kind = "image", count = 2 }))
        end)

        it("keeps the video's times", function()
            local parts = prompt.content("<video>\nWhat?", { kind = "video", times = { 0, 1.25 } })
            assert.equal("<|im_start|>user\nTime 0.0s:<image>,Time 1.2s:<image>\nWhat?<|im_end|>\n"
                .. "<|im_start|>assistant\n", prompt.render { { role = "user", content = parts } })
        end)

        it("refuses tags that do not fit", function()
            local function refused(expected, text, media)
                assert.error_matches(function() prompt.content(text, media) end, expected, 1, true)
            end
            refused("has 2 '<image>' tags, but 1 image was given", "<image><image>", { kind = "image" })
            refused("has 1 '<image>' tags, but 2 images were given", "<image>", { kind = "image", count = 2 })
            refused("has 2 '<video>' tags, but 1 video was given", "<video><video>", { kind = "video", times = { 0 } })
            refused("contains '<image>', but there is no image", "<image>?", { kind = "text" })
            refused("there is a video: its place is '<video>'", "<image>?", { kind = "video", times = { 0 } })
            refused("a video needs the times of its frames", "?", { kind = "video" })
            refused("one of 'image', 'video', 'text', got 'audio'", "?", { kind = "audio" })
            refused("did you mean 'times'", "?", { kind = "video", time = {} })
        end)
    end)

    describe("regions", function()
        it("take the places of the tags, in order", function()
            assert.equal("[<REGION>] and [<REGION><REGION>]?", prompt.regions("<region> and <region>?", { 1, 2 }))
            assert.equal("no region, <region0> <object1>", prompt.regions("no region, <region0> <object1>", {}))
        end)

        it("stand for an object in several frames", function()
            assert.equal("[Time 0.2:<REGION><REGION>,Time 1.0:<REGION>] [Time 3.0:<REGION>]",
                prompt.regions("<region> <region>", { { 2, 1 }, { 1 } }, { times = { { 0.25, 1 }, { 3 } } }))
        end)

        it("must be as many as the tags", function()
            local function refused(expected, ...)
                local arguments = { ... }
                assert.error_matches(function() prompt.regions(unpack(arguments)) end, expected, 1, true)
            end
            refused("the prompt has 1 '<region>' tag, but 2 regions were given", "<region>", { 1, 1 })
            refused("the prompt has 2 '<region>' tags, but 1 region was given", "<region><region>", { 1 })
            refused("the prompt has 0 '<region>' tags, but 1 region was given", "<region0>", { 1 })
            refused("region 1: a count of object tokens of at least 1 expected, got 0", "<region>", { 0 })
            refused("region 1: as many token counts as times expected, got 2 and 1", "<region>", { { 1, 1 } },
                { times = { { 1 } } })
            refused("region 1: as many token counts as times expected", "<region>", { 1 }, { times = { { 1 } } })
        end)

        it("cannot be written by hand", function()
            assert.error_matches(function() prompt.regions("<REGION> <region>", { 1 }) end,
                "contains '<REGION>', which stands for one object token", 1, true)
            local hidden = prompt.withoutMedia("<RE<image>GION>")
            assert.error_matches(function() prompt.regions(hidden, {}) end, "cannot be written by hand", 1, true)
        end)
    end)

    it("drops the tags that Lite's decoder does not see", function()
        assert.equal("What is <region>?", prompt.withoutMedia("<image>\nWhat is <region>?"))
        assert.equal("What?", prompt.withoutMedia("<video>\nWhat?\n"))
        assert.equal("Look:what?", prompt.withoutMedia("Look: <image> what?"))
        assert.equal("", prompt.withoutMedia("<im<image>age><vi<image>deo>"))
    end)

    it("spreads images over their visual tokens", function()
        assert.equal("a<image><image><image>b<image>", prompt.spreadImages("a<image>b<image>", { 3, 1 }))
        assert.equal("none", prompt.spreadImages("none", {}))
        assert.error_matches(function() prompt.spreadImages("<image>", { 1, 1 }) end,
            "has 1 '<image>', but there are 2", 1, true)
        assert.error_matches(function() prompt.spreadImages("<image>", { 0 }) end, "picture 1: .* at least 1 expected")
    end)
end)
