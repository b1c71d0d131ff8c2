--- Several questions answered together: each step reads the decoder's weights once for all of them, which is most of
-- what a step of one costs. Each answer has the bits that it has alone.
--
--     local answers = together.ask({
--         { scene = scene, text = "What is <region>?", regions = { dog } },
--         { scene = scene, text = "What is <region>?", regions = { cat } },
--     })
--
-- @module pixelrefer.together
local core = require "pixelrefer.core"
local interruption = require "pixelrefer.interruption"
local tensor = require "pixelrefer.tensor"

local together = {}

--- How many `together.ask` takes at a time unless told: their keys and values are in memory together.
together.GROUP = 8

-- What a question is asked with.
local function options_of(question, given)
    if not question.seed then return given end
    local own = { seed = question.seed }
    for name, value in pairs(given or {}) do own[name] = own[name] or value end
    return own
end

-- Reads each question into a row of one cache.
local function read(questions, given)
    local decoder, answers, cache = questions[1].scene.model.decoder, {}, nil
    for row, question in ipairs(questions) do
        local session = question.scene:session()
        answers[row] = session:begin(question.text, question.regions, options_of(question, given))
        cache = cache or decoder:cache(session.cache:capacity(), #questions)
        cache:copy(session.cache, nil, row)
        session:free()
    end
    return answers, cache
end

-- Feeds the answers' last tokens, each into its row; returns the logits [n,V] of what follows.
local function feed(decoder, cache, answers, rows)
    local ids, sequences = {}, {}
    for i, row in ipairs(rows) do
        ids[i], sequences[i] = answers[row].ids[#answers[row].ids], { row, 1 }
    end
    local x = decoder:embed(tensor.fromTable(ids, "int64"))
    return decoder:logits(decoder:norm(decoder:forward(x, cache, sequences)))
end

-- The rows whose answers go on; an answer whose context is full ends here.
local function going_on(answers, cache, context)
    local rows = {}
    for row, answer in ipairs(answers) do
        if not answer.stopped and cache:length(row) + 1 > context then
            answer.stopped = "context"
            answer:take(nil)
        end
        if not answer.stopped then rows[#rows + 1] = row end
    end
    return rows
end

local function count_of(answers)
    local count = 0
    for _, answer in ipairs(answers) do count = count + #answer.ids end
    return count
end

-- Feeds each row's last token and draws its next: false when the decoder was interrupted. The tensors go at the end.
local function step(decoder, cache, answers, rows)
    return tensor.scope(function()
        local ok, logits = pcall(feed, decoder, cache, answers, rows)
        if not ok and not interruption.is(logits) then error(logits, 0) end
        for i, row in ipairs(rows) do
            local answer = answers[row]
            if not ok then answer.stopped = "interrupted" end
            answer:take(ok and answer:draw(logits:narrow(1, i, 1)) or nil)
        end
        return ok
    end)
end

local function answer_group(questions, given)
    if #questions == 1 then
        local question = questions[1]
        return { question.scene:ask(question.text, question.regions, options_of(question, given)) }
    end
    local model = questions[1].scene.model
    local answers, cache = read(questions, given)
    for _, answer in ipairs(answers) do
        answer:take(answer:clock("decode", answer.draw, answer, answer.state.logits))
    end
    local rows = going_on(answers, cache, model.config.max_position_embeddings)
    while #rows > 0 do
        local started = core.tick()
        local ok = step(model.decoder, cache, answers, rows)
        local share = (core.tick() - started) / #rows
        for _, row in ipairs(rows) do answers[row].seconds.decode = answers[row].seconds.decode + share end
        if ok and given and given.progress then given.progress(count_of(answers)) end
        rows = going_on(answers, cache, model.config.max_position_embeddings)
    end
    cache:free()
    return answers
end

--- Asks several questions, each in a conversation of its own.
-- @tparam table questions list of {scene =, text =, regions =, seed = in place of `given`'s}; scenes of one model
-- @tparam[opt] table given as for `session:ask`; `progress` is told the tokens of all answers that are at work; where
--   `inspect` looks, they are answered one after the other
-- @tparam[opt=together.GROUP] int group how many at a time
-- @treturn table their Answers, in order; a step's seconds are shared among those that it served
-- @raise what asking one of them would raise; scenes of several models
function together.ask(questions, given, group)
    local answers = {}
    for i, question in ipairs(questions) do
        if question.scene.model ~= questions[1].scene.model then
            error(("together: question %d is about another model's scene"):format(i), 2)
        end
    end
    group = given and given.inspect and 1 or group or together.GROUP
    core.interruptible(function()
        for first = 1, #questions, group do
            local part = { unpack(questions, first, math.min(#questions, first + group - 1)) }
            for _, answer in ipairs(answer_group(part, given)) do answers[#answers + 1] = answer end
        end
    end)
    return answers
end

return together
