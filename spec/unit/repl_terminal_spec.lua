-- The prompt in a terminal: completion, history, Ctrl-C; and without one.
local command = require "support.command"
local files = require "support.files"
local terminal = require "support.terminal"

describe("the prompt in a terminal", function()
    local folder, opened

    local function open(options)
        opened = terminal.open(folder, ("XDG_STATE_HOME='%s' LUA_INIT= bin/pixelrefer repl %s"):format(folder,
            options or ""))
        return opened
    end

    before_each(function() folder, opened = files.directory(), nil end)
    after_each(function()
        if opened then opened:close() end
        files.remove(folder)
    end)

    it("completes names with Tab and shows the choices", function()
        local prompt = open()
        prompt:type("pixelrefer.mask.po")
        prompt:press("Tab")
        prompt:line("> pixelrefer.mask.polygon")
        prompt:press("C-c")
        prompt:type("pixelrefer.mask.")
        prompt:press("Tab")
        prompt:wait("the choices", function(screen) return screen:find("area +box") end)
        prompt:press("C-c")
        prompt:enter("20 + 1")
        prompt:line("21")
    end)

    it("brings earlier lines back with Up, also in the next session", function()
        local prompt = open()
        prompt:enter("x = 41")
        prompt:enter("x + 1")
        prompt:line("42")
        prompt:enter("x = 99")
        prompt:ready()
        prompt:press("Up Up Enter")
        prompt:line("100")
        prompt:enter("for i = 70, 71 do")
        prompt:wait("the second prompt", function(screen) return screen:match("\n>>\n$") end)
        prompt:press("-l 'print(i) end'")
        prompt:press("Enter")
        prompt:line("71")
        prompt:ready()
        prompt:press("C-d")
        prompt:wait("the end", function(screen) return screen == "" end)
        prompt:close()

        prompt = open()
        prompt:ready()
        prompt:press("Up Enter")
        prompt:line("70")
        prompt:line("71")
        prompt:ready()
        prompt:press("Up Up Enter")
        prompt:line("attempt to perform arithmetic on global 'x' (a nil value)")
    end)

    it("stops an endless loop at Ctrl-C and goes on", function()
        if package.loaded["support.childless"] then
            return pending("ThreadSanitizer keeps signals back from a loop that calls nothing")
        end
        local prompt = open()
        prompt:enter("print('be' .. 'gun') while true do end")
        prompt:line("begun")
        prompt:press("C-c")
        prompt:wait("the message", function(screen) return screen:find("interrupted\n") end)
        prompt:enter("20 + 1")
        prompt:line("21")
    end)

    it("stops a generation at Ctrl-C, keeps what was said, and goes on", function()
        local prompt = open("--model spec/fixtures/golden/models/refer")
        prompt:enter("local ffi = require 'ffi'")
        prompt:enter("ffi.cdef 'unsigned sleep(unsigned);'") -- which a signal ends: the answer waits for Ctrl-C
        prompt:enter("local function wait(n) if n == 3 then print('token 3') ffi.C.sleep(20) end end")
        prompt:enter("given = { progress = wait, repetition_penalty = 1.5, max_new_tokens = 5000 }")
        prompt:enter("answer = model:ask('Hello', given)")
        prompt:line("token 3")
        prompt:press("C-c")
        prompt:enter("answer.stopped .. '!'")
        prompt:line("interrupted!")
        prompt:enter("#answer.ids >= 3")
        prompt:line("true")
    end)
end)

describe("the prompt without a terminal", function()
    it("takes lines as they come and prints nothing but answers", function()
        local folder = files.directory()
        files.write(folder .. "/input", "1 + 1\nx.y = 1\nfor i = 1, 2 do\nprint(i)\nend\n'a' .. 'b'\nf(")
        local pipe = io.popen(("XDG_STATE_HOME='%s' bin/pixelrefer repl <'%s/input' 2>&1; echo $?"):format(folder,
                                                                                                          folder))
        assert.equal("2\nattempt to index global 'x' (a nil value)\n1\n2\nab\nthe input ends in the middle of: f(\n0\n",
                     pipe:read("*a"))
        pipe:close()
        files.remove(folder)
    end)

    it("takes options only", function()
        local folder = files.directory()
        local code, _, err = command.run(folder, { "repl", "script.lua" })
        assert.equal(2, code)
        assert.matches("repl takes options only, found 'script.lua'", err, 1, true)
        files.remove(folder)
    end)
end)
