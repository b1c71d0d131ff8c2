-- The committed golden tensors are the ones that were cut: every file of the manifest, whole, and no other.

local json = require "cjson"

local FOLDER = "spec/fixtures/golden"

local function lines_of(command)
    local pipe, lines = assert(io.popen(command)), {}
    for line in pipe:lines() do lines[#lines + 1] = line end
    pipe:close()
    return lines
end

describe("the committed golden directory", function()
    local file = assert(io.open(FOLDER .. "/manifest.json"))
    local manifest = json.decode(file:read("*a")).files
    file:close()

    it("holds the files of its manifest, by size and SHA-256", function()
        local found = {}
        for _, line in ipairs(lines_of("cd " .. FOLDER .. " && find . -type f -exec sha256sum {} +")) do
            local hash, path = line:match("^(%x+)%s+%./(.+)$")
            found[path] = hash
        end
        for _, entry in ipairs(manifest) do
            assert.equal(entry.sha256, found[entry.path], entry.path)
            found[entry.path] = nil
        end
        found["README.md"], found["manifest.json"] = nil, nil
        assert.same({}, found)
    end)

    it("is at most 15 MB", function()
        local total = 0
        for _, entry in ipairs(manifest) do
            local content = assert(io.open(FOLDER .. "/" .. entry.path, "rb"))
            assert.equal(entry.bytes, content:seek("end"), entry.path)
            content:close()
            total = total + entry.bytes
        end
        assert.is_true(total <= 15e6)
    end)
end)
