-- The reference data that lies beside the checkout: golden tensors, media, the full tokenizer. It is looked for where
-- PIXELREFER_SHARED points, then in ../shared. A clone without it skips what needs it, and the summary counts that;
-- REQUIRE_SHARED=1 makes each such skip a failure.

local skip = require "support.skip"

local shared = {}

local function exists(path)
    local file = io.open(path, "r") -- opens a directory too
    if file then file:close() end
    return file ~= nil
end

local function locate()
    for _, candidate in ipairs { os.getenv("PIXELREFER_SHARED") or "../shared", "../shared" } do
        if exists(candidate .. "/golden") then return candidate end
    end
    return nil
end

--- The folder itself; nil when there is none.
shared.root = locate()

--- The path of a file or folder in it, nil when it is not there. For choosing which tests to define.
-- @tparam string name such as "golden/units/kmeans.safetensors"
function shared.find(name)
    local path = shared.root and shared.root .. "/" .. name
    return path and exists(path) and path or nil
end

--- As shared.find, for use inside a test: marks the test as skipped when the file is not there.
-- @tparam string name such as "golden/units/kmeans.safetensors"
function shared.path(name)
    local path = shared.find(name)
    if path then return path end
    return skip.because("needs the reference data in ../shared", "REQUIRE_SHARED", "no " .. name)
end

return shared
