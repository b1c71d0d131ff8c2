--- Files in the reference's format as samples: neighbouring records of one picture or clip are one.
-- @module pixelrefer.dataset.conversations
local json = require "pixelrefer.json"

local conversations = {}

-- What a record says beside its masks; what an annotation says comes first.
local function fields_of(record, annotation)
    local fields = {}
    for _, source in ipairs { record.extra, annotation } do
        for key, value in pairs(source) do
            if key ~= "masks" and key ~= "conversations" and value ~= json.null then fields[key] = value end
        end
    end
    return fields
end

local function question_region(record, turn, number)
    return {
        number = number, id = record.id, question = turn.question, answer = turn.answer,
        fields = fields_of(record, {}),
        masks = function(one_frame) return record:regions(turn.number, one_frame) end,
    }
end

local function mask_region(record, i, number)
    local annotation = not record.video and record.masks[i] or {}
    return {
        number = number, id = annotation.id or record.id,
        fields = fields_of(record, annotation[1] == nil and annotation or {}),
        masks = function(one_frame) return { record:region(i, one_frame) } end,
    }
end

-- Adds a record's regions to its sample.
local function add(sample, record, questions)
    local regions = sample.regions
    if questions then
        for i, turn in ipairs(record.turns) do
            turn.number = i
            regions[#regions + 1] = question_region(record, turn, #regions + 1)
        end
    else
        for i = 1, #record.masks do regions[#regions + 1] = mask_region(record, i, #regions + 1) end
    end
end

local function new_sample(record)
    if not record.image and not record.video then
        return { id = record.id, regions = {}, problem = ("line %d: no picture or video"):format(record.line) }
    end
    local said = record.extra.image or record.extra.video
    return {
        id = record.id, kind = record.video and "video" or "image", regions = {}, fields = record.extra,
        name = type(said) == "table" and said[1] or said or nil, path = record.image or record.video,
        width = record.width, height = record.height,
        media = function(sampling) return record:media(sampling) end,
        ahead = function(sampling) record:ahead(sampling) end,
    }
end

local function same_media(sample, record)
    return sample and type(sample.path) == "string" and sample.path == (record.image or record.video)
end

--- Opens a file as `dataset.samples` does.
-- @tparam string path
-- @tparam string root folder of relative paths
-- @tparam[opt=false] boolean questions a region is a question with its masks, not a mask
-- @treturn function iterator over samples
-- @treturn function the share of the file that has been read, 0 to 1
-- @treturn table empty
function conversations.samples(path, root, questions)
    local next_record, read, bytes = require("pixelrefer.dataset").open(path, { root = root })
    local waiting, ended -- a sample whose last record may still come
    local function next_sample()
        while not ended do
            local record, problem = next_record()
            local sample = waiting
            if record and same_media(sample, record) then
                add(sample, record, questions)
            else
                ended = record == nil
                waiting = record and new_sample(record) or problem and { regions = {}, problem = tostring(problem) }
                if record and not waiting.problem then add(waiting, record, questions) end
                if sample then return sample end
            end
        end
        return nil
    end
    return next_sample, function() return bytes > 0 and read() / bytes or 1 end, {}
end

return conversations
