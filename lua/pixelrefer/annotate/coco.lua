--- A job's answers as COCO with captions: the dataset's annotations, each with the `caption` it was given.
-- @module pixelrefer.annotate.coco
local dataset = require "pixelrefer.dataset"
local json = require "pixelrefer.json"
local mask = require "pixelrefer.mask"
local results = require "pixelrefer.annotate.results"
local whole_file = require "pixelrefer.whole_file"

local coco = {}

-- What a JSON object says, to be changed; null says nothing.
local function copy_of(object)
    local copy = {}
    for key, value in pairs(object) do
        if value ~= json.null then copy[key] = value end
    end
    return copy
end

-- The lines of a job by region; `next_of(scene, region)` gives the answers about one, in the dataset's order.
local function reader_of(file)
    local head = file:next()
    return function(scene, region)
        local answers = {}
        while head and (head.scene < scene or (head.scene == scene and (head.region or 0) <= region)) do
            if head.scene == scene and head.region == region and head.text then answers[#answers + 1] = head end
            head = file:next()
        end
        return answers
    end
end

local function image_of(sample, is_coco)
    local image = is_coco and copy_of(sample.fields) or { width = sample.width, height = sample.height }
    image.id, image.file_name = is_coco and sample.id or sample.number, image.file_name or sample.name
    if not image.width or not image.height then
        local picture = sample.media()
        image.height, image.width = picture:size(1), picture:size(2)
    end
    return image
end

local function annotation_of(region, image, number, is_coco)
    local annotation = is_coco and copy_of(region.fields) or { category_id = 1 }
    annotation.category, annotation.image = nil, nil
    annotation.id, annotation.image_id = is_coco and region.id or number, image.id
    annotation.iscrowd = annotation.iscrowd or 0
    annotation.category_id = annotation.category_id or 0
    local form = is_coco and region.fields.segmentation
    local decoded = region.masks()
    local whole = #decoded == 1 and decoded[1] or mask.union(unpack(decoded))
    local has_form = type(form) == "table" and next(form) ~= nil
    annotation.segmentation = has_form and form or mask.toRle(whole)
    annotation.area = mask.area(whole)
    if annotation.area > 0 then
        local x0, y0, x1, y1 = mask.boundingBox(whole)
        annotation.bbox = { x0, y0, x1 - x0, y1 - y0 }
    else
        annotation.bbox = { 0, 0, 0, 0 }
    end
    return annotation
end

local function categories_of(known)
    local list, ids = {}, {}
    for id in pairs(known or {}) do ids[#ids + 1] = id end
    table.sort(ids, function(a, b) return tostring(a) < tostring(b) end)
    if not known then list[1] = { id = 1, name = "region" } end
    for i, id in ipairs(ids) do list[i] = copy_of(known[id]) end
    return json.array(list)
end

local function put_captions(annotation, answers)
    annotation.caption = answers[1].text
    if #answers < 2 then return end
    annotation.captions = {}
    for i, answer in ipairs(answers) do annotation.captions[i] = answer.text end
end

-- Writes the annotations and returns what comes behind them, and their number.
local function write_all(output, file, next_sample, known)
    local answers_of, images, number, samples = reader_of(file), {}, 0, 0
    local is_coco = known.categories ~= nil
    output('{"annotations":[')
    for sample in next_sample do
        samples = samples + 1
        sample.number = samples
        if not sample.problem and sample.kind == "video" then
            error(("%s: COCO has pictures, this is a video"):format(sample.name), 0)
        end
        local image
        for _, region in ipairs(sample.problem and {} or sample.regions) do
            local answers = answers_of(samples, region.number)
            if #answers > 0 then
                image = image or image_of(sample, is_coco)
                number = number + 1
                local annotation = annotation_of(region, image, number, is_coco)
                put_captions(annotation, answers)
                output(number > 1 and ",\n" or "\n", json.encode(annotation))
            end
        end
        if image then images[#images + 1] = json.encode(image) end
    end
    answers_of(math.huge, 0) -- to the file's end
    output("\n],\n\"categories\":", json.encode(categories_of(known.categories)), ",\n\"images\":[\n",
           table.concat(images, ",\n"), "\n],\n\"info\":", json.encode { job = file.job }, ",\n\"licenses\":[]}\n")
    return { annotations = number, images = #images }
end

--- Writes the file, which is there whole or not at all. Pictures and regions without an answer are left out.
-- @tparam string path the dataset that was annotated
-- @tparam string answers the job's file, complete
-- @tparam string out the file to write
-- @tparam[opt] table given root, masks: as for `dataset.samples`
-- @treturn table annotations, images: how many
-- @raise a job that is not complete or has no texts, a video, a full disk
function coco.write(path, answers, out, given)
    local file = results.read(answers)
    given = given or {}
    local next_sample, _, known = dataset.samples(path, { root = given.root, masks = given.masks,
        questions = not file.job.tasks and not file.job.each })
    local ok, counts = pcall(whole_file.write, out, function(output)
        local written = write_all(output, file, next_sample, known)
        if not file.ended then error(answers .. ": the job is not complete", 0) end
        if written.annotations == 0 and file.ended.answers > 0 then
            error(("%s: none of its %d answers is a text: what is to be a caption --each returns as one"):format(
                answers, file.ended.answers), 0)
        end
        return written
    end)
    file:close()
    if not ok then error(counts, 0) end
    return counts
end

return coco
