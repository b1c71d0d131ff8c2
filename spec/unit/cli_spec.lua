-- The command line: what it prints where, its exit codes, and how it says what is wrong.

local json = require "pixelrefer.json"
local files = require "support.files"
local make_media = dofile "examples/make_media.lua"

local MODEL = "spec/fixtures/golden/models/refer"
local LITE = "spec/fixtures/golden/models/lite_sharded_bin"

local folder

local function quoted(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- Runs the command; returns its exit code, stdout and stderr.
local function run(...)
    local words = {}
    for i, word in ipairs { ... } do words[i] = quoted(word) end
    local out, err = folder .. "/stdout", folder .. "/stderr"
    local status = os.execute(("bin/pixelrefer %s >%s 2>%s </dev/null"):format(table.concat(words, " "), out, err))
    return status >= 256 and math.floor(status / 256) or status, files.read(out), files.read(err)
end

describe("the command line", function()
    setup(function()
        folder = os.tmpname()
        os.remove(folder)
        make_media.write(folder)
    end)
    teardown(function() os.execute("rm -rf " .. quoted(folder)) end)

    local function file(name) return folder .. "/" .. name end

    it("describes each region in a line of its own", function()
        local code, out, err = run("describe", file("picture.png"), "--model", MODEL, "--box", "10,10,100,100",
                                   "--mask", file("picture-ball.png"), "--max-new-tokens", "4")
        assert.equal(0, code, err)
        assert.equal(2, select(2, out:gsub("\n", "")))
        assert.equal("", err)
    end)

    it("writes JSON with text, ids, tokens and seconds", function()
        local code, out = run("ask", file("picture.png"), "What is <region> and <region>?", "--model", MODEL,
                              "--mask", file("picture-ball.png"), "--polygon", "10,10 100,10 50,80", "--json",
                              "--max-new-tokens", "4", "--alternatives", "2")
        assert.equal(0, code)
        local answer = json.decode(out)
        assert.equal(4, #answer.ids)
        assert.equal(2, #answer.tokens)
        assert.equal(2, #answer.cells)
        assert.equal(answer.ids[4], answer.alternatives[4][1].id)
        assert.equal(2, #answer.alternatives[4])
        assert.is_number(answer.seconds.prefill)
        assert.is_string(answer.text)
    end)

    it("says that PixelRefer-Lite does not see a picture without regions", function()
        for _, words in ipairs { { "What is it?" }, { "What is <region>?", "--box", "10,10,100,100" } } do
            local code, out, err = run("ask", file("picture.png"), words[1], "--model", LITE, "--max-new-tokens", "2",
                unpack(words, 2))
            assert.equal(0, code, err)
            assert.matches("%S", out)
            local told = err:find("shown regions alone: without one it does not see .*picture%.png\n") ~= nil
            assert.equal(#words == 1, told)
        end
    end)

    it("quantises a checkpoint, whose answers are those of weights quantised while loading", function()
        local target = file("quantised")
        local code, out, err = run("quantize", MODEL, target, "--weights", "int4", "--group", "16")
        assert.equal(0, code, err)
        assert.equal(target .. "\n", out)
        assert.matches("quantised +4 bits, groups of 16", (select(2, run("info", target))))
        assert.equal(1, (run("quantize", MODEL, target)))
        assert.equal(2, (run("quantize", MODEL)))
        local function answer(...)
            local exit, text, problem = run("describe", file("picture.png"), "--box", "10,10,100,100", "--json",
                                            "--max-new-tokens", "6", ...)
            assert.equal(0, exit, problem)
            return json.decode(text).ids
        end
        local eight = file("eight")
        run("quantize", MODEL, eight)
        assert.same(answer("--model", MODEL, "--weights", "int8", "--kv", "float16"),
                    answer("--model", eight, "--kv", "float16"))
        local wrong, _, why = run("describe", file("picture.png"), "--box", "10,10,100,100", "--model", MODEL,
                                  "--weights", "int3")
        assert.equal(1, wrong)
        assert.matches("weights: 'int8' or 'int4' expected, found 'int3'", why)
    end)

    it("streams the same text that it prints at once", function()
        local words = { "ask", file("picture.png"), "What is <region>?", "--model", LITE, "--mask",
                        file("picture-sun.png"), "--max-new-tokens", "12" }
        local _, whole = run(unpack(words))
        words[#words + 1] = "--stream"
        local code, streamed = run(unpack(words))
        assert.equal(0, code)
        local function strip(text) return (text:gsub("^%s+", ""):gsub("%s+$", "")) end
        assert.equal(strip(whole), strip(streamed))
    end)

    it("asks about a video, an object in several frames, and text alone", function()
        local frames = "0:" .. file("clip-ball-000.png") .. ";7:" .. file("clip-ball-007.png")
        local code, out = run("ask", file("clip"), "<video>\nWhat does <region> do?", "--mask", frames, "--model", LITE,
                              "--json", "--max-new-tokens", "3")
        assert.equal(0, code)
        assert.same({ 16, 16 }, json.decode(out).tokens)
        assert.equal(0, (run("ask", file("clip"), "What does <region> do?", "--mask", "3:" .. file("clip-ball-003.png"),
                             "--model", MODEL, "--fps", "2", "--max-frames", "3", "--max-new-tokens", "3")))
        assert.equal(0, (run("ask", "Hello?", "--model", MODEL, "--max-new-tokens", "3")))
    end)

    it("tells what is in a checkpoint, a picture and a video", function()
        local _, out = run("info", LITE)
        assert.matches("Object%-Only", out)
        assert.matches("2 layers", out)
        assert.equal("image", json.decode((select(2, run("info", file("picture.png"), "--json")))).kind)
        assert.matches("frames +8", (select(2, run("info", file("clip")))))
        local _, _, reason = run("info", LITE, "--device", "cpu", "--compute", "fp16")
        assert.matches("'compute' must be one of", reason)
    end)

    it("tokenizes and back", function()
        local _, ids = run("tokenize", "--model", MODEL, "Hello world")
        local _, text = run("tokenize", "--model", MODEL, "--decode", ids)
        assert.equal("Hello world\n", text)
        assert.matches("^[%d ]+\n$", ids)
    end)

    it("draws regions", function()
        local out = file("drawn.png")
        assert.equal(0, (run("draw", file("picture.png"), "--mask", file("picture-ball.png"), "-o", out)))
        assert.equal("\137PNG", files.read(out):sub(1, 4))
    end)

    it("runs a script with the library's paths set", function()
        local script = file("script.lua")
        local handle = io.open(script, "w")
        handle:write("local p = require 'pixelrefer' print(p.tensor.ones(2, 2):sum(), ...)")
        handle:close()
        local code, out = run("run", script, "a", "b")
        assert.equal(0, code)
        assert.equal("4\ta\tb\n", out)
    end)

    it("answers wrong usage with 2 and the nearest name", function()
        local function usage(expected, ...)
            local code, out, err = run(...)
            assert.equal(2, code)
            assert.equal("", out)
            assert.matches(expected, err, 1, true)
        end
        usage("unknown command 'descrbe', did you mean 'describe'?", "descrbe")
        usage("unknown option '--modl', did you mean 'model'?", "ask", "x", "--modl", "y")
        usage("--model DIR is missing", "tokenize", "Hello?")
        usage("--seed: an integer expected, found '1.5'", "ask", "Hello?", "--seed", "1.5")
        usage("--top-p: a number expected, found 'x'", "ask", "Hello?", "--top-p", "x")
        usage("describe needs a region", "describe", file("picture.png"), "--model", MODEL)
        usage("on a video a region begins with its frame", "ask", file("clip"), "<region>", "--model", MODEL,
              "--mask", file("clip-ball-000.png"))
        usage("--fps", "ask", file("picture.png"), "x", "--model", MODEL, "--fps", "2")
        usage("--json all at the end", "ask", "Hello?", "--stream", "--json")
        usage("add --json", "ask", "Hello?", "--alternatives", "2")
        usage("x0,y0,x1,y1 expected", "describe", file("picture.png"), "--model", MODEL, "--box", "1,2,3")
    end)

    it("answers errors with 1 and one clear line", function()
        local function fails(expected, ...)
            local code, out, err = run(...)
            assert.equal(1, code, err)
            assert.equal("", out)
            assert.matches(expected, err, 1, true)
            assert.equal(1, select(2, err:gsub("\n", "")), err)
        end
        local picture = file("picture.png")
        fails("nope.png: No such file", "draw", file("nope.png"), "-o", file("x.png"))
        fails("the box 0,0,0,0 is empty", "describe", picture, "--model", MODEL, "--box", "0,0,0,0")
        fails("the prompt has 2 '<region>' tags, but 1 region was given", "ask", picture, "<region> <region>",
              "--model", MODEL, "--box", "0,0,9,9")
        fails("the mask is 180 x 320, its picture 336 x 448", "ask", picture, "<region>", "--model", MODEL, "--mask",
              file("clip-ball-000.png"))
        fails("99", "ask", file("clip"), "<region>", "--model", MODEL, "--mask", "99:" .. file("clip-ball-000.png"))
        fails("nowhere", "ask", "Hello?", "--model", "nowhere/at/all")
        local full = io.open("/dev/full", "w")
        if full then
            full:close()
            local status = os.execute(("bin/pixelrefer info %s >/dev/full 2>%s"):format(MODEL, file("stderr")))
            assert.equal(256, status)
            assert.matches("No space left", files.read(file("stderr")))
        end
    end)

    it("answers by the small model when none is named, and says so once", function()
        local code, out, err = run("describe", file("picture.png"), "--box", "0,0,90,90", "--box", "90,90,180,180")
        assert.equal(0, code, err)
        assert.equal(2, select(2, out:gsub("\n", "")))
        assert.matches("^pixelrefer: no %-%-model given: shapes%-vision%-object answers[^\n]*\n$", err)
        code, out, err = run("ask", file("picture.png"), "What is <region>?", "--box", "0,0,90,90", "--model",
                             "shapes-object-only")
        assert.equal(0, code, err)
        assert.is_true(#out > 1)
        assert.equal("", err)
    end)

    -- The checkpoint whose answers end at the token limit only: an id that its vocabulary lacks is its stop token.
    local function endless_model()
        local path = file("endless")
        assert.equal(0, os.execute(("mkdir %s && ln -s \"$PWD\"/%s/* %s && rm %s/generation_config.json"):format(
            quoted(path), MODEL, quoted(path), quoted(path))))
        local config = assert(io.open(path .. "/generation_config.json", "w"))
        config:write('{"eos_token_id": [700]}')
        config:close()
        return path
    end

    it("stops at Ctrl-C with 130 and what it has so far", function()
        local command = ("bin/pixelrefer ask %s 'Describe <region>.' --box 0,0,200,200 --model %s --stream"
            .. " --max-new-tokens 20000 >%s 2>%s & pid=$!; tries=0;"
            .. " until [ -s %s ] || [ $tries -gt 600 ]; do sleep 0.1; tries=$((tries + 1)); done;"
            .. " kill -INT $pid; wait $pid; echo $?"):format(file("picture.png"), endless_model(), file("stdout"),
            file("stderr"), file("stdout"))
        local pipe = io.popen("bash -c " .. quoted("set -m; " .. command) .. " 2>/dev/null")
        assert.equal("130", pipe:read("*l"))
        pipe:close()
        assert.is_true(#files.read(file("stdout")) > 0)
        assert.equal("", files.read(file("stderr")))
    end)
end)
