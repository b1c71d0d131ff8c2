-- A program in a terminal of tmux's: keys go in, the screen comes out. Nothing depends on how long it takes.
local command = require "support.command"
local ffi = require "ffi"
local skip = require "support.skip"

local terminal = {}

local LIMIT = 60 -- seconds until what is waited for counts as never coming

local Terminal = {}
Terminal.__index = Terminal

local function output_of(line)
    local pipe = assert(io.popen(line .. " 2>/dev/null"))
    local text = pipe:read("*a")
    pipe:close()
    return text
end

local function command_of(self, words)
    return ("env -u LD_PRELOAD tmux -S %s -f /dev/null %s"):format(self.socket, words)
end

function Terminal:tmux(words)
    return output_of(command_of(self, words))
end

--- Opens a terminal, or marks the running test as skipped.
-- @tparam string folder for the terminal's socket
-- @tparam string program a line of the shell
-- @treturn Terminal
function terminal.open(folder, program)
    if output_of("command -v tmux") == "" then return skip.because("tmux is not installed") end
    if not pcall(ffi.load, "libedit.so.2") then return skip.because("libedit is not installed") end
    local self = setmetatable({ socket = command.quoted(folder .. "/tmux") }, Terminal)
    local preloaded = os.getenv("LD_PRELOAD") -- a sanitizer's runtime, which the program needs and tmux does not bear
    if preloaded then program = ("LD_PRELOAD=%s %s"):format(command.quoted(preloaded), program) end
    local start = command_of(self, "new-session -d -x 100 -y 50 " .. command.quoted(program))
    if os.execute(start .. " 2>/dev/null") ~= 0 then return skip.because("tmux finds no terminal here") end
    return self
end

--- What stands on the screen.
-- @treturn string lines without the blanks at their ends
function Terminal:screen()
    return (self:tmux("capture-pane -p"):gsub("[ \n]+$", "\n"))
end

--- Waits until the screen has a line, or a text at its end.
-- @tparam function seen gets the screen, returns true
function Terminal:wait(what, seen)
    local started = os.time()
    while not seen(self:screen()) do
        if os.time() - started > LIMIT then
            error(("waited %d s for %s; on the screen:\n%s"):format(LIMIT, what, self:screen()), 0)
        end
        os.execute("sleep 0.05")
    end
end

--- Waits for a line that stands on the screen alone.
-- @tparam string line
function Terminal:line(line)
    self:wait(line, function(screen) return ("\n" .. screen):find("\n" .. line .. "\n", 1, true) end)
end

--- Waits for an empty prompt.
function Terminal:ready()
    self:wait("the prompt", function(screen) return screen:match("\n>\n$") or screen == ">\n" end)
end

--- Presses keys, as tmux names them.
-- @tparam string keys such as "C-c" or "Up Up Enter"
function Terminal:press(keys) self:tmux("send-keys " .. keys) end

--- Types a text at an empty prompt, without Enter.
-- @tparam string text
function Terminal:type(text)
    self:ready()
    self:tmux("send-keys -l -- " .. command.quoted(text))
end

--- Types a line at an empty prompt.
-- @tparam string text
function Terminal:enter(text)
    self:type(text)
    self:press("Enter")
end

--- Ends the terminal and what runs in it.
function Terminal:close() self:tmux("kill-server") end

return terminal
