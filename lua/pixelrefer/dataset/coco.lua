--- COCO's and LVIS's instance files as samples: pictures in the file's order, each with its annotations in theirs.
--
-- Such a file is one object, a gigabyte long. It is gone through once for where its images and annotations stand (16
-- bytes for each); an image's annotations are decoded when its turn comes.
-- @module pixelrefer.dataset.coco
local ffi = require "ffi"
local json = require "pixelrefer.json"
local mask = require "pixelrefer.mask"
local pieces = require "pixelrefer.dataset.pieces"

local coco = {}

-- ---- where things stand ------------------------------------------------------------------------------------------

-- An element of a list: bytes `offset` to `offset + length` of the file. `image` numbers the picture it belongs to.
local ELEMENTS = ffi.typeof("struct { double offset; uint32_t length; int32_t image; }[?]")
local ELEMENT_BYTES = 16

local function new_list()
    return { count = 0, capacity = 1024, at = ELEMENTS(1024) }
end

local function append(list, offset, length, image)
    if list.count == list.capacity then
        local larger = ELEMENTS(2 * list.capacity)
        ffi.copy(larger, list.at, ELEMENT_BYTES * list.count)
        list.at, list.capacity = larger, 2 * list.capacity
    end
    local element = list.at[list.count]
    element.offset, element.length, element.image = offset, length, image
    list.count = list.count + 1
end

-- An id as the key of a table; nil when it is none.
local function id_of(object, key)
    local id = type(object) == "table" and object[key]
    return (type(id) == "number" or type(id) == "string") and id or nil
end

-- The image of an annotation. The key stands in the text as it is, unless somebody escaped its letters or has it twice:
-- then the annotation is decoded.
local function image_id_of(text)
    local first, last = text:find('"image_id"', 1, true)
    local digits = first and not text:find('"image_id"', last, true) and text:match("^%s*:%s*(%d+)%s*[,}]", last + 1)
    if digits then return tonumber(digits) end
    local ok, object = pcall(json.decode, text)
    return ok and id_of(object, "image_id") or nil
end

local function fail(window, format, ...)
    error(("%s: byte %d: %s"):format(window.path, window:offset(), format:format(...)), 0)
end

-- The window stands on a list: calls take(text, offset) with each element.
local function each_element(window, name, take)
    if not window:accept("[") then fail(window, '"%s": a list expected', name) end
    while true do
        local text, _, reason, offset = window:next_element()
        if not text then return end
        if reason then fail(window, '"%s": %s', name, reason) end
        take(text, offset)
    end
end

-- Numbers of the pictures by id, in the order in which ids occur; what is no id has number 0.
local function numbering()
    local numbers, ids = {}, {}
    return function(id)
        if id == nil then return 0 end
        if not numbers[id] then
            ids[#ids + 1] = id
            numbers[id] = #ids
        end
        return numbers[id]
    end, ids
end

local function read_categories(index, window)
    each_element(window, "categories", function(text)
        local ok, object = pcall(json.decode, text)
        local id = ok and id_of(object, "id")
        if id then index.categories[id] = object end
    end)
end

-- Goes through the file once.
local function read_index(path)
    local number_of, ids = numbering()
    local index = { path = path, images = new_list(), annotations = new_list(), categories = {}, ids = ids }
    local window = pieces.open(path)
    if not window:accept("{") then fail(window, "an object with \"images\" and \"annotations\" expected") end
    local readers = {
        images = function()
            each_element(window, "images", function(text, offset)
                local ok, object = pcall(json.decode, text)
                append(index.images, offset, #text, number_of(ok and id_of(object, "id") or nil))
            end)
        end,
        annotations = function()
            each_element(window, "annotations", function(text, offset)
                append(index.annotations, offset, #text, number_of(image_id_of(text)))
            end)
        end,
        categories = function() read_categories(index, window) end,
    }
    local seen = {}
    while true do
        local key, _, reason = window:next_key()
        if not key then break end
        if not reason then
            if readers[key] then
                if seen[key] then fail(window, '"%s" for a second time', key) end
                seen[key] = true
                readers[key]()
            elseif window:first() == "[" then
                each_element(window, key, function() end)
            else
                _, _, reason = window:next_value("value")
            end
        end
        if reason then fail(window, "%s", reason) end
    end
    if window:skip_blanks() then fail(window, "something stands behind the object's '}'") end
    window:close()
    for _, name in ipairs { "images", "annotations" } do
        if not seen[name] then error(('%s: no "%s" there'):format(path, name), 0) end
    end
    return index
end

-- The annotations by picture: those of number n are `order[first[n]]` to `order[first[n + 1] - 1]`.
local function by_picture(index)
    local list, numbers = index.annotations, #index.ids
    local first, order = ffi.new("int32_t[?]", numbers + 2), ffi.new("int32_t[?]", math.max(list.count, 1))
    for i = 0, list.count - 1 do
        local number = list.at[i].image
        first[number + 1] = first[number + 1] + 1
    end
    for number = 1, numbers + 1 do first[number] = first[number] + first[number - 1] end
    local next_place = ffi.new("int32_t[?]", numbers + 2)
    ffi.copy(next_place, first, 4 * (numbers + 2))
    for i = 0, list.count - 1 do
        local number = list.at[i].image
        order[next_place[number]] = i
        next_place[number] = next_place[number] + 1
    end
    return first, order
end

-- ---- samples -----------------------------------------------------------------------------------------------------

local function read_element(index, element)
    index.file:seek("set", element.offset)
    local text = index.file:read(element.length)
    if not text or #text ~= element.length then error(index.path .. ": it has become shorter", 0) end
    local ok, object = pcall(json.decode, text, ("byte %d"):format(element.offset))
    if not ok then return nil, object end
    if type(object) ~= "table" or #object > 0 then
        return nil, ("byte %d: an object expected"):format(element.offset)
    end
    for key, value in pairs(object) do
        if value == json.null then object[key] = nil end
    end
    return object
end

local function is_side(value)
    return type(value) == "number" and value >= 1 and value % 1 == 0
end

-- A box [x, y, width, height] covers the pixels that it touches.
local function box_mask(box, height, width)
    if type(box) ~= "table" or #box ~= 4 then error("neither a segmentation nor a box", 0) end
    for i = 1, 4 do
        if type(box[i]) ~= "number" then error("bbox: four numbers expected", 0) end
    end
    local x0, y0 = math.max(0, math.floor(box[1])), math.max(0, math.floor(box[2]))
    local x1, y1 = math.min(width, math.ceil(box[1] + box[3])), math.min(height, math.ceil(box[2] + box[4]))
    return mask.box({ height, width }, x0, y0, x1, y1)
end

local function read_mask(annotation, image)
    if not is_side(image.height) or not is_side(image.width) then
        error("the image has no width and height", 0)
    end
    local form = annotation.segmentation
    if form == nil or (type(form) == "table" and next(form) == nil) then
        return box_mask(annotation.bbox, image.height, image.width)
    end
    return mask.coco(annotation, { image.height, image.width })
end

local function read_region(index, number, element, image)
    local object, problem = read_element(index, element)
    if not object then return { number = number, problem = problem, fields = {} } end
    local region = { number = number, id = id_of(object, "id"), fields = object }
    local category = index.categories[object.category_id]
    if object.category == nil and category then object.category = category.name end
    object.image = image
    if object.image_id ~= image.id then region.problem = "its image_id is not where it is expected" end
    function region.masks()
        local ok, result = pcall(read_mask, object, image)
        if not ok then
            error(("annotation %s: %s"):format(tostring(region.id), (tostring(result):gsub("^mask%.%w+: ", ""))), 0)
        end
        return { result }
    end
    return region
end

-- LVIS names a picture by where it can be fetched: the split and the name are the address's last parts.
local function name_of(image)
    if type(image.file_name) == "string" and image.file_name ~= "" then return image.file_name end
    return type(image.coco_url) == "string" and image.coco_url:match("([^/]+/[^/]+)$") or nil
end

local function read_sample(index, element, repeated)
    local image, problem = read_element(index, element)
    if not image then return { problem = problem, regions = {} } end
    local sample = { id = id_of(image, "id"), kind = "image", name = name_of(image), regions = {}, fields = image,
        width = image.width, height = image.height }
    if not sample.id then
        sample.problem = ("byte %d: an image without an id"):format(element.offset)
    elseif repeated then
        sample.problem = ("image %s: the id of an image before it"):format(tostring(sample.id))
    elseif not sample.name then
        sample.problem = ("image %s: no file_name"):format(tostring(sample.id))
    end
    if sample.problem then return sample end
    local path = sample.name:sub(1, 1) == "/" and sample.name or index.root .. sample.name
    sample.path = path
    function sample.media() return require("pixelrefer.image").load(path) end
    function sample.ahead() require("pixelrefer.image").ahead(path) end
    for at = index.first[element.image], index.first[element.image + 1] - 1 do
        local annotation = index.annotations.at[index.order[at]]
        sample.regions[#sample.regions + 1] = read_region(index, #sample.regions + 1, annotation, image)
    end
    return sample
end

-- Annotations of a picture that is not there are one problem, told behind the pictures.
local function stray(index, number)
    local count = index.first[number + 1] - index.first[number]
    local annotation = read_element(index, index.annotations.at[index.order[index.first[number]]])
    local id = annotation and id_of(annotation, "id")
    return { regions = {}, problem = ("annotation %s%s: %s"):format(tostring(id or "without id"),
        count > 1 and (" and %d more"):format(count - 1) or "",
        number == 0 and "no image_id" or ("no image has the id %s"):format(tostring(index.ids[number]))) }
end

--- Opens a file as `dataset.samples` does.
-- @tparam string path
-- @tparam string root folder of relative paths: empty, or with a `/` at the end
-- @treturn function iterator over samples
-- @treturn function the share of them that has been read, 0 to 1
-- @treturn table `categories`: id -> the file's object
-- @raise a file that is no such file, or ends early
function coco.samples(path, root)
    local index = read_index(path)
    index.root, index.file = root, assert(io.open(path, "rb"))
    index.first, index.order = by_picture(index)
    local at, seen, number = 0, {}, -1
    local function next_sample()
        if at < index.images.count then
            local element = index.images.at[at]
            at = at + 1
            local repeated = seen[element.image]
            if element.image > 0 then seen[element.image] = true end
            return read_sample(index, element, repeated)
        end
        while number < #index.ids do
            number = number + 1
            if not seen[number] and index.first[number + 1] > index.first[number] then return stray(index, number) end
        end
        if index.file then index.file:close() end
        index.file = nil
        return nil
    end
    return next_sample, function() return at / math.max(index.images.count, 1) end, index.categories
end

return coco
