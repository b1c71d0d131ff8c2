-- What a file is, by content, and pictures of formats other than JPEG and PNG.
local core = require "pixelrefer.core"
local media = require "pixelrefer.media"
local fixtures = require "support.media"

local function message(f, ...)
    local ok, text = pcall(f, ...)
    assert.is_false(ok)
    return text
end

describe("media.kind", function()
    it("goes by content", function()
        for name, kind in pairs {
            ["bframes.mp4"] = "video", ["clip.gif"] = "video", ["still.gif"] = "image", ["frames"] = "video",
            ["picture.webp"] = "image", ["picture.tiff"] = "image", ["indexed.png"] = "image", ["clip.ts"] = "video",
        } do
            assert.equal(kind, media.kind(fixtures.path(name)))
        end
        local renamed = os.tmpname()
        os.execute(("cp %s %s"):format(fixtures.path "clip.webm", renamed))
        assert.equal("video", media.kind(renamed))
        os.remove(renamed)
    end)

    it("says what is wrong", function()
        assert.matches("nothing.jpg: No such file", message(media.kind, "nothing.jpg"))
        assert.matches("no picture or video format", message(media.kind, fixtures.path "make_media.sh"))
        assert.matches("which is not among the formats", message(media.kind, fixtures.path "playlist.m3u8"))
        assert.matches("a path expected, got nil", message(media.kind))
    end)
end)

describe("media.load and media.info", function()
    it("load either", function()
        local image = media.load(fixtures.path "frames/005.png")
        assert.same({ "image", 5 }, { image.kind, fixtures.number(image.image) })
        local clip = media.load(fixtures.path "bframes.mp4", { max_frames = 2 })
        assert.same({ "video", 2 }, { clip.kind, #clip.video.frames })
    end)

    it("tell what is in a file", function()
        local info = media.info(fixtures.path "rotated_90.mp4")
        assert.same({ "video", 48, 64, 6, 10, 90, "h264" },
            { info.kind, info.width, info.height, info.frames, info.fps, info.rotation, info.codec })
        info = media.info(fixtures.path "frames")
        assert.same({ "video", 64, 48, 9, 3, 3 },
            { info.kind, info.width, info.height, info.frames, info.fps, info.duration })
        info = media.info(fixtures.path "indexed.png")
        assert.same({ "image", 12, 3 }, { info.kind, info.width, info.height })
    end)
end)

describe("core.read_picture", function()
    it("reads what stb_image is not built for", function()
        for _, name in ipairs { "picture.bmp", "picture.webp", "picture.tiff", "picture.ppm", "frames/005.png" } do
            local picture = core.read_picture(fixtures.path(name))
            assert.same({ 48, 64, 3 }, { picture:size(1), picture:size(2), picture:size(3) })
            assert.equal(5, fixtures.number(picture))
            assert.equal("bottom left", fixtures.red_corner(picture))
        end
        assert.equal(0, fixtures.number(core.read_picture(fixtures.path "clip.gif")))
    end)

    it("turns upright what EXIF says lies", function()
        for _, name in ipairs { "turned.webp", "turned.tiff" } do
            local picture = core.read_picture(fixtures.path(name))
            assert.same({ 24, 16 }, { picture:size(1), picture:size(2) })
            assert.equal("top right", fixtures.red_corner(picture))
        end
    end)

    it("says what is wrong", function()
        assert.matches("is a video", message(core.read_picture, fixtures.path "bframes.mp4"))
        assert.matches("is a directory", message(core.read_picture, fixtures.path "frames"))
        assert.matches("No such file", message(core.read_picture, "nothing.bmp"))
        assert.matches("string expected", message(core.read_picture, {}))
    end)

    it("refuses a picture that was cut off", function()
        local file = assert(io.open(fixtures.path "picture.bmp", "rb"))
        local bytes = file:read "*a"
        file:close()
        local path = os.tmpname()
        file = assert(io.open(path, "wb"))
        file:write(bytes:sub(1, 3000))
        file:close()
        assert.matches("truncated", message(core.read_picture, path))
        os.remove(path)
    end)
end)

describe("core.read_indexed_png", function()
    it("gives the indices and the palette", function()
        local indices, palette = core.read_indexed_png(fixtures.path "indexed.png")
        assert.same({ 3, 12 }, { indices:size(1), indices:size(2) })
        assert.same({ 256, 3 }, { palette:size(1), palette:size(2) })
        local rows, colours = indices:totable(), palette:totable()
        local function colour(x) return colours[rows[2][x] + 1] end
        assert.same({ { 0, 0, 0 }, { 255, 0, 0 }, { 0, 255, 0 } }, { colour(1), colour(5), colour(12) })
        assert.same(rows[1], rows[3])
    end)

    it("refuses what has no palette", function()
        assert.matches("not an indexed PNG", message(core.read_indexed_png, fixtures.path "direct.png"))
        assert.matches("is no PNG but 'bmp'", message(core.read_indexed_png, fixtures.path "picture.bmp"))
    end)
end)
