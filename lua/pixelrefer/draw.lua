--- Drawn on a picture: the regions that are asked about, the cells that an object token took, what is attended to. And
-- charts of numbers.
--
--     local draw = require "pixelrefer.draw"
--     image.save("regions.png", draw.overlay(street, { bus, dog }))
--
-- @module pixelrefer.draw
local canvas = require "pixelrefer.draw.canvas"
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
    if type(item) ~= "table" or not tensor.isTensor(item.mask_grid) or type(item.box) ~= "table" then
        error("draw.tokens: an item with mask_grid and box expected, as `prepare` gives it, got "
            .. (type(item) == "table" and "another table" or type(item)), 2)
    end
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

-- ---- heat ------------------------------------------------------------------------------------------------------

-- From nothing over red to bright yellow: {share of the largest value, red, green, blue}.
local HEAT = { { 0, 20, 11, 53 }, { 0.3, 132, 32, 107 }, { 0.6, 229, 92, 48 }, { 0.85, 246, 187, 40 },
    { 1, 252, 255, 164 } }

-- [n,3] colours of values [n] from 0 to 1.
local function heat_colors(values)
    local colors = tensor.zeros(values:nElement(), 3)
    for i = 2, #HEAT do
        local low, high = HEAT[i - 1], HEAT[i]
        local share = ((values - low[1]) / (high[1] - low[1])):clamp(0, 1):view(-1, 1)
        local from, to = tensor.fromTable({ low[2], low[3], low[4] }), tensor.fromTable({ high[2], high[3], high[4] })
        colors = tensor.where(values:ge(low[1]):view(-1, 1):expand(values:nElement(), 3),
                              from + share * (to - from), colors)
    end
    return colors
end

--- Options of @{heat}.
-- @table HeatOptions
-- @field box {top, left, bottom, right} that the cells divide (the whole picture)
-- @field mask uint8 [gh,gw]: cells that count; the others show the picture (all)
-- @field opacity of the hottest cells, 0 to 1 (0.85)
-- @field least the value that is coldest (0)
-- @field most the value that is hottest (the largest there is)

--- Numbers on the cells of a picture as heat: dark where there is little, bright where there is much.
-- @tparam Tensor picture uint8 [h,w,3]
-- @tparam Tensor values [gh,gw]
-- @tparam[opt] table given @{HeatOptions}
-- @treturn Tensor uint8 [h,w,3], a new one
function draw.heat(picture, values, given)
    local settings = options.check(given, {
        box = "table", mask = "tensor", least = { type = "number", default = 0 }, most = "number",
        opacity = { type = "number", min = 0, max = 1, default = 0.85 },
    }, "draw.heat")
    if not tensor.isTensor(picture) then error("draw.heat: a picture expected, got " .. type(picture), 2) end
    if not tensor.isTensor(values) or values:dim() ~= 2 then error("draw.heat: values [gh,gw] expected", 2) end
    local drawn, most = picture:clone(), settings.most or values:max()
    local top, left, bottom, right = unpack(settings.box or { 0, 0, picture:size(1), picture:size(2) })
    local height, width = math.max(1, bottom - top), math.max(1, right - left)
    local function spread(cells) -- to pixels
        return cells:indexSelect(1, nearest(height, cells:size(1))):indexSelect(2, nearest(width, cells:size(2)))
    end
    local scaled = (values:float() - settings.least) / math.max(most - settings.least, 1e-30)
    local share = spread(scaled:clamp(0, 1)):reshape(-1)
    local alpha = ((share:sqrt() * 0.4 + 0.6) * settings.opacity):view(height, width, 1)
    local part = drawn:narrow(1, top + 1, height):narrow(2, left + 1, width)
    local blended = part:float() * (1 - alpha) + heat_colors(share):view(height, width, 3) * alpha
    blended = blended:round():byte()
    if settings.mask then
        local inside = spread(settings.mask):ne(0):unsqueeze(3):expand(height, width, 3)
        blended = tensor.where(inside, blended, part)
    end
    part:copy_(blended)
    return drawn
end

-- ---- charts ----------------------------------------------------------------------------------------------------

-- A step of 1, 2 or 5 times a power of ten that gives at most `count` of them.
local function nice_step(range, count)
    local power = 10 ^ math.floor(math.log10(range / count))
    for _, factor in ipairs { 1, 2, 5, 10 } do
        if range / (factor * power) <= count then return factor * power end
    end
end

local GREY, INK = { 222, 222, 222 }, { 30, 30, 30 }
local SERIES = { { 0, 114, 178 }, { 213, 94, 0 }, { 0, 158, 115 }, { 120, 120, 120 }, { 204, 121, 167 },
    { 230, 159, 0 } } -- told apart by colour-blind people, too

-- Lines and marks of the axes; returns the functions that place x and y.
local function draw_axes(sheet, frame, count, most, settings)
    local left, top, right, bottom = unpack(frame)
    local function at_x(i) return left + (count > 1 and (i - 1) / (count - 1) or 0.5) * (right - left) end
    local function at_y(value) return bottom - value / most * (bottom - top) end
    local step, factor = nice_step(most, 5), settings.percent and 100 or 1
    for i = 0, math.floor(most / step + 1e-9) do
        local y = math.floor(at_y(i * step))
        sheet:fill(left, y, right, y + 1, GREY)
        local mark = ("%.4g%s"):format(i * step * factor, settings.percent and "%" or "")
        sheet:text(left - 10, y - 8, mark, { scale = 2, align = "right" })
    end
    local stride = math.max(1, nice_step(math.max(1, count - 1), 14))
    for i = 1, count, stride do
        sheet:text(at_x(i), bottom + 12, tostring(settings.first + i - 1), { scale = 2, align = "center" })
    end
    sheet:fill(left, bottom, right, bottom + 2, INK)
    return at_x, at_y
end

--- Options of @{chart}.
-- @table ChartOptions
-- @field title above it
-- @field x what lies along the horizontal axis
-- @field first its first number (0)
-- @field percent values are shares: marks in percent (false)
-- @field width pixels (960)
-- @field height pixels (520)

--- A line chart of one or more series over the same steps; the vertical axis begins at 0.
-- @tparam table series list of {name =, values = {number, ...} or Tensor [n]}
-- @tparam[opt] table given @{ChartOptions}
-- @treturn Tensor uint8 [h,w,3]
function draw.chart(series, given)
    local settings = options.check(given, {
        title = "string", x = "string", first = { type = "integer", default = 0 }, percent = "boolean",
        width = { type = "integer", min = 400, max = 10000, default = 960 },
        height = { type = "integer", min = 200, max = 10000, default = 520 },
    }, "draw.chart")
    local lists, count, most, label = {}, 0, 0, 0
    for i, one in ipairs(series) do
        lists[i] = tensor.isTensor(one.values) and one.values:totable() or one.values
        for _, value in ipairs(lists[i]) do most = math.max(most, value) end
        count, label = math.max(count, #lists[i]), math.max(label, canvas.textWidth(one.name, 2))
    end
    if count == 0 then error("draw.chart: there are no values", 2) end
    most = most > 0 and most or 1
    most = math.ceil(most / nice_step(most, 5) - 1e-9) * nice_step(most, 5)

    local sheet = canvas.new(settings.height, settings.width)
    local frame = { 96, 64, settings.width - label - 64, settings.height - 76 }
    local at_x, at_y = draw_axes(sheet, frame, count, most, settings)
    sheet:text(frame[1], 22, settings.title or "", { scale = 2 })
    sheet:text((frame[1] + frame[3]) / 2, settings.height - 34, settings.x or "", { scale = 2, align = "center" })
    for i, values in ipairs(lists) do
        local color = SERIES[(i - 1) % #SERIES + 1]
        for k, value in ipairs(values) do
            local before = math.max(1, k - 1)
            sheet:line(at_x(before), at_y(values[before]), at_x(k), at_y(value), color, 3)
            sheet:line(at_x(k), at_y(value), at_x(k), at_y(value), color, 9)
        end
        local y = frame[2] + (i - 1) * 30
        sheet:fill(frame[3] + 20, y, frame[3] + 38, y + 14, color)
        sheet:text(frame[3] + 48, y, series[i].name, { scale = 2 })
    end
    return sheet.picture
end

return draw
