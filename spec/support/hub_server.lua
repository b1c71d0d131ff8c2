-- A hub on this machine, for the tests of pulling: serves FOLDER/repository as the hub's API does, unless
-- FOLDER/behaviour.lua says otherwise. Needs LuaSocket. Ends when it is killed, or when nobody asks for two minutes.
-- usage: luajit spec/support/hub_server.lua FOLDER
--
-- The behaviour is a function (request, response) -> response that is called for each request. The request has path,
-- query, headers (names in lower case) and count, how often this path was asked for; the response has status, headers,
-- body, entries (of a listing, in place of the body), and what a hub should not do: length (that it claims), cut (bytes
-- of the body that are sent), endless (more follows for ever).
local socket = require "socket"
local cjson = require "cjson"

local folder = arg[1]

local function read(path)
    local file = assert(io.open(path, "rb"))
    local content = file:read("*a")
    file:close()
    return content
end

local function first_word(command)
    local pipe = assert(io.popen(command))
    local word = pipe:read("*l"):match("^%S+")
    pipe:close()
    return word
end

-- As the hub lists it: large files with the SHA-256 of their content, others as git blobs.
local function entry_of(name, content)
    local path = ("'%s/repository/%s'"):format(folder, name)
    local entry = {
        type = "file", path = name, size = #content,
        oid = first_word(("{ printf 'blob %d\\0'; cat %s; } | sha1sum"):format(#content, path)),
    }
    if name:match("%.safetensors$") or name:match("%.bin$") then
        entry.lfs = { oid = first_word("sha256sum " .. path), size = #content, pointerSize = 135 }
    end
    return entry
end

local files, listed = {}, {}
local names = assert(io.popen(("ls '%s/repository'"):format(folder)))
for name in names:lines() do
    files[name] = read(folder .. "/repository/" .. name)
    listed[#listed + 1] = entry_of(name, files[name])
end
names:close()

-- What a well-behaved hub answers.
local function usual(request)
    if request.path:match("^/api/models/[^/]+/[^/]+/tree/") then
        local entries = {}
        for i, entry in ipairs(listed) do
            entries[i] = {}
            for key, value in pairs(entry) do entries[i][key] = value end
            if entry.lfs then entries[i].lfs = { oid = entry.lfs.oid, size = entry.lfs.size } end
        end
        return { status = 200, headers = {}, entries = entries }
    end
    local content = files[request.path:match("^/[^/]+/[^/]+/resolve/[^/]+/([^/]+)$")]
    if not content then return { status = 404, headers = {}, body = "not found" } end
    local start = tonumber((request.headers.range or ""):match("^bytes=(%d+)%-$"))
    if not start then return { status = 200, headers = {}, body = content } end
    if start >= #content then return { status = 416, headers = {}, body = "" } end
    local range = ("bytes %d-%d/%d"):format(start, #content - 1, #content)
    return { status = 206, headers = { ["Content-Range"] = range }, body = content:sub(start + 1) }
end

local function read_request(client)
    local line = client:receive("*l")
    local path = line and line:match("^GET (%S+) HTTP")
    if not path then return nil end
    local request = { path = path:match("^[^?]*"), query = path:match("%?(.*)$") or "", headers = {} }
    while true do
        line = client:receive("*l")
        if not line or line == "" then return request end
        local name, value = line:match("^([^:]+):%s*(.*)$")
        if name then request.headers[name:lower()] = value end
    end
end

local function respond(client, response)
    if response.entries then response.body = cjson.encode(response.entries) end
    local lines = { ("HTTP/1.1 %d Whatever"):format(response.status), "Connection: close" }
    if not response.endless then lines[#lines + 1] = "Content-Length: " .. (response.length or #response.body) end
    for name, value in pairs(response.headers) do lines[#lines + 1] = name .. ": " .. value end
    client:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
    client:send(response.body:sub(1, response.cut))
    while response.endless and client:send(("x"):rep(65536)) do end
end

local behave = dofile(folder .. "/behaviour.lua")
local server = assert(socket.bind("127.0.0.1", 0))
server:settimeout(120)
local port = assert(io.open(folder .. "/port.new", "w"))
port:write((select(2, server:getsockname())))
port:close()
os.rename(folder .. "/port.new", folder .. "/port")

local counts = {}
while true do
    local client = server:accept()
    if not client then break end
    client:settimeout(30)
    local request = read_request(client)
    if request then
        counts[request.path] = (counts[request.path] or 0) + 1
        request.count = counts[request.path]
        local log = assert(io.open(folder .. "/log", "a"))
        log:write(request.path, " ", request.headers.range or "-", " ", request.headers.authorization or "-", "\n")
        log:close()
        respond(client, behave(request, usual(request)) or usual(request))
    end
    client:close()
end
