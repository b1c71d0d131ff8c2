-- The long form of the kill test: a job of 500 regions on a small model, killed a thousand times.
-- usage: luajit spec/support/kill_long.lua [KILLS] [RUNS]   with the library's paths set, after make
local command = require "support.command"
local files = require "support.files"
local jobs = require "support.jobs"
local seed = require "support.seed"

local folder = files.directory()
local words = { "annotate", jobs.write(folder, 100, 5), "--model", "spec/fixtures/golden/models/refer", "--out",
    folder .. "/out.jsonl", "--max-new-tokens", "3", "--sample", "--seed", tostring(seed) }
local code, _, reason = command.run(folder, words)
assert(code == 0, reason)
assert(os.rename(folder .. "/out.jsonl", folder .. "/expected"))
os.remove(folder .. "/out.jsonl.log")

local line = { "spec/support/kill_job.sh", arg[1] or "1000", arg[2] or "30", seed % 32768, folder .. "/expected",
    folder .. "/out.jsonl", "bin/pixelrefer", unpack(words) }
for i, word in ipairs(line) do line[i] = command.quoted(tostring(word)) end
local status = os.execute(table.concat(line, " "))
files.remove(folder)
os.exit(status == 0 and 0 or 1)
