-- The long form of the kill test: a job of 500 regions on a small model, killed a thousand times.
-- usage: luajit spec/support/kill_long.lua [KILLS] [RUNS]   with the library's paths set, after make
local command = require "support.command"
local files = require "support.files"
local jobs = require "support.jobs"
local seed = require "support.seed"

local folder = files.directory()
local words = { "annotate", jobs.write(folder, 100, 5), "--model", "spec/fixtures/golden/models/refer", "--out",
    folder .. "/out.jsonl", "--max-new-tokens", "3", "--sample", "--seed", tostring(seed) }

local function run(...)
    local line = { ... }
    for i, word in ipairs(line) do line[i] = command.quoted(tostring(word)) end
    return os.execute(table.concat(line, " ")) == 0
end

assert(run("bin/pixelrefer", unpack(words)), "the undisturbed run failed")
assert(os.rename(folder .. "/out.jsonl", folder .. "/expected"))
os.remove(folder .. "/out.jsonl.log")

local fine = run("spec/support/kill_job.sh", arg[1] or 1000, arg[2] or 30, seed % 32768, folder .. "/expected",
    folder .. "/out.jsonl", "bin/pixelrefer", unpack(words))
files.remove(folder)
os.exit(fine and 0 or 1)
