-- Running bin/pixelrefer as a user would.
local files = require "support.files"

local command = {}

--- A word as the shell passes it on unchanged.
-- @tparam string word
-- @treturn string
function command.quoted(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- Runs the command without input and waits for it; one that hangs is killed.
-- @tparam string folder for its output, in files `stdout` and `stderr`
-- @tparam {string,...} words its arguments
-- @tparam[opt=""] string prefix of the shell's line, such as variables
-- @treturn int exit code (above 128: ended by a signal; 124: it hung)
-- @treturn string stdout
-- @treturn string stderr
function command.run(folder, words, prefix)
    local quoted = {}
    for i, word in ipairs(words) do quoted[i] = command.quoted(word) end
    local out, err = folder .. "/stdout", folder .. "/stderr"
    local status = os.execute(("%s timeout 600 bin/pixelrefer %s >%s 2>%s </dev/null"):format(prefix or "",
        table.concat(quoted, " "), out, err))
    return status >= 256 and math.floor(status / 256) or status, files.read(out), files.read(err)
end

--- What a shell's line prints.
-- @tparam string line
-- @treturn string
function command.output_of(line)
    local pipe = assert(io.popen(line))
    local text = pipe:read("*a")
    pipe:close()
    return text
end

--- Runs a script in a LuaJIT of its own, which finds the modules that this one finds.
-- @tparam string script
-- @tparam[opt=""] string environment "NAME=value ..." of it
-- @treturn string what it prints, errors too
function command.lua(script, environment)
    return command.output_of(("%s LUA_PATH=%s LUA_CPATH=%s luajit -e %s 2>&1"):format(environment or "",
        command.quoted(package.path), command.quoted(package.cpath), command.quoted(script)))
end

return command
