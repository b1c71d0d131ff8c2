-- Masks against pycocotools, mask files, and what is refused.
local core = require "pixelrefer.core"
local json = require "pixelrefer.json"
local mask = require "pixelrefer.mask"
local pictures = require "support.pictures"
local shared = require "support.shared"
local tensor = require "pixelrefer.tensor"

local message, path = pictures.message, pictures.path
local BYTE = { dtype = "uint8" }

local function rows_of(m)
    local rows = {}
    for y = 1, m:size(1) do
        rows[y] = m:select(1, y):contiguous():bytes():gsub(".", { ["\0"] = "0", ["\1"] = "1" })
    end
    return rows
end

describe("mask.rle", function()
    it("decodes and encodes as pycocotools", function()
        for _, case in ipairs(pictures.masks().rles) do
            local m = mask.rle(case)
            assert.same(case.rows, rows_of(m))
            assert.equal(case.area, mask.area(m))
            assert.same({ size = case.size, counts = case.counts }, mask.toRle(m))
            assert.same(case.rows, rows_of(mask.rle(mask.toRle(m, true))))
        end
    end)

    it("agrees with the golden runs in both directions", function()
        for _, case in ipairs(json.read(shared.path "golden/units/mask_rle.json")) do
            local m = mask.rle { size = case.size, counts = case.compressed }
            assert.equal(case.compressed, mask.toRle(m).counts)
            assert.same(case.uncompressed.counts or case.uncompressed, mask.toRle(m, true).counts)
            local other = mask.rle { size = case.size, counts = case.uncompressed.counts or case.uncompressed }
            assert.is_true(m:bytes() == other:bytes())
            assert.equal(case.area, mask.area(m))
            if case.area > 0 then
                local x0, y0, x1, y1 = mask.boundingBox(m)
                assert.same(case.bbox, { x0, y0, x1 - x0, y1 - y0 })
            end
        end
    end)

    it("refuses runs that do not fill the size, and text that is none", function()
        local function refused(counts, pattern)
            assert.matches(pattern, message(mask.rle, { size = { 3, 4 }, counts = counts }))
        end
        refused({}, "cover 0 pixels, but the mask has 3 x 4 = 12")
        refused({ 5, 6 }, "cover 11 pixels")
        refused({ 5, 8 }, "run 2 of an RLE is 8, but 7 of the 3 x 4 mask's pixels are left")
        refused({ -1, 13 }, "run 1 of an RLE is %-1")
        refused({ 1.5 }, "count 1 of an RLE is no number of pixels")
        refused({ "12" }, "count 1 of an RLE")
        refused({ 2 ^ 40 }, "count 1 of an RLE")
        refused("", "cover 0 pixels")
        refused("<!", "byte 2 of the compressed RLE is 0x21")
        refused("P", "ends within a run, at byte 1")
        refused("PPPPPPPP0", "too many digits")
        refused("ooooooo", "ends within a run")
        refused("O", "run 1 of an RLE is %-1")
        refused(nil, "counts is nil")
    end)

    it("refuses sizes that are not the picture's, or none", function()
        local rle = { size = { 3, 4 }, counts = { 12 } }
        assert.matches("the RLE is 3 x 4, the picture 4 x 3", message(mask.rle, rle, { 4, 3 }))
        assert.matches("size is nil", message(mask.rle, { counts = { 12 } }))
        assert.matches("expected, got 0", message(mask.rle, { size = { 0, 4 }, counts = {} }))
        assert.matches("expected, got 100000", message(mask.rle, { size = { 100000, 4 }, counts = {} }))
    end)
end)

describe("mask.polygon", function()
    it("rasterises as pycocotools", function()
        for _, case in ipairs(pictures.masks().polygons) do
            local m = mask.polygon(case.size, case.polygons)
            assert.equal(case.counts, mask.toRle(m).counts)
            assert.equal(case.area, mask.area(m))
        end
    end)

    it("agrees with the golden polygons", function()
        for _, case in ipairs(json.read(shared.path "golden/units/mask_polygon.json")) do
            local m = mask.polygon({ case.h, case.w }, case.polygons)
            assert.equal(case.counts, mask.toRle(m).counts)
        end
    end)

    it("takes one polygon, and points outside", function()
        local whole = mask.polygon({ 6, 8 }, { -5, -5, 20, -5, 20, 20, -5, 20 })
        assert.equal(48, mask.area(whole))
        assert.equal(0, mask.area(mask.polygon({ 6, 8 }, { 100, 100, 120, 100, 110, 130 })))
    end)

    it("refuses boxes, lines, odd lists, and what is no coordinate", function()
        local function refused(polygons, pattern)
            assert.matches(pattern, message(mask.polygon, { 6, 8 }, polygons))
        end
        refused({ { 1, 2, 3, 4 } }, "four numbers")
        refused({ { 1, 2 } }, "1 points has no inside")
        refused({ {} }, "0 points")
        refused({ { 1, 2, 3, 4, 5, 6, 7 } }, "7 numbers, expected pairs")
        refused({ { 0, 0, 5, 0, 5, 5 }, { 1, 2, 3, 0 / 0, 5, 6 } }, "polygon 2: y 2 of a polygon is %-?nan")
        refused({ 0, 0, 1e7, 0, 5, 5 }, "x 2 of a polygon is 1e%+07")
        refused({ 0, 0, "a", 0, 5, 5 }, "element 3 of polygon 1 is no number")
        refused({}, "a list of polygons expected")
        local far = {}
        for i = 1, 400 do far[i] = i % 4 < 2 and 1e6 or -1e6 end
        refused(far, "outline is longer")
    end)
end)

describe("mask.box", function()
    it("is half-open", function()
        local m = mask.box({ 5, 7 }, 1, 2, 4, 3)
        assert.equal(3, mask.area(m))
        assert.same({ 1, 2, 4, 3 }, { mask.boundingBox(m) })
        assert.equal(35, mask.area(mask.box(tensor.zeros(5, 7, 3, BYTE), 0, 0, 7, 5)))
    end)

    it("refuses what is empty or outside", function()
        assert.matches("is empty", message(mask.box, { 5, 7 }, 3, 2, 3, 4))
        assert.matches("not inside the picture of 7 x 5", message(mask.box, { 5, 7 }, 0, 0, 8, 5))
        assert.matches("y1 is nil", message(mask.box, { 5, 7 }, 0, 0, 8))
        assert.matches("x0 is 0.5", message(mask.box, { 5, 7 }, 0.5, 0, 8, 5))
        assert.matches("a picture or a size", message(mask.box, 5, 0, 0, 8, 5))
    end)
end)

describe("mask files", function()
    it("count every value but 0, whatever the depth", function()
        for _, name in ipairs { "mask_16.png", "mask_rgba.png" } do
            local m = mask.png(path(name))
            assert.equal(8, mask.area(m))
            assert.same({ 3, 2, 7, 4 }, { mask.boundingBox(m) })
        end
    end)

    it("give a mask for each index of an indexed PNG", function()
        local masks, indices = mask.indexedPng(path "mask_indexed.png")
        assert.same({ 2, 7 }, indices)
        assert.same({ 1, 1, 4, 3 }, { mask.boundingBox(masks[1]) })
        assert.same({ 5, 4, 9, 6 }, { mask.boundingBox(masks[2]) })
        assert.equal(2, #mask.read(path "mask_indexed.png"))
        assert.equal(1, #mask.read(path "mask_16.png"))
        assert.equal(14, mask.area(mask.png(path "mask_indexed.png")))
    end)

    it("name the file that is missing", function()
        assert.matches("nothing.png: .*No such file", message(mask.png, "nothing.png"))
        assert.matches("nothing.png: .*No such file", message(mask.read, "nothing.png"))
    end)
end)

describe("masks", function()
    it("come from tensors and annotations of any form", function()
        local values = tensor.fromTable { { 0, 0.5 }, { -1, 0 } }
        assert.equal(2, mask.area(mask.tensor(values)))
        assert.same({ "01", "10" }, rows_of(mask.tensor(values)))
        local rle = { size = { 3, 4 }, counts = { 1, 2, 9 } }
        assert.equal(2, mask.area(mask.coco(rle, { 3, 4 })))
        assert.equal(2, mask.area(mask.coco({ segmentation = rle }, tensor.zeros(3, 4, 3))))
        assert.equal(mask.area(mask.polygon({ 9, 9 }, { 1, 1, 7, 1, 4, 7 })),
                     mask.area(mask.coco({ segmentation = { { 1, 1, 7, 1, 4, 7 } } }, { 9, 9 })))
        assert.matches("the picture 4 x 4", message(mask.coco, rle, { 4, 4 }))
        assert.matches("found neither", message(mask.coco, {}, { 4, 4 }))
        assert.matches("mask.coco: a picture or a size {h, w} expected, got nil", message(mask.coco, rle), 1, true)
    end)

    it("unite", function()
        local a, b = mask.box({ 5, 7 }, 0, 0, 2, 2), mask.box({ 5, 7 }, 1, 1, 3, 3)
        assert.equal(7, mask.area(mask.union(a, b)))
        assert.equal(4, mask.area(mask.union(a)))
        assert.matches("mask 2 is 5 x 6, the first 5 x 7", message(mask.union, a, mask.box({ 5, 6 }, 0, 0, 1, 1)))
    end)

    it("say what is wrong", function()
        assert.matches("the mask is empty", message(mask.boundingBox, tensor.zeros(3, 3, BYTE)))
        assert.matches("a uint8 Tensor %[h,w%], got float32", message(mask.area, tensor.zeros(3, 3)))
        assert.matches("of 3 dims", message(mask.area, tensor.zeros(3, 3, 3, BYTE)))
        assert.matches("a mask expected, got nil", message(mask.toRle))
        assert.equal(0, (core.mask_area(tensor.zeros(3, 3, BYTE))))
    end)
end)
