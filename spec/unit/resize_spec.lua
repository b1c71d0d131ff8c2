-- Resizes and patches against the libraries that the reference calls (golden units), and their limits.
local core = require "pixelrefer.core"
local image = require "pixelrefer.image"
local json = require "pixelrefer.json"
local pictures = require "support.pictures"
local shared = require "support.shared"
local tensor = require "pixelrefer.tensor"

local message = pictures.message

-- Runs `check(input, expected, number)` over the cases of a golden file.
local function each_case(name, check)
    local tensors = core.read_safetensors(shared.path("golden/units/" .. name .. ".safetensors"))
    local count = 0
    for key, expected in pairs(tensors) do
        local number = key:match "^(.*)%.out$"
        if number then
            check(tensors[number .. ".in"], expected, number)
            count = count + 1
        end
    end
    assert.is_true(count > 0)
end

-- A picture of noise that is the same everywhere.
local function noise(height, width, channels)
    local bytes, state = {}, 1
    for i = 1, height * width * channels do
        state = (state * 69069 + 12345) % 2 ^ 32
        bytes[i] = string.char(math.floor(state / 2 ^ 24))
    end
    return tensor.fromString(table.concat(bytes), "uint8", { height, width, channels })
end

describe("core.resize", function()
    for name, kind in pairs {
        resize_pillow_bicubic_u8 = "pillow_bicubic",
        resize_opencv_linear_u8 = "opencv_linear",
        resize_opencv_area_u8 = "opencv_area",
    } do
        it("gives " .. kind .. "'s bits", function()
            each_case(name, function(input, expected, number)
                local resized = core.resize(input:contiguous(), expected:size(1), expected:size(2), kind)
                assert.equal(0, pictures.difference(resized, expected), number)
            end)
        end)
    end

    it("gives torch_bilinear's bits on masks", function()
        each_case("resize_torch_bilinear_u8", function(input, expected, number)
            local mask = input:select(3, 1):gt(127):contiguous()
            local resized = core.resize(mask, expected:size(1), expected:size(2), "torch_bilinear")
            assert.equal(0, pictures.difference(resized, expected), number)
        end)
    end)

    it("gives opencv_linear's float32 values on masks, and their zeros", function()
        each_case("resize_opencv_linear_f32", function(input, expected, number)
            local mask = input:gt(0.5):float():contiguous()
            local resized = core.resize(mask, expected:size(1), expected:size(2), "opencv_linear")
            assert.is_true((resized - expected):abs():max() <= 1e-6, number)
            assert.equal(0, pictures.difference(resized:gt(0), expected:gt(0)), number)
        end)
    end)

    it("does not depend on the number of threads", function()
        local picture = noise(301, 467, 3)
        local threads = core.threads()
        for _, kind in ipairs { "pillow_bicubic", "opencv_linear", "opencv_area", "torch_bilinear" } do
            for _, size in ipairs { { 150, 98 }, { 700, 611 }, { 100, 900 }, { 301, 200 }, { 20, 460 } } do
                core.threads(1)
                local one = core.resize(picture, size[1], size[2], kind):bytes()
                core.threads(4)
                assert.is_true(one == core.resize(picture, size[1], size[2], kind):bytes())
            end
        end
        core.threads(threads)
    end)

    it("averages boxes of more pixels than 32 bits can sum up", function()
        local white = tensor.full({ 4096, 8192, 1 }, 255, { dtype = "uint8" })
        assert.equal(255, core.resize(white, 1, 1, "opencv_area"):item())
        assert.equal(255, core.resize(white:narrow(1, 1, 2048):contiguous(), 1, 1, "opencv_area"):item())
    end)

    it("leaves a picture of the same size as it is", function()
        local picture = noise(5, 7, 3)
        for _, kind in ipairs { "pillow_bicubic", "opencv_linear", "opencv_area", "torch_bilinear" } do
            assert.equal(0, pictures.difference(picture, core.resize(picture, 5, 7, kind)))
        end
    end)

    it("says what is wrong", function()
        local picture = noise(4, 4, 3)
        assert.matches("1.* to 65535.* expected, got 0", message(core.resize, picture, 0, 4))
        assert.matches("expected, got 100000", message(core.resize, picture, 100000, 4))
        assert.matches("at most 268435456", message(core.resize, picture, 60000, 60000))
        assert.matches("the picture is float32, expected uint8", message(core.resize, picture:float(), 4, 2))
        assert.matches("not contiguous", message(core.resize, picture:transpose(1, 2), 4, 2))
        assert.matches("1 to 4 channels", message(core.resize, noise(2, 2, 5), 4, 4))
        assert.matches("no kind 'bicubic'", message(image.resize, picture, 2, 2, "bicubic"))
        assert.matches("between the passes", message(core.resize, noise(65535, 1, 1), 1, 65535, "torch_bilinear"))
    end)
end)

describe("core.smart_resize", function()
    it("follows the reference's formula", function()
        local count = 0
        for _, case in ipairs(json.read(shared.path "golden/units/smart_resize.json")) do
            local budget = core.budget_max_pixels(case.mm_max_length, case.spatial_merge_size, case.downsampling,
                                                  case.num_images)
            local ok, height, width = pcall(core.smart_resize, case.h, case.w, 14 * case.downsampling,
                                            case.min_pixels, budget)
            if type(case.result) == "table" then
                assert.same(case.result, { height, width })
            else
                assert.is_false(ok)
            end
            count = count + 1
        end
        assert.is_true(count > 0)
    end)

    it("refuses aspect ratios above 200 and impossible sides", function()
        assert.same({ 14, 2800 }, { core.smart_resize(14, 2800, 14, 3136, 1e6) })
        assert.matches("14 x 2801 has an aspect ratio above 200", message(core.smart_resize, 14, 2801, 14, 3136, 1e6))
        assert.matches("0 rows", message(core.smart_resize, 0, 20, 14, 3136, 1e6))
        assert.matches("100000 columns", message(core.smart_resize, 20, 100000, 14, 3136, 1e6))
        assert.matches("factor", message(core.smart_resize, 20, 20, 0, 3136, 1e6))
    end)

    it("rounds halves to even", function()
        assert.same({ 28, 56 }, { core.smart_resize(35, 49, 14, 1, 1e6) })
    end)
end)

describe("core.patches", function()
    it("puts channels first within a patch and cells in block order", function()
        local picture = noise(8, 12, 3)
        local patches = core.patches(picture, 2, 2, 0, 1 / 255)
        assert.same({ 24, 12 }, patches:size())
        local scaled = picture:float()
        -- Block row 0, block column 1, its lower left cell: cell row 1, cell column 2.
        for channel = 1, 3 do
            for y = 1, 2 do
                for x = 1, 2 do
                    local value = patches[7][(channel - 1) * 4 + (y - 1) * 2 + x]
                    assert.is_true(math.abs(value - scaled[2 + y][4 + x][channel]) < 1e-3)
                end
            end
        end
    end)

    it("gives the reference's bits", function()
        local expected = core.read_safetensors(
            shared.path "golden/cases/refer_image_two_regions/expected.safetensors")
        local patches = core.patches(expected["scene.picture0"]:contiguous(), 14, 1, 0.5, { 0.5, 0.5, 0.5 })
        assert.equal(0, (patches - expected["scene.patches"]):abs():max())
    end)

    it("says what is wrong", function()
        local picture = noise(8, 12, 3)
        assert.matches("8 x 12, expected multiples of 6", message(core.patches, picture, 2, 3, 0, 1))
        assert.matches("std 0", message(core.patches, picture, 2, 2, 0, 0))
        assert.matches("three numbers", message(core.patches, picture, 2, 2, { 1, 2 }, 1))
        assert.matches("uint8", message(core.patches, picture:float(), 2, 2, 0, 1))
    end)
end)
