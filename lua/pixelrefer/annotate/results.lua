--- The file that a job's answers go to: JSON lines, written one by one and gone on with after any end.
--
--     {"job":{...}}                                       the job's fingerprint
--     {"id":7,"region":1,"scene":1,"text":"...",...}      an answer; or an "error" in place of the text
--     {"end":{"answers":41,"failed":1,"scenes":10}}       when all is done
--
-- Answers stand in the dataset's order: scene, region, task. So who goes on goes through the dataset with what is there
-- already, and begins where the file ends. A last line without its line break was torn and is dropped.
--
-- To ask again what failed a second file is written beside it, which takes over the answers and in the end its place.
-- @module pixelrefer.annotate.results
local core = require "pixelrefer.core"
local ffi = require "ffi"
local fingerprint = require "pixelrefer.annotate.fingerprint"
local json = require "pixelrefer.json"

ffi.cdef [[
int fileno(void *file);
int flock(int descriptor, int operation);
int ftruncate(int descriptor, long length);
]]

local LOCK_EXCLUSIVE_NOW = 6 -- LOCK_EX | LOCK_NB

local results = {}

--- A file of results.
-- @type Results
-- @field path
-- @field job the fingerprint in its first line
-- @field ended what its last line says; nil while it is not complete
local Results = {}
Results.__index = Results

local function fail(self, format, ...)
    error(("%s:%d: %s"):format(self.path, self.line, format:format(...)), 0)
end

-- The next whole line, decoded; nil at the end of what is whole.
local function next_object(self)
    local text = self.reader:read("*L")
    if not text or text:sub(-1) ~= "\n" then
        self.torn = text
        return nil
    end
    self.line, self.offset, self.text = self.line + 1, self.offset + #text, text
    local ok, object = pcall(json.decode, text)
    if not ok or type(object) ~= "table" then fail(self, "no line of results") end
    return object
end

local function open_reader(path)
    local file, reason = io.open(path, "rb")
    if not file then error(reason, 0) end
    local self = setmetatable({ path = path, reader = file, line = 0, offset = 0 }, Results)
    local first = next_object(self)
    if first and type(first.job) ~= "table" then error(path .. ": this is no file of results", 0) end
    self.job = first and first.job
    return self
end

--- Opens a file to read what is in it.
-- @tparam string path
-- @treturn Results
-- @raise a file that is not there or is none of results
function results.read(path)
    local kind = core.path_kind(path)
    if kind and kind ~= "file" then error(path .. ": not a regular file", 0) end
    local self = open_reader(path)
    if not self.job then error(path .. ": this is no file of results", 0) end
    return self
end

-- Reads the file's first line, or writes it.
local function go_on(path, writer, job)
    local header, self = json.encode { job = job }, open_reader(path)
    self.writer = writer
    if self.job then
        local differences = fingerprint.differences(self.job, json.decode(header).job)
        if #differences == 0 then return self end
        error(("%s was begun with other settings; give another --out, or these again:\n  %s"):format(path,
            table.concat(differences, "\n  ")), 0)
    end
    if self.torn and header:sub(1, #self.torn) ~= self.torn then error(path .. ": this is no file of results", 0) end
    self:stop_reading()
    self:append { job = job }
    return self
end

--- Opens the file of a job: a new one, or one to go on with.
-- @tparam string path
-- @tparam table job the fingerprint
-- @treturn Results
-- @raise a file of another job, with the difference; one that another process works on; one that is none of results
function results.open(path, job)
    local kind = core.path_kind(path)
    if kind and kind ~= "file" then error(path .. ": not a regular file", 0) end
    local writer, reason = io.open(path, "abe") -- "e" (glibc): the lock ends with this process, not with its children
    if not writer then error(reason, 0) end
    if ffi.C.flock(ffi.C.fileno(writer), LOCK_EXCLUSIVE_NOW) ~= 0 then
        writer:close()
        error(path .. ": another process is writing it", 0)
    end
    writer:setvbuf("no")
    local ok, self = pcall(go_on, path, writer, job)
    if ok then return self end
    writer:close()
    return error(self, 0)
end

--- Opens a file of which the answers are to be kept, and what failed asked again; `replace` puts the new file in its
-- place. Until then the old one is whole, and the new one is gone on with.
-- @tparam string path
-- @tparam table job the fingerprint
-- @treturn Results
-- @raise as `open`
function results.open_again(path, job)
    local old = results.open(path, job)
    local ok, self = pcall(results.open, path .. ".retry", job)
    if not ok then
        old:close()
        error(self, 0)
    end
    self.old = old
    return self
end

-- An answer's place; comes first what is less.
local function place_of(object)
    return { object.scene, object.region or 0, object.task or 1 }
end

local function compare(a, b)
    for i = 1, 3 do
        if a[i] ~= b[i] then return a[i] < b[i] and -1 or 1 end
    end
    return 0
end

--- The next answer that is there already.
-- @treturn ?table nil where there are no more; after the last of a complete file `ended` is set
-- @raise a line that is none, or stands in the wrong place
function Results:next()
    if not self.reader then return nil end
    local object = next_object(self)
    if object and self.ended then fail(self, "a line behind the end") end
    if object and object["end"] then
        self.ended = object["end"]
        for _, kind in ipairs { "answers", "failed", "scenes" } do
            local is_number = type(self.ended) == "table" and type(self.ended[kind]) == "number"
            if not is_number then fail(self, "no line of results") end
        end
        return self:next()
    end
    if not object then
        if self.writer then self:stop_reading() end
        return nil
    end
    local place = place_of(object)
    for i = 1, 3 do
        if type(place[i]) ~= "number" then fail(self, "no line of results") end
    end
    if self.last and compare(self.last, place) >= 0 then
        fail(self, "scene %d, region %d comes twice or too late", place[1], place[2])
    end
    self.last = place
    return object
end

-- The old file's answer to an entry, and its line; what failed there is none.
local function old_answer(self, entry)
    local old = self.old
    local head = self.head or old:next()
    while head and compare(place_of(head), place_of(entry)) < 0 do head = old:next() end
    self.head = head
    if not head or head.error or compare(place_of(head), place_of(entry)) ~= 0 then return nil end
    if head.id ~= entry.id then
        fail(old, "id %s is here, but the dataset has id %s: it was changed", tostring(head.id), tostring(entry.id))
    end
    self.head = nil
    return head, old.text
end

--- The answer to what comes next in the dataset, if it is there already.
-- @tparam table entry {id =, scene =, region =, task =}
-- @treturn ?table
-- @treturn ?string its line, where it is to be appended yet: it stands in the file that this one will replace
-- @raise another answer in its place: the dataset is not the one that the file was begun with
function Results:stored(entry)
    local object = self:next()
    if self.old and not object then return old_answer(self, entry) end
    if self.ended and not object then fail(self, "complete, but the dataset goes on: it was changed") end
    if not object then return nil end
    if compare(place_of(object), place_of(entry)) ~= 0 or object.id ~= entry.id then
        fail(self, "scene %d, region %d, id %s is here, but the dataset has scene %d, region %d, id %s: it was changed",
             object.scene, object.region or 0, tostring(object.id), entry.scene, entry.region or 0, tostring(entry.id))
    end
    return object
end

--- Ends the reading: what is torn is dropped, and lines can be appended.
function Results:stop_reading()
    self.reader:close()
    self.reader = nil
    if self.writer and self.torn then ffi.C.ftruncate(ffi.C.fileno(self.writer), self.offset) end
    self.torn = nil
end

--- Appends a line.
-- @tparam table|string object or its line
-- @raise what the system says, such as a full disk; then no part of the line is in the file
function Results:append(object)
    local text = type(object) == "string" and object or json.encode(object) .. "\n"
    local ok, reason = self.writer:write(text)
    if not ok then
        ffi.C.ftruncate(ffi.C.fileno(self.writer), self.offset)
        error(("%s: %s; the same command goes on from here"):format(self.path, reason), 0)
    end
    self.offset = self.offset + #text
end

--- Puts a complete file in the place of the one whose answers it has kept, if there is one.
function Results:replace()
    if self.old then assert(os.rename(self.path, self.old.path)) end
end

--- Closes the file.
function Results:close()
    if self.old then self.old:close() end
    for _, name in ipairs { "reader", "writer" } do
        if self[name] then self[name]:close() end
        self[name] = nil
    end
end

return results
