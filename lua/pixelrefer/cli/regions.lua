--- Regions as the command line writes them.
--
--     --box x0,y0,x1,y1   --mask file.png   --rle file.json   --polygon "x,y x,y x,y"
--
-- On a video each is prefixed by its frame, "12:", and one object in several frames joins them with ";".
-- @module pixelrefer.cli.regions
local arguments = require "pixelrefer.cli.arguments"
local json = require "pixelrefer.json"
local mask = require "pixelrefer.mask"

local regions = {}

--- The options that name regions, for `arguments.parse`.
regions.OPTIONS = { box = "repeated", mask = "repeated", rle = "repeated", polygon = "repeated" }

local function numbers(text, what)
    local list = {}
    for word in text:gmatch("[^%s,]+") do
        local value = tonumber(word)
        if not value then arguments.fail("%s: a number expected, found '%s'", what, word) end
        list[#list + 1] = value
    end
    return list
end

-- Calls make(...); its error says where the description stood, not which function of the library was called.
local function naming(where, make, ...)
    local ok, result = pcall(make, ...)
    if ok then return result end
    local reason = tostring(result):gsub("^[^:\n]+%.lua:%d+: ", "")
    reason = reason:match("^bad argument #%d+ to '[^']*' %((.*)%)$") or reason:gsub("^mask%.%w+: ", "")
    error(("%s: %s"):format(where, reason), 0)
end

local function read_box(text, picture)
    local corners = numbers(text, "--box")
    if #corners ~= 4 then arguments.fail("--box: x0,y0,x1,y1 expected, found '%s'", text) end
    return { naming("--box", mask.box, picture, unpack(corners)) }
end

local function read_polygon(text, picture)
    return { naming("--polygon", mask.polygon, picture, { numbers(text, "--polygon") }) }
end

local function read_rle(path, picture)
    local content = json.read(path)
    if type(content) ~= "table" then error(path .. ": an RLE, an annotation or a list of them expected", 0) end
    local list = (content.counts or content.segmentation) and { content } or content
    local masks = {}
    for i, annotation in ipairs(list) do
        masks[i] = naming(#list > 1 and ("%s: mask %d"):format(path, i) or path, mask.coco, annotation,
            { picture:size(1), picture:size(2) })
    end
    if #masks == 0 then error(path .. ": no masks in it", 0) end
    return masks
end

-- Each returns the masks that one description stands for.
local readers = { box = read_box, polygon = read_polygon, rle = read_rle, mask = mask.read }

local function split(text, separator)
    local parts = {}
    for part in (text .. separator):gmatch("(.-)%" .. separator) do parts[#parts + 1] = part end
    return parts
end

--- The frames that the descriptions name, so that a video can be opened with them.
-- @tparam table repeated {name, value} pairs as `arguments.parse` lists them
-- @treturn table sorted 0-based frame indices
function regions.frames(repeated)
    local seen, list = {}, {}
    for _, pair in ipairs(repeated) do
        for _, part in ipairs(split(pair[2], ";")) do
            local frame = tonumber(part:match("^%s*(%d+):"))
            if not frame then
                arguments.fail("--%s: on a video a region begins with its frame, as in '0:%s'", pair[1], part)
            end
            if not seen[frame] then
                seen[frame] = true
                list[#list + 1] = frame
            end
        end
    end
    table.sort(list)
    return list
end

--- Reads the descriptions into regions as `scene:ask` takes them.
-- @tparam table repeated {name, value} pairs
-- @tparam Tensor|Video media
-- @treturn table regions
function regions.read(repeated, media)
    local list = {}
    for _, pair in ipairs(repeated) do
        local name, text = pair[1], pair[2]
        if type(media) == "userdata" then
            for _, one in ipairs(readers[name](text, media)) do list[#list + 1] = one end
        else
            local object = {}
            for _, part in ipairs(split(text, ";")) do
                local frame, description = part:match("^%s*(%d+):(.*)$")
                frame = tonumber(frame)
                local masks = readers[name](description, (media:frame(frame)))
                if #masks ~= 1 then
                    arguments.fail("--%s: '%s' holds %d regions; on a video one is expected", name, part, #masks)
                end
                object[#object + 1] = { mask = masks[1], frame = frame }
            end
            list[#list + 1] = #object == 1 and object[1] or object
        end
    end
    return list
end

return regions
