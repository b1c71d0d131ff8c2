--- Datasets: pictures or videos with masked regions.
--
-- @{samples} reads any of them as pictures with their regions:
--
--     for sample in dataset.samples("instances.json", { root = "train2017" }) do
--         local scene = model:encode(sample.media())
--         for _, region in ipairs(sample.regions) do
--             print(region.fields.category, scene:ask("Describe <region>.", region.masks()))
--         end
--     end
--
-- @{open} reads the reference's format as it is, with questions, answers and a mask for each `<region>`:
--
--     for record, problem in dataset.open("train.json", { root = "pictures" }) do
--         if record then
--             local scene = model:encode(record:media())
--             for i, turn in ipairs(record.turns) do
--                 print(scene:ask(turn.question, record:regions(i)), turn.answer)
--             end
--         else
--             io.stderr:write(tostring(problem), "\n") -- file, line and reason; the rest goes on
--         end
--     end
--
-- Such a file is a JSON array or has one object a line. It is read piece by piece: memory holds one record, whatever
-- the file's length. A record looks like
--
--     {"image": "p.jpg", "width": 640, "height": 480, "masks": [annotation, ...],
--      "conversations": [{"from": "human", "value": "<image>\nWhat is <region>?"}, {"from": "gpt", "value": "..."}]}
--
-- or has a `"video"`: a path, or a list of frame pictures with their `"timestamps"` in seconds and, in
-- `"masked_video"`, the pictures that carry masks. A video's masks are one object an entry, `{"<frame>": annotation,
-- ...}`. Annotations are COCO's: polygons and run lengths of either kind. Masks are decoded when they are asked for.
-- @module pixelrefer.dataset
local json = require "pixelrefer.json"
local mask = require "pixelrefer.mask"
local options = require "pixelrefer.options"
local pieces = require "pixelrefer.dataset.pieces"

local dataset = {}

-- ---- records -----------------------------------------------------------------------------------------------------

-- What is wrong with one record; raised while it is read, told to the caller.
local function fail(format, ...)
    error({ reason = format:format(...) }, 0)
end

local function count_tags(text)
    local _, count = text:gsub("<region>", "")
    return count
end

local HUMAN, MODEL = { human = true, user = true }, { gpt = true, assistant = true }

-- Questions with their answers. As in the reference, what stands before the first question is dropped; masks belong to
-- the `<region>` tags in order.
local function read_turns(object, masks)
    local list = object.conversations
    if type(list) ~= "table" then fail('"conversations" is missing: a list expected') end
    local turns, tags, asked = {}, 0, false
    for i, entry in ipairs(list) do
        if type(entry) ~= "table" or type(entry.value) ~= "string" or type(entry.from) ~= "string" then
            fail('conversations[%d]: {"from": ..., "value": ...} expected', i)
        end
        if HUMAN[entry.from] then
            if asked then fail("conversations[%d]: a question after a question", i) end
            local count = count_tags(entry.value)
            turns[#turns + 1] = { question = entry.value, first = tags + 1, count = count }
            tags, asked = tags + count, true
        elseif MODEL[entry.from] then
            if asked then
                turns[#turns].answer = entry.value
                tags = tags + count_tags(entry.value)
            elseif #turns > 0 then
                fail("conversations[%d]: an answer after an answer", i)
            end
            asked = false
        elseif entry.from ~= "system" then
            fail('conversations[%d]: from "human" or "gpt" expected, found "%s"', i, entry.from:sub(1, 40))
        end
    end
    if #turns == 0 then fail('"conversations" has no question') end
    if tags ~= masks then
        fail("the conversation has %d <region> tag%s, but there %s %d mask%s", tags, tags == 1 and "" or "s",
             masks == 1 and "is" or "are", masks, masks == 1 and "" or "s")
    end
    return turns
end

local function is_annotation(value)
    if type(value) ~= "table" then return false end
    if value.segmentation then value = value.segmentation end
    if type(value) ~= "table" then return false end
    if value.counts ~= nil then
        return type(value.size) == "table" and (type(value.counts) == "string" or type(value.counts) == "table")
    end
    return value[1] ~= nil, true
end

-- Checks the form of an annotation; its runs and points are looked at when it is decoded.
local function check_annotation(value, what, object)
    local fine, polygons = is_annotation(value)
    if not fine then fail("%s: polygons or an RLE expected", what) end
    if polygons and (type(object.height) ~= "number" or type(object.width) ~= "number") then
        fail('%s: polygons need the record\'s "width" and "height"', what)
    end
    return value
end

-- A video's object: {{frame =, annotation =}, ...}, by frame.
local function read_object(entry, i, object)
    if type(entry) ~= "table" or #entry > 0 then fail('masks[%d]: {"<frame>": annotation, ...} expected', i) end
    local frames = {}
    for key, annotation in pairs(entry) do
        local frame = type(key) == "string" and key:match("^%d+$") and tonumber(key)
        if not frame then fail('masks[%d]: a frame\'s number expected, found "%s"', i, tostring(key):sub(1, 40)) end
        frames[#frames + 1] = {
            frame = frame,
            annotation = check_annotation(annotation, ('masks[%d]["%s"]'):format(i, key), object),
        }
    end
    if #frames == 0 then fail("masks[%d]: an object without a frame", i) end
    table.sort(frames, function(a, b) return a.frame < b.frame end)
    return frames
end

local function read_masks(object, is_video)
    local list, masks = object.masks, {}
    if list == nil or list == json.null then return masks end
    if type(list) ~= "table" or (next(list) ~= nil and #list == 0) then fail('"masks": a list expected') end
    for i, entry in ipairs(list) do
        masks[i] = is_video and read_object(entry, i, object)
            or check_annotation(entry, ("masks[%d]"):format(i), object)
    end
    return masks
end

-- One path, or a list of them, below the root.
local function paths_of(value, root, name)
    local function path(text)
        if type(text) ~= "string" or text == "" then fail('"%s": a path expected', name) end
        return (text:sub(1, 1) == "/" or root == "") and text or root .. "/" .. text
    end
    if type(value) ~= "table" then return path(value) end
    if #value == 0 then fail('"%s": an empty list', name) end
    local list = {}
    for i, text in ipairs(value) do list[i] = path(text) end
    return #list == 1 and list[1] or list
end

-- Frames given as pictures: their times, and the pictures of the frames with masks, by frame number. The reference
-- numbers `masked_video` by the order in which frames first occur in the masks.
local function read_frame_list(record, object, root)
    local times = object.timestamps
    if type(times) ~= "table" or #times ~= #record.video then
        fail('"timestamps": %d numbers expected, one a frame', #record.video)
    end
    for i, seconds in ipairs(times) do
        if type(seconds) ~= "number" then fail('"timestamps"[%d]: a number expected', i) end
    end
    record.times, record.masked = times, {}
    local order, seen = {}, {}
    for _, frames in ipairs(record.masks) do
        for _, part in ipairs(frames) do
            if not seen[part.frame] then seen[part.frame], order[#order + 1] = true, part.frame end
        end
    end
    if #order == 0 then return end
    local pictures = paths_of(object.masked_video, root, "masked_video")
    if type(pictures) == "string" then pictures = { pictures } end
    if #pictures ~= #order then
        fail('"masked_video": %d pictures for %d frames with masks', #pictures, #order)
    end
    for i, frame in ipairs(order) do record.masked[frame] = pictures[i] end
end

--- A record.
-- @type Record
-- @field line where it begins in the file
-- @field image the picture's path, or a list of paths; nil for a video
-- @field video the clip's path, or a list of its frames' paths; nil for a picture
-- @field turns list of {question =, answer =}; an answer can be missing at the end
-- @field id what the file calls the record, if it does
-- @field width pixels, if the file says
-- @field height pixels, if the file says
-- @field masks the annotations, not decoded
-- @field extra the whole JSON object
local Record = {}
Record.__index = Record

local function read_record(text, line, root)
    local ok, object = pcall(json.decode, text)
    if not ok then fail("not valid JSON: %s", (tostring(object):gsub("^text: not valid JSON: ", ""))) end
    if type(object) ~= "table" or #object > 0 then fail("an object expected") end
    local record = setmetatable({ line = line, extra = object }, Record)
    for _, key in ipairs { "id", "width", "height" } do
        if object[key] ~= json.null then record[key] = object[key] end
    end
    for _, key in ipairs { "image", "video" } do
        if object[key] ~= nil and object[key] ~= json.null then record[key] = paths_of(object[key], root, key) end
    end
    if record.image and record.video then fail('both "image" and "video"') end
    if not record.image and not record.video then
        if object.masks and object.masks ~= json.null then fail('"image" or "video" expected') end
    end
    record.masks = read_masks(object, record.video ~= nil)
    if type(record.video) == "table" then read_frame_list(record, object, root) end
    record.turns = read_turns(object, #record.masks)
    return record
end

local function decode(annotation, record)
    if annotation.segmentation then annotation = annotation.segmentation end
    if annotation.counts then return mask.rle(annotation) end
    return mask.polygon({ record.height, record.width }, annotation)
end

--- Decodes one mask, as `scene:ask` takes it.
-- @tparam int i its number
-- @tparam[opt] boolean one_frame of an object with masks in several frames the first alone
-- @treturn Tensor|table for a picture a mask; for a video the object's {mask =, frame =}, or a list of those
-- @raise an annotation that cannot be decoded, naming its number
function Record:region(i, one_frame)
    local ok, result = pcall(function()
        if not self.video then return decode(self.masks[i], self) end
        local frames = {}
        for f, part in ipairs(self.masks[i]) do
            if f > 1 and one_frame then break end
            frames[f] = { mask = decode(part.annotation, self), frame = part.frame }
        end
        return #frames == 1 and frames[1] or frames
    end)
    if not ok then error(("line %d: masks[%d]: %s"):format(self.line, i, tostring(result)), 0) end
    return result
end

--- Decodes the masks of one turn, or of all.
-- @tparam[opt] int turn
-- @tparam[opt] boolean one_frame as for `region`
-- @treturn table each as `region` gives it
-- @raise an annotation that cannot be decoded, naming its number
function Record:regions(turn, one_frame)
    local first, last = 1, #self.masks
    if turn then
        local asked = self.turns[turn]
        if not asked then error(("turn %s of %d"):format(tostring(turn), #self.turns), 2) end
        first, last = asked.first, asked.first + asked.count - 1
    end
    local regions = {}
    for i = first, last do regions[#regions + 1] = self:region(i, one_frame) end
    return regions
end

--- The numbers of the frames that carry masks, in order.
-- @treturn {int,...}
function Record:frames()
    local numbers, seen = {}, {}
    for _, frames in ipairs(self.video and self.masks or {}) do
        for _, part in ipairs(frames) do
            if not seen[part.frame] then seen[part.frame], numbers[#numbers + 1] = true, part.frame end
        end
    end
    table.sort(numbers)
    return numbers
end

-- Seconds of the frames with masks, where frames are given as pictures: those of the frame in the list that has their
-- number.
local function masked_times(record)
    local times = {}
    for frame in pairs(record.masked) do times[frame] = record.times[frame + 1] or frame end
    return times
end

-- Options of video.load for a record: what is asked for, and the frames with masks.
local function sampling_of(record, given)
    local sampling = { frame_ids = record:frames() }
    for key, value in pairs(given or {}) do sampling[key] = value end
    return sampling
end

--- Loads the record's picture or video, as `model:encode` takes it.
-- @tparam[opt] table given options of @{pixelrefer.video.load}; a picture needs none
-- @treturn Tensor|table|Video an image, a list of images, a Video; nil for a record of text alone
function Record:media(given)
    local image, video = require "pixelrefer.image", require "pixelrefer.video"
    local function load_all(paths)
        local list = {}
        for key, path in pairs(paths) do list[key] = image.load(path) end
        return list
    end
    if self.image then return type(self.image) == "table" and load_all(self.image) or image.load(self.image) end
    if not self.video then return nil end
    if type(self.video) == "table" then
        return video.fromFrames(load_all(self.video), {
            times = self.times,
            masked_frames = load_all(self.masked),
            masked_times = masked_times(self),
        })
    end
    return video.load(self.video, sampling_of(self, given))
end

--- Begins to read what @{Record:media} will give, beside whatever else is done: `image.ahead` and `video.ahead`. A list
-- of pictures is left to `media`.
-- @tparam[opt] table given as for @{Record:media}
function Record:ahead(given)
    if type(self.image) == "string" then
        require("pixelrefer.image").ahead(self.image)
    elseif type(self.video) == "string" then
        require("pixelrefer.video").ahead(self.video, sampling_of(self, given))
    end
end

-- ---- datasets ----------------------------------------------------------------------------------------------------

local Problem = {}
Problem.__index = Problem
Problem.__tostring = function(problem)
    return ("%s:%d: %s"):format(problem.path, problem.line, problem.reason)
end

-- The function that gives the next piece of the window: text, line, and a reason when it cannot be a record.
local function pieces_of(window)
    if not window:accept("[") then return window.next_line end
    return function()
        local text, line, reason = window:next_element()
        if text or not window:skip_blanks() then return text, line, reason end
        return "", window.line, "something stands behind the list's ']'"
    end
end

--- Opens a dataset. The result is an iterator for one `for`: it gives a Record and, where one is broken, `false` and
-- what is wrong with it (`path`, `line`, `reason`; as a string all three).
-- @tparam string path
-- @tparam[opt] table given
-- @tparam[opt] string given.root the folder of relative paths; the file's own unless said
-- @treturn function `record, problem = next()`
-- @treturn function the bytes that have been read
-- @treturn int the bytes of the file
-- @raise a file that cannot be read
function dataset.open(path, given)
    if type(path) ~= "string" then error("dataset.open: a path expected, got " .. type(path), 0) end
    local settings = options.check(given, { root = "string" }, "dataset.open")
    local root = settings.root or path:match("^(.*)/[^/]*$") or ""
    local window = pieces.open(path)
    local next_piece, ended = pieces_of(window), false
    local function next_record()
        if not window.file then return nil end
        local text, line, reason
        if not ended then text, line, reason = next_piece(window) end
        if not text then
            window:close()
            return nil
        end
        ended = reason and next_piece ~= window.next_line
        local ok, record = true, nil
        if not reason then ok, record = pcall(read_record, text, line, root) end
        if ok and record then return record end
        if not ok and type(record) ~= "table" then error(record, 0) end
        return false, setmetatable({ path = path, line = line, reason = reason or record.reason }, Problem)
    end
    return next_record, function() return window:offset() end, window.bytes
end

-- ---- samples -----------------------------------------------------------------------------------------------------

local COCO_KEYS = { info = true, licenses = true, images = true, annotations = true, categories = true }

-- Whether a file holds COCO's one object: its first key tells it from a record.
local function is_coco(path)
    local window = pieces.open(path)
    local key = window:accept("{") and window:next_key()
    window:close()
    return COCO_KEYS[key] or false
end

--- What kind of dataset a path is.
-- @tparam string path
-- @treturn string "folder", "coco" or "conversations"
-- @raise a file that cannot be read
function dataset.kind(path)
    if type(path) ~= "string" or path == "" then
        error("dataset: a path expected, got " .. (path == "" and "an empty string" or type(path)), 0)
    end
    if require("pixelrefer.core").path_kind(path) == "directory" then return "folder" end
    return is_coco(path) and "coco" or "conversations"
end

--- Opens a dataset of any kind as samples, each a picture or video with its regions:
--
-- - a COCO or LVIS instances file;
-- - a file in the reference's format (neighbouring records of one picture are one sample);
-- - a folder of pictures with a mask PNG for each in the folder `masks` (or `given.masks`): `masks/NAME.png`, where an
--   indexed PNG has a region for each index but 0, or a folder `masks/NAME` with a PNG for each region. A folder among
--   the pictures is a video, its frames in order; `masks/VIDEO/FRAME.png` are indexed PNGs, an index for each object.
--
-- A sample has `name` (of its picture, as the dataset says it), `path`, `kind` ("image" or "video"), `id`, `width` and
-- `height` where known, `fields` (what the dataset says about it), `regions`, and `media(sampling)`, which loads it as
-- `model:encode` takes it; some have `ahead(sampling)`, which begins to read that beside whatever else is done. A
-- region has `id`, `fields`, and `masks()`, which decodes what `scene:ask` takes (of a folder's video `masks(true)`
-- only the object's first frame: PixelRefer takes one); a question also `question` and
-- `answer`. What is broken has a `problem`, the reason, and no media or masks.
-- @tparam string path
-- @tparam[opt] table given
-- @tparam[opt] string given.root the folder of relative paths; the file's own unless said
-- @tparam[opt] string given.masks a folder's masks; its `masks` unless said
-- @tparam[opt=false] boolean given.questions in the reference's format a region is a question with all its masks, not a
--   mask
-- @treturn function `sample = next()`
-- @treturn function the share of the dataset that has been read, 0 to 1
-- @treturn table what is known about all of it: COCO's `categories` by id; else empty
-- @raise a file that cannot be read
function dataset.samples(path, given)
    local settings = options.check(given, { root = "string", masks = "string", questions = "boolean" },
                                   "dataset.samples")
    local kind = dataset.kind(path)
    if kind == "folder" then
        return require("pixelrefer.dataset.folder").samples(path, settings.masks or path .. "/masks")
    end
    local root = settings.root or path:match("^(.*)/[^/]*$") or ""
    if kind == "coco" then
        local next_sample, share, categories = require("pixelrefer.dataset.coco").samples(path,
            root == "" and "" or root .. "/")
        return next_sample, share, { categories = categories }
    end
    return require("pixelrefer.dataset.conversations").samples(path, root, settings.questions)
end

return dataset
