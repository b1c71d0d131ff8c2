-- The tokenizer against transformers' Qwen2Tokenizer: the golden units, texts of spec/fixtures/tokenizer_text.json
-- (made by make_tokenizer_text.py), files that lie, streams, memory.
local cjson = require "cjson"
local lfs = require "lfs"

local core = require "pixelrefer.core"
local shared = require "support.shared"
local tokenizer = require "pixelrefer.tokenizer"
local files = require "support.files"

local FIXTURES = "spec/fixtures/"
local TINY = FIXTURES .. "golden/media/tokenizer_tiny"
local REPLACEMENT = "\239\191\189" -- U+FFFD

local function read_json(path)
    return cjson.decode(files.read(path))
end

local function from_hex(hex)
    return (hex:gsub("..", function(byte) return string.char(tonumber(byte, 16)) end))
end

-- One string to compare, so that a failure shows both lists.
local function show(ids)
    return table.concat(ids, " ")
end

-- ---- made-up directories -----------------------------------------------------------------------------------------

local made = {}

local function write_directory(contents)
    local directory = files.directory()
    for name, content in pairs(contents) do files.write(directory .. "/" .. name, content) end
    made[#made + 1] = directory
    return directory
end

-- The tiny tokenizer's files, some of them replaced; false leaves one out.
local function tiny_with(changed)
    local contents = {}
    for name in lfs.dir(TINY) do
        if name:sub(1, 1) ~= "." then contents[name] = files.read(TINY .. "/" .. name) end
    end
    for name, content in pairs(changed) do contents[name] = content or nil end
    return write_directory(contents)
end

-- A tokenizer.json of all the bytes and a few tokens more; `change` may spoil it before it is written.
local function made_tokenizer(change)
    local vocab, id = {}, 0
    for token, value in pairs(read_json(TINY .. "/vocab.json")) do
        if value < 256 then vocab[token], id = value, math.max(id, value + 1) end
    end
    vocab["in"], vocab["ing"] = id, id + 1
    local root = {
        model = { type = "BPE", vocab = vocab, merges = { "i n", { "in", "g" } } },
        added_tokens = { { id = id + 2, content = "<x>", special = true } },
    }
    if change then change(root) end
    return write_directory { ["tokenizer.json"] = cjson.encode(root) }
end

local function refused(directory, ...)
    local ok, message = pcall(tokenizer.load, directory)
    assert.is_false(ok)
    for _, expected in ipairs { ... } do assert.truthy(message:find(expected, 1, true), message) end
end

-- ---- comparing ---------------------------------------------------------------------------------------------------

local function check_golden(tok, golden)
    for token, id in pairs(golden.added_tokens) do
        assert.equal(id, tok:id(token))
        assert.equal(token, tok:token(id))
    end
    for _, entry in ipairs(golden.encode) do
        assert.equal(show(entry.ids), show(tok:encode(entry.text)), entry.text)
        assert.equal(entry.decoded, tok:decode(entry.ids))
        assert.equal(entry.decoded_skip_special, tok:decode(entry.ids, { skip_special_tokens = true }))
    end
    for _, entry in ipairs(golden.decode) do assert.equal(entry.decoded, tok:decode(entry.ids)) end
end

local function streamed(tok, ids, given)
    local stream, pieces = tok:stream(given), {}
    for i, id in ipairs(ids) do pieces[i] = stream:push(id) end
    pieces[#pieces + 1] = stream:finish()
    return table.concat(pieces)
end

local function check_texts(tok, entries)
    for _, entry in ipairs(entries) do
        local text = entry.hex and from_hex(entry.hex) or entry.text
        assert.equal(show(entry.ids), show(tok:encode(text)), text)
        assert.equal(entry.decoded, tok:decode(entry.ids))
        assert.equal(entry.skipped, tok:decode(entry.ids, { skip_special_tokens = true }))
        assert.equal(entry.decoded, streamed(tok, entry.ids))
        assert.equal(entry.skipped, streamed(tok, entry.ids, { skip_special_tokens = true }))
    end
end

describe("tokenizer", function()
    local texts = read_json(FIXTURES .. "tokenizer_text.json")
    local tiny = tokenizer.load(TINY)

    teardown(function()
        for _, directory in ipairs(made) do files.remove(directory) end
    end)

    describe("gives the reference's ids and texts", function()
        it("with the tiny vocabulary, golden unit", function()
            check_golden(tiny, read_json(FIXTURES .. "golden/units/tokenizer_tiny.json"))
        end)

        it("with the tiny vocabulary, random Unicode and broken bytes", function()
            check_texts(tiny, texts.tiny)
        end)

        it("with merges and added tokens that no training makes", function()
            check_texts(tokenizer.load(FIXTURES .. "tokenizer_odd"), texts.odd)
        end)

        it("with Qwen2.5's vocabulary, golden unit", function()
            local directory, golden = shared.path("data/tokenizer"), shared.path("golden/units/tokenizer_qwen2.5.json")
            check_golden(tokenizer.load(directory), read_json(golden))
        end)

        it("with Qwen2.5's vocabulary, random Unicode and broken bytes", function()
            check_texts(tokenizer.load(shared.path("data/tokenizer")), texts.full)
        end)
    end)

    it("reads the same from tokenizer.json as from vocab.json and merges.txt", function()
        local directory = shared.path("golden/models/refer_tied_bf16_sharded")
        local both = { tokenizer.load(directory) }
        both[2] = tokenizer.load(write_directory { ["tokenizer.json"] = files.read(directory .. "/tokenizer.json") })
        for _, tok in ipairs(both) do
            assert.equal(tiny:size(), tok:size())
            for id = 0, tiny:size() - 1 do
                assert.equal(tiny:token(id), tok:token(id))
                assert.equal(tiny:isSpecial(id), tok:isSpecial(id))
            end
            check_texts(tok, texts.tiny)
        end
    end)

    it("reads added tokens from each of the files that name them", function()
        local added, config = files.read(TINY .. "/added_tokens.json"), read_json(TINY .. "/tokenizer_config.json")
        config.added_tokens_decoder = nil
        local roles = cjson.encode {
            eos_token = { content = "<|im_end|>" }, additional_special_tokens = { "<REGION>" } }
        local from_ids = tokenizer.load(tiny_with { ["tokenizer_config.json"] = cjson.encode(config) })
        local from_roles = tokenizer.load(tiny_with {
            ["tokenizer_config.json"] = false, ["special_tokens_map.json"] = roles })
        local from_decoder = tokenizer.load(tiny_with { ["added_tokens.json"] = false })
        for token, id in pairs(cjson.decode(added)) do
            for _, tok in ipairs { from_ids, from_roles, from_decoder } do assert.equal(id, tok:id(token)) end
            assert.is_true(from_ids:isSpecial(id))
            assert.is_true(from_decoder:isSpecial(id))
            assert.equal(token == "<|im_end|>" or token == "<REGION>", from_roles:isSpecial(id))
        end
    end)

    it("reads merges as strings and as pairs", function()
        local tok = tokenizer.load(made_tokenizer())
        assert.equal("ing", tok:token(tok:encode("ing")[1]))
        assert.equal(1, #tok:encode("<x>"))
        assert.equal("", tok:decode(tok:encode("<x>"), { skip_special_tokens = true }))
    end)

    it("reads merges.txt with Windows line ends and without its first line", function()
        local merges = files.read(TINY .. "/merges.txt")
        check_texts(tokenizer.load(tiny_with { ["merges.txt"] = merges:gsub("\n", "\r\n") }), texts.tiny)
        check_texts(tokenizer.load(tiny_with { ["merges.txt"] = merges:gsub("^[^\n]*\n", "") }), texts.tiny)
    end)

    it("names tokens as the files write them", function()
        local id = tiny:id("Ġthe")
        assert.equal("Ġthe", tiny:token(id))
        assert.equal(" the", tiny:decode { id })
        assert.equal(show { id }, show(tiny:encode(" the")))
        assert.is_nil(tiny:id(" the"))
        assert.is_nil(tiny:id("no such token"))
        assert.is_nil(tiny:id(""))
        assert.is_nil(tiny:id(("x"):rep(5000)))
        assert.equal(507, tiny:size())
        assert.is_true(tiny:isSpecial(506))
        assert.is_false(tiny:isSpecial(id))
    end)

    it("takes texts with zero bytes, and none", function()
        assert.equal("", show(tiny:encode("")))
        assert.equal("", tiny:decode {})
        assert.equal("a\0b\0", tiny:decode(tiny:encode("a\0b\0")))
    end)

    it("takes time in proportion to the text, whatever the text", function()
        local kinds = {
            "abcde", "\204\128\204\150", " ", "\n ", "<|im_end", "\255", "<REGION>", "\225\132\146\225\133\161" }
        for _, kind in ipairs(kinds) do
            local text = kind:rep(math.floor(400000 / #kind))
            local started = os.clock()
            local ids = tiny:encode(text)
            local decoded = tiny:decode(ids)
            assert.is_true(os.clock() - started < 5, kind)
            if kind:byte() < 128 then assert.equal(text, decoded) end
        end
    end)

    describe("streams", function()
        it("give out whole characters only", function()
            local stream = tiny:stream()
            local pieces = {}
            for i, id in ipairs(tiny:encode("\226\130\172!")) do pieces[i] = stream:push(id) end -- the euro sign
            assert.same({ "", "", "\226\130\172", "!" }, pieces)
            assert.equal("", stream:finish())
        end)

        it("end an unfinished character with U+FFFD", function()
            local stream = tiny:stream()
            local ids = tiny:encode "\226\130\172" -- three tokens; two are given
            for i = 1, 2 do stream:push(ids[i]) end
            assert.equal(REPLACEMENT, stream:finish())
            assert.equal("", stream:finish())
        end)

        it("join to the whole text for any ids", function()
            local seed = 1
            for _ = 1, 300 do
                local ids = {}
                for i = 1, 30 do
                    seed = (seed * 48271) % 2147483647
                    ids[i] = seed % tiny:size()
                end
                for _, skip in ipairs { true, false } do
                    local given = { skip_special_tokens = skip }
                    assert.equal(tiny:decode(ids, given), streamed(tiny, ids, given))
                end
            end
        end)

        it("go on after memory that ran out", function()
            local stream, id = tiny:stream(), tiny:id("e")
            for _ = 1, 12 do
                core.memory_fail_at(core.memory_allocations() + 1)
                assert.is_false(pcall(stream.push, stream, id))
                core.memory_fail_at(0)
            end
            assert.equal("e", stream:push(id))
        end)

        it("keep their tokenizer alive", function()
            local stream = tokenizer.load(TINY):stream()
            collectgarbage()
            assert.equal(" the", stream:push(tiny:id("Ġthe")))
        end)
    end)

    describe("refuses", function()
        it("ids that stand for no token", function()
            assert.error_matches(function() tiny:decode { 507 } end, "id 507 stands for no token.*0 to 506")
            assert.error_matches(function() tiny:decode { 1, -1 } end, "id %-1 stands for no token")
            assert.error_matches(function() tiny:token(507) end, "from 0.* to 506")
            local odd = tokenizer.load(FIXTURES .. "tokenizer_odd") -- its ids have a hole before the added ones
            local hole = odd:id("<l>") - 1
            assert.error_matches(function() odd:decode { hole } end, "stands for no token")
            assert.error_matches(function() odd:token(hole) end, "stands for no token")
        end)

        it("no generated id: one beyond the tokens, as a larger embedding has them, adds no text", function()
            local stream = tiny:stream()
            local first, second = tiny:encode "dog", tiny:encode " cat"
            local text = ""
            for _, list in ipairs { first, { 507, 99999 }, second } do
                for _, id in ipairs(list) do text = text .. stream:push(id) end
            end
            assert.equal("dog cat", text .. stream:finish())
        end)

        it("what is no list of ids, no text, no option", function()
            assert.error_matches(function() tiny:decode { "a" } end, "entry 1 is string")
            assert.error_matches(function() tiny:decode { 1, 1.5 } end, "entry 2")
            assert.error_matches(function() tiny:decode { 0 / 0 } end, "entry 1")
            assert.error_matches(function() tiny:decode { 1e300 } end, "entry 1")
            assert.error_matches(function() tiny:decode "1" end, "a list of ids expected, got string")
            assert.error_matches(function() tiny:encode(12) end, "a text expected, got number")
            assert.error_matches(function() tiny:decode({}, { skip_special = true }) end, "skip_special_tokens")
        end)

        it("a tokenizer that was freed", function()
            local tok = tokenizer.load(TINY)
            local stream = tok:stream()
            tok:free()
            tok:free()
            assert.error_matches(function() tok:encode("a") end, "freed")
            assert.error_matches(function() stream:push(1) end, "freed")
        end)

        it("directories without a tokenizer", function()
            refused("/no/such/directory", "/no/such/directory", "No such file")
            refused(TINY .. "/vocab.json", "not a directory")
            local empty = write_directory {}
            refused(empty, empty, "expected tokenizer.json, or vocab.json and merges.txt", "found neither")
            refused(tiny_with { ["merges.txt"] = false }, "found vocab.json alone")
            assert.error_matches(function() tokenizer.load(1) end, "a directory's path expected")
        end)

        it("JSON that is none", function()
            refused(tiny_with { ["vocab.json"] = '{"a": 0,' }, "vocab.json: not valid JSON", "line 1, column 8")
            refused(tiny_with { ["vocab.json"] = "" }, "vocab.json: not valid JSON")
            refused(tiny_with { ["vocab.json"] = "[1]" }, "the file must be a JSON object, found a list")
            refused(tiny_with { ["vocab.json"] = ("["):rep(1e6) }, "vocab.json: not valid JSON", "depth")
            refused(tiny_with { ["vocab.json"] = '{"a": 0, "a": 1}' }, "vocab.json", "duplicate")
            refused(tiny_with { ["vocab.json"] = '{"\255": 0}' }, "vocab.json: not valid JSON", "unable to decode byte")
        end)

        it("tokens that lie", function()
            local vocab = files.read(TINY .. "/vocab.json")
            local function spoiled(entry)
                return tiny_with { ["vocab.json"] = (vocab:gsub("^{", "{" .. entry .. ", ")) }
            end
            refused(spoiled '"zzz": "1"', "a token's id must be an integer, found a string")
            refused(spoiled '"zzz": 1.5', "a token's id must be an integer, found a real number")
            refused(spoiled '"zzz": -1', "token 'zzz' has id -1, expected 0 to 1048575")
            refused(spoiled '"zzz": 1048576', "token 'zzz' has id 1048576")
            refused(spoiled '"zzz": 9223372036854775807', "token 'zzz' has id 9223372036854775807")
            refused(spoiled '"zzz": 5', "id 5 of token ")
            refused(spoiled '"": 600', "the token of id 600 is empty")
            refused(spoiled '"a b": 600', "token 'a b' (id 600) has a character that stands for no byte")
            refused(tiny_with { ["vocab.json"] = (vocab:gsub('"!": 0, ', "")) }, "no token for byte 0x21 ('!')")
        end)

        it("broken merges", function()
            local merges = files.read(TINY .. "/merges.txt")
            refused(tiny_with { ["merges.txt"] = merges .. "zzz in\n" }, "merges.txt: line ",
                "merge of 'zzz' and 'in': 'zzz' is no token")
            refused(tiny_with { ["merges.txt"] = merges .. "! \"\n" }, "what they make together is no token")
            refused(tiny_with { ["merges.txt"] = merges .. "alone\n" }, "'alone' is no merge")
            refused(tiny_with { ["merges.txt"] = merges .. "a b c\n" }, "'a b c' is no merge")
            refused(tiny_with { ["merges.txt"] = "\255\254\0\1" }, "merges.txt: line 1")
            refused(made_tokenizer(function(root) root.model.merges[2] = { "in" } end),
                "model.merges[1]: a merge must be a string or a list of two strings, found a list")
            refused(made_tokenizer(function(root) root.model.merges[1] = 7 end), "model.merges[0]", "found an integer")
        end)

        it("added tokens that lie", function()
            local function spoiled(decoder)
                return tiny_with { ["tokenizer_config.json"] = '{"added_tokens_decoder": ' .. decoder .. "}" }
            end
            refused(spoiled "[]", "added_tokens_decoder must be an object, found a list")
            refused(spoiled '{"x": {"content": "<x>"}}', "'x' is no token id")
            refused(spoiled '{"-1": {"content": "<x>"}}', "'-1' is no token id")
            refused(spoiled '{"99999999": {"content": "<x>"}}', "expected 0 to 1048575")
            refused(spoiled '{"600": "<x>"}', "an added token must be an object, found a string")
            refused(spoiled '{"600": {}}', "content must be a string, found nothing")
            refused(spoiled '{"600": {"content": ""}}', "has 0 bytes, expected 1 to 1024")
            refused(spoiled('{"600": {"content": "' .. ("x"):rep(1025) .. '"}}'), "has 1025 bytes")
            refused(spoiled '{"600": {"content": "<x>", "special": 1}}', "special must be true or false")
            refused(spoiled '{"5": {"content": "<x>"}}', "id 5 of token '<x>' is another token's")
            refused(spoiled '{"600": {"content": "!"}}', "added token '!' has two ids, 0 and 600")
            refused(spoiled '{"600": {"content": "<REGION>"}}', "added token '<REGION>' has two ids, 600 and 506")
            refused(tiny_with { ["added_tokens.json"] = '{"<x>": true}' }, "added_tokens.json: an added token's id")
            refused(tiny_with { ["special_tokens_map.json"] = '{"eos_token": 1}' },
                "special_tokens_map.json: eos_token")
        end)

        it("a tokenizer.json of another kind", function()
            refused(made_tokenizer(function(root) root.model = nil end), "model must be an object, found nothing")
            refused(made_tokenizer(function(root) root.model.type = "Unigram" end), "'Unigram', expected 'BPE'")
            refused(made_tokenizer(function(root) root.model.vocab = { "a" } end), "model.vocab must be an object")
            refused(made_tokenizer(function(root) root.model.merges = "a b" end), "model.merges must be a list")
            refused(made_tokenizer(function(root) root.added_tokens = { 1 } end), "added_tokens[0]")
            refused(made_tokenizer(function(root) root.normalizer = { type = "NFKC" } end),
                "'NFKC', expected Qwen2's NFC")
            refused(made_tokenizer(function(root)
                root.pre_tokenizer = { pretokenizers = { { type = "Split", pattern = { Regex = "\\p{N}{1,3}" } } } }
            end), "pattern is not Qwen2's")
        end)
    end)

    it("survives a failure of each of its allocations, and leaks nothing", function()
        local directory = made_tokenizer()
        local function work()
            local tok = tokenizer.load(directory)
            local text = tok:decode(tok:encode("ing <x> e\204\129 " .. ("\204\150\204\129"):rep(9) .. (" the"):rep(9)))
            tok:free()
            return text
        end
        local expected = work()
        collectgarbage()
        collectgarbage()
        local in_use, before = core.memory(), core.memory_allocations()
        assert.equal(expected, work())
        local count = core.memory_allocations() - before
        for i = 1, count do
            core.memory_fail_at(core.memory_allocations() + i)
            local ok, message = pcall(work)
            core.memory_fail_at(0)
            assert.is_false(ok, i)
            assert.truthy(tostring(message):find("memory"), message)
            collectgarbage()
            collectgarbage()
            assert.equal(in_use, core.memory(), i)
        end
    end)
end)
