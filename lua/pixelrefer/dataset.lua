--- Datasets in the reference's format: pictures or videos, questions with answers, a mask for each `<region>`.
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
-- A file is a JSON array or has one object a line. It is read piece by piece: memory holds one record, however long the
-- file is. A record looks like
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

local dataset = {}

local CHUNK_BYTES = 2 ^ 16
local RECORD_BYTES = 2 ^ 26 -- a longer record is no record: an unclosed string would swallow the file

-- ---- pieces of a file --------------------------------------------------------------------------------------------

-- A window on a file: `text` is what has been read, `from` the position of the first byte that is not yet dropped, and
-- `line` the line of that byte.
local Window = {}
Window.__index = Window

local function new_window(path)
    local file, reason = io.open(path, "rb")
    if not file then error(reason, 0) end -- "path: why"
    return setmetatable({ path = path, file = file, text = "", from = 1, line = 1 }, Window)
end

--- Reads on, what was dropped thrown away: positions in the text change, those relative to `from` do not. A long piece
--- is doubled, so that its bytes are copied a few times only. False at the file's end.
function Window:more()
    local length = self:length()
    local chunk, reason = self.file:read(math.max(CHUNK_BYTES, math.min(length, RECORD_BYTES - length)))
    if reason then error(("%s: %s"):format(self.path, reason), 0) end
    if not chunk then return false end
    self.text, self.from = self.text:sub(self.from) .. chunk, 1
    return true
end

--- Bytes that are there and not dropped.
function Window:length()
    return #self.text - self.from + 1
end

--- The first `count` bytes, which are dropped.
-- @tparam int count
-- @treturn string
function Window:take(count)
    local last = self.from + count - 1
    local at = self.from
    while true do
        at = self.text:find("\n", at, true)
        if not at or at > last then break end
        self.line, at = self.line + 1, at + 1
    end
    local taken = self.text:sub(self.from, last)
    self.from = last + 1
    return taken
end

--- The first byte; nil when nothing is there.
function Window:first()
    return self.text:byte(self.from)
end

--- Drops blanks; false at the file's end.
function Window:skip_blanks()
    while true do
        local at = self.text:find("%S", self.from)
        self:take((at or #self.text + 1) - self.from)
        if at then return true end
        if not self:more() then return false end
    end
end

-- Lines: each that is not blank is a piece. Returns text, line, and a reason when it cannot be a record.
local function next_line(window)
    if not window:skip_blanks() then return nil end
    local line, scanned = window.line, 0
    while true do
        local at = window.text:find("\n", window.from + scanned, true)
        if at then return window:take(at - window.from + 1), line end
        scanned = window:length()
        if scanned > RECORD_BYTES then break end
        if not window:more() then return window:take(scanned), line end
    end
    repeat -- the rest of a line that is too long
        local at = window.text:find("\n", window.from, true)
        window:take(at and at - window.from + 1 or window:length())
    until at or not window:more()
    return "", line, ("a line of more than %d bytes"):format(RECORD_BYTES)
end

local QUOTE, BACKSLASH, COMMA, BRACKET, BRACE, BRACKET_END = ('"\\,[{]'):byte(1, 6)

-- Bytes of the value that begins the window, up to the `,` or `]` behind it; nil when the file ends in it, or it is too
-- long.
local function value_length(window)
    local depth, scanned, in_string = 0, 0, false
    while true do
        local found = window.text:find(in_string and '["\\]' or '[]["{},]', window.from + scanned)
        if not found then
            scanned = math.max(scanned, window:length())
            if scanned > RECORD_BYTES or not window:more() then return nil end
        else
            local byte = window.text:byte(found)
            scanned = found - window.from + 1
            if byte == QUOTE then
                in_string = not in_string
            elseif byte == BACKSLASH then -- the next character is only text
                scanned = scanned + 1
            elseif byte == BRACKET or byte == BRACE then
                depth = depth + 1
            elseif depth == 0 then
                return scanned - 1
            elseif byte ~= COMMA then
                depth = depth - 1
            end
        end
    end
end

-- Elements of an array whose `[` has been dropped. After a reason there is no further one.
local function next_element(window)
    if not window:skip_blanks() then return "", window.line, "the file ends within the list: ']' expected" end
    if window:first() == BRACKET_END then
        window:take(1)
        if window:skip_blanks() then return "", window.line, "something stands behind the list's ']'" end
        return nil
    end
    local line, length = window.line, value_length(window)
    if not length then
        return "", line, window:length() > RECORD_BYTES and ("a record of more than %d bytes"):format(RECORD_BYTES)
            or "the file ends within a record"
    end
    local text = window:take(length)
    if window:first() == COMMA then window:take(1) end
    return text, line
end

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

--- Decodes the masks of one turn, or of all, as `scene:ask` takes them.
-- @tparam[opt] int turn
-- @treturn table for a picture a list of masks; for a video each object's {mask =, frame =}, or a list of those
-- @raise an annotation that cannot be decoded, naming its number
function Record:regions(turn)
    local first, last = 1, #self.masks
    if turn then
        local asked = self.turns[turn]
        if not asked then error(("turn %s of %d"):format(tostring(turn), #self.turns), 2) end
        first, last = asked.first, asked.first + asked.count - 1
    end
    local regions = {}
    for i = first, last do
        local ok, result = pcall(function()
            if not self.video then return decode(self.masks[i], self) end
            local frames = {}
            for f, part in ipairs(self.masks[i]) do
                frames[f] = { mask = decode(part.annotation, self), frame = part.frame }
            end
            return #frames == 1 and frames[1] or frames
        end)
        if not ok then error(("line %d: masks[%d]: %s"):format(self.line, i, tostring(result)), 0) end
        regions[#regions + 1] = result
    end
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
    local sampling = { frame_ids = self:frames() }
    for key, value in pairs(given or {}) do sampling[key] = value end
    return video.load(self.video, sampling)
end

-- ---- datasets ----------------------------------------------------------------------------------------------------

local Problem = {}
Problem.__index = Problem
Problem.__tostring = function(problem)
    return ("%s:%d: %s"):format(problem.path, problem.line, problem.reason)
end

-- The function that gives the next piece of the window: text, line, and a reason when it cannot be a record.
local function pieces_of(window)
    while window:length() < 3 and window:more() do end
    if window.text:sub(1, 3) == "\239\187\191" then window:take(3) end -- a byte order mark
    if not window:skip_blanks() or window:first() ~= BRACKET then return next_line end
    window:take(1)
    return next_element
end

--- Opens a dataset. The result is an iterator for one `for`: it gives a Record and, where one is broken, `false` and
-- what is wrong with it (`path`, `line`, `reason`; as a string all three).
-- @tparam string path
-- @tparam[opt] table given
-- @tparam[opt] string given.root the folder of relative paths; the file's own unless said
-- @treturn function `record, problem = next()`
-- @raise a file that cannot be read
function dataset.open(path, given)
    if type(path) ~= "string" then error("dataset.open: a path expected, got " .. type(path), 0) end
    local settings = options.check(given, { root = "string" }, "dataset.open")
    local root = settings.root or path:match("^(.*)/[^/]*$") or ""
    local window = new_window(path)
    local next_piece, ended = pieces_of(window), false
    return function()
        if not window.file then return nil end
        local text, line, reason
        if not ended then text, line, reason = next_piece(window) end
        if not text then
            window.file:close()
            window.file = nil
            return nil
        end
        ended = reason and next_piece == next_element
        local ok, record = true, nil
        if not reason then ok, record = pcall(read_record, text, line, root) end
        if ok and record then return record end
        if not ok and type(record) ~= "table" then error(record, 0) end
        return false, setmetatable({ path = path, line = line, reason = reason or record.reason }, Problem)
    end
end

return dataset
