--- A file that is there whole or not at all: written under another name, then renamed.
-- @module pixelrefer.annotate.whole_file

--- Writes a file.
-- @tparam string path
-- @tparam function work gets `output(...)`, which writes texts and raises when it cannot
-- @return what `work` returns
-- @raise what `work` raises; a full disk; in each case no file is left behind
return function(path, work)
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
