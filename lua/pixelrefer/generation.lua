--- Choosing the next token: settings and where they come from, sampling, the end of an answer.
-- @module pixelrefer.generation
local core = require "pixelrefer.core"
local json = require "pixelrefer.json"

local generation = {}

local PENALTY = { min = 0.01, max = 100 } -- 1: none; 0 has no meaning, since scores are divided by it
local LARGEST = 2 ^ 53 - 1 -- integers up to here are exact

-- What `ask`, `describe` and `stream` accept about generation.
generation.OPTIONS = {
    sample = "boolean",
    temperature = { type = "number", min = 0 },
    top_k = { type = "integer", min = 0, max = LARGEST },
    top_p = { type = "number", min = 0, max = 1 },
    repetition_penalty = { type = "number", min = PENALTY.min, max = PENALTY.max },
    seed = { type = "integer", min = 0, max = LARGEST },
    max_new_tokens = { type = "integer", min = 1 },
    alternatives = { type = "integer", min = 1, max = 1000 },
}

--- Checks what `generation_config.json` says about sampling.
-- @tparam table given the file's content
-- @tparam string where the file, for messages
-- @treturn table repetition_penalty, top_k; nil where it is silent
-- @raise the key, what is expected and what was found
function generation.read(given, where)
    return {
        repetition_penalty = json.field(given, "repetition_penalty", "number",
            { min = PENALTY.min, max = PENALTY.max, optional = true }, where),
        top_k = json.field(given, "top_k", "integer", { min = 0, max = LARGEST, optional = true }, where),
    }
end

--- The settings in force: the user's, then 0.2 / 0.9 (the reference's) when sampling is asked for, then
-- `generation_config.json`. Sampling is asked for by `sample = true` or a temperature above 0; else greedy.
-- @tparam table given the user's options
-- @tparam table config what `read` made of `generation_config.json`
-- @treturn table temperature (0: greedy), top_k, top_p, repetition_penalty, seed, max_new_tokens, alternatives
-- @raise top_k or top_p where nobody said whether to sample, and so nothing is drawn from
function generation.settings(given, config)
    local sampling = given.sample
    if sampling == nil then sampling = (given.temperature or 0) > 0 end
    if given.sample == nil and not sampling and ((given.top_k or 0) > 0 or (given.top_p or 1) < 1) then
        error("top_k and top_p are for sampling: ask for it with sample = true or a temperature above 0", 0)
    end
    local settings = {
        temperature = 0,
        top_k = 0,
        top_p = 1,
        repetition_penalty = given.repetition_penalty or config.repetition_penalty or 1,
        seed = given.seed or 0,
        max_new_tokens = given.max_new_tokens or 2048,
        alternatives = given.alternatives,
    }
    if sampling then
        settings.temperature = given.temperature or 0.2
        settings.top_p = given.top_p or 0.9
        settings.top_k = given.top_k or config.top_k or 0
    end
    return settings
end

--- Draws the next token id of one sequence.
-- @tparam Tensor logits float32 [1,V]
-- @tparam table settings as `settings` gives them
-- @tparam table ids the ids generated so far, to which the repetition penalty applies
-- @treturn int 0-based token id
function generation.next(logits, settings, ids)
    local drawn = core.sample(logits, {
        temperature = settings.temperature,
        top_k = settings.top_k,
        top_p = settings.top_p,
        repetition_penalty = settings.repetition_penalty,
        generated = { ids },
        seed = settings.seed,
        step = #ids,
    })
    return drawn[1]
end

--- What else the next token could have been. Log-probabilities are the model's own: without penalty, temperature and
-- cuts.
-- @tparam Tensor logits float32 [1,V]
-- @tparam int id the token that was drawn
-- @tparam int count at most so many
-- @tparam Tokenizer tokenizer
-- @treturn table list of {id =, text =, logprob =}, the likeliest first; an id without a token has the text ""
-- @treturn number the drawn token's log-probability
function generation.alternatives(logits, id, count, tokenizer)
    local logprobs = logits:to("cpu"):logSoftmax(2):squeeze(1)
    local values, places = logprobs:topk(math.min(count, logprobs:nElement()))
    local list = {}
    for i, place in ipairs(places:totable()) do
        local ok, text = pcall(tokenizer.decode, tokenizer, { place - 1 })
        list[i] = { id = place - 1, text = ok and text or "", logprob = values[i] }
    end
    return list, logprobs[id + 1]
end

return generation
