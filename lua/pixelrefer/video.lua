--- Videos: which frames are looked at, and their pictures.
--
--     local clip = video.load("dog.mp4", { fps = 2, start = 3, ["end"] = 10, frame_ids = { 120 } })
--     print(#clip.frames, clip.times[1], clip:frame(120):size(1))
--
-- A clip is sampled in one of the reference's two ways, or not at all:
--
-- - `way = "time"` (`load_video`): what is shown at each tick of a clock of `fps` ticks a second; with `fps = 0`, every
--   frame. When that gives more than `max_frames`, as many of them, evenly.
-- - `way = "index"` (`load_video_from_ids`): frames picked by their number through the average frame rate. Ranges of
--   less than a second, GIFs and directories of pictures always go this way, as there.
-- - `way = "ids"` (`load_video_from_specific_ids`): only the frames that `frame_ids` names.
--
-- Frame numbers count from 0, in presentation order from the file's start whatever `start` is; seconds count from the
-- file's start, too. Pictures are uint8 Tensors [height,width,3], RGB, upright. Only the frames that are kept are held
-- in memory, however long the clip is.
-- @module pixelrefer.video

local core = require "pixelrefer.core"
local interruption = require "pixelrefer.interruption"
local options = require "pixelrefer.options"

local video = {}

-- Frame rates that the reference takes where a file has none that it trusts.
local DIRECTORY_RATE, GIF_RATE = 3, 25

--- A loaded video.
-- @type Video
-- @field frames the sampled pictures, in order
-- @field times seconds of each
-- @field frame_numbers the number of each frame
-- @field masked_frames pictures of the frames in `frame_ids`, by frame number
-- @field masked_times seconds of those: number / frame rate
-- @field width pixels of the first picture; nil when none of a directory's was taken
-- @field height pixels
-- @field fps the average frame rate (3 for a directory, 25 for a GIF)
-- @field frame_count frames of the whole clip
-- @field path the file; nil for a video made of tensors
local Video = {}
Video.__index = Video

local function new_video(path)
    local self = { path = path, frames = {}, times = {}, frame_numbers = {}, masked_frames = {}, masked_times = {} }
    return setmetatable(self, Video)
end

-- ---- sources: a clip or a directory, both { count, rate, width, height, read(number), free() } ---------------------

local function open_clip(path)
    local reader = core.open_video(path)
    local info = reader:info()
    if info.is_picture then
        reader:free()
        error(("%s is a picture ('%s'), a video expected"):format(path, info.codec), 0)
    end
    return {
        info = info,
        reader = reader,
        count = info.frames,
        rate = info.container == "gif" and GIF_RATE or info.fps,
        by_index_only = info.container == "gif",
        read = function(number) return reader:read(number) end,
        free = function() reader:free() end,
    }
end

local function open_directory(path)
    local names = {}
    for _, name in ipairs(core.list_directory(path)) do
        if name:sub(1, 1) ~= "." and core.path_kind(path .. "/" .. name) == "file" then names[#names + 1] = name end
    end
    if #names == 0 then error(("%s holds no pictures: it has no files"):format(path), 0) end
    local load = require("pixelrefer.image").load
    return {
        count = #names,
        rate = DIRECTORY_RATE,
        by_index_only = true,
        read = function(number) return load(path .. "/" .. names[number + 1]) end,
        free = function() end,
    }
end

local function open_source(path)
    return core.path_kind(path) == "directory" and open_directory(path) or open_clip(path)
end

local function check_number(source, path, number)
    if type(number) ~= "number" or number ~= math.floor(number) or number < 0 or number >= source.count then
        error(("%s: frame %s is out of range: it has %d frames, 0 to %d"):format(path, tostring(number), source.count,
            source.count - 1), 0)
    end
end

-- ---- sampling --------------------------------------------------------------------------------------------------

--- Numpy's `linspace(first, last, count)`.
local function linspace(first, last, count)
    local values, step = {}, count > 1 and (last - first) / (count - 1) or 0
    for i = 1, count do values[i] = first + (i - 1) * step end
    if count > 1 then values[count] = last end
    return values
end

--- `count` of the integers 0 .. n-1, evenly: `linspace(0, n - 1, count)` truncated; all of them when they are fewer.
local function spread(n, count)
    local picked = linspace(0, n - 1, math.min(n, count))
    for i, value in ipairs(picked) do picked[i] = math.floor(value) end
    return picked
end

local function by_time(source, given)
    local reader, info, fps = source.reader, source.info, given.fps
    local ticks = reader:ticks(fps, given.start, given["end"])
    local start = given.start or info.start
    local finish = math.min(given["end"] or math.huge, info.duration + (given.start and 0 or start))
    local duration = math.max(finish - start, 0)
    local numbers, times, step = {}, {}, ticks > 1 and duration / (ticks - 1) or 0
    for i, tick in ipairs(spread(ticks, given.max_frames)) do
        numbers[i] = reader:frameAt(tick, fps, given.start, given["end"])
        if fps > 0 then
            times[i] = start + tick * (1 / fps)
        else -- evenly over the whole, its end included
            times[i] = ticks > 1 and tick == ticks - 1 and start + duration or start + tick * step
        end
    end
    return numbers, times
end

--- The first and last frame of a range of seconds.
local function index_range(source, path, given)
    local last_of_all = source.count - 1
    local first = math.max(math.floor((given.start or 0) * source.rate) - 1, 0)
    local last = given["end"] and math.min(math.floor(given["end"] * source.rate) - 1, last_of_all) or last_of_all
    if first > last_of_all then
        error(("%s: no frame from %g seconds on: it has %d frames, %g a second"):format(path, given.start, source.count,
            source.rate), 0)
    end
    return first, math.max(first, last)
end

local function by_index(source, path, given)
    local first, last = index_range(source, path, given)
    local rate, fps, count = source.rate, given.fps, last - first + 1
    local offsets = {}
    if fps > 0 and count / rate < given.max_frames then
        local segment = math.max(math.min(math.floor(rate / fps), count), 1)
        for offset = math.floor(segment / 2), count - 1, segment do offsets[#offsets + 1] = offset end
        local kept = {} -- a rate that is no multiple of fps gives a few more than fps a second
        for i, at in ipairs(spread(#offsets, given.max_frames)) do kept[i] = offsets[at + 1] end
        offsets = kept
    else
        offsets = spread(count, given.max_frames)
    end
    local numbers, times = {}, {}
    for i, offset in ipairs(offsets) do
        numbers[i] = first + offset
        times[i] = numbers[i] / rate
    end
    return numbers, times
end

local function sample(source, path, given)
    local start, finish = given.start, given["end"]
    if start and finish and finish <= start then
        error(("video.load: option 'end' must lie behind 'start', got %g and %g"):format(finish, start), 0)
    end
    if given.way == "ids" then
        local numbers, times = {}, {}
        for i, number in ipairs(given.frame_ids or {}) do numbers[i] = number end
        table.sort(numbers)
        for i, number in ipairs(numbers) do times[i] = number / source.rate end
        return numbers, times
    end
    local brief = start and finish and finish - start < 1
    if given.way == "index" or source.by_index_only or brief then return by_index(source, path, given) end
    return by_time(source, given)
end

--- The numbers in the lists, each once, in file order.
local function union(lists)
    local wanted, seen = {}, {}
    for _, list in ipairs(lists) do
        for _, number in ipairs(list) do
            if not seen[number] then
                seen[number] = true
                wanted[#wanted + 1] = number
            end
        end
    end
    table.sort(wanted)
    return wanted
end

--- Reads each of the frames once. Returns pictures by number.
local function read_frames(source, wanted, progress)
    local pictures = {}
    for i, number in ipairs(wanted) do
        pictures[number] = source.read(number)
        if progress then progress(i, #wanted) end
    end
    return pictures
end

-- ---- loading ---------------------------------------------------------------------------------------------------

local OPTIONS = {
    way = { "time", "index", "ids", default = "time" },
    fps = { type = "number", min = 0, max = 2 ^ 20, default = 1 },
    start = { type = "number", min = 0, max = 1e9 },
    ["end"] = { type = "number", min = 0, max = 1e9 },
    max_frames = { type = "integer", min = 1, default = 180 },
    frame_ids = "table",
    progress = "function",
}

-- The frames that are sampled, their times, and those that are read.
local function choose(source, path, given)
    local ids = given.frame_ids or {}
    for _, number in ipairs(ids) do check_number(source, path, number) end
    local numbers, times = sample(source, path, given)
    return numbers, times, union { numbers, ids }
end

local function fill(self, source, path, given)
    local ids = given.frame_ids or {}
    local numbers, times, wanted = choose(source, path, given)
    local pictures = read_frames(source, wanted, given.progress)
    for i, number in ipairs(numbers) do self.frames[i] = pictures[number] end
    for _, number in ipairs(ids) do
        self.masked_frames[number] = pictures[number]
        self.masked_times[number] = number / source.rate
    end
    self.times, self.frame_numbers = times, numbers
    local first = self.frames[1]
    self.width = source.info and source.info.width or first and first:size(2)
    self.height = source.info and source.info.height or first and first:size(1)
    self.fps, self.frame_count = source.rate, source.count
end

-- The clip that is being read beside what else is done: its path and source.
local coming

local function drop_coming()
    if coming then coming.source.free() end
    coming = nil
end

--- Begins to read a clip beside whatever else is done; the next @{load}, if it is of that path, finds the frames that
-- it shares with these options decoded. For the clip that comes next: there is one at a time, and at most 512 MiB of
-- its pictures are read. The file is gone through and its frames are chosen before this returns. A directory's pictures
-- are left to `load`; what is wrong with the file or the options `load` says.
-- @tparam string path
-- @tparam[opt] table given as for @{load}
function video.ahead(path, given)
    if type(path) ~= "string" then error("video.ahead: a path expected, got " .. type(path), 0) end
    drop_coming()
    local source
    local ok, reason = pcall(core.interruptible, function()
        if core.path_kind(path) == "directory" then return end
        local settings = options.check(given, OPTIONS, "video.load")
        source = open_clip(path)
        source.reader:begin((select(3, choose(source, path, settings))))
    end)
    if ok and source then coming = { path = path, source = source } end
    if not ok and source then source.free() end
    if not ok and interruption.is(reason) then error(reason, 0) end
end

-- The source of a path, which may be the one that is read ahead.
local function take_source(path)
    if not coming or coming.path ~= path then return open_source(path) end
    local source = coming.source
    coming = nil
    return source
end

--- Loads a clip, a GIF or a directory of pictures.
-- @tparam string path a file or directory
-- @tparam[opt] table given
-- @tparam[opt="time"] string given.way "time", "index" or "ids"
-- @tparam[opt=1] number given.fps pictures a second; 0 for no fixed rate
-- @tparam[opt] number given.start seconds
-- @tparam[opt] number given.end seconds, not included
-- @tparam[opt=180] integer given.max_frames at most as many pictures
-- @tparam[opt] {integer,...} given.frame_ids frames whose pictures are kept, too: those that carry masks
-- @tparam[opt] function given.progress called with the pictures read so far and their number in all
-- @treturn Video
-- @raise a missing or damaged file, a frame out of range, an unknown option
function video.load(path, given)
    if type(path) ~= "string" then error("video.load: a path expected, got " .. type(path), 0) end
    given = options.check(given, OPTIONS, "video.load")
    local self = new_video(path)
    local source = take_source(path)
    local ok, message = pcall(core.interruptible, fill, self, source, path, given)
    source.free()
    if not ok then error(message, 0) end
    return self
end

--- A video made of pictures that are there already.
-- @tparam {Tensor,...} frames uint8 [height,width,3] each
-- @tparam[opt] table given
-- @tparam[opt] {number,...} given.times seconds of each; frame number / fps unless said
-- @tparam[opt=1] number given.fps frames a second
-- @tparam[opt] table given.masked_frames pictures that carry masks, by frame number; unless said, `frames` themselves
-- @tparam[opt] table given.masked_times seconds of those, by frame number
-- @treturn Video
function video.fromFrames(frames, given)
    given = options.check(given, {
        times = "table",
        fps = { type = "number", min = 1e-6, default = 1 },
        masked_frames = "table",
        masked_times = "table",
    }, "video.fromFrames")
    if type(frames) ~= "table" then error("video.fromFrames: a list of tensors expected, got " .. type(frames), 0) end
    local self = new_video(nil)
    local function checked(picture, what, number)
        if type(picture) ~= "userdata" or picture:dim() ~= 3 or picture:size(3) ~= 3 or picture:dtype() ~= "uint8" then
            error(("video.fromFrames: %s %d is no uint8 tensor [height,width,3]"):format(what, number), 0)
        end
        return picture
    end
    if given.times and #given.times ~= #frames then
        error(("video.fromFrames: %d times for %d frames"):format(#given.times, #frames), 0)
    end
    for i, picture in ipairs(frames) do
        self.frames[i] = checked(picture, "frame", i)
        self.times[i] = given.times and given.times[i] or (i - 1) / given.fps
        self.frame_numbers[i] = i - 1
    end
    for number, picture in pairs(given.masked_frames or {}) do
        self.masked_frames[number] = checked(picture, "masked frame", number)
        self.masked_times[number] = given.masked_times and given.masked_times[number] or number / given.fps
    end
    local first = self.frames[1] or select(2, next(self.masked_frames))
    if not first then error("video.fromFrames: no frames", 0) end
    self.width, self.height = first:size(2), first:size(1)
    self.fps, self.frame_count = given.fps, #frames
    if not given.masked_frames then
        for i, picture in ipairs(self.frames) do
            self.masked_frames[i - 1], self.masked_times[i - 1] = picture, self.times[i]
        end
    end
    return self
end

--- What is in a clip or a directory, without decoding it.
-- @tparam string path
-- @treturn table path, width, height, frames (counted), fps, duration (seconds), and of a file also codec, container,
-- rotation (degrees clockwise that turn its stored pictures upright)
function video.info(path)
    local source = open_source(path)
    local info = source.info
    if not info then
        local first = source.read(0)
        info = { width = first:size(2), height = first:size(1), frames = source.count, fps = source.rate,
            duration = source.count / source.rate, container = "directory" }
    end
    source.free()
    info.path = path
    return info
end

--- @type Video

--- The picture of a frame, for a mask that lies on it: one of `frame_ids`, else it is read from the file now and kept.
-- @tparam integer number the frame, from 0
-- @treturn Tensor uint8 [height,width,3]
-- @treturn number its seconds: number / frame rate, or what `fromFrames` was told
-- @raise a frame out of range, naming the count
function Video:frame(number)
    if not self.masked_frames[number] then
        if not self.path then
            error(("this video has no picture for a mask on frame %s (it has %d frames)"):format(tostring(number),
                self.frame_count), 0)
        end
        local source = open_source(self.path)
        local ok, picture = pcall(function()
            check_number(source, self.path, number)
            return source.read(number)
        end)
        source.free()
        if not ok then error(picture, 0) end
        self.masked_frames[number], self.masked_times[number] = picture, number / self.fps
    end
    return self.masked_frames[number], self.masked_times[number]
end

--- Frees the pictures now, not when the collector comes by.
function Video:free()
    for _, list in ipairs { self.frames, self.masked_frames } do
        for _, picture in pairs(list) do picture:free() end
    end
    self.frames, self.masked_frames = {}, {}
end

function Video:__tostring()
    local name = self.path or "tensors"
    local size = self.width and (", %dx%d"):format(self.width, self.height) or "" -- no picture of a directory was read
    return ("Video(%s, %d of %d frames%s)"):format(name, #self.frames, self.frame_count, size)
end

return video
