--- An encoded image or video, made once and asked many times.
--
-- What depends on the picture alone is kept here: visual tokens, the cache of the prompt's shared beginning, Lite's
-- features of whole pictures. Regions and questions come and go without encoding it again.
-- @module pixelrefer.scene
local Session = require "pixelrefer.session"
local prompt = require "pixelrefer.prompt"
local tensor = require "pixelrefer.tensor"
local together = require "pixelrefer.together"

local Scene = {}
Scene.__index = Scene
Scene.__tostring = function(scene)
    local first, visual = scene.pictures[1], scene.encoded.visual_tokens
    local parts = { scene.kind }
    if first then parts[2] = ("%d picture(s) of %dx%d"):format(#scene.pictures, first:size(2), first:size(1)) end
    if visual then parts[#parts + 1] = ("%d visual tokens"):format(visual:size(1)) end
    return ("Scene(%s)"):format(table.concat(parts, ", "))
end

--- A scene; `model:encode` is the way to get one.
-- @tparam Model model
-- @tparam table media {kind = "image"|"video"|"text", pictures =, times =, frame = function(index) -> picture, seconds}
-- @tparam table encoded what the pipeline's `encode` returned
-- @treturn Scene
function Scene.new(model, media, encoded)
    return setmetatable({
        model = model,
        kind = media.kind,
        pictures = media.pictures,
        times = media.times,
        frame = media.frame,
        encoded = encoded,
        remembered = {},
        prefix = nil,
    }, Scene)
end

local is_tensor = tensor.isTensor

local function region_error(index, format, ...)
    error(("region %d: " .. format):format(index, ...), 0)
end

-- The frames of one object: {{mask =, frame =}, ...}.
local function frames_of(region, index)
    if is_tensor(region) then return { { mask = region } } end
    if type(region) ~= "table" then region_error(index, "a mask expected, found %s", type(region)) end
    if region.mask then return { region } end
    if #region == 0 then region_error(index, "an object without a mask") end
    local frames = {}
    for i, part in ipairs(region) do frames[i] = is_tensor(part) and { mask = part } or part end
    return frames
end

-- The picture (and its time) that a mask lies on.
local function picture_of(scene, part, index)
    if part.frame ~= nil and type(part.frame) ~= "number" then
        region_error(index, "a frame is a number, found %s", type(part.frame))
    end
    if scene.kind == "image" then
        local picture = scene.pictures[(part.frame or 0) + 1]
        if not picture then
            region_error(index, "there is no picture %s: %d, counted from 0", tostring(part.frame), #scene.pictures)
        end
        return picture, nil
    end
    if scene.kind == "text" then region_error(index, "there is no picture to show it in") end
    if not part.frame then region_error(index, "a mask on a video needs a frame: { mask = ..., frame = index }") end
    return scene.frame(part.frame)
end

-- The pixels of a picture that a mask takes, uint8 [h,w] of 0 and 1.
local function pixels_of(mask, picture, index)
    if mask:dim() ~= 2 or mask:size(1) ~= picture:size(1) or mask:size(2) ~= picture:size(2) then
        region_error(index, "the mask is %s, its picture %d x %d (height x width)",
                     mask:dim() == 2 and ("%d x %d"):format(mask:size(1), mask:size(2))
                     or ("of %d dims"):format(mask:dim()), picture:size(1), picture:size(2))
    end
    local set, dtype = mask:ne(0), mask:dtype()
    if dtype:find("float") then -- probabilities and logits are hardly ever exactly 0
        local count = set:sum()
        if mask:eq(1):sum() ~= count and mask:eq(255):sum() ~= count then
            region_error(index, "the mask is %s with values other than 0 and 1: take mask:gt(0.5), say",
                         dtype)
        end
    end
    return set
end

-- A list of regions; one region is a list of its own.
local function region_list(given)
    if is_tensor(given) then return { given } end
    if type(given) ~= "table" then error("regions: a mask or a list of masks expected, found " .. type(given), 0) end
    if given.mask then return { given } end
    for key in pairs(given) do
        if type(key) ~= "number" then
            error(("regions: a list of masks expected, found the key '%s'; options are the next argument"):format(
                tostring(key)), 0)
        elseif given[key - 1] == nil and key ~= 1 then
            error(("regions: the list has number %s, but no %s"):format(key, key - 1), 0)
        end
    end
    return given
end

--- Checks a call's regions and finds their pictures.
-- @tparam table list one entry an object: a mask (uint8 Tensor [h,w]; what is not 0 is set), `{mask =, frame =}` on a
--   video (or on one of several pictures, counted from 0), or a list of those when Lite shall see the object in several
--   frames
-- @raise a key that is none of a list's: options are another argument; floats that are neither 0 nor 1
-- @treturn table `flat` {mask =, picture =, frame =} in prompt order; `times` of each object's frames (Lite, video)
function Scene:regions(list)
    local objects = { flat = {}, frames = {}, times = nil }
    local lite_video = self.kind == "video" and self.model.framework == "object_only"
    list = region_list(list)
    if lite_video then objects.times = {} end
    for i, region in ipairs(list) do
        local frames = frames_of(region, i)
        if #frames > 1 and not lite_video then
            region_error(i, "masks in %d frames; %s takes one", #frames,
                         self.kind == "video" and "PixelRefer" or "an image")
        end
        objects.frames[i] = #frames
        if lite_video then objects.times[i] = {} end
        for f, part in ipairs(frames) do
            local mask = part
            if type(part) == "table" then mask = part.mask end
            if not is_tensor(mask) then region_error(i, "a mask tensor expected, found %s", type(mask)) end
            local picture, seconds = picture_of(self, part, i)
            local set = pixels_of(mask, picture, i)
            if self.model.framework == "vision_object" and set:sum() == 0 then
                region_error(i, "the mask is empty: no pixel is set")
            end
            if lite_video then objects.times[i][f] = seconds end
            objects.flat[#objects.flat + 1] = { mask = set, picture = picture, frame = part.frame }
        end
    end
    return objects
end

--- Token counts of a call's objects, for the prompt.
-- @tparam table objects as `regions` returns them
-- @tparam table counts tokens of each of `objects.flat`
-- @treturn table {k, k, ...}; for Lite on a video {{k, k, ...}, ...}, one a frame of each object
function Scene.countsOf(objects, counts)
    if not objects.times then return counts end
    local grouped, at = {}, 1
    for i, frames in ipairs(objects.frames) do
        grouped[i] = {}
        for f = 1, frames do grouped[i][f], at = counts[at], at + 1 end
    end
    return grouped
end

--- A new conversation about this scene.
-- @treturn Session
function Scene:session()
    return Session.new(self)
end

--- Asks one question in a conversation of its own.
-- @tparam string text
-- @tparam[opt] table regions
-- @tparam[opt] table options as `session:ask`
-- @treturn Answer
function Scene:ask(text, regions, options)
    local session = self:session()
    local ok, answer = pcall(session.ask, session, text, regions, options)
    session:free()
    if not ok then error(answer, 0) end
    return answer
end

--- Asks one question and yields the answer piece by piece.
-- @tparam string text
-- @tparam[opt] table regions
-- @tparam[opt] table options as `session:ask`
-- @treturn function iterator over strings
-- @treturn Answer
function Scene:stream(text, regions, options)
    return self:session():stream(text, regions, options)
end

--- Describes each region in a call of its own: the same answer as alone, in any order or company. Answers are decoded
-- together (see `pixelrefer.together`), but one after the other where `inspect` looks.
-- @tparam table|Tensor regions a region, or a list of them, as @{regions} takes them
-- @tparam[opt] table options as `session:ask`, and `prompt` (default `prompt.DESCRIBE`)
-- @treturn table Answers, one a region
function Scene:describe(regions, options)
    local own, text = {}, nil
    if options ~= nil and type(options) ~= "table" then
        error("describe: the options must be a table, got " .. type(options), 0)
    end
    for key, value in pairs(options or {}) do
        if key == "prompt" then text = value else own[key] = value end
    end
    local questions = {}
    for i, region in ipairs(region_list(regions)) do
        questions[i] = { scene = self, text = text or prompt.DESCRIBE, regions = { region } }
    end
    return together.ask(questions, own)
end

--- The visual tokens; a scene that was freed is encoded again for them.
-- @treturn Tensor [n,D]; nil for Lite, and without a picture
function Scene:visualTokens()
    if self.must_encode then
        self.encoded = self.model.pipeline.encode(self.model, self.pictures, self.kind, Session.watcher())
        self.must_encode = nil
    end
    return self.encoded.visual_tokens
end

--- Frees what the scene keeps now rather than at the next collection: the cached prefix, Lite's features, and visual
-- tokens, unless `inspect` was shown them. Conversations go on; a new one finds all of it again, at its cost.
function Scene:free()
    local encoded = self.encoded
    if self.prefix then self.prefix.cache:free() end
    if self.owns_tokens and encoded.visual_tokens then
        encoded.visual_tokens:free()
        encoded.visual_tokens, self.must_encode = nil, true
    end
    for _, whole in pairs(self.remembered) do whole.features:free() end
    self.prefix, self.remembered = nil, {}
end

return Scene
