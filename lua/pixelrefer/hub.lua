--- Checkpoints from a hub (or a mirror of one) into the cache, where `pixelrefer.load` finds them by name.
--
--     local hub = require "pixelrefer.hub"
--     local path = hub.pull("org/PixelRefer-Lite-2B")
--
-- Only what a checkpoint needs is fetched. A file is written as `NAME.part`, goes on where it broke off, and gets its
-- name when its size and its hash are what the hub's listing says. `config.json` comes last and goes first: a folder
-- without one is not a checkpoint yet.
-- @module pixelrefer.hub
local core = require "pixelrefer.core"
local ffi = require "ffi"
local json = require "pixelrefer.json"
local listing = require "pixelrefer.hub.listing"
local options = require "pixelrefer.options"
local places = require "pixelrefer.places"
local shell = require "pixelrefer.hub.shell"

ffi.cdef [[
int open(const char *path, int flags, ...);
int flock(int fd, int operation);
int close(int fd);
int usleep(unsigned microseconds);
]]

local hub = {}

local HUB = "https://huggingface.co"
local PAGES, PAGE_BYTES = 20, 2 ^ 25 -- of a listing; a page has a thousand files

local PULL = {
    revision = { type = "string", default = "main" },
    endpoint = "string",
    token = "string",
    folder = "string",
    tries = { type = "integer", min = 1, default = 5 },
    pause = { type = "number", min = 0, default = 1 },
    bar = "boolean",
    say = "function",
}

-- ---- what may be asked for ---------------------------------------------------------------------------------------

local function check_settings(name, given)
    local settings = options.check(given, PULL, "pull")
    if type(name) ~= "string" or not (name:match("^%w[%w._-]*$") or name:match("^%w[%w._-]*/%w[%w._-]*$")) then
        error(("pull: a name like 'org/model' expected, found '%s'"):format(tostring(name)), 0)
    end
    local revision = settings.revision
    if not revision:match("^[%w][%w._/-]*$") or revision:find("..", 1, true) then
        error(("pull: a branch, tag or commit expected as the revision, found '%s'"):format(revision), 0)
    end
    settings.endpoint = (settings.endpoint or places.environment("HF_ENDPOINT") or HUB):gsub("/+$", "")
    if not settings.endpoint:match("^https?://[%w.-]+:?%d*[%w._~/-]*$") then
        error(("pull: an address like '%s' expected, found '%s'"):format(HUB, settings.endpoint), 0)
    end
    settings.token = settings.token or places.environment("HF_TOKEN")
    if settings.token and not settings.token:match("^[%w._~+/=-]+$") then
        error("pull: the token has characters that no token has", 0)
    end
    settings.say = settings.say or function() end
    return settings
end

-- One pull at a time: a lock on the folder, which a curl that outlives us still holds.
local function locked(folder, work)
    local descriptor = ffi.C.open(folder, 0)
    if descriptor < 0 then error(folder .. ": cannot be opened", 0) end
    local LOCK_EX, LOCK_NB = 2, 4
    if ffi.C.flock(descriptor, LOCK_EX + LOCK_NB) ~= 0 then
        ffi.C.close(descriptor)
        error(folder .. ": is being pulled by another process", 0)
    end
    local fine, reason = pcall(work)
    ffi.C.close(descriptor)
    if not fine then error(reason, 0) end
end

-- ---- requests ----------------------------------------------------------------------------------------------------

-- curl's exit codes that can be otherwise the next time: no connection, broken off, too slow.
local PASSING = { [5] = true, [6] = true, [7] = true, [16] = true, [18] = true, [28] = true, [35] = true, [52] = true,
    [55] = true, [56] = true, [92] = true }

local function may_pass(exit, http)
    return exit == 22 and (http == 408 or http == 429 or http >= 500) or PASSING[exit] or false
end

local function refusal(pull, http, message)
    if http == 401 or http == 403 then
        local token = pull.token and "gives, but not one that may read it" or "does not give"
        return ("%s: %s refuses access (%d): either there is no such model, or it needs a token, which HF_TOKEN %s")
            :format(pull.name, pull.endpoint, http, token)
    elseif http == 404 then
        return ("%s: %s does not have it (404), or not in the revision '%s'"):format(pull.name, pull.endpoint,
            pull.revision)
    end
    return ("%s: %s: %s"):format(pull.name, pull.endpoint, message)
end

-- Waits before another try: longer each time.
local function pause(pull, failed)
    ffi.C.usleep(math.min(60, pull.pause * 2 ^ (failed - 1)) * 1e6)
end

local function request(pull, url, path, most, resume)
    local exit, http, message = shell.fetch {
        url = url, path = path, most = most, resume = resume, token = pull.token, bar = pull.bar and most > PAGE_BYTES,
        status = pull.work .. "/status", headers = pull.work .. "/headers",
    }
    return exit, http, message
end

-- The address of the next page, if the last response has one; on the same server, which is the one that may be asked.
local function next_page(pull)
    local file, found = io.open(pull.work .. "/headers", "r"), nil
    if not file then return nil end
    for line in file:lines() do
        if line:match("^HTTP/") then found = nil end
        local links = line:match("^[Ll][Ii][Nn][Kk]:%s*(.*)$")
        if links then found = links:match('<([^>%s]+)>%s*;%s*rel="next"') or found end
    end
    file:close()
    if found and found:sub(1, 1) == "/" then found = pull.endpoint:match("^https?://[^/]+") .. found end
    if found and (found:sub(1, #pull.endpoint + 1) ~= pull.endpoint .. "/" or found:find('[%c"\\]')) then
        error(("%s: the listing goes on elsewhere: %s"):format(pull.name, found:sub(1, 200)), 0)
    end
    return found
end

local function encoded(text)
    return (text:gsub("[^%w._~-]", function(character) return ("%%%02X"):format(character:byte()) end))
end

-- The entries of all pages of the tree.
local function read_tree(pull)
    local url = ("%s/api/models/%s/tree/%s?recursive=true"):format(pull.endpoint, pull.name, encoded(pull.revision))
    local entries, path, failed, pages = {}, pull.work .. "/listing", 0, 0
    repeat
        os.remove(path)
        local exit, http, message = request(pull, url, path, PAGE_BYTES)
        if exit == 0 then
            failed, pages = 0, pages + 1
            local page = json.read(path)
            if type(page) ~= "table" or (#page == 0 and next(page) ~= nil) then
                error(("%s: %s: a list of files expected"):format(pull.name, url), 0)
            end
            for _, entry in ipairs(page) do entries[#entries + 1] = entry end
            url = next_page(pull)
        else
            failed = failed + 1
            if not may_pass(exit, http) or failed >= pull.tries then error(refusal(pull, http, message), 0) end
            pause(pull, failed)
        end
        if pages > PAGES then error(("%s: the listing has more than %d pages"):format(pull.name, PAGES), 0) end
    until not url
    return entries
end

-- ---- a file ------------------------------------------------------------------------------------------------------

-- Gets the rest of a file; the number of bytes that are there afterwards.
local function fetch_rest(pull, file, part, have)
    local url = ("%s/%s/resolve/%s/%s"):format(pull.endpoint, pull.name, encoded(pull.revision), encoded(file.name))
    local exit, http, message = request(pull, url, part, file.size, have > 0)
    local size = shell.size(part) or 0
    if size > file.size then
        os.remove(part)
        error(("%s: %s: the hub sends more than the %d bytes that it lists"):format(pull.name, file.name, file.size), 0)
    elseif exit == 33 or exit == 36 or http == 416 then -- the server cannot go on there
        os.remove(part)
        return 0, http == 416 and ("the hub has %d of the %d bytes that it lists"):format(have, file.size)
            or "the hub cannot send the rest alone"
    elseif exit ~= 0 and not may_pass(exit, http) then
        error(("%s: %s"):format(file.name, refusal(pull, http, message)), 0)
    end
    return size, exit ~= 0 and message or ("the hub sends %d of the %d bytes that it lists"):format(size, file.size)
end

-- Fetches a file until it is whole; true when it began with what an earlier pull had left.
local function fetch_whole(pull, file, part)
    local have = shell.size(part)
    if have and have > file.size then have = os.remove(part) and nil end
    local resumed, failed = have ~= nil and have > 0, 0
    pull.say(("%s, %.1f MiB%s"):format(file.name, file.size / 2 ^ 20,
                                       resumed and (", going on at %.1f"):format(have / 2 ^ 20) or ""))
    while have ~= file.size do
        local before = have or 0
        local size, reason = fetch_rest(pull, file, part, before)
        have = size
        if have == 0 and file.size == 0 then io.open(part, "ab"):close() end
        if have ~= file.size then
            failed = have > before and 1 or failed + 1
            resumed = resumed and have > 0
            if failed >= pull.tries then error(("%s: %s: %s"):format(pull.name, file.name, reason), 0) end
            pause(pull, failed)
        end
    end
    return resumed
end

local function is_there(path, file)
    return shell.size(path) == file.size and shell.hash(path, file.kind) == file.hash
end

local function fetch_file(pull, file)
    local path = pull.path .. "/" .. file.name
    local part = path .. ".part"
    for _ = 1, 2 do
        local resumed = fetch_whole(pull, file, part)
        local hash = shell.hash(part, file.kind)
        if hash == file.hash then
            local fine, reason = os.rename(part, path)
            return fine or error(reason, 0)
        end
        os.remove(part)
        if not resumed then
            error(("%s: %s: its %s is %s, the hub lists %s"):format(pull.name, file.name, file.kind, hash, file.hash),
                  0)
        end
    end
end

-- ---- a checkpoint ------------------------------------------------------------------------------------------------

-- Weights that another revision had, and what was left of files that are no longer wanted.
local function remove_others(pull, files)
    local wanted = {}
    for _, file in ipairs(files) do wanted[file.name] = true end
    for _, name in ipairs(core.list_directory(pull.path)) do
        local whole = name:gsub("%.part$", "")
        local surplus = not wanted[whole] and (whole ~= name or listing.is_weights(name))
        if surplus then os.remove(pull.path .. "/" .. name) end
    end
end

local function fetch_all(pull)
    local files = listing.files(read_tree(pull), ("%s: the listing of %s"):format(pull.name, pull.endpoint))
    local missing = {}
    for _, file in ipairs(files) do
        if not is_there(pull.path .. "/" .. file.name, file) then missing[#missing + 1] = file end
    end
    if #missing > 0 then
        if missing[#missing].name ~= "config.json" then missing[#missing + 1] = files[#files] end
        os.remove(pull.path .. "/config.json")
        remove_others(pull, files)
    end
    for _, file in ipairs(missing) do fetch_file(pull, file) end
end

--- Fetches a checkpoint, or what is missing of it.
-- @tparam string name "org/model"
-- @tparam[opt] table given `revision` ("main"); `endpoint` (`$HF_ENDPOINT`, else Hugging Face's hub); `token`
--   (`$HF_TOKEN`); `folder` to put it into (the cache's, by its name); `tries` of what fails without any progress (5),
--   `pause` in seconds after the first of them (1), then twice as long each time; `bar`: curl shows its progress on
--   standard error; `say(text)` is told which file comes
-- @treturn string the folder
-- @raise what the hub refuses, what it says that cannot be, what does not have the size or the hash that it should
function hub.pull(name, given)
    local pull = check_settings(name, given)
    for _, program in ipairs { "curl", "sha256sum", "sha1sum" } do shell.need(program) end
    pull.name = name
    local cache = places.cache()
    pull.path = pull.folder or cache and cache .. "/" .. name or error("pull: no home: set PIXELREFER_HOME", 0)
    pull.work = pull.path .. "/.pull"
    places.make(pull.path)
    locked(pull.path, function()
        places.make(pull.work)
        local fine, reason = pcall(fetch_all, pull)
        for _, left in ipairs { "/status", "/headers", "/listing", "" } do os.remove(pull.work .. left) end
        if not fine then error(reason, 0) end
    end)
    return pull.path
end

return hub
