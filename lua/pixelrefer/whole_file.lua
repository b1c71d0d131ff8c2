--- Files that are read and written whole.
-- @module pixelrefer.whole_file
local whole_file = {}

--- The content of a file.
-- @tparam string path
-- @treturn string
-- @raise a file that cannot be read
function whole_file.read(path)
    local file, reason = io.open(path, "rb")
    if not file then error(reason, 0) end
    local text, why = file:read("*a")
    file:close()
    if not text then error(("%s: %s"):format(path, why), 0) end
    return text
end

--- Writes a file, which is there whole or not at all: written under another name, then renamed.
-- @tparam string path
-- @tparam function work gets `output(...)`, which writes texts and raises when it cannot
-- @return what `work` returns
-- @raise what `work` raises; a full disk; in each case no file is left behind
function whole_file.write(path, work)
    local temporary = path .. ".tmp"
    local handle, reason = io.open(temporary, "wb")
    if not handle then error(reason, 0) end
    local function output(...)
        local written, why = handle:write(...)
        if not written then error(("%s: %s"):format(temporary, why), 0) end
    end
    local ok, result = pcall(work, output)
    local done, why = handle:close()
    if ok and done then done, why = os.rename(temporary, path) end
    if ok and done then return result end
    os.remove(temporary)
    return error(ok and why or result, 0)
end

return whole_file
