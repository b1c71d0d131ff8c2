-- The clips of spec/fixtures/media draw their frame numbers: bit b is the 8x8 square at x = 8 b, y = 0 (make_media.sh).
local media = {}

--- The path of a fixture.
-- @tparam string name
function media.path(name)
    return "spec/fixtures/media/" .. name
end

--- The frame number drawn in a picture.
-- @tparam Tensor picture uint8 [h,w,3], upright
function media.number(picture)
    local values, line = picture:contiguous():bytes(), picture:size(2) * 3
    local number = 0
    for bit = 0, 7 do
        if values:byte(4 * line + (8 * bit + 4) * 3 + 1) > 128 then number = number + 2 ^ bit end
    end
    return number
end

--- The numbers drawn in a list of pictures.
-- @tparam {Tensor,...} pictures
function media.numbers(pictures)
    local numbers = {}
    for i, picture in ipairs(pictures) do numbers[i] = media.number(picture) end
    return numbers
end

--- The corner that is red: "left" or "right", "top" or "bottom" in one word.
-- @tparam Tensor picture uint8 [h,w,3]
function media.red_corner(picture)
    local height, width = picture:size(1), picture:size(2)
    local corners = { { "top left", 1, 1 }, { "top right", 1, 3 }, { "bottom left", 3, 1 }, { "bottom right", 3, 3 } }
    for _, corner in ipairs(corners) do
        local row = picture:select(1, math.floor(height * corner[2] / 4) + 1)
        local pixel = row:select(1, math.floor(width * corner[3] / 4) + 1):totable()
        if pixel[1] > 180 and pixel[2] < 90 then return corner[1] end
    end
    return "none"
end

return media
