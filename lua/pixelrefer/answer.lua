--- An answer as it comes: its tokens, its text, and why it ended.
--
-- Whoever runs the decoder draws from the logits and hands over what was drawn: a session one token after the other,
-- `together` one token of several answers at a time.
-- @module pixelrefer.answer
local core = require "pixelrefer.core"
local generation = require "pixelrefer.generation"

local Answer = {}
Answer.__index = Answer
Answer.__tostring = function(answer) return answer.text end
Answer.__concat = function(left, right)
    if getmetatable(left) == Answer then left = left.text end
    if getmetatable(right) == Answer then right = right.text end
    return left .. right
end

--- An answer without tokens.
-- @tparam Model model
-- @tparam table given generation's options
-- @tparam function stage shows a stage to who watches
-- @treturn Answer text, ids, tokens and cells (of each region), seconds (of each stage), stopped; with `alternatives`
--   also alternatives and logprobs (of each token)
function Answer.new(model, given, stage)
    local self = setmetatable({ text = "", ids = {}, tokens = {}, cells = {}, seconds = {}, stopped = nil }, Answer)
    if given.alternatives then self.alternatives, self.logprobs = {}, {} end
    self.state = {
        model = model,
        settings = generation.settings(given, model.generation_config),
        stream = model.tokenizer:stream { skip_special_tokens = true },
        stage = stage,
        raw = "",
        finished = false,
    }
    return self
end

--- Runs a function and adds its time to a stage's seconds.
-- @tparam string name the stage
-- @tparam function work
-- @param ... its arguments
-- @return what it returns
function Answer:clock(name, work, ...)
    local started = core.tick()
    local result = { work(...) }
    self.seconds[name] = (self.seconds[name] or 0) + core.tick() - started
    return unpack(result)
end

--- Draws the next token.
-- @tparam Tensor logits float32 [1,V]
-- @treturn int its 0-based id
function Answer:draw(logits)
    local settings, count = self.state.settings, #self.ids
    local id = generation.next(logits, settings, self.ids)
    if self.alternatives then
        self.alternatives[count + 1], self.logprobs[count + 1] =
            generation.alternatives(logits, id, settings.alternatives, self.state.model.tokenizer)
    end
    return id
end

local function strip(text)
    return (text:gsub("^%s+", ""):gsub("%s+$", ""))
end

--- Takes a token in, or the end of the answer. Keeps the text up to date.
-- @tparam[opt] int id nil: nothing more comes, for the reason in `stopped`
-- @treturn[opt] string the text that has come by it, whole UTF-8 characters; nil when the answer was over before
function Answer:take(id)
    local state = self.state
    local piece
    if id then
        self.ids[#self.ids + 1] = id
        if state.model.is_end[id] then
            self.stopped = "end"
        elseif #self.ids >= state.settings.max_new_tokens then
            self.stopped = "length"
        end
        piece = state.stream:push(id)
    end
    if not state.finished and (self.stopped or not id) then
        piece = (piece or "") .. state.stream:finish()
        state.finished = true
    end
    state.raw = state.raw .. (piece or "")
    self.text = strip(state.raw)
    if not id and piece == "" then return nil end
    return piece
end

return Answer
