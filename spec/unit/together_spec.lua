-- Several questions answered together: what each is answered alone, to the bit, whatever the company.
local core = require "pixelrefer.core"
local ffi = require "ffi"
local pixelrefer = require "pixelrefer"
local seed = require "support.seed"
local together = require "pixelrefer.together"

local tensor = pixelrefer.tensor
local MODELS = "spec/fixtures/golden/models/"

ffi.cdef "int raise(int signal);"
local SIGINT = 2

for _, name in ipairs { "refer", "lite_sharded_bin" } do
    describe("together, the model " .. name, function()
        local model, scenes, questions

        setup(function()
            model = pixelrefer.load(MODELS .. name)
            scenes, questions = {}, {}
            for i = 1, 2 do
                local image = tensor.rand(100 + 28 * i, 140, 3, { seed = seed + i }):mul_(255):byte()
                scenes[i] = model:encode(image)
                for j = 1, 3 do
                    questions[#questions + 1] = {
                        scene = scenes[i],
                        text = ("What is <region>?"):rep(j, " And"):gsub("<region>", "that", j - 1),
                        regions = { pixelrefer.mask.box(image, 10 * j, 15 * j, 30 + 30 * j, 40 + 20 * j) },
                    }
                end
            end
        end)

        local function assert_as_alone(given, group, progress)
            local with_progress = { progress = progress }
            for key, value in pairs(given) do with_progress[key] = value end
            for i, answer in ipairs(together.ask(questions, with_progress, group)) do
                local question = questions[i]
                local alone = question.scene:ask(question.text, question.regions, given)
                assert.same(alone.ids, answer.ids)
                assert.same({ alone.text, alone.stopped, alone.prompt_tokens, alone.tokens },
                            { answer.text, answer.stopped, answer.prompt_tokens, answer.tokens })
                assert.same(alone.logprobs, answer.logprobs)
                assert.same(alone.alternatives, answer.alternatives)
                assert.is_true(answer.seconds.decode > 0)
            end
        end

        it("answers as each is answered alone, in groups of any size", function()
            for _, group in ipairs { 1, 2, 4, 6 } do assert_as_alone({ max_new_tokens = 6 }, group) end
        end)

        it("answers alike when it samples, with penalties, and tells alternatives", function()
            assert_as_alone({ max_new_tokens = 12, sample = true, temperature = 3, top_p = 1, seed = seed % 1000,
                              repetition_penalty = 1.3, alternatives = 2 })
        end)

        it("lets each answer end when it does", function()
            local ends = model.is_end
            finally(function() model.is_end = ends end)
            local ids = scenes[1]:ask(questions[1].text, questions[1].regions, { max_new_tokens = 4 }).ids
            model.is_end = { [ids[3]] = true, [ids[#ids] + 1] = true }
            assert_as_alone { max_new_tokens = 9 }
        end)

        it("ends an answer whose context is full", function()
            local context, prompt = model.config.max_position_embeddings, 0
            finally(function() model.config.max_position_embeddings = context end)
            for _, answer in ipairs(together.ask(questions, { max_new_tokens = 1 })) do
                prompt = math.max(prompt, answer.prompt_tokens)
            end
            model.config.max_position_embeddings = prompt + 2
            assert_as_alone { max_new_tokens = 40 }
        end)

        it("counts tokens as they come and stops at Ctrl-C with what there is", function()
            local counts = {}
            assert_as_alone({ max_new_tokens = 3 }, 6, function(tokens) counts[#counts + 1] = tokens end)
            assert.same({ 12, 18 }, counts)
            local answers = together.ask(questions, { max_new_tokens = 200, repetition_penalty = 1.5,
                progress = function(tokens)
                    if tokens >= 12 then ffi.C.raise(SIGINT) end
                end })
            for _, answer in ipairs(answers) do
                assert.equal("interrupted", answer.stopped)
                assert.equal(2, #answer.ids)
                assert.is_true(#answer.text > 0)
            end
            assert_as_alone { max_new_tokens = 2 }
        end)

        it("answers one after the other where somebody looks", function()
            local stages = 0
            local answers = together.ask(questions, { max_new_tokens = 2, inspect = function(stage)
                if stage == "token1.logits" then stages = stages + 1 end
            end })
            assert.same({ #questions, #questions }, { #answers, stages })
        end)

        it("raises what one of them raises, and gives the memory back", function()
            local short = { scene = scenes[1], text = "<region> <region>", regions = questions[2].regions }
            local bad = { questions[1], short }
            assert.error_matches(function() together.ask(bad) end, "2 '<region>' tags, but 1 region was given")
            local function memory_after()
                pcall(together.ask, bad)
                together.ask(questions, { max_new_tokens = 2 })
                collectgarbage() collectgarbage()
                return core.memory()
            end
            local before = memory_after() -- scenes remember what they are asked for the first time
            assert.equal(before, memory_after())
        end)
    end)
end

describe("questions", function()
    it("of several models are refused", function()
        local first, second = pixelrefer.load(MODELS .. "refer"):text(), pixelrefer.load(MODELS .. "refer"):text()
        local questions = { { scene = first, text = "Hello" }, { scene = second, text = "Hello" } }
        assert.error_matches(function() together.ask(questions) end, "question 2 is about another model's scene")
    end)
end)

describe("describe", function()
    it("gives each region the answer that it has alone, in any order", function()
        local model = pixelrefer.load(MODELS .. "refer")
        local image = tensor.rand(112, 140, 3, { seed = seed }):mul_(255):byte()
        local scene, masks, given = model:encode(image), {}, { max_new_tokens = 5 }
        for i = 1, together.GROUP + 3 do masks[i] = pixelrefer.mask.box(image, 8 * i, 5 * i, 8 * i + 30, 5 * i + 40) end
        local answers, backwards = scene:describe(masks, given), {}
        for i = #masks, 1, -1 do backwards[#backwards + 1] = masks[i] end
        backwards = scene:describe(backwards, given)
        for i, mask in ipairs(masks) do
            local alone = scene:describe({ mask }, given)[1]
            assert.same(alone.ids, answers[i].ids)
            assert.same(alone.ids, backwards[#masks + 1 - i].ids)
        end
    end)
end)
