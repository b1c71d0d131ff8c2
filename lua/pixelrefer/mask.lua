--- Masks: which pixels of a picture a region has, as uint8 Tensors [h,w] of 0 and 1.
--
--     local mask = require "pixelrefer.mask"
--     local bus = mask.box(street, 1250, 0, 1600, 700)
--     local dog = mask.polygon(street, { { 10, 10, 90, 20, 50, 80 } })
--     print(mask.area(dog), mask.boundingBox(dog))
--     local both = mask.union(bus, dog)
--
-- Where a function takes a picture or a size, that is a Tensor [h,w] or [h,w,3], or a table {h, w}. Coordinates are
-- pixels counted from 0, x to the right, y down. COCO's formats are read and written exactly as pycocotools does.
-- @module pixelrefer.mask
local core = require "pixelrefer.core"
local tensor = require "pixelrefer.tensor"

local mask = {}

local function fail(format, ...)
    error(format:format(...), 3)
end

local function is_list(value)
    return type(value) == "table" and value[1] ~= nil
end

-- Height and width of a Tensor or of {h, w}.
local function size_of(where, like)
    if tensor.isTensor(like) then
        if like:dim() ~= 2 and like:dim() ~= 3 then
            error(("%s: a picture or a mask [h,w] expected, got a Tensor of %d dims"):format(where, like:dim()), 3)
        end
        return like:size(1), like:size(2)
    end
    if type(like) ~= "table" or #like ~= 2 or type(like[1]) ~= "number" or type(like[2]) ~= "number" then
        error(("%s: a picture or a size {h, w} expected, got %s"):format(where, type(like)), 3)
    end
    return like[1], like[2]
end

-- A mask argument, dense.
local function check_mask(where, value)
    if not tensor.isTensor(value) then error(("%s: a mask expected, got %s"):format(where, type(value)), 3) end
    if value:dtype() ~= "uint8" or value:dim() ~= 2 then
        error(("%s: a mask is a uint8 Tensor [h,w], got %s of %d dims"):format(where, value:dtype(), value:dim()), 3)
    end
    return value:contiguous()
end

--- A filled box, half-open: columns x0 to x1-1, rows y0 to y1-1.
-- @tparam Tensor|table like the picture, or its size {h, w}
-- @tparam int x0
-- @tparam int y0
-- @tparam int x1
-- @tparam int y1
-- @treturn Tensor
-- @raise a box that is empty or not inside the picture
function mask.box(like, x0, y0, x1, y1)
    local height, width = size_of("mask.box", like)
    local corners, names = { x0, y0, x1, y1 }, { "x0", "y0", "x1", "y1" }
    for i, name in ipairs(names) do
        if type(corners[i]) ~= "number" or corners[i] % 1 ~= 0 then
            fail("mask.box: %s is %s, expected a whole number", name, tostring(corners[i]))
        end
    end
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height then
        fail("mask.box: the box %d,%d,%d,%d is not inside the picture of %d x %d (width x height)", x0, y0, x1, y1,
             width, height)
    end
    if x0 >= x1 or y0 >= y1 then fail("mask.box: the box %d,%d,%d,%d is empty (x0 < x1, y0 < y1)", x0, y0, x1, y1) end
    return core.box_mask(height, width, x0, y0, x1, y1)
end

--- The inside of polygons (their union).
-- @tparam Tensor|table like the picture, or its size {h, w}
-- @tparam table polygons a list of polygons {x0, y0, x1, y1, x2, y2, ...}, or one such polygon; points may lie outside
-- @treturn Tensor
-- @raise fewer than three points (four numbers would be a box), a coordinate that is no number or beyond 1e6
function mask.polygon(like, polygons)
    local height, width = size_of("mask.polygon", like)
    if not is_list(polygons) then fail("mask.polygon: a list of polygons expected, got %s", type(polygons)) end
    if type(polygons[1]) == "number" then polygons = { polygons } end
    return core.polygon_mask(polygons, height, width)
end

--- A COCO run-length encoding, compressed (`counts` a string) or not (`counts` a list).
-- @tparam table rle `{ size = { h, w }, counts = ... }`
-- @tparam[opt] Tensor|table like the picture, or a size {h, w}, that it must fit
-- @treturn Tensor
-- @raise runs that do not fill the size exactly, text that is no RLE, another size than the picture's
function mask.rle(rle, like)
    if type(rle) ~= "table" then fail("mask.rle: a table {size = {h, w}, counts = ...} expected, got %s", type(rle)) end
    if type(rle.counts) ~= "string" and type(rle.counts) ~= "table" then
        fail("mask.rle: counts is %s, expected a string or a list", type(rle.counts))
    end
    if type(rle.size) ~= "table" then fail("mask.rle: size is %s, expected {h, w}", type(rle.size)) end
    local height, width = size_of("mask.rle", rle.size)
    if like then
        local expected_height, expected_width = size_of("mask.rle", like)
        if height ~= expected_height or width ~= expected_width then
            fail("mask.rle: the RLE is %s x %s, the picture %s x %s (height x width)", height, width, expected_height,
                 expected_width)
        end
    end
    return core.rle_decode(rle.counts, height, width)
end

--- A mask picture: whatever is not 0 is inside (alpha does not count). An indexed PNG: every index but 0.
-- @tparam string path a PNG, or any picture
-- @treturn Tensor
function mask.png(path)
    if type(path) ~= "string" then fail("mask.png: a path expected, got %s", type(path)) end
    local format, indexed = core.picture_format(path)
    if indexed then return core.mask_binarize((core.read_indexed_png(path))) end
    if format == "other" then return core.mask_binarize(core.read_picture(path)) end
    return core.read_mask(path)
end

--- The regions of an indexed PNG: one mask for each index but 0 that occurs, in the order of the indices.
-- @tparam string path
-- @treturn {Tensor,...} the masks
-- @treturn {int,...} their indices
function mask.indexedPng(path)
    if type(path) ~= "string" then fail("mask.indexedPng: a path expected, got %s", type(path)) end
    local indices = core.read_indexed_png(path)
    local masks, found = {}, {}
    for index = 1, 255 do
        local one = indices:eq(index)
        if core.mask_area(one) > 0 then
            masks[#masks + 1], found[#found + 1] = one, index
        else
            one:free()
        end
    end
    indices:free()
    return masks, found
end

--- Reads a mask file into a list: an indexed PNG gives a mask for each of its indices but 0 (an empty one when there is
-- none), any other picture one.
-- @tparam string path
-- @treturn {Tensor,...}
function mask.read(path)
    if type(path) ~= "string" then fail("mask.read: a path expected, got %s", type(path)) end
    local _, indexed = core.picture_format(path)
    local masks = indexed and mask.indexedPng(path) or {}
    return #masks > 0 and masks or { mask.png(path) }
end

--- A mask from a Tensor [h,w] of any type: whatever is not 0 is inside.
-- @tparam Tensor values
-- @treturn Tensor a new one
function mask.tensor(values)
    if not tensor.isTensor(values) then fail("mask.tensor: a Tensor expected, got %s", type(values)) end
    if values:dim() ~= 2 then fail("mask.tensor: a Tensor [h,w] expected, got one of %d dims", values:dim()) end
    if values:dtype() ~= "uint8" then values = values:ne(0) end
    return core.mask_binarize(values:contiguous())
end

--- A COCO annotation of any form: a list of polygons, an RLE of either kind, or a table that has one as its
-- `segmentation`.
-- @tparam table annotation
-- @tparam Tensor|table like the picture, or its size {h, w}
-- @treturn Tensor
function mask.coco(annotation, like)
    if type(annotation) ~= "table" then fail("mask.coco: a table expected, got %s", type(annotation)) end
    local size = { size_of("mask.coco", like) }
    if annotation.segmentation then annotation = annotation.segmentation end
    if type(annotation) == "table" and annotation.counts then return mask.rle(annotation, size) end
    if is_list(annotation) then return mask.polygon(size, annotation) end
    return fail("mask.coco: polygons or an RLE expected, found neither")
end

--- A mask as COCO run lengths.
-- @tparam Tensor m
-- @tparam[opt=false] boolean uncompressed a list of counts in place of the compressed text
-- @treturn table `{ size = { h, w }, counts = ... }`
function mask.toRle(m, uncompressed)
    m = check_mask("mask.toRle", m)
    return { size = { m:size(1), m:size(2) }, counts = (uncompressed and core.rle_counts or core.rle_encode)(m) }
end

--- Number of pixels inside.
-- @tparam Tensor m
-- @treturn int
function mask.area(m)
    return core.mask_area(check_mask("mask.area", m))
end

--- The tight box around a mask, half-open, so that `mask.box(m, mask.boundingBox(m))` covers it.
-- @tparam Tensor m
-- @treturn int x0
-- @treturn int y0
-- @treturn int x1
-- @treturn int y1
-- @raise an empty mask
function mask.boundingBox(m)
    local x0, y0, x1, y1 = core.mask_bounds(check_mask("mask.boundingBox", m))
    if not x0 then fail("mask.boundingBox: the mask is empty") end
    return x0, y0, x1, y1
end

--- What is inside any of the masks.
-- @tparam Tensor first
-- @tparam Tensor ... more masks of the same size
-- @treturn Tensor a new one
function mask.union(first, ...)
    local whole = mask.tensor(check_mask("mask.union", first))
    for i = 1, select("#", ...) do
        local other = check_mask("mask.union", (select(i, ...)))
        if other:size(1) ~= whole:size(1) or other:size(2) ~= whole:size(2) then
            fail("mask.union: mask %d is %d x %d, the first %d x %d (height x width)", i + 1, other:size(1),
                 other:size(2), whole:size(1), whole:size(2))
        end
        whole = whole:logicalOr(other)
    end
    return whole
end

return mask
