-- The prompt without a terminal: what is typed and what comes back; completion, documentation, pictures.
local complete = require "pixelrefer.repl.complete"
local core = require "pixelrefer.core"
local doc = require "pixelrefer.repl.doc"
local evaluate = require "pixelrefer.repl.evaluate"
local ffi = require "ffi"
local files = require "support.files"
local line = require "pixelrefer.repl.line"
local picture = require "pixelrefer.repl.picture"
local pixelrefer = require "pixelrefer"
local repl = require "pixelrefer.cli.repl"
local show = require "pixelrefer.repl.show"
local tensor = require "pixelrefer.tensor"

ffi.cdef "int raise(int);"

local MODEL = "spec/fixtures/golden/models/refer"

-- A prompt with variables of its own; returns a function that types lines and gives what they made it write.
local function typist(variables)
    local globals = setmetatable(variables or {}, { __index = _G })
    local written = {}
    local prompt = repl.new(globals, function(text) written[#written + 1] = text end)
    return function(...)
        written = {}
        local status
        for _, text in ipairs { ... } do status = prompt:take(text) end
        return table.concat(written), status
    end, globals, prompt
end

describe("the prompt", function()
    it("echoes the values of expressions, with and without =", function()
        local type_in, globals = typist()
        assert.equal("2\n", type_in "1 + 1")
        assert.equal("2\n", type_in "= 1 + 1")
        assert.equal("1\tnil\ttext\n", type_in "1, nil, 'text'")
        assert.equal(1, globals._)
        assert.equal("", type_in "x = 3")
        assert.equal("3\n", type_in "x")
        assert.equal("nil\n", type_in "nil")
        assert.equal("", type_in "")
        assert.equal("", type_in "-- a comment")
    end)

    it("keeps variables that are typed as local", function()
        local type_in = typist()
        type_in "local x, y = 1, 2"
        type_in "local function twice(v) return 2 * v end"
        assert.equal("6\n", type_in "twice(x + y)")
        type_in "local z"
        assert.equal("nil\n", type_in "z")
    end)

    it("goes on in further lines until the input is whole", function()
        local type_in, _, prompt = typist()
        for _, lines in ipairs {
            { "for i = 1, 2 do", "  x = i", "end", "" },
            { "function f()", "return 7", "end" },
            { "t = {", "1,", "2 }" },
            { "text = [[a", "b]]" },
            { "1 +", "1" },
            { "f(", ")" },
            { "= 3 +", "4" },
        } do
            for i, text in ipairs(lines) do
                if lines[i + 1] and text ~= "end" then
                    assert.equal("> ", i == 1 and prompt:text() or "> ")
                    assert.equal("more", select(2, type_in(text)), text)
                    assert.equal(">> ", prompt:text())
                else
                    assert.is_nil(select(2, type_in(text)), text)
                end
            end
        end
        assert.equal("a\nb\n", type_in "text")
        type_in "if x then"
        prompt:drop()
        assert.equal("5\n", type_in "5")
    end)

    it("tells an error in one line, and where it came from when asked", function()
        local type_in = typist { box = pixelrefer.mask.box }
        assert.equal("unexpected symbol near '='\n", type_in "x = = 1")
        assert.equal("attempt to index global 'nothing' (a nil value)\n", type_in "nothing.field = 1")
        assert.equal("attempt to call global 'nothing' (a nil value)\n", type_in("if true then", "nothing()", "end"))
        assert.equal("mask.box: the box 0,0,9,9 is not inside the picture of 5 x 5 (width x height)\n",
                     type_in "box({ 5, 5 }, 0, 0, 9, 9)")
        assert.matches("mask.lua:%d+: in function", (type_in ":trace"))
        assert.not_matches("stoppable", (type_in ":trace"))
        assert.equal("an error that is a table\n", type_in "error {}")
        assert.equal("nil\n", type_in "error(nil)")
        assert.equal("told\n", type_in "error(setmetatable({}, { __tostring = function() return 'told' end }))")
        assert.equal("4\n", type_in "2 + 2")
    end)

    it("stops typed code at Ctrl-C, also code that catches errors, in coroutines and loaded files", function()
        local folder = files.directory()
        local script = files.write(folder .. "/endless.lua", "return function() while true do end end")
        local type_in = typist { raise = ffi.C.raise, script = script, noop = function() end }
        for _, text in ipairs {
            "raise(2) while true do end",
            "raise(2) repeat until false",
            "raise(2) for i = 1, math.huge do noop() end",
            "raise(2) while true do pcall(function() while true do end end) end",
            "raise(2) coroutine.wrap(function() while true do end end)()",
            "local function f() return f() end raise(2) f()",
            "endless = dofile(script) raise(2) endless()",
            "raise(2) endless()",
        } do
            assert.equal("interrupted\n", (type_in(text)), text)
        end
        assert.equal("4\n", type_in "2 + 2")
        assert.is_false(core.interrupted())
        files.remove(folder)
    end)

    it("stops a generation at Ctrl-C, keeps what was said, and leaves a loop of questions", function()
        local model = pixelrefer.load(MODEL)
        local told = 0
        -- On one line: its next line would be where typed code stops.
        local function progress(tokens) told = told + 1 if tokens == 3 then ffi.C.raise(2) end end
        local type_in, globals = typist {
            scene = model:text(),
            given = { max_new_tokens = 50, repetition_penalty = 1.5, progress = progress },
        }
        assert.equal("interrupted\n", (type_in "answer = scene:ask('Hello', nil, given)"))
        assert.equal("interrupted", globals.answer.stopped)
        assert.equal(3, #globals.answer.ids)
        told = 0
        assert.equal("interrupted\n", type_in "for i = 1, 1000 do answer = scene:ask('Hello', nil, given) end")
        assert.equal(3, told)
    end)

    it("measures and refuses with its commands", function()
        local type_in = typist()
        assert.matches("^4\n[%d.e-]+ s\n$", (type_in ":time 2 + 2"))
        assert.matches("^[%d.e-]+ s\n$", (type_in ":time for i = 1, 10 do end"))
        assert.equal(":time: 'for' is unfinished\n", type_in ":time for")
        assert.equal("unknown command ':hepl', did you mean 'help'?\n", type_in ":hepl")
        assert.matches(":doc NAME", (type_in ":help"))
        assert.equal("quit", select(2, type_in ":quit"))
        assert.equal("no error so far\n", (typist()(":trace")))
    end)

    it("writes what it shows as PNG", function()
        local image = tensor.zeros(4, 6, 3, { dtype = "uint8" })
        local type_in = typist { image = image, box = pixelrefer.mask.box(image, 1, 1, 3, 3) }
        local path = type_in(":show image"):match("^(/.*%.png)\n$")
        assert.same({ 4, 6, 3 }, pixelrefer.image.load(path):size())
        assert.is_true(pixelrefer.image.load(type_in(":show image, box"):match("^(.*)\n")):max() > 0)
        assert.equal(255, pixelrefer.image.load(type_in(":show box"):match("^(.*)\n")):max())
        assert.matches("%.png\n$", (type_in((":show %q"):format(path))))
        assert.equal("show: an image, a mask or a path expected, found number\n", type_in ":show 3")
        assert.equal("show: an image, a mask or a path expected, found a float32 tensor of size 2\n",
                     type_in ":show require('pixelrefer.tensor').ones(2)")
        files.remove(path:match("^(.*)/"))
    end)
end)

describe("shown values", function()
    it("are short", function()
        assert.equal("{}", show {})
        assert.equal('{ 1, 2, a = "x\\n", ["b c"] = true }', show { 1, 2, a = "x\n", ["b c"] = true })
        assert.equal("{ x = [float32 tensor of size 2x3] }", show { x = tensor.ones(2, 3) })
        local list = {}
        for i = 1, 1000 do list[i] = i end
        assert.matches("19, 20, ... 980 more }$", (show(list)))
        local own = {}
        own.own = own
        assert.equal("{ own = {...} }", show(own))
        assert.equal("{ { { {...} } } }", show { { { { 1 } } } })
        assert.matches("^{\n  .*\n}$", (show { ("x"):rep(90), ("y"):rep(90) }))
        assert.matches("tensor of size 2]", (show(tensor.ones(2))))
        assert.equal("{ [freed tensor] }", show { (function() local x = tensor.ones(1) x:free() return x end)() })
    end)

    it("tell what the library's objects are", function()
        local model = pixelrefer.load(MODEL)
        assert.matches("^Model%(.*refer, vision_object, %d+ layers of width %d+", (show(model)))
        local image = tensor.zeros(56, 84, 3, { dtype = "uint8" })
        local scene = model:encode(image)
        assert.matches("^Scene%(image, 1 picture%(s%) of 84x56, %d+ visual tokens%)$", (show(scene)))
        assert.equal("Scene(text)", show(model:text()))
        assert.matches("^Session%(0 tokens, Scene%(", (show(scene:session())))
        assert.matches("^Scene%(image, 2 picture%(s%)", (show(model:encode { image, image })))
        assert.matches("^Video%(", (show(pixelrefer.video.load("spec/fixtures/media/bframes.mp4"))))
        assert.matches("^pixelrefer%.%a+ %(0x", (show(model.decoder)))
    end)
end)

describe("completion", function()
    local image = tensor.zeros(4, 6, 3, { dtype = "uint8" })
    local globals = {
        pixelrefer = pixelrefer, image = image, list = { { name = 1, number = 2 } }, print = print, text = "abc",
        object = setmetatable({ field = 1 }, { __index = { method = function() end, member = 2 } }),
        trap = setmetatable({}, { __index = function() error("called") end }),
        _private = 1,
    }
    local function words(typed) return select(2, complete.candidates(typed, globals, { "doc", "help", "time" })) end

    it("knows globals, fields and methods", function()
        assert.same({ "pixelrefer", "print" }, words "p")
        assert.same({ "pixelrefer" }, words "x = f(pi")
        assert.same({ "pixelrefer.mask.polygon" }, words "pixelrefer.mask.po")
        assert.same({ "object.field" }, words "object.f")
        assert.same({ "object.member", "object.method" }, words "object.me")
        assert.same({ "object:method" }, words "object:")
        assert.same({ "list[1].name", "list[1].number" }, words "list[1].n")
        assert.same({ "image:narrow" }, words "image:narr")
        assert.same({ "image:var" }, words "y = image:var")
        assert.same({ "text:sub" }, words "text:su")
        assert.same({ "image" }, words "list[ima")
        assert.same({ "_private" }, words "_p")
        assert.is_nil(table.concat(words "", " "):find("_private", 1, true))
        assert.equal(9, (complete.candidates("x = f + pixelrefer.m", globals)))
    end)

    it("calls nothing, and knows nothing of what is not there", function()
        assert.same({}, words "trap.x")
        assert.same({}, words "nothing.x")
        assert.same({}, words "trap.a.b")
        assert.same({}, words "f().x")
        assert.same({}, words "1.")
        assert.same({}, words "list[7].n")
    end)

    it("knows commands, and paths inside quotes", function()
        assert.same({ ":doc" }, words ":d")
        assert.same({ "pixelrefer.mask.polygon" }, words ":doc pixelrefer.mask.po")
        assert.same({ "spec/unit/repl_spec.lua", "spec/unit/repl_terminal_spec.lua" }, words "dofile('spec/unit/repl_")
        assert.same({ "spec/fixtures/" }, words 'f("a", "spec/fix')
        assert.same({}, words "'nowhere/x")
        assert.same({ "print" }, words "f('a') + pr")
    end)

    it("shows choices in columns", function()
        assert.equal("ab", line.common_prefix { "abc", "abd" })
        assert.equal("", line.common_prefix {})
        assert.equal("a    ccc  e\nbb   d\n", line.columns({ "a", "bb", "ccc", "d", "e" }, 15))
    end)
end)

describe(":doc", function()
    local globals = { pixelrefer = pixelrefer, x = tensor.ones(1), print = print }

    it("finds functions of the library, in Lua and in C, by what a name stands for", function()
        for _, name in ipairs { "pixelrefer.mask.box", "mask.box", "pixelrefer.mask.box(1, 2)" } do
            local text = doc(name, globals)
            assert.matches("mask%.box%(like, x0, y0, x1, y1%)\nA filled box", text)
            assert.matches("like %(Tensor|table%): the picture", text)
        end
        assert.matches("^x:narrow?\n?.*Elements `start`", (doc("x:narrow", globals):gsub("^Tensor", "x")))
        assert.matches("The variance", (doc("x:var", globals)))
        assert.matches("Asks and waits", (doc("Session:ask", globals)))
        assert.matches("All layers over new positions", (doc("Decoder:forward", globals)))
        assert.matches("A model: immutable weights", (doc("pixelrefer.model", globals)))
        assert.matches("optional", (doc("Session:ask", globals)))
    end)

    it("says so when there is nothing", function()
        assert.is_nil(doc("nothing.there", globals))
        assert.is_nil(doc("print", globals))
        assert.is_nil(doc("", globals))
    end)
end)

describe("pictures in the terminal", function()
    it("are encoded as it expects them", function()
        for text, expected in pairs { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", ["\255\0\128"] = "/wCA" } do
            assert.equal(expected, picture.base64(text))
        end
        assert.equal("\27]1337;File=inline=1;size=3:Zm9v\7\n", picture.escape("iterm", "foo"))
        assert.equal("\27_Gf=100,a=T,m=0;Zm9v\27\\\n", picture.escape("kitty", "foo"))
        local long = picture.escape("kitty", ("x"):rep(5000))
        assert.equal(2, select(2, long:gsub("\27_G", "")))
        assert.matches("^\27_Gf=100,a=T,m=1;.*\27_Gm=0;", long)
    end)

    it("are shown where they can be", function()
        local function protocol(variables) return picture.protocol(function(name) return variables[name] end) end
        assert.equal("kitty", protocol { TERM = "xterm-kitty" })
        assert.equal("kitty", protocol { TERM = "xterm-256color", KITTY_WINDOW_ID = "1" })
        assert.equal("iterm", protocol { TERM_PROGRAM = "iTerm.app" })
        assert.equal("iterm", protocol { TERM_PROGRAM = "WezTerm" })
        assert.is_nil(protocol { TERM = "xterm-kitty", TMUX = "x" })
        assert.is_nil(protocol { TERM = "screen", TERM_PROGRAM = "iTerm.app" })
        assert.is_nil(protocol {})
    end)
end)

describe("evaluation", function()
    it("leaves a hook of the user's alone, and the compiler on", function()
        evaluate.run(function() end)
        assert.is_nil(debug.gethook())
        assert.is_true(jit.status())
        debug.sethook(function() end, "", 1e6)
        evaluate.run(function() end)
        assert.is_function((debug.gethook()))
        debug.sethook()
    end)
end)
