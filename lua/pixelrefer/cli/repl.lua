--- The prompt: LuaJIT with the library at hand.
--
-- A @{Prompt} takes lines and writes answers, wherever they come from; @{run} connects one with the terminal.
-- @module pixelrefer.cli.repl
local complete = require "pixelrefer.repl.complete"
local core = require "pixelrefer.core"
local doc = require "pixelrefer.repl.doc"
local evaluate = require "pixelrefer.repl.evaluate"
local line = require "pixelrefer.repl.line"
local options = require "pixelrefer.options"
local picture = require "pixelrefer.repl.picture"
local places = require "pixelrefer.places"
local show = require "pixelrefer.repl.show"

local repl = {}

local HELP = [[
What is typed is Lua. An expression's values are printed, and the first is `_`; unfinished input goes on in the next
line; `local` at a line's begin is left out, so that the variable stays. `pixelrefer` is there, and `model` when the
command named one.

  :doc NAME           what a function or module is for:  :doc pixelrefer.mask.box   :doc Scene:ask   :doc x:narrow
  :show IMAGE, MASK   writes a PNG, and shows it where the terminal can; the masks are drawn on it
  :time CODE          runs it and says how long it took
  :trace              where the last error came from
  :help               this
  :quit               ends, as Ctrl-D does

Tab completes names, methods, and paths inside quotes. Ctrl-C stops what runs. Ctrl-R searches the history.
]]

local Prompt = {}
Prompt.__index = Prompt

--- A prompt.
-- @tparam table globals the variables
-- @tparam function write(text)
-- @treturn Prompt
function repl.new(globals, write)
    return setmetatable({ globals = globals, write = write, pending = nil, trace = nil }, Prompt)
end

--- The text before the cursor.
-- @treturn string
function Prompt:text()
    return self.pending and ">> " or "> "
end

local function fail(prompt, message, trace)
    prompt.trace = trace
    prompt.write(message .. "\n")
end

-- Runs a function; its values, or nil after its error was told.
local function run(prompt, work)
    local values, failure = evaluate.run(work)
    if failure then fail(prompt, failure.message, failure.trace) end
    if values and values.interrupted then prompt.write("interrupted\n") end
    return values
end

-- A typed expression or chunk as a function; nil after its error was told.
local function compile(prompt, text, what)
    local chunk, reason = evaluate.compile(text)
    if chunk then return setfenv(chunk, prompt.globals) end
    fail(prompt, reason or ("%s: '%s' is unfinished"):format(what, text))
end

local function echo(prompt, values)
    if not values or values.n == 0 then return end
    if values[1] ~= nil then prompt.globals._ = values[1] end
    local texts = run(prompt, function() -- __tostring can be the user's
        local texts = {}
        for i = 1, values.n do texts[i] = show(values[i]) end
        return unpack(texts)
    end)
    if texts then prompt.write(table.concat(texts, "\t") .. "\n") end
end

local commands = {}

function commands.help(prompt) prompt.write(HELP) end

function commands.quit() return "quit" end

function commands.trace(prompt) prompt.write((prompt.trace or "no error so far") .. "\n") end

function commands.doc(prompt, name)
    if name == "" then return prompt.write("usage: :doc NAME\n") end
    prompt.write((doc(name, prompt.globals) or ("nothing is known about '%s'"):format(name)) .. "\n")
end

function commands.time(prompt, text)
    local chunk = compile(prompt, text, ":time")
    if not chunk then return end
    local started = core.tick()
    local values = run(prompt, chunk)
    local seconds = core.tick() - started
    echo(prompt, values)
    prompt.write(("%.3g s\n"):format(seconds))
end

function commands.show(prompt, text)
    if text == "" then return prompt.write("usage: :show IMAGE or :show IMAGE, MASK\n") end
    local chunk = compile(prompt, text, ":show")
    local written = chunk and run(prompt, function() return picture.write(chunk()) end)
    if not written then return end
    prompt.write(written[1] .. "\n")
    local protocol = line.on_terminal() and picture.protocol(os.getenv)
    if not protocol then return end
    local file = io.open(written[1], "rb")
    if file then
        prompt.write(picture.escape(protocol, file:read("*a")))
        file:close()
    end
end

--- The commands' names.
repl.COMMANDS = {}
for name in pairs(commands) do table.insert(repl.COMMANDS, name) end
table.sort(repl.COMMANDS)

--- Takes a line: runs it, or keeps it as the begin of what further lines will finish.
-- @tparam string text
-- @treturn ?string "more" when it is unfinished, "quit" at the end
function Prompt:take(text)
    local command, rest = text:match("^%s*:(%a+)%s*(.-)%s*$")
    if command and not self.pending then
        if commands[command] then return commands[command](self, rest) end
        return fail(self, ("unknown command ':%s'%s"):format(command, options.hint(command, repl.COMMANDS)))
    end
    self.pending = self.pending and self.pending .. "\n" .. text or text
    local chunk, reason = evaluate.compile(self.pending)
    if not chunk and not reason then return "more" end
    self.pending = nil
    if not chunk then return fail(self, reason) end
    echo(self, run(self, setfenv(chunk, self.globals)))
end

--- Forgets unfinished input.
function Prompt:drop()
    self.pending = nil
end

local function read_lines(prompt, editor)
    while true do
        local text, why = editor:read(prompt:text())
        if why == "interrupted" then
            prompt:drop()
        elseif not text then
            if prompt.pending then fail(prompt, "the input ends in the middle of: " .. prompt.pending) end
            return
        else
            local whole = prompt.pending and prompt.pending .. "\n" .. text or text
            local status = prompt:take(text)
            if status ~= "more" and whole:match("%S") then editor:remember(whole) end
            if status == "quit" then return end
            collectgarbage() -- what was let go is given back before the next line is typed
        end
    end
end

local function history_file()
    local folder = places.state()
    return folder and pcall(places.make, folder) and folder .. "/history" or nil
end

--- Reads lines from standard input until it ends. Ctrl-C stops what runs.
-- @tparam table variables names and values to begin with
function repl.run(variables)
    local globals = _G
    for name, value in pairs(variables) do globals[name] = value end
    local prompt = repl.new(globals, function(text)
        io.stdout:write(text)
        io.stdout:flush()
    end)
    core.interruptible(function()
        local editor = line.open {
            history = history_file(),
            complete = function(before) return complete.candidates(before, globals, repl.COMMANDS) end,
        }
        if line.on_terminal() then
            prompt.write(("pixelrefer, %s. :help tells what can be typed, Ctrl-D ends.\n"):format(jit.version))
        end
        read_lines(prompt, editor)
        editor:close()
        core.interrupted()
    end)
end

return repl
