-- Every example runs, with the committed tiny checkpoints and pictures that the project draws itself.

local make_media = dofile "examples/make_media.lua"

local REFER = "spec/fixtures/golden/models/refer"
local LITE = "spec/fixtures/golden/models/lite_sharded_bin"

describe("the examples", function()
    local folder

    setup(function()
        folder = os.tmpname()
        os.remove(folder)
        make_media.write(folder)
    end)
    teardown(function() os.execute("rm -rf '" .. folder .. "'") end)

    -- Runs examples/NAME.lua and returns what it printed.
    local function run(name, ...)
        local words = {}
        for i, word in ipairs { ... } do words[i] = "'" .. word:gsub("FOLDER", folder) .. "'" end
        local pipe = io.popen(("bin/pixelrefer run examples/%s.lua %s 2>&1; echo \"exit $?\""):format(
            name, table.concat(words, " ")))
        local out = pipe:read("*a")
        pipe:close()
        assert.matches("exit 0\n$", out)
        return (out:gsub("exit 0\n$", ""))
    end

    local function size_of(name)
        return require("pixelrefer.image").load(folder .. "/" .. name):size()
    end

    it("describes a region", function()
        assert.is_true(#run("describe_region", REFER, "FOLDER/picture.png", "20", "20", "200", "200") > 1)
    end)

    it("asks about several regions and their relation", function()
        for _, model in ipairs { REFER, LITE } do
            local out = run("relation", model, "FOLDER/picture.png", "FOLDER/picture-sun.png",
                            "FOLDER/picture-house.png")
            assert.matches("region 1 %(%d+ object tokens%)", out)
            assert.matches("region 2 %(%d+ object tokens%)", out)
        end
    end)

    it("follows an object through a video", function()
        for _, model in ipairs { REFER, LITE } do
            assert.is_true(#run("video_object", model, "FOLDER/clip", "0:FOLDER/clip-ball-000.png",
                                "7:FOLDER/clip-ball-007.png") > 1)
        end
    end)

    it("takes SAOT step by step", function()
        assert.matches("32 tokens of width 128",
                       run("saot_by_hand", REFER, "FOLDER/picture.png", "FOLDER/picture-house.png"))
    end)

    it("draws which cells each object token took", function()
        for _, model in ipairs { REFER, LITE } do
            assert.matches("saot: %d+ cells under the mask became %d+ tokens",
                           run("object_tokens", model, "FOLDER/picture.png", "FOLDER/picture-house.png",
                               "FOLDER/tokens.png", "FOLDER/crop.png"))
        end
        assert.matches("farthest_point: ", run("object_tokens", LITE, "FOLDER/picture.png", "FOLDER/picture-sun.png",
                                               "FOLDER/tokens.png", "FOLDER/crop.png", "farthest_point"))
        assert.same(size_of("picture.png"), size_of("tokens.png"))
        assert.is_true(size_of("crop.png")[1] % 14 == 0)
        for _, model in ipairs { REFER, LITE } do
            assert.matches("saot: ", run("object_tokens", model, "FOLDER/clip", "7:FOLDER/clip-house-007.png",
                                         "FOLDER/tokens.png"))
            assert.same(size_of("clip/007.png"), size_of("tokens.png"))
        end
    end)

    it("shows where an answer looks, in a picture and in a clip", function()
        assert(os.execute("mkdir " .. folder .. "/attention") == 0)
        for _, model in ipairs { LITE, REFER } do
            for _, media in ipairs { { "picture.png", "" }, { "clip", "7:", "clip/007.png", "-007" } } do
                local mask = ("%sFOLDER/%s-house%s.png"):format(media[2], media[1]:match("^%a+"), media[4] or "")
                local out = run("attention", model, "FOLDER/" .. media[1], mask, "FOLDER/attention")
                assert.equal(model == REFER, out:find("visual +[%d.]+ %%") ~= nil)
                assert.matches("object +[%d.]+ %%", out)
                assert.same({ 520, 960, 3 }, size_of("attention/layers.png"))
                assert.same(size_of(media[3] or media[1]), size_of("attention/region.png"))
            end
        end
        assert.same(size_of("clip/000.png"), size_of("attention/picture.png")) -- the clip's first frame came last
    end)

    it("names the words near an object token and the alternatives of an answer", function()
        local out = run("words", REFER, "FOLDER/picture.png", "FOLDER/picture-sun.png")
        assert.matches("object token 32: ", out)
        assert.matches("answer token 1: .* %d+ %%", out)
    end)

    it("reads, replaces and stops", function()
        local out = run("layers", LITE, "FOLDER/picture.png", "FOLDER/picture-sun.png")
        assert.matches("after layer 1: ", out)
        assert.matches("without object tokens: ", out)
        assert.matches("stopped %(inspect%) with 16 object tokens of width 96", out)
    end)

    it("demonstrates both small models on a picture and a clip, with right answers", function()
        local out = run("demo", "FOLDER/demo")
        assert.is_nil(out:find("(it is: ", 1, true))
        assert.matches("PixelRefer-Lite", out, 1, true)
        assert.is_true(select(2, out:gsub("<object %d>", "")) >= 16)
        for _, name in ipairs { "picture-regions.png", "clip-regions-0.png", "clip-regions-3.png" } do
            assert.same({ 560, 560, 3 }, size_of("demo/" .. name))
        end
    end)
end)
