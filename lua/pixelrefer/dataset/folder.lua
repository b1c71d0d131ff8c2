--- A folder of pictures and videos with mask PNGs as samples, in the order of the names.
-- @module pixelrefer.dataset.folder
local core = require "pixelrefer.core"
local mask = require "pixelrefer.mask"

local folder = {}

local PICTURES = { jpg = true, jpeg = true, png = true, webp = true, bmp = true, tif = true, tiff = true, ppm = true }

local function stem_of(name)
    return name:match("^(.+)%.[^.]*$") or name
end

local function is_picture(name)
    return name:sub(1, 1) ~= "." and PICTURES[(name:match("%.([^.]*)$") or ""):lower()] or false
end

local function pictures_in(path)
    local names = {}
    for _, name in ipairs(core.list_directory(path)) do
        if is_picture(name) then names[#names + 1] = name end
    end
    return names
end

local function indexed(path)
    local _, is_indexed = core.picture_format(path)
    return is_indexed
end

-- ---- pictures ----------------------------------------------------------------------------------------------------

-- The regions of a mask file: each index of an indexed PNG, or the whole.
local function add_file(regions, path, name)
    local fields = { mask = name }
    if not indexed(path) then
        regions[#regions + 1] = { id = name, fields = fields, masks = function() return { mask.png(path) } end }
        return
    end
    local masks, indices = mask.indexedPng(path)
    for i, index in ipairs(indices) do
        regions[#regions + 1] = {
            id = ("%s:%d"):format(name, index),
            fields = { mask = name, index = index },
            masks = function() return { masks[i] } end,
        }
    end
end

local function picture_sample(path, name, masks)
    local stem, sample = stem_of(name), { kind = "image", name = name, path = path, regions = {}, fields = {} }
    sample.media = function() return require("pixelrefer.image").load(path) end
    sample.ahead = function() require("pixelrefer.image").ahead(path) end
    local file = ("%s/%s.png"):format(masks, stem)
    if core.path_kind(file) then add_file(sample.regions, file, stem) end
    local own = ("%s/%s"):format(masks, stem)
    if core.path_kind(own) == "directory" then
        for _, each in ipairs(pictures_in(own)) do
            add_file(sample.regions, own .. "/" .. each, stem .. "/" .. stem_of(each))
        end
    end
    if #sample.regions == 0 then sample.problem = ("%s: no mask %s"):format(path, file) end
    return sample
end

-- ---- videos ------------------------------------------------------------------------------------------------------

-- The frames of each object: index -> {{frame =, path =}, ...}.
local function objects_in(frames, masks)
    local objects, order = {}, {}
    for i, name in ipairs(frames) do
        local path = ("%s/%s.png"):format(masks, stem_of(name))
        if core.path_kind(path) then
            if not indexed(path) then error(path .. ": an indexed PNG expected, an index for each object", 0) end
            local found, indices = mask.indexedPng(path)
            for k, index in ipairs(indices) do
                found[k]:free() -- decoded again when asked for: a clip's masks may be many
                if not objects[index] then
                    objects[index] = {}
                    order[#order + 1] = index
                end
                table.insert(objects[index], { frame = i - 1, path = path })
            end
        end
    end
    table.sort(order)
    return objects, order
end

local function mask_of(path, index)
    local found, indices = mask.indexedPng(path)
    for i, each in ipairs(indices) do
        if each == index then return found[i] end
    end
    error(("%s: the index %d is no longer there"):format(path, index), 0)
end

local function video_sample(path, name, masks)
    local sample = { kind = "video", name = name, path = path, regions = {}, fields = {} }
    local objects, order = objects_in(pictures_in(path), masks .. "/" .. name)
    local numbers, seen = {}, {}
    for _, index in ipairs(order) do
        for _, part in ipairs(objects[index]) do
            if not seen[part.frame] then seen[part.frame], numbers[#numbers + 1] = true, part.frame end
        end
        sample.regions[#sample.regions + 1] = {
            id = ("%s:%d"):format(name, index),
            fields = { index = index, frames = #objects[index] },
            masks = function(one_frame)
                local frames = {}
                for f, part in ipairs(objects[index]) do
                    if f == 1 or not one_frame then
                        frames[f] = { frame = part.frame, mask = mask_of(part.path, index) }
                    end
                end
                return { frames }
            end,
        }
    end
    table.sort(numbers)
    sample.media = function(sampling)
        local given = { frame_ids = numbers }
        for key, value in pairs(sampling or {}) do given[key] = value end
        return require("pixelrefer.video").load(path, given)
    end
    if #order == 0 then sample.problem = ("%s: no masks in %s/%s"):format(path, masks, name) end
    return sample
end

--- Opens a folder as `dataset.samples` does.
-- @tparam string path
-- @tparam string masks the folder of the masks
-- @treturn function iterator over samples
-- @treturn function the share of them that has been read, 0 to 1
-- @treturn table empty
-- @raise a folder that is not there, or has no pictures
function folder.samples(path, masks)
    if core.path_kind(masks) ~= "directory" then error(masks .. ": no such folder of masks", 0) end
    local entries = {}
    for _, name in ipairs(core.list_directory(path)) do
        local whole = path .. "/" .. name
        local is_video = core.path_kind(whole) == "directory" and whole ~= masks and name:sub(1, 1) ~= "."
            and #pictures_in(whole) > 0
        if is_video or (is_picture(name) and core.path_kind(whole) == "file") then
            entries[#entries + 1] = { name = name, read = is_video and video_sample or picture_sample }
        end
    end
    if #entries == 0 then error(path .. ": no pictures there", 0) end
    local at = 0
    local function next_sample()
        at = at + 1
        local entry = entries[at]
        if not entry then return nil end
        local ok, sample = pcall(entry.read, path .. "/" .. entry.name, entry.name, masks)
        if not ok then return { name = entry.name, regions = {}, problem = tostring(sample) } end
        for number, region in ipairs(sample.regions) do region.number = number end
        return sample
    end
    return next_sample, function() return math.min(at / #entries, 1) end, {}
end

return folder
