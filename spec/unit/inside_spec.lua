-- Looking inside: every stage and layer is shown, can be replaced, and ends the work; attention, alternatives, words.

local core = require "pixelrefer.core"
local draw = require "pixelrefer.draw"
local inside = require "pixelrefer.inside"
local make_media = dofile "examples/make_media.lua"
local pixelrefer = require "pixelrefer"

local tensor = pixelrefer.tensor
local MODELS = "spec/fixtures/golden/models/"
local QUESTION = "What is <region>, <region>?"

local picture, masks = make_media.draw(140, 196, 0.72)
local regions = { masks.sun, masks.ball }

-- A clip, with the ball in its first and last frame.
local function clip()
    local frames, objects = {}, {}
    for k = 1, 4 do frames[k], objects[k] = make_media.draw(84, 112, k / 5) end
    local video = pixelrefer.video.fromFrames(frames, { fps = 1 })
    return video, { { mask = objects[1].ball, frame = 0 }, { mask = objects[4].ball, frame = 3 } }
end

local function with(inspect, count)
    return { inspect = inspect, max_new_tokens = count or 3 }
end

-- The parts of a stage's name that are numbers, left out.
local function plain(stage)
    return (stage:gsub("%d+", "#"))
end

local SCENE = "scene.picture# scene.patches vision.layer# scene.features scene.visual_tokens_all scene.visual_tokens"
local REGION = "region#.box region#.crop region#.mask_grid region#.picture regions.vision.layer# region#.features "
    .. "region#.pooled object_tokens prompt_ids embeds decoder.layer# first_logits token#.embeds "
    .. "token#.decoder.layer# token#.logits"
local LITE = "region#.local_picture region#.global_picture local.vision.layer# global.vision.layer# "
    .. "region#.local_features region#.global_features oci.local oci.global"

for _, name in ipairs { "refer", "lite_sharded_bin" } do
    describe("inside " .. name, function()
        local model = pixelrefer.load(MODELS .. name)
        local is_lite = model.framework == "object_only"
        local stages = (is_lite and LITE .. " " or SCENE .. " ") .. REGION

        -- Encodes and asks; returns the answer, nil when encoding was stopped.
        local function run(inspect)
            local scene = model:encode(picture, { inspect = inspect })
            return scene and scene:ask("What is <region>?", { masks.sun }, with(inspect))
        end

        it("shows every stage, and takes a replacement for each", function()
            local original, seen = run(nil), {}
            local answer = run(function(its, value)
                seen[plain(its)] = true
                return value:clone()
            end)
            assert.same(original.ids, answer.ids) -- copies change nothing
            for stage in stages:gmatch("%S+") do assert.is_true(seen[stage], stage) end
        end)

        it("computes with what a stage was replaced by", function()
            local function logits_with(stage)
                local found
                run(function(its, value)
                    if its == "first_logits" then found = value:clone() end
                    if plain(its) == stage and value:dtype() == "float32" then return value * 0.5 end
                    if plain(its) == stage and value:dtype() == "uint8" and stage ~= "scene.kept" then
                        return 255 - value
                    end
                end)
                return found
            end
            local usual = logits_with("none")
            for stage in stages:gmatch("%S+") do
                local is_later = stage:find("^token") or stage:find("logits") or stage:find("box") or stage:find("_ids")
                if not is_later and stage ~= "region#.mask_grid" then -- half of it is the same region
                    assert.is_false(tensor.equal(usual, logits_with(stage)), stage)
                end
            end
            local third = 7 -- made the likeliest
            local answer = run(function(its, value)
                if its ~= "token2.logits" then return end
                local forced = value:clone()
                forced[third + 1] = value:max() + 1
                return forced
            end)
            assert.equal(third, answer.ids[3])
        end)

        it("refuses what cannot take a stage's place", function()
            local function replaced(stage, by)
                return function()
                    return run(function(its, value)
                        if its == stage then return by(value) end
                    end)
                end
            end
            local function fewer(value) return value:narrow(1, 1, value:size(1) - 1):contiguous() end
            assert.has_error(replaced("decoder.layer0", function() return 3 end),
                "inspect: decoder.layer0: a tensor expected, found number")
            assert.has_error(replaced("region0.pooled", function(value) return value:view(-1) end),
                ("inspect: region0.pooled: [%d] returned, expected [nx%d]"):format(
                    (is_lite and model.config.mask_num or 32) * 144, 144))
            for stage in ("prompt_ids embeds decoder.layer0 region0.features first_logits"):gmatch("%S+") do
                assert.error_matches(replaced(stage, fewer),
                    "^inspect: " .. stage .. ": %[[%dx]+%] returned, expected %[[%dx]+%]$")
            end
            local answer = replaced("region0.pooled", fewer)()
            assert.equal((is_lite and model.config.mask_num or 32) - 1, answer.tokens[1])
        end)

        it("says that a turn without regions has no attention to them", function()
            local attention, session = inside.attention(model), model:encode(picture):session()
            session:ask("What is <region>?", { masks.sun }, with(attention.inspect))
            assert.equal(1, #attention.regions)
            session:ask("And what else?", nil, with(attention.inspect))
            assert.same({}, attention.regions)
            assert.has_error(function() attention:onRegion(picture, 1) end,
                "onRegion: there are no object tokens in this turn's prompt")
        end)

        it("stops at any stage, and the conversation is as it was", function()
            for stage in stages:gmatch("%S+") do
                local after = {}
                local answer = run(function(its)
                    after[#after + 1] = its
                    if plain(its) == stage then return false end
                end)
                assert.equal(stage, plain(after[#after]))
                if answer then
                    assert.equal("inspect", answer.stopped)
                    assert.equal(stage:find("^token") and 1 or 0, #answer.ids, stage)
                end
            end
            local session = model:encode(picture):session()
            local first = session:ask(QUESTION, regions, with(function(its)
                if its == "decoder.layer0" then return false end
            end))
            assert.equal("", first.text)
            local usual = model:encode(picture):ask(QUESTION, regions, with())
            assert.same(usual.ids, session:ask(QUESTION, regions, with()).ids)
            assert.has_error(function()
                session:score("Why?", nil, { "a" }, { inspect = function() return false end })
            end, "score: stopped by inspect")
        end)

        it("has the same answer when somebody looks, beyond the cache's first room too", function()
            local long = { max_new_tokens = 300, repetition_penalty = 1.3 }
            local usual = model:encode(picture):ask(QUESTION, regions, long)
            long.inspect = function() end
            assert.same(usual.ids, model:encode(picture):ask(QUESTION, regions, long).ids)
        end)

        it("gives the attention of each token drawn, layer by layer and head by head", function()
            for _, media in ipairs { picture, (clip()) } do
                local list = regions
                if media ~= picture then list = { is_lite and select(2, clip()) or select(2, clip())[1] } end
                local attention = inside.attention(model)
                local scene = model:encode(media)
                local question = media == picture and QUESTION or "What does <region> do?"
                local answer = scene:ask(question, list, with(attention.inspect, 4))
                local weights, config = attention:weights(), model.config
                assert.same({ config.num_hidden_layers, config.num_attention_heads, #answer.ids,
                    answer.prompt_tokens }, weights:size())
                assert.is_true(weights:min() >= 0)
                assert.is_true(tensor.allclose(weights:select(3, 1):sum(3), tensor.ones(weights:size(1),
                    weights:size(2)), 1e-5, 1e-5))

                local shares, whole = attention:shares(), 0
                for _, share in pairs(shares) do whole = share + whole end
                assert.is_true(tensor.allclose(whole, tensor.ones(whole:size()), 1e-5, 1e-5))
                assert.equal(is_lite, shares.visual == nil)
                assert.is_nil(shares.earlier)
                assert.equal(0, shares.answer:select(3, 1):gt(1e-5):sum())
                local counts = {}
                for _, kind in ipairs(attention:kinds()) do counts[kind] = (counts[kind] or 0) + 1 end
                local tokens = 0
                for _, count in ipairs(answer.tokens) do tokens = tokens + count end
                assert.equal(tokens, counts.object)
                assert.equal(not is_lite and scene.encoded.visual_tokens:size(1) or nil, counts.visual)

                assert.same({ 520, 960, 3 }, attention:plot():size())
                local frame = media == picture and picture or media.frames[1]
                assert.same(frame:size(), attention:onRegion(frame, 1):size())
                if is_lite then
                    assert.error_matches(function() attention:overlay(scene) end, "no visual tokens")
                else
                    local drawn = attention:overlay(scene, { layer = 2, head = 1, token = 1 })
                    assert.same(scene.pictures[1]:size(), drawn:size())
                    assert.is_false(tensor.equal(drawn, scene.pictures[1]))
                end
                assert.error_matches(function() attention:onRegion(frame, 1, { layer = 9 }) end, "no layer 9, but %d")
                assert.error_matches(function() attention:onRegion(frame, 9) end, "no 9")
            end
        end)

        it("gives weights that make the layer's output with the values", function()
            -- The output of the first layer, from the weights, the values and the layer's own parts.
            local seen, session = {}, model:encode(picture):session()
            session:ask(QUESTION, regions, with(function(stage, value)
                if stage == "embeds" or stage:find("^decoder.layer0") then seen[stage] = value:clone() end
            end, 1))
            local weights, config = model.weights.decoder, model.config
            local n, heads, kv_heads = seen.embeds:size(1), config.num_attention_heads, config.num_key_value_heads
            local values = session.cache:values(1):narrow(1, 1, n)
            local mixed = tensor.empty(1, heads, config.head_dim)
            for h = 1, heads do
                local own = seen["decoder.layer0.attention"]:narrow(1, h, 1)
                mixed:select(2, h):copy_(own:matmul(values:select(2, math.ceil(h * kv_heads / heads))))
            end
            local x = seen.embeds:narrow(1, n, 1)
            x = core.linear(mixed:view(1, -1), weights["layers.0.self_attn.o_proj.weight"], nil, "none", x)
            local h = core.rms_norm(x, weights["layers.0.post_attention_layernorm.weight"], config.rms_norm_eps)
            local up = core.silu_mul(core.linear(h, weights["layers.0.mlp.gate_proj.weight"]),
                                     core.linear(h, weights["layers.0.mlp.up_proj.weight"]))
            x = core.linear(up, weights["layers.0.mlp.down_proj.weight"], nil, "none", x)
            assert.is_true(tensor.allclose(seen["decoder.layer0"]:narrow(1, n, 1), x, 1e-5, 1e-4))
        end)

        it("knows what was said in an earlier turn", function()
            local session, attention = model:encode(picture):session(), inside.attention(model)
            local first = session:ask(QUESTION, regions, with(attention.inspect))
            session:ask("Why?", nil, with(attention.inspect))
            local kinds = attention:kinds()
            assert.equal("earlier", kinds[1])
            assert.equal("earlier", kinds[first.prompt_tokens + #first.ids - 1])
            assert.equal("text", kinds[#kinds])
            assert.is_not_nil(attention:shares().earlier)
        end)

        it("lists the alternatives of each token with their log-probabilities", function()
            local scene, logits = model:encode(picture), {}
            local answer = scene:ask(QUESTION, regions, {
                alternatives = 4, max_new_tokens = 3,
                inspect = function(stage, value)
                    if stage:find("logits$") then logits[#logits + 1] = value:clone() end
                end,
            })
            assert.equal(#answer.ids, #answer.alternatives)
            for t, list in ipairs(answer.alternatives) do
                local expected = logits[t]:logSoftmax(1)
                assert.equal(4, #list)
                assert.equal(answer.ids[t], list[1].id) -- greedy
                for i, one in ipairs(list) do
                    assert.near(expected[one.id + 1], one.logprob, 1e-6)
                    assert.is_true(i == 1 or one.logprob <= list[i - 1].logprob)
                    assert.is_string(one.text)
                end
                assert.near(list[1].logprob, answer.logprobs[t], 1e-6)
            end
            local pieces, streamed = scene:stream(QUESTION, regions, { alternatives = 2, max_new_tokens = 3 })
            for _ in pieces do assert.is_true(#streamed.alternatives > 0) end
            assert.equal(#streamed.ids, #streamed.logprobs)
            assert.is_nil(scene:ask(QUESTION, regions, with()).alternatives)
        end)

        it("follows regions of a picture and of a clip to their tokens", function()
            local video, ball = clip()
            local runs = { { picture, regions }, { video, is_lite and { ball } or { ball[1] } } }
            for _, one in ipairs(runs) do
                local scene = model:encode(one[1])
                local tokens
                scene:ask(#one[2] == 2 and QUESTION or "<region>", one[2], with(function(stage, value)
                    if stage == "object_tokens" then tokens = value:clone() end
                end, 1))
                local parts = {}
                for j, region in ipairs(inside.regions(scene, one[2])) do
                    parts[j] = region.embeddings
                    assert.equal(region.cells:size(1), region.assignment:size(1))
                    local drawn = draw.tokens(region.picture, region.item, region.assignment)
                    assert.same(region.picture:size(), drawn:size())
                    assert.is_false(tensor.equal(drawn, region.picture))
                    local crop = draw.tokens(region.picture, region.item, region.assignment, { crop = true })
                    assert.same(region.item.picture:size(), crop:size())
                end
                assert.is_true(tensor.equal(tokens, tensor.cat(parts, 1)))
            end
        end)

        it("finds the words that a row lies nearest to", function()
            local ids = model.tokenizer:encode("a ball")
            local rows = model.decoder:embed(tensor.fromTable(ids, "int64")) * 3
            local words = inside.words(model, rows, 3)
            for r, id in ipairs(ids) do
                assert.equal(id, words[r][1].id)
                assert.near(1, words[r][1].cosine, 1e-5)
                assert.equal(model.tokenizer:decode { id }, words[r][1].text)
                assert.equal(3, #words[r])
            end
            local table_of_rows = model.weights.decoder["embed_tokens.weight"]:float()
            local second = table_of_rows:narrow(1, words[1][2].id + 1, 1)
            local cosine = (rows:narrow(1, 1, 1) * second):sum() / (rows:narrow(1, 1, 1):norm() * second:norm())
            assert.near(cosine, words[1][2].cosine, 1e-5)
            assert.error_matches(function() inside.words(model, rows:narrow(2, 1, 3)) end, "words: rows %[k,%d+%]")
        end)
    end)
end

describe("a chart", function()
    it("draws a line of each series, and says what is wrong", function()
        local series = { { name = "one", values = { 0, 0.5, 1 } }, { name = "two", values = tensor.ones(3) } }
        local drawn = draw.chart(series, { title = "shares", percent = true, width = 500, height = 300 })
        assert.same({ 300, 500, 3 }, drawn:size())
        local blue = drawn:select(3, 1):eq(0):logicalAnd(drawn:select(3, 2):eq(114)):logicalAnd(
            drawn:select(3, 3):eq(178)):sum()
        assert.is_true(blue > 300)
        assert.error_matches(function() draw.chart({}) end, "there are no values")
        assert.error_matches(function() draw.chart({}, { tilte = "x" }) end, "did you mean 'title'")
        draw.chart { { name = "flat", values = { 0 } } }
    end)
end)
