-- A job's shards under a real Slurm: a task that is killed and requeued, one that fails, and the merge behind them.
local command = require "support.command"
local files = require "support.files"
local jobs = require "support.jobs"
local slurm = require "support.slurm"

local REFER = "spec/fixtures/golden/models/refer"
local PICTURES, REGIONS, SHARDS = 12, 4, 3
-- In the middle of the second shard (pictures 2, 5, 8, 11) and of a picture: the 8th one's third region.
local MIDDLE, BEFORE = 7 * REGIONS + 3, 2 * REGIONS + 2

-- Asks as a task does; at the region in the middle it waits, or ends the process, while there is a file that says so.
-- So it does not depend on the machine's speed whether a task is met at its work. It sleeps without a child, which the
-- scheduler might miss when it kills.
local EACH = [[
local ffi = require "ffi"
ffi.cdef "int usleep(unsigned microseconds);"
local function is_there(name)
    local file = io.open(%q .. name)
    if file then file:close() end
    return file ~= nil
end
return function(region, ask)
    if region.fields.id == %d then
        while is_there("wait") do ffi.C.usleep(50000) end
        if is_there("fail") then os.exit(3) end
    end
    return ask("Describe <region>.").text
end
]]

describe("a job under Slurm #slow", function()
    local cluster, folder, out, words
    after_each(function()
        if cluster then cluster:stop() end
        cluster = nil
    end)

    -- A cluster with a dataset, in a folder whose name is a hard one for scripts.
    local function prepare()
        cluster = slurm.start()
        folder = cluster.folder .. "/100%a of a job's #1"
        files.make_directories(folder)
        out = folder .. "/out.jsonl"
        words = { "annotate", jobs.write(folder, PICTURES, REGIONS), "--model", REFER, "--out", out, "--each",
            files.write(folder .. "/each.lua", EACH:format(folder .. "/", MIDDLE)), "--max-new-tokens", "3",
            "--threads", "1" }
    end

    local function run(...)
        local line = { unpack(words) }
        for _, word in ipairs { ... } do line[#line + 1] = word end
        local code, stdout, stderr = command.run(cluster.folder, line, cluster.variables)
        assert.equal(0, code, stderr)
        return stdout
    end

    -- The bytes of one undisturbed run.
    local function whole()
        run()
        local text = files.read(out)
        os.remove(out)
        return text
    end

    local function submit()
        return run("--slurm", tostring(SHARDS), "--submit"):match("array job (%d+), merge job (%d+)\n$")
    end

    local function read(name)
        local file = io.open(out .. name, "rb")
        local text = file and file:read("*a") or ""
        if file then file:close() end
        return text
    end

    local function answers_of_second()
        return select(2, read(".2-of-3"):gsub("\n", "")) - 1 -- the first line is the fingerprint
    end

    it("goes on where it was when a task is killed and requeued, and is merged to the bytes of one run", function()
        prepare()
        local expected = whole()
        files.write(folder .. "/wait", "")
        local array, merge = submit()
        cluster:wait("half a shard", function() return answers_of_second() == BEFORE end)
        cluster:requeue(array .. "_2")
        assert.equal(BEFORE, answers_of_second())
        assert.equal("PENDING", cluster:job(merge).JobState)
        os.remove(folder .. "/wait")

        assert.equal("COMPLETED", cluster:ended(merge), read(".2.log") .. read(".merge.log"))
        assert.equal(expected, files.read(out))
        for k = 1, SHARDS do
            assert.equal(k == 2 and "1" or "0", cluster:job(("%s_%d"):format(array, k)).Restarts)
        end
        local log = read(".2.log")
        assert.matches("DUE TO JOB REQUEUE", log, 1, true)
        assert.matches(("16 answers about 12 scenes in %%d+ s, %d of them there before\n$"):format(BEFORE), log)
    end)

    it("is not merged when a task fails, and goes on when it is submitted again", function()
        prepare()
        local expected = whole()
        files.write(folder .. "/fail", "")
        local array, merge = submit()
        assert.equal("FAILED", cluster:ended(array .. "_2"))
        assert.equal("CANCELLED", cluster:ended(merge))
        assert.is_nil(io.open(out))

        os.remove(folder .. "/fail")
        assert.equal("COMPLETED", cluster:ended((select(2, submit()))), read(".2.log") .. read(".merge.log"))
        assert.equal(expected, files.read(out))
        assert.matches(BEFORE .. " of them there before", read(".2.log"), 1, true)
    end)
end)
