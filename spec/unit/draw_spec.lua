-- Regions drawn on a picture.
local draw = require "pixelrefer.draw"
local mask = require "pixelrefer.mask"
local pictures = require "support.pictures"
local tensor = require "pixelrefer.tensor"

local message = pictures.message

local function grey(height, width)
    return tensor.full({ height, width, 3 }, 100, { dtype = "uint8" })
end

local function pixel(picture, y, x)
    return { picture[y][x][1], picture[y][x][2], picture[y][x][3] }
end

describe("draw.overlay", function()
    it("fills, draws the contour, leaves the rest and the original alone", function()
        local picture = grey(20, 30)
        local drawn = draw.overlay(picture, { mask.box(picture, 5, 4, 15, 12) },
                                   { labels = false, opacity = 0.5, contour = 1, colors = { { 200, 0, 50 } } })
        assert.same({ 100, 100, 100 }, pixel(drawn, 4, 6))
        assert.same({ 200, 0, 50 }, pixel(drawn, 5, 6))
        assert.same({ 150, 50, 75 }, pixel(drawn, 7, 9))
        assert.same({ 100, 100, 100 }, pixel(picture, 7, 9))
    end)

    it("has no contour along the picture's border", function()
        local picture = grey(6, 6)
        local drawn = draw.overlay(picture, mask.box(picture, 0, 0, 6, 6), { labels = false, opacity = 0, contour = 2 })
        assert.equal(0, pictures.difference(drawn, picture))
    end)

    it("writes each region's number into it", function()
        local picture = grey(60, 60)
        local whole = mask.box(picture, 0, 0, 60, 60)
        local function numbered(count)
            local masks = {}
            for i = 1, count do masks[i] = whole end
            return draw.overlay(picture, masks, { opacity = 0, contour = 0, colors = { { 0, 0, 0 } } })
        end
        -- The plate of one digit is 7 x 9 pixels around the middle; digit 1 has 10 pixels, digit 7 has 11.
        assert.equal(10, numbered(1):eq(255):sum() / 3)
        assert.equal(11, numbered(7):eq(255):sum() / 3)
        assert.equal(7 * 9 - 10, numbered(1):eq(0):sum() / 3)
    end)

    it("keeps labels inside, and skips empty masks", function()
        local picture = grey(5, 4)
        local drawn = draw.overlay(picture, { mask.box(picture, 3, 4, 4, 5), tensor.zeros(5, 4, { dtype = "uint8" }) })
        assert.same(picture:size(), drawn:size())
    end)

    it("draws strided pictures and masks", function()
        local picture = grey(20, 30)
        local m = mask.box(picture, 5, 4, 15, 12)
        local a = draw.overlay(picture:transpose(1, 2), m:t(), { labels = false })
        local b = draw.overlay(picture, m, { labels = false })
        assert.equal(0, pictures.difference(a, b:transpose(1, 2)))
    end)

    it("says what is wrong", function()
        local picture = grey(20, 30)
        local m = mask.box(picture, 5, 4, 15, 12)
        assert.matches("did you mean 'labels'", message(draw.overlay, picture, m, { label = true }))
        assert.matches("a mask of 20 x 29 does not fit a picture of 20 x 30",
                       message(draw.overlay, picture, mask.box({ 20, 29 }, 0, 0, 1, 1)))
        assert.matches("a list of masks expected", message(draw.overlay, picture, 1))
        assert.matches("mask 1 is a number", message(draw.overlay, picture, { 1 }))
        assert.matches("colors is empty", message(draw.overlay, picture, m, { colors = {} }))
        assert.matches("a colour", message(draw.overlay, picture, m, { colors = { { 1, 2 } } }))
        assert.matches("cannot draw on", message(draw.overlay, picture:float(), m))
    end)
end)
