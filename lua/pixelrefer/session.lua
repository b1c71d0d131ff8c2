--- A conversation about a scene: a timeline of keys and values that goes on from turn to turn.
--
--     local session = scene:session()
--     print(session:ask("What is <region>?", { dog }))
--     print(session:ask("And what does it do?"))
--
-- @module pixelrefer.session
local Answer = require "pixelrefer.answer"
local core = require "pixelrefer.core"
local generation = require "pixelrefer.generation"
local interruption = require "pixelrefer.interruption"
local options = require "pixelrefer.options"
local prompt = require "pixelrefer.prompt"
local tensor = require "pixelrefer.tensor"

local Session = {}
Session.__index = Session
Session.__tostring = function(session)
    return ("Session(%d tokens, %s)"):format(session.cache and session.cache:length() or 0, tostring(session.scene))
end

-- What `ask`, `stream` and `score` accept besides generation's options.
local ASK_OPTIONS = { inspect = "function", local_crop = { "own", "first" }, progress = "function" }
for name, kind in pairs(generation.OPTIONS) do ASK_OPTIONS[name] = kind end

--- A session on a scene; `scene:session()` is the way to get one.
-- @tparam Scene scene
-- @treturn Session
function Session.new(scene)
    return setmetatable({ scene = scene, model = scene.model, cache = nil, last = nil }, Session)
end

-- Raised where `inspect` returns false; never leaves the library.
local STOP = setmetatable({}, { __tostring = function() return "stopped by inspect" end })
Session.STOP = STOP

-- Stages that may be replaced by tensors of other sizes ("any"), or with another number of rows.
local FREE_SIZES = { picture = "any", crop = "any", mask_grid = "any", local_picture = "any", global_picture = "any",
    pooled = "rows", local_features = "rows", global_features = "rows" }

-- What `inspect` returned for a stage, which can take the value's place.
local function checked(name, value, replacement)
    if not tensor.isTensor(replacement) then
        error(("inspect: %s: a tensor expected, found %s"):format(name, type(replacement)), 0)
    end
    local free = FREE_SIZES[name:match("([%a_]+)%d*$")]
    local sizes, expected = replacement:size(), value:size()
    local fits = free == "any" or #sizes == #expected
    for dim = 1, free == "any" and 0 or #expected do
        fits = fits and (sizes[dim] == expected[dim] or free == "rows" and dim == 1)
    end
    if fits then return replacement end
    if free == "rows" then expected[1] = "n" end
    error(("inspect: %s: [%s] returned, expected [%s]"):format(name, table.concat(sizes, "x"),
        table.concat(expected, "x")), 0)
end

-- A function that shows a stage to the user's `inspect` and takes what it returns in place of the value.
local function watcher(inspect)
    local stage = { watched = inspect ~= nil }
    return setmetatable(stage, {
        __call = function(_, name, value)
            local replacement = inspect and inspect(name, value)
            if replacement == false then error(STOP, 0) end
            if replacement == nil then return value end
            return checked(name, value, replacement)
        end,
    })
end
Session.watcher = watcher

-- ---- the decoder's input ----------------------------------------------------------------------------------------

-- Ids of a new turn. The first begins the chat; a later one first closes the answer before it, whose last token is
-- not in the cache yet.
local function turn_ids(session, chat)
    local tokenizer = session.model.tokenizer
    if not session.cache then return tokenizer:encode(chat) end
    local ids = { session.last } -- none when the answer was left before its first token
    local closing = tokenizer:id("<|im_end|>")
    if session.last ~= closing then
        ids[session.model.is_end[session.last] and 1 or #ids + 1] = closing
    end
    for _, id in ipairs(tokenizer:encode("\n" .. chat)) do ids[#ids + 1] = id end
    return ids
end

-- Rows of `embeds` at the positions of token `id`, from position `start` on, become `rows`, in order.
local function replace_rows(embeds, ids, start, id, rows, what)
    local at = {}
    for position = start, #ids do
        if ids[position] == id then at[#at + 1] = position end
    end
    local count = rows and rows:size(1) or 0
    if #at ~= count then
        error(("the prompt has %d places for %s, but there are %d"):format(#at, what, count), 0)
    end
    local first = 1
    while first <= #at do -- runs of neighbours are copied at once
        local last = first
        while at[last + 1] == at[last] + 1 do last = last + 1 end
        embeds:narrow(1, at[first], last - first + 1):copy_(rows:narrow(1, first, last - first + 1))
        first = last + 1
    end
end

-- The turn's embeddings: token rows, with visual and object tokens in their places.
local function embed(session, ids, visual_tokens, object_tokens, stage)
    local model = session.model
    local sequence = stage("prompt_ids", tensor.fromTable(ids, "int64"))
    local embeds = model.decoder:embed(sequence)
    local start = session.cache and 2 or 1 -- the last token of the answer before is no place, whatever it is
    replace_rows(embeds, ids, start, model.image_id, visual_tokens, "visual tokens")
    replace_rows(embeds, ids, start, model.region_id, object_tokens, "object tokens")
    return stage("embeds", embeds)
end

-- How many leading ids are the scene's shared prefix: the chat's opening and the visual tokens, when no region's
-- tokens come before them.
local function shared_length(model, ids)
    local length = 0
    for position, id in ipairs(ids) do
        if id == model.region_id then break end
        if id == model.image_id then length = position end
    end
    return length
end

-- Takes the scene's cached prefix over where the new prompt begins with the same ids; returns how many it covered.
local function adopt_prefix(session, ids)
    local prefix = session.scene.prefix
    if not prefix or #prefix.ids >= #ids then return 0 end
    for i, id in ipairs(prefix.ids) do
        if ids[i] ~= id then return 0 end
    end
    session.cache:copy(prefix.cache)
    return #prefix.ids
end

local function remember_prefix(session, ids)
    local length = shared_length(session.model, ids)
    if length == 0 or session.scene.prefix then return end
    local cache = session.model.decoder:cache(length)
    cache:copy(session.cache, length)
    local shared = {}
    for i = 1, length do shared[i] = ids[i] end
    session.scene.prefix = { ids = shared, cache = cache }
end

-- Runs the layers; one by one when somebody looks, who is also shown how the last row attends to all positions.
local function run_layers(session, embeds, stage, prefix)
    local decoder, cache = session.model.decoder, session.cache
    if not stage.watched then return decoder:forward(embeds, cache) end
    local x, past, count = embeds, cache:length(), embeds:size(1)
    if past + count > cache:capacity() then cache:reserve(past + count + 256) end
    for i = 1, session.model.config.num_hidden_layers do
        local name = ("%sdecoder.layer%d"):format(prefix, i - 1)
        local query = decoder:queries(x:narrow(1, count, 1), i, past + count - 1)
        x = decoder:layers(x, cache, i, i)
        cache:setLength(past + count)
        local attention = core.attention_weights(query, cache:keys(i):float()):squeeze(2)
        cache:setLength(past)
        stage(name .. ".attention", attention)
        x = stage(name, x)
    end
    cache:setLength(past + count)
    return x
end

local function check_context(session, count)
    local context, past = session.model.config.max_position_embeddings, session.cache and session.cache:length() or 0
    if past + count > context then
        error(("the prompt has %d tokens%s, the model's context %d"):format(
            count, past > 0 and (" after %d earlier ones"):format(past) or "", context), 0)
    end
end

-- Takes the timeline back to an earlier length; nil: to before its first turn.
local function rewind(session, length)
    if length then return session.cache:setLength(length) end
    if session.cache then session.cache:free() end
    session.cache = nil
end

-- Runs a step that makes the timeline longer; when it fails, the timeline is as before.
local function guarded(session, step, ...)
    local length = session.cache and session.cache:length()
    local ok, result = pcall(step, session, ...)
    if ok then return result end
    rewind(session, length)
    error(result, 0)
end

-- Puts a turn's embeddings into the cache and returns the logits of the token that follows it, [1,V].
local function extend(session, ids, embeds, stage)
    local decoder, covered, is_first = session.model.decoder, 0, not session.cache
    if is_first then
        session.cache = decoder:cache(#ids + 256)
        if not stage.watched then covered = adopt_prefix(session, ids) end
    end
    if covered > 0 then embeds = embeds:narrow(1, covered + 1, #ids - covered) end
    local hidden = run_layers(session, embeds, stage, "")
    if is_first and not stage.watched then remember_prefix(session, ids) end
    local last = decoder:norm(hidden:narrow(1, hidden:size(1), 1))
    return stage("first_logits", decoder:logits(last):squeeze(1)):view(1, -1)
end

-- Puts a turn into the cache and returns the logits of the token that follows it, [1,V].
local function prefill(session, ids, visual_tokens, object_tokens, stage)
    check_context(session, #ids)
    local embeds = embed(session, ids, visual_tokens, object_tokens, stage)
    return guarded(session, extend, ids, embeds, stage)
end

-- ---- asking -----------------------------------------------------------------------------------------------------

-- Renders a turn: object tokens, chat text, ids.
local function prepare(session, answer, text, regions, given, stage)
    local scene, model, pipeline = session.scene, session.model, session.model.pipeline
    local objects = scene:regions(regions or {})
    local object_tokens, counts, cells = nil, {}, {}
    if #objects.flat > 0 then
        object_tokens, counts, cells = answer:clock("objects", pipeline.tokenize, model, objects.flat,
                                             tensor.generator(given.seed or 0), stage,
                                             { local_crop = given.local_crop or "own", remembered = scene.remembered })
    end
    answer.tokens, answer.cells = counts, cells
    local parts = pipeline.content(text, scene, scene.countsOf(objects, counts), objects.times)
    if session.cache then -- the picture has been shown in the first turn
        for i = #parts, 1, -1 do
            if parts[i].type ~= "text" then table.remove(parts, i) end
        end
    end
    local chat = prompt.render { { role = "user", content = parts } }
    answer.chat = chat
    local shown = not session.cache and scene:visualTokens() or nil
    if shown then chat = prompt.spreadImages(chat, scene.encoded.counts) end
    return turn_ids(session, chat), shown, object_tokens
end

-- Feeds the last token, if there is one, and draws the next.
local function feed_and_draw(session, answer)
    local decoder, state, stage = session.model.decoder, answer.state, answer.state.stage
    local logits, count = state.logits, #answer.ids
    if count > 0 then
        local prefix = ("token%d."):format(count)
        local x = stage(prefix .. "embeds", decoder:embed(tensor.fromTable({ session.last }, "int64")))
        local hidden = decoder:norm(run_layers(session, x, stage, prefix))
        logits = stage(prefix .. "logits", decoder:logits(hidden):squeeze(1)):view(1, -1)
    end
    return answer:draw(logits)
end

-- One step. Its tensors go at its end, so that the next one finds their memory, unless somebody looks, who may keep
-- them.
local function step(session, answer)
    if answer.state.stage.watched then return feed_and_draw(session, answer) end
    return tensor.scope(feed_and_draw, session, answer)
end

-- The next token of an answer, fed and drawn; nil at its end.
local function advance(session, answer)
    if answer.stopped then return nil end
    if #answer.ids > 0 and session.cache:length() + 1 > session.model.config.max_position_embeddings then
        answer.stopped = "context"
        return nil
    end
    local ok, id = pcall(guarded, session, step, answer)
    if ok then return id end
    if id ~= STOP and not interruption.is(id) then error(id, 0) end
    answer.stopped = id == STOP and "inspect" or "interrupted"
    return nil
end

-- Generates one token and returns its text; nil when the answer has ended.
local function next_piece(session, answer)
    if session.answer ~= answer then return nil end -- a newer turn has begun
    local id = answer:clock("decode", advance, session, answer)
    session.last = id or session.last
    return answer:take(id)
end

-- Everything up to the first logits.
local function read_turn(session, answer, text, regions, given)
    local stage = answer.state.stage
    local ids, visual_tokens, object_tokens = prepare(session, answer, text, regions, given, stage)
    answer.prompt_tokens = #ids
    answer.state.logits = answer:clock("prefill", prefill, session, ids, visual_tokens, object_tokens, stage)
    session.answer = answer
    session.last = nil
end

--- Reads a turn up to its first token: what `ask` does before it draws. An answer that `inspect` stops has ended before
-- its first token, and the conversation is as before.
-- @tparam string text
-- @tparam[opt] table regions
-- @tparam[opt] table given as for ask
-- @treturn Answer without tokens; `state.logits`, float32 [1,V], gives the first
function Session:begin(text, regions, given)
    given = options.check(given, ASK_OPTIONS, "ask")
    if type(text) ~= "string" then error("ask: the prompt must be a string, found " .. type(text), 0) end
    local answer = Answer.new(self.model, given, watcher(given.inspect))
    local ok, reason = pcall(read_turn, self, answer, text, regions, given)
    if not ok then
        if reason ~= STOP then error(reason, 0) end
        answer.stopped, answer.state.finished = "inspect", true
    end
    return answer
end

--- Asks and waits for the whole answer.
-- @tparam string text the question; each `<region>` is one of the regions, in order
-- @tparam[opt] table regions masks: see `scene:regions`
-- @tparam[opt] table given sample, temperature, top_k, top_p, repetition_penalty, seed, max_new_tokens; `local_crop`
--   ("own" or "first", Lite); `inspect(stage, value)` sees every stage, may return a replacement, or false to stop
--   there; `alternatives`: so many of each token's likeliest are listed; `progress(tokens)` is called after each token
-- @treturn Answer text, ids, tokens and cells (of each region), seconds (of each stage), stopped ("end", "length",
--   "context", "interrupted" or "inspect"), chat; with `alternatives` also alternatives (of each token a list of
--   {id, text, logprob}, the likeliest first) and logprobs (of the tokens drawn); tostring and `..` give the text
function Session:ask(text, regions, given)
    local answer = self:begin(text, regions, given)
    core.interruptible(function()
        while not answer.state.finished and next_piece(self, answer) do
            if given and given.progress then given.progress(#answer.ids) end
        end
    end)
    return answer
end

--- Asks and yields the answer piece by piece, each whole UTF-8 characters. The loop may be left early.
-- @tparam string text
-- @tparam[opt] table regions
-- @tparam[opt] table given as for ask
-- @treturn function iterator over strings
-- @treturn Answer which fills as the pieces come
function Session:stream(text, regions, given)
    local answer = self:begin(text, regions, given)
    return function()
        while not answer.state.finished do
            local piece = next_piece(self, answer)
            if not piece then return nil end
            if piece ~= "" then return piece end
        end
    end, answer
end

-- Log-probabilities of texts behind the prompt that gave `first_logits`. Leaves the timeline longer or as it was.
local function score_answers(session, first_logits, answers)
    local model, length, results = session.model, session.cache:length(), {}
    for i, candidate in ipairs(answers) do
        local ids, logits = model.tokenizer:encode(candidate), first_logits
        if #ids > 1 then
            local x = model.decoder:embed(tensor.fromTable(ids, "int64"):narrow(1, 1, #ids - 1))
            local hidden = model.decoder:norm(model.decoder:forward(x, session.cache))
            logits = tensor.cat({ logits, model.decoder:logits(hidden) }, 1)
            rewind(session, length)
        end
        local logprobs, sum = {}, 0
        if #ids > 0 then
            local all = logits:logSoftmax(2)
            for t, id in ipairs(ids) do
                logprobs[t] = all[t][id + 1]
                sum = sum + logprobs[t]
            end
        end
        results[i] = { logprob = sum, ids = ids, logprobs = logprobs }
    end
    return results
end

--- How likely the model finds given answers, without generating: the sum of their tokens' log-probabilities.
-- The conversation stays where it was.
-- @tparam string text the question
-- @tparam[opt] table regions
-- @tparam table answers strings
-- @tparam[opt] table given seed, local_crop, inspect
-- @treturn table for each answer {logprob = sum, ids =, logprobs = of each token}; the end token is not counted
function Session:score(text, regions, answers, given)
    if type(answers) ~= "table" then error("score: a list of answers expected, found " .. type(answers), 0) end
    for i, candidate in ipairs(answers) do
        if type(candidate) ~= "string" then
            error(("score: answer %d: a text expected, found %s"):format(i, type(candidate)), 0)
        end
    end
    local before = { last = self.last, length = self.cache and self.cache:length(), answer = self.answer }
    local started = self:begin(text, regions, given)
    if started.stopped then error("score: stopped by inspect", 0) end
    local ok, results = pcall(score_answers, self, started.state.logits, answers)
    rewind(self, before.length)
    self.last, self.answer = before.last, before.answer
    if not ok then error(results, 0) end
    return results
end

--- Frees the timeline's memory now rather than at the next collection.
function Session:free()
    if self.cache then self.cache:free() end
    self.cache, self.answer, self.last = nil, nil, nil
end

return Session
