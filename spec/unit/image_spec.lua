-- Pictures from files, against what PIL reads, and back to PNG.
local bits = require "support.bits"
local core = require "pixelrefer.core"
local image = require "pixelrefer.image"
local pictures = require "support.pictures"
local shared = require "support.shared"
local tensor = require "pixelrefer.tensor"

local message, path = pictures.message, pictures.path

-- PIL decodes JPEG with another inverse transform and smoother chroma.
local JPEG_LEVELS, SUBSAMPLED_LEVELS = 4, 40

local function assert_like(name, levels)
    local loaded, expected = image.load(path(name)), pictures.expected(name)
    assert.same(expected:size(), loaded:size())
    assert.is_true(pictures.difference(loaded, expected) <= levels, name)
end

describe("image.load", function()
    it("applies every EXIF orientation", function()
        for orientation = 1, 8 do assert_like(("orientation_%d.jpg"):format(orientation), JPEG_LEVELS) end
        assert_like("orientation_6.png", 0)
    end)

    it("reads baseline, progressive, grey, subsampled and restarted JPEGs", function()
        assert_like("progressive.jpg", JPEG_LEVELS)
        assert_like("grey.jpg", JPEG_LEVELS)
        assert_like("restart.jpg", JPEG_LEVELS)
        assert_like("subsampled.jpg", SUBSAMPLED_LEVELS)
    end)

    it("reads every kind of PNG exactly", function()
        for _, name in ipairs { "rgb", "grey", "bits_1", "indexed", "alpha", "grey_alpha", "rgb_16", "grey_16",
                                "interlaced", "one" } do
            assert_like(name .. ".png", 0)
        end
    end)

    it("refuses what is cut off or damaged", function()
        assert.matches("cut.jpg: the JPEG is cut off after 930 bytes", message(image.load, path "cut.jpg"))
        assert.matches("the JPEG is cut off after 968 bytes", message(image.load, path "no_end.jpg"))
        assert.matches("cut.png: the PNG is cut off", message(image.load, path "cut.png"))
        assert.matches("chunk IDAT at byte %d+ has a wrong checksum", message(image.load, path "wrong_checksum.png"))
        assert.matches("the PNG cannot be decoded", message(image.load, path "few_rows.png"))
    end)

    it("refuses every prefix of a picture", function()
        for _, name in ipairs { "progressive.jpg", "indexed.png" } do
            local bytes = pictures.bytes(name)
            for length = 0, #bytes - 1, 7 do
                assert.is_false((pcall(image.decode, bytes:sub(1, length))), name .. " of " .. length)
            end
        end
    end)

    it("refuses what cannot be decoded, and impossible sizes", function()
        assert.matches("12 bits a sample", message(image.load, path "twelve_bits.jpg"))
        assert.matches("0 rows and 37 columns", message(image.load, path "no_rows.jpg"))
        assert.matches("1 rows and 100000 columns, expected 1 to 65535", message(image.load, path "wide.png"))
        assert.matches("60000 x 60000 pixels, expected at most", message(image.load, path "bomb.png"))
        assert.matches("1 rows and 0 columns", message(image.load, path "no_width.png"))
        assert.matches("neither a JPEG nor a PNG", message(image.decode, "GIF89a"))
    end)

    it("refuses Huffman tables that overrun the decoder", function()
        local bytes = pictures.bytes "progressive.jpg"
        local start = bytes:find("\255\196", 1, true) -- DHT: its length, the table's class, 16 counts
        local crowded = bytes:sub(1, start + 4) .. ("\255"):rep(16) .. bytes:sub(start + 21)
        assert.matches("a Huffman table of 4080 symbols", message(image.decode, crowded))
    end)

    it("names the file and the system's reason", function()
        assert.matches("nothing.jpg: .*No such file", message(image.load, "nothing.jpg"))
        assert.matches("a path expected, got nil", message(image.load))
    end)

    it("reads the reference's photographs", function()
        local sizes = { horses = { 1367, 2048 }, stools = { 1846, 3295 } }
        for name, size in pairs(sizes) do
            local photograph = image.load(shared.path("data/media/" .. name .. ".jpg"))
            assert.equal(size[1], photograph:size(1))
            assert.equal(size[2], photograph:size(2))
        end
    end)
end)

describe("image.ahead", function()
    it("gives the next load its picture, and what is wrong with the file", function()
        for _, name in ipairs { "rgb.png", "orientation_6.jpg" } do
            local expected = image.load(path(name))
            image.ahead(path(name))
            assert.equal(0, pictures.difference(expected, image.load(path(name))))
            assert.equal(0, pictures.difference(expected, image.load(path(name))))
        end
        for _, name in ipairs { "cut.jpg", "few_rows.png", "nothing.png" } do
            local expected = message(image.load, path(name))
            image.ahead(path(name))
            assert.equal(expected, message(image.load, path(name)))
        end
    end)

    it("has one picture at a time, and frees one that nobody asks for", function()
        collectgarbage()
        local before = core.memory()
        image.ahead(path "rgb.png")
        image.ahead(path "one.png")
        assert.equal(0, pictures.difference(image.load(path "rgb.png"), image.load(path "rgb.png")))
        image.ahead(path "nothing.png")
        collectgarbage()
        collectgarbage()
        assert.equal(before, core.memory())
    end)

    it("reads beside what else is done", function()
        local coming = core.begin_image(path "rgb.png")
        assert.equal(0, pictures.difference(image.load(path "rgb.png"), core.end_image(coming)))
        assert.matches("taken already", message(core.end_image, coming))
    end)
end)

describe("image.save", function()
    local target

    before_each(function() target = os.tmpname() end)
    after_each(function() os.remove(target) end)

    it("writes what load reads back", function()
        for _, name in ipairs { "rgb", "one", "alpha" } do
            local picture = image.load(path(name .. ".png"))
            image.save(target, picture)
            assert.equal(0, pictures.difference(picture, image.load(target)))
            image.save(target .. ".PNG", picture)
            assert.is_true(os.remove(target .. ".PNG"))
            assert.equal(0, pictures.difference(picture, image.decode(image.encode(picture))))
        end
    end)

    it("writes grey and strided pictures", function()
        local picture = image.load(path "rgb.png")
        local turned = picture:transpose(1, 2)
        assert.equal(0, pictures.difference(turned, image.decode(image.encode(turned))))
        local grey = image.decode(image.encode(picture:select(3, 1)))
        assert.equal(0, pictures.difference(grey:select(3, 2), picture:select(3, 1)))
    end)

    it("says what is wrong, and leaves nothing behind", function()
        assert.matches("a Tensor expected, got nil", message(image.save, target))
        assert.matches("%[2x2%] float32 cannot be a PNG", message(image.save, target, tensor.zeros(2, 2)))
        assert.matches("cannot be a PNG", message(image.encode, tensor.zeros(2, 2, 4, { dtype = "uint8" })))
        local picture = image.load(path "one.png")
        for _, other in ipairs { "x.jpg", "folder.png/x.png.JPEG" } do
            assert.matches(("image.save: '%s': a path that ends in .png expected"):format(other),
                message(image.save, other, picture), 1, true)
        end
        assert.matches("no/such/folder", message(image.save, "no/such/folder/x.png", picture))
    end)
end)

describe("a failing allocation", function()
    it("is an error in every place, and leaks nothing", function()
        local bytes = { pictures.bytes "progressive.jpg", pictures.bytes "rgb_16.png", pictures.bytes "interlaced.png",
                        pictures.bytes "orientation_6.jpg", pictures.bytes "indexed.png" }
        local picture = image.load(path "rgb.png")
        local calls = {}
        for i, one in ipairs(bytes) do calls[i] = function() return core.decode_image(one) end end
        calls[#calls + 1] = function() return core.encode_png(picture) end
        calls[#calls + 1] = function() return core.read_mask(path "mask_16.png") end
        for _, call in ipairs(calls) do
            collectgarbage()
            collectgarbage()
            local before, nth, succeeded = core.memory(), 0, false
            while not succeeded do
                nth = nth + 1
                core.memory_fail_at(core.memory_allocations() + nth)
                succeeded = pcall(call)
                core.memory_fail_at(0)
                assert.is_true(nth < 1000)
            end
            assert.is_true(nth > 1)
            collectgarbage()
            collectgarbage()
            assert.is_true(core.memory() <= before) -- less when what earlier tests dropped goes only now
        end
    end)

    it("while a picture is read beside other work is told, or what could not be had is done without", function()
        finally(function() core.memory_fail_at(0) end)
        local expected, failed, fine = image.load(path "rgb.png"), 0, 0
        for nth = 1, 8 do
            core.memory_fail_at(core.memory_allocations() + nth)
            local ok, found = pcall(function() return core.end_image(core.begin_image(path "rgb.png")) end)
            core.memory_fail_at(0)
            failed, fine = failed + (ok and 0 or 1), fine + (ok and 1 or 0)
            if ok then bits.same(expected, found, nth) else assert.is_string(found) end
        end
        assert.is_true(failed > 1 and fine > 0)
    end)
end)
