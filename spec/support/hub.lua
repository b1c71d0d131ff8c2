-- A hub for a test: spec/support/hub_server.lua in a process of its own.
local command = require "support.command"
local files = require "support.files"
local skip = require "support.skip"

local hub = {}

--- Starts a hub, or marks the running test as skipped.
-- @tparam string folder an empty one
-- @tparam table contents name -> content of the repository's files
-- @tparam[opt] string behaviour the body of a function of (request, response), see the server
-- @treturn table `endpoint`; `log()`: the requests' lines; `stop()`
function hub.start(folder, contents, behaviour)
    if not package.searchpath("socket", package.path) then return skip.because("LuaSocket is not installed") end
    if command.output_of("command -v curl") == "" then return skip.because("curl is not installed") end
    files.make_directories(folder .. "/repository")
    for name, content in pairs(contents) do files.write(folder .. "/repository/" .. name, content) end
    files.write(folder .. "/behaviour.lua", ("return function(request, response) %s\nreturn response end")
        :format(behaviour or ""))
    files.write(folder .. "/log", "")
    local word = command.quoted(folder)
    local start = "env -u LD_PRELOAD luajit spec/support/hub_server.lua %s >%s/errors 2>&1 & echo $!"
    local pid = command.output_of(start:format(word, word))
    local started = os.time()
    while not io.open(folder .. "/port") do
        assert(os.time() - started < 60, "the hub does not start: " .. files.read(folder .. "/errors"))
        os.execute("sleep 0.02")
    end
    local server = { endpoint = "http://127.0.0.1:" .. files.read(folder .. "/port") }
    function server.log()
        local lines = {}
        for line in io.lines(folder .. "/log") do lines[#lines + 1] = line end
        return lines
    end
    function server.stop() os.execute(("kill %d 2>/dev/null"):format(pid)) end
    return server
end

return hub
