--- The programs that fetching needs: curl, sha1sum and sha256sum.
--
-- What comes from outside reaches them on standard input or as a quoted word, never as a part of a command; a token is
-- in no process's arguments.
-- @module pixelrefer.hub.shell
local shell = {}

--- A word as the shell passes it on unchanged.
-- @tparam string word
-- @treturn string
function shell.quoted(word)
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- The size of a file in bytes.
-- @tparam string path
-- @treturn ?int nil when there is none
function shell.size(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local size = file:seek("end")
    file:close()
    return size
end

local function setting(name, value)
    if value == true then return name .. "\n" end
    value = tostring(value)
    assert(not value:find("[%c]"), "a control character in a setting of curl's")
    return ('%s = "%s"\n'):format(name, value:gsub('[\\"]', "\\%0"))
end

--- Fetches an address into a file.
-- @tparam table request url; path; status, headers: files for what curl and the server say; most: bytes the file may
--   grow to; resume: behind what the file has; token; bar: show the progress on standard error
-- @treturn ?int curl's exit code, 0 when all went well; nil when a signal ended it, as when the file grew too large
-- @treturn int the status of the HTTP response, 0 when there was none
-- @treturn string what went wrong
function shell.fetch(request)
    local settings = {
        setting("url", request.url), setting("output", request.path), setting("dump-header", request.headers),
        setting("write-out", "%{exitcode} %{http_code} %{errormsg}"), setting("user-agent", "pixelrefer"),
        setting("location", true), setting("max-redirs", 10), setting("fail", true), setting("globoff", true),
        setting("proto", "=http,https"), setting("proto-redir", "=http,https"),
        setting("connect-timeout", 30), setting("speed-limit", 1), setting("speed-time", 60),
        setting(request.bar and "progress-bar" or "silent", true),
    }
    if request.resume then settings[#settings + 1] = setting("continue-at", "-") end
    if request.token then settings[#settings + 1] = setting("header", "Authorization: Bearer " .. request.token) end
    os.remove(request.status)
    -- The limit is in blocks of 512 bytes, and holds for what curl says, too.
    local blocks = math.ceil(request.most / 512) + 128
    local curl = assert(io.popen(("ulimit -c 0; ulimit -f %d; exec curl -q -K - >%s"):format(blocks,
        shell.quoted(request.status)), "w"))
    curl:write(table.concat(settings))
    curl:close()
    local file = io.open(request.status, "r")
    local said = file and file:read("*a") or ""
    if file then file:close() end
    local exit, http, message = said:match("^(%d+) (%d+) ?(.*)$")
    return tonumber(exit), tonumber(http) or 0, message and message:gsub("%s+$", "") or "curl was ended by a signal"
end

local HASHES = {
    sha256 = "sha256sum <%s",
    sha1 = "{ printf 'blob %%d\\0' %d; cat %s; } | sha1sum", -- of a git blob
}

--- A file's hash, after it has been written to disk.
-- @tparam string path
-- @tparam string kind "sha256", or "sha1": that of a git blob
-- @treturn string in hexadecimal
function shell.hash(path, kind)
    local word = shell.quoted(path)
    local command = kind == "sha1" and HASHES.sha1:format(shell.size(path), word) or HASHES.sha256:format(word)
    local pipe = assert(io.popen(("sync %s; %s"):format(word, command)))
    local said = pipe:read("*a")
    pipe:close()
    return said:match("^%x+") or error(("%s: %ssum gave no hash"):format(path, kind), 0)
end

--- Raises when a program is not installed.
-- @tparam string program
function shell.need(program)
    local pipe = assert(io.popen("command -v " .. program))
    local found = pipe:read("*a") ~= ""
    pipe:close()
    if not found then error(("the program '%s' is needed and not installed"):format(program), 0) end
end

return shell
