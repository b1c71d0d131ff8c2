--- Regions drawn on a picture, to see what is being asked about.
--
--     local draw = require "pixelrefer.draw"
--     image.save("regions.png", draw.overlay(street, { bus, dog }))
--
-- @module pixelrefer.draw
local core = require "pixelrefer.core"
local options = require "pixelrefer.options"
local tensor = require "pixelrefer.tensor"

local draw = {}

-- Colours of regions 1, 2, ...: {red, green, blue}, each far from those before it.
draw.PALETTE = {
    { 230, 25, 75 }, { 60, 180, 75 }, { 255, 225, 25 }, { 0, 130, 200 }, { 245, 130, 48 }, { 145, 30, 180 },
    { 70, 240, 240 }, { 240, 50, 230 }, { 210, 245, 60 }, { 0, 128, 128 }, { 170, 110, 40 }, { 128, 0, 0 },
    { 0, 0, 128 }, { 128, 128, 0 }, { 250, 190, 212 }, { 170, 255, 195 },
}

--- Options of @{overlay}.
-- @table OverlayOptions
-- @field labels write each region's number into it (true)
-- @field opacity of the fill, 0 to 1 (0.4)
-- @field contour thickness in pixels (by the picture's size)
-- @field colors a list of {red, green, blue} (@{PALETTE}); begins anew when it is used up
local OVERLAY = {
    labels = { type = "boolean", default = true },
    opacity = { type = "number", min = 0, max = 1, default = 0.4 },
    contour = { type = "integer", min = 0, max = 64 },
    colors = "table",
}

--- A copy of a picture with regions drawn on it: a translucent fill, a contour, a number.
-- @tparam Tensor picture uint8 [h,w,3]
-- @tparam {Tensor,...} masks uint8 [h,w], in the order of their numbers; or one mask
-- @tparam[opt] table given @{OverlayOptions}
-- @treturn Tensor uint8 [h,w,3], a new one
function draw.overlay(picture, masks, given)
    local settings = options.check(given, OVERLAY, "draw.overlay")
    if not tensor.isTensor(picture) then error("draw.overlay: a picture expected, got " .. type(picture), 2) end
    if tensor.isTensor(masks) then masks = { masks } end
    if type(masks) ~= "table" then error("draw.overlay: a list of masks expected, got " .. type(masks), 2) end
    local colors = settings.colors or draw.PALETTE
    if #colors == 0 then error("draw.overlay: colors is empty", 2) end

    local drawn = picture:clone()
    local shorter = math.min(drawn:size(1), drawn:size(2))
    local contour = settings.contour or math.max(1, math.floor(shorter / 250 + 0.5))
    local scale = math.min(64, math.max(1, math.floor(shorter / 160 + 0.5)))
    local dense = {}
    for i, mask in ipairs(masks) do
        if not tensor.isTensor(mask) then error(("draw.overlay: mask %d is a %s"):format(i, type(mask)), 2) end
        dense[i] = mask:contiguous()
        core.draw_region(drawn, dense[i], colors[(i - 1) % #colors + 1], math.floor(settings.opacity * 255 + 0.5),
                         contour)
    end
    if settings.labels then -- above all fills
        for i, mask in ipairs(dense) do core.draw_label(drawn, mask, i, colors[(i - 1) % #colors + 1], scale) end
    end
    return drawn
end

-- ---- object tokens ---------------------------------------------------------------------------------------------

-- Row of `cells` for each of `pixels` pixels, as the nearest cell's: {1, 1, ..., cells}.
local function nearest(pixels, cells)
    local list = {}
    for i = 1, pixels do list[i] = math.floor((i - 0.5) / pixels * cells) + 1 end
    return tensor.fromTable(list, "int64")
end

-- 1 where a pixel's token is not that of the pixel above or left of it.
local function edges(tokens)
    local height, width = tokens:size(1), tokens:size(2)
    local edge = tensor.zeros(height, width, { dtype = "uint8" })
    for dim, length in ipairs { height, width } do
        if length > 1 then
            local here, before = tokens:narrow(dim, 2, length - 1), tokens:narrow(dim, 1, length - 1)
            local there = edge:narrow(dim, 2, length - 1)
            there:copy_(there:logicalOr(here:ne(before)))
        end
    end
    return edge
end

--- Options of @{tokens}.
-- @table TokenOptions
-- @field crop draw on the crop that the encoder sees, rather than on the image (false)
-- @field opacity of the colours, 0 to 1 (0.5)

--- Which cells each object token took: cells of one token have one colour, with a dark line to those of others.
-- Colours begin anew when there are more tokens than the @{PALETTE} has.
-- @tparam Tensor picture uint8 [h,w,3]: the image
-- @tparam table item of the region, as an object tokenizer's `prepare` gives it
-- @tparam Tensor assignment [n] of the cells under the mask, in raster order, as `pool` gives it: tokens from 1
-- @tparam[opt] table given @{TokenOptions}
-- @treturn Tensor uint8 [h,w,3], a new one
function draw.tokens(picture, item, assignment, given)
    local settings = options.check(given, {
        crop = "boolean", opacity = { type = "number", min = 0, max = 1, default = 0.5 },
    }, "draw.tokens")
    if not tensor.isTensor(picture) then error("draw.tokens: a picture expected, got " .. type(picture), 2) end
    if not tensor.isTensor(assignment) then error("draw.tokens: a tensor expected, got " .. type(assignment), 2) end
    local grid = item.mask_grid
    local inside = grid:gt(0)
    if inside:sum() ~= assignment:nElement() then
        error(("draw.tokens: %d cells are under the mask, %d assigned"):format(inside:sum(), assignment:nElement()), 2)
    end
    local drawn = (settings.crop and item.picture or picture):clone()
    local top, left, bottom, right = unpack(item.box)
    if settings.crop then top, left, bottom, right = 0, 0, drawn:size(1), drawn:size(2) end
    local height, width = math.max(1, bottom - top), math.max(1, right - left)

    local cells = tensor.zeros(grid:size(), { dtype = "int64" }) -- 0 outside
    cells:maskedCopy_(inside, assignment)
    local tokens = cells:indexSelect(1, nearest(height, grid:size(1))):indexSelect(2, nearest(width, grid:size(2)))
    local marked = tokens:gt(0)
    local colors = tensor.fromTable(draw.PALETTE)
    local color = colors:indexSelect(1, (tokens - marked:long()):reshape(-1) % #draw.PALETTE + 1):view(height, width, 3)
    color = color * edges(tokens):eq(0):float():unsqueeze(3) -- black lines
    local part = drawn:narrow(1, top + 1, height):narrow(2, left + 1, width)
    local blended = part:float() * (1 - settings.opacity) + color * settings.opacity
    part:copy_(tensor.where(marked:unsqueeze(3):expand(height, width, 3), blended:round():byte(), part))
    return drawn
end

return draw
