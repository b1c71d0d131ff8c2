-- Models, scenes and sessions on the committed tiny checkpoints: the same bits however the work is cut, conversations,
-- streams, interruptions, and what goes wrong.

local core = require "pixelrefer.core"
local ffi = require "ffi"
local pixelrefer = require "pixelrefer"

local tensor = pixelrefer.tensor
local MODELS = "spec/fixtures/golden/models/"
local SHORT = { max_new_tokens = 8 }

ffi.cdef "int raise(int signal);"
local SIGINT = 2

-- A picture of 140 x 168 pixels with some structure, and three masks on it.
local function drawing()
    local y = tensor.linspace(0, 139, 140):view(140, 1, 1)
    local x = tensor.linspace(0, 167, 168):view(1, 168, 1)
    local c = tensor.fromTable({ 1, 2, 5 }):view(1, 1, 3)
    local image = ((x * c * 3 + y * 2 + (x * y / 40)) % 251):byte():contiguous()
    return image, {
        pixelrefer.mask.box(image, 10, 10, 70, 60),
        pixelrefer.mask.box(image, 80, 40, 160, 130),
        pixelrefer.mask.box(image, 0, 100, 30, 140),
    }
end

local function with_option(name, value)
    local copy = { max_new_tokens = SHORT.max_new_tokens }
    copy[name] = value
    return copy
end

for _, name in ipairs { "refer", "lite_sharded_bin" } do
    describe("the model " .. name, function()
        local model, image, masks

        setup(function()
            model = pixelrefer.load(MODELS .. name)
            image, masks = drawing()
        end)

        local function logits_of(scene, prompt, regions)
            local seen
            local answer = scene:ask(prompt, regions, with_option("inspect", function(stage, value)
                if stage == "first_logits" then seen = value:clone() end
            end))
            return seen, answer
        end

        it("gives the same bits for any number of threads", function()
            local before, expected, ids = core.threads(), nil, nil
            for _, threads in ipairs { 1, 2, 4 } do
                core.threads(threads)
                local scene = model:encode(image)
                local logits, answer = logits_of(scene, "What is <region>, <region>?", { masks[1], masks[2] })
                expected, ids = expected or logits, ids or answer.ids
                assert.is_true(tensor.equal(expected, logits))
                assert.same(ids, answer.ids)
            end
            core.threads(before)
        end)

        it("describes a region alike alone, among others and in another order", function()
            local scene = model:encode(image)
            local together = scene:describe({ masks[1], masks[2], masks[3] }, SHORT)
            local turned = scene:describe({ masks[3], masks[1] }, SHORT)
            local alone = model:describe(image, masks[1], SHORT)
            assert.same(alone.ids, together[1].ids)
            assert.same(alone.ids, turned[2].ids)
            assert.same(together[3].ids, turned[1].ids)
        end)

        it("takes one region in the place of a list, and nothing else there", function()
            local scene = model:encode(image)
            local alone = scene:describe({ masks[1] }, SHORT)[1]
            local answers = scene:describe({ mask = masks[1] }, SHORT)
            assert.equal(1, #answers)
            assert.same(alone.ids, answers[1].ids)
            assert.same(alone.ids, model:describe(image, { mask = masks[1] }, SHORT).ids)
            assert.has_error(function() scene:ask("Hello", SHORT) end,
                "regions: a list of masks expected, found the key 'max_new_tokens'; options are the next argument")
            assert.has_error(function() scene:describe { masks[1], nil, masks[2] } end,
                "regions: the list has number 3, but no 2")
        end)

        it("takes masks of any type, but refuses those of floats that are no masks", function()
            local scene, usual = model:encode(image), nil
            for _, given in ipairs { masks[1], masks[1]:float(), masks[1]:half() * 255, masks[1]:long() * 7 } do
                local ids = scene:ask("What is <region>?", { given }, SHORT).ids
                usual = usual or ids
                assert.same(usual, ids)
            end
            local soft = masks[1]:float()
            for _, given in ipairs { soft * 0.98 + 0.01, soft * 20 - 10, soft * (0 / 0) } do
                assert.has_error(function() scene:ask("<region> <region>", { masks[2], given }, SHORT) end,
                    "region 2: the mask is float32 with values other than 0 and 1: take mask:gt(0.5), say")
            end
        end)

        it("answers alike over a reused scene", function()
            local prompt = "What is <region>?"
            local fresh = model:encode(image):ask(prompt, { masks[2] }, SHORT)
            local scene = model:encode(image)
            scene:ask("Something else about <region>.", { masks[1] }, SHORT)
            local reused = scene:ask(prompt, { masks[2] }, SHORT)
            assert.same(fresh.ids, reused.ids)
            assert.equal(fresh.prompt_tokens, reused.prompt_tokens)
        end)

        it("joins answers with texts, numbers and each other", function()
            local answer = model:encode(image):ask("What is <region>?", { masks[1] }, SHORT)
            local text = answer.text
            assert.equal("A: " .. text .. "1" .. text .. text, "A: " .. answer .. 1 .. answer .. answer)
            assert.is_false(pcall(function() return answer .. nil end))
        end)

        it("streams the pieces of the same answer", function()
            local scene = model:encode(image)
            local whole = scene:ask("What is <region>?", { masks[1] }, { max_new_tokens = 20 })
            local pieces = {}
            local iterator, answer = scene:stream("What is <region>?", { masks[1] }, { max_new_tokens = 20 })
            for piece in iterator do pieces[#pieces + 1] = piece end
            assert.equal(whole.text, (table.concat(pieces):gsub("^%s+", ""):gsub("%s+$", "")))
            assert.same(whole.ids, answer.ids)
            assert.equal(whole.text, answer.text)
        end)

        it("goes on after a stream that was left early", function()
            local session = model:encode(image):session()
            local pieces = session:stream("What is <region>?", { masks[1] }, { max_new_tokens = 20 })
            assert.is_string(pieces())
            local answer = session:ask("And why?", nil, SHORT)
            assert.is_true(#answer.ids > 0)
        end)

        it("continues a conversation as if the whole chat had been read at once", function()
            local session = model:encode(image):session()
            local ids, first = {}, nil
            local function watch(stage, value)
                if stage == "prompt_ids" then
                    for _, id in ipairs(value:totable()) do ids[#ids + 1] = id end
                elseif stage == "first_logits" then
                    first = value:clone()
                end
            end
            local a = session:ask("Hello, who are you?", nil, with_option("inspect", watch))
            for i = 1, #a.ids - 1 do ids[#ids + 1] = a.ids[i] end
            session:ask("What else?", nil, with_option("inspect", watch))
            if model.framework == "object_only" then -- no visual tokens: the ids say everything
                local cache = model.decoder:cache(#ids)
                local x = model.decoder:forward(model.decoder:embed(tensor.fromTable(ids, "int64")), cache)
                local logits = model.decoder:logits(model.decoder:norm(x:narrow(1, x:size(1), 1)))
                assert.is_true(tensor.equal(first, logits:squeeze(1)))
            end
            local close = model.tokenizer:id("<|im_end|>")
            local closings = 0
            for _, id in ipairs(ids) do closings = closings + (id == close and 1 or 0) end
            assert.equal(3, closings) -- two questions and the answer between them
        end)

        it("goes on behind an answer whose last token is one of the places", function()
            local session = model:encode(image):session()
            for _, id in ipairs { model.region_id, model.image_id } do
                local answer = session:ask("What is <region>?", { masks[1] }, {
                    max_new_tokens = 1,
                    inspect = function(stage, value)
                        if stage ~= "first_logits" then return end
                        local forced = value:clone()
                        forced[id + 1] = value:max() + 1
                        return forced
                    end,
                })
                assert.same({ id }, answer.ids)
            end
            local attention = pixelrefer.inside.attention(model)
            session:ask("And <region>?", { masks[2] }, with_option("inspect", attention.inspect))
            local objects = 0
            for _, kind in ipairs(attention:kinds()) do objects = objects + (kind == "object" and 1 or 0) end
            assert.equal(attention.regions[1].pooled:size(1), objects)
        end)

        it("scores answers as the sum of their tokens' log-probabilities", function()
            local session = model:encode(image):session()
            local likely = session:ask("What is <region>?", { masks[1] }, { max_new_tokens = 3 })
            local greedy = model.tokenizer:decode(likely.ids)
            local scores = model:encode(image):session():score("What is <region>?", { masks[1] }, { greedy, "zzz", "" })
            assert.equal(0, scores[3].logprob)
            assert.is_true(scores[2].logprob < 0)
            for _, score in ipairs(scores) do
                local sum = 0
                for _, value in ipairs(score.logprobs) do sum = sum + value end
                assert.near(score.logprob, sum, 1e-6)
                assert.equal(#score.ids, #score.logprobs)
            end
        end)

        it("leaves a conversation where it was after scoring", function()
            local session, other = model:encode(image):session(), model:encode(image):session()
            session:ask("What is <region>?", { masks[1] }, SHORT)
            other:ask("What is <region>?", { masks[1] }, SHORT)
            session:score("Is it red?", nil, { "yes", "no" })
            assert.same(other:ask("Why?", nil, SHORT).ids, session:ask("Why?", nil, SHORT).ids)
        end)

        it("stops an answer at Ctrl-C and stays usable", function()
            local session = model:encode(image):session()
            local answer = session:ask("What is <region>?", { masks[1] }, {
                max_new_tokens = 200,
                repetition_penalty = 1.5,
                progress = function(tokens)
                    if tokens == 2 then ffi.C.raise(SIGINT) end
                end,
            })
            assert.equal("interrupted", answer.stopped)
            assert.equal(2, #answer.ids)
            assert.is_true(#session:ask("Go on.", nil, SHORT).ids > 0)
        end)

        it("samples alike with the same seed and not greedily", function()
            local scene = model:encode(image)
            local function sampled(seed)
                local options = { sample = true, temperature = 5, top_p = 1, seed = seed, max_new_tokens = 12 }
                return scene:ask("Hi", nil, options).ids
            end
            assert.same(sampled(3), sampled(3))
            assert.not_same(sampled(3), sampled(4))
        end)

        it("shows every stage and takes a replacement", function()
            local scene, seen = model:encode(image), {}
            local plain = logits_of(scene, "What is <region>?", { masks[1] })
            local changed
            scene:ask("What is <region>?", { masks[1] }, with_option("inspect", function(stage, value)
                seen[stage] = true
                if stage == "object_tokens" then return value * 0 end
                if stage == "first_logits" then changed = value:clone() end
            end))
            for stage in ("region0.box region0.crop region0.picture region0.mask_grid region0.cells region0.pooled "
                .. "object_tokens prompt_ids embeds decoder.layer0"):gmatch("%S+") do
                assert.is_true(seen[stage], stage)
            end
            assert.is_false(tensor.equal(plain, changed))
        end)

        it("gives back its memory", function()
            local function work() model:encode(image):ask("What is <region>?", { masks[1] }, SHORT) end
            work()
            collectgarbage() collectgarbage()
            local before = core.memory()
            for _ = 1, 3 do work() end
            collectgarbage() collectgarbage()
            assert.equal(before, core.memory())
        end)

        it("frees what a scene keeps, which can be asked again", function()
            local scene = model:encode(image)
            local session = scene:session()
            local usual = session:ask("What is <region>?", { masks[1] }, SHORT)
            local kept = { scene.encoded.visual_tokens }
            for _, whole in pairs(scene.remembered) do kept[#kept + 1] = whole.features end
            assert.equal(1, #kept)
            scene:free()
            scene:free()
            assert.error_matches(function() kept[1]:sum() end, "this tensor was freed", 1, true)
            assert.matches("Scene", tostring(scene))
            assert.is_true(#session:ask("And <region>?", { masks[2] }, SHORT).ids > 0)
            assert.same(usual.ids, scene:ask("What is <region>?", { masks[1] }, SHORT).ids)
        end)

        it("leaves a freed scene the visual tokens that somebody was shown", function()
            local shown
            local scene = model:encode(image, { inspect = function(stage, value)
                if stage == "scene.visual_tokens" then
                    shown = value * 0
                    return shown
                end
            end })
            local usual = scene:ask("What is <region>?", { masks[1] }, SHORT)
            scene:free()
            assert.same(usual.ids, scene:ask("What is <region>?", { masks[1] }, SHORT).ids)
            assert.is_true(not shown or shown:sum() == 0)
        end)

        it("frees the conversation of a question that fails", function()
            local scene, sessions, cache = model:encode(image), {}, nil
            function scene:session()
                sessions[1] = getmetatable(scene).session(self)
                return sessions[1]
            end
            assert.has_error(function()
                scene:ask("What is <region>?", { masks[1] }, with_option("progress", function()
                    cache = sessions[1].cache
                    error("enough", 0)
                end))
            end, "enough")
            assert.is_nil(sessions[1].cache)
            assert.error_matches(function() cache:length() end, "this object was freed", 1, true)
        end)

        it("says what is wrong with a call", function()
            local scene = model:encode(image)
            local function message(...)
                local ok, reason = pcall(scene.ask, scene, ...)
                assert.is_false(ok)
                return reason
            end
            assert.matches("2 '<region>' tags, but 1 region was given",
                           message("<region> and <region>", { masks[1] }), 1, true)
            assert.matches("0 '<region>' tags, but 1 region was given", message("Nothing", { masks[1] }), 1, true)
            assert.matches("region 1: the mask is 3 x 4, its picture 140 x 168",
                           message("<region>", { tensor.ones(3, 4, { dtype = "uint8" }) }), 1, true)
            assert.matches("unknown option 'temprature', did you mean 'temperature'?",
                           message("<region>", { masks[1] }, { temprature = 1 }), 1, true)
            assert.matches("the prompt has %d+ tokens, the model's context 32768", message(("word "):rep(40000)))
        end)
    end)
end

describe("the decoder", function()
    for _, kv in ipairs { "float32", "float16", "bfloat16" } do
        it("gives the same bits at once, in chunks and step by step, its past in " .. kv, function()
            local model = pixelrefer.load(MODELS .. "refer", { kv = kv })
            local decoder = model.decoder
            local ids = {}
            for i = 1, 700 do ids[i] = (i * 37) % 500 end
            local x = decoder:embed(tensor.fromTable(ids, "int64"))
            local whole = decoder:forward(x, decoder:cache(700))
            local cache, parts = decoder:cache(1), {}
            local at = 1
            for _, count in ipairs { 1, 2, 5, 64, 100, 300, 228 } do
                parts[#parts + 1] = decoder:forward(x:narrow(1, at, count), cache)
                at = at + count
            end
            assert.is_true(tensor.equal(whole, tensor.cat(parts, 1)))
            local steps = decoder:cache(50)
            for i = 1, 50 do
                local row = decoder:forward(x:narrow(1, i, 1), steps)
                assert.is_true(tensor.equal(whole:narrow(1, i, 1), row))
            end
            assert.equal(kv, steps:keys(1):dtype())
        end)
    end

    it("answers nearly the same with a past in float16", function()
        local function logits(kv)
            local decoder = pixelrefer.load(MODELS .. "refer", { kv = kv }).decoder
            local x = decoder:embed(tensor.arange(60, { dtype = "int64" }))
            return decoder:logits(decoder:norm(decoder:forward(x, decoder:cache(60))))
        end
        local wide, narrow = logits "float32", logits "float16"
        assert.is_false(tensor.equal(wide, narrow))
        assert.is_true((wide - narrow):norm() < 1e-3 * wide:norm())
        assert.error_matches(function() pixelrefer.load(MODELS .. "refer", { kv = "int8" }) end,
            "kv.*float32.*float16")
    end)

    it("gives each of several sequences the bits it has alone", function()
        local model = pixelrefer.load(MODELS .. "refer")
        local decoder = model.decoder
        local a = decoder:embed(tensor.fromTable({ 5, 6, 7, 8 }, "int64"))
        local b = decoder:embed(tensor.fromTable({ 400, 3 }, "int64"))
        local together = decoder:cache(8, 2)
        local rows = decoder:forward(tensor.cat({ a, b }, 1), together, { { 1, 4 }, { 2, 2 } })
        assert.is_true(tensor.equal(decoder:forward(a, decoder:cache(8)), rows:narrow(1, 1, 4)))
        assert.is_true(tensor.equal(decoder:forward(b, decoder:cache(8)), rows:narrow(1, 5, 2)))
        assert.equal(4, together:length(1))
        assert.equal(2, together:length(2))
    end)

    it("runs layer by layer what it runs at once", function()
        local model = pixelrefer.load(MODELS .. "refer")
        local decoder = model.decoder
        local x = decoder:embed(tensor.fromTable({ 5, 6, 7, 8 }, "int64"))
        local cache, y = decoder:cache(8), x
        for i = 1, model.config.num_hidden_layers do y = decoder:layers(y, cache, i, i) end
        assert.equal(0, cache:length())
        assert.is_true(tensor.equal(decoder:forward(x, decoder:cache(8)), y))
    end)
end)

describe("PixelRefer", function()
    it("refuses an empty mask and names the region", function()
        local model = pixelrefer.load(MODELS .. "refer")
        local image, masks = drawing()
        local empty = tensor.zeros(140, 168, { dtype = "uint8" })
        local scene = model:encode(image)
        assert.has_error(function() scene:ask("<region> <region>", { masks[1], empty }) end,
                         "region 2: the mask is empty: no pixel is set")
    end)

    it("takes the largest cell of a mask too thin to reach any", function()
        local model = pixelrefer.load(MODELS .. "refer")
        local image = drawing()
        local thin = tensor.zeros(140, 168, { dtype = "uint8" })
        for i = 2, 160, 2 do thin[70][i] = 1 end
        local answer = model:encode(image):ask("<region>", { thin }, SHORT)
        assert.is_true(answer.tokens[1] >= 1)
    end)
end)

describe("PixelRefer-Lite", function()
    it("takes an empty mask and drops a modal tag", function()
        local model = pixelrefer.load(MODELS .. "lite_sharded_bin")
        local image = drawing()
        local empty = tensor.zeros(140, 168, { dtype = "uint8" })
        local scene = model:encode(image)
        local answer = scene:ask("<image>\nWhat is <region>?", { empty }, SHORT)
        assert.equal(model.config.mask_num, answer.tokens[1])
        assert.same(scene:ask("What is <region>?", { empty }, SHORT).ids, answer.ids)
    end)
end)
