--- Scripts for a cluster: a job's shards as an array job, and the job that merges them when all have ended well.
-- @module pixelrefer.annotate.slurm
local whole_file = require "pixelrefer.whole_file"

local slurm = {}

local function quoted(word)
    if word:find("^[%w_./:=,+-]+$") then return word end
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

local function joined(words)
    local list = {}
    for i, word in ipairs(words) do list[i] = quoted(word) end
    return table.concat(list, " ")
end

-- The name of an output behind --output: sbatch takes the line apart as a shell does, and %% is a percent sign.
local function output_name(path, ending)
    return quoted(path:gsub("%%", "%%%%") .. ending)
end

-- Runs a command and returns what it prints.
local function output_of(line)
    local pipe = io.popen(line .. " && echo ok")
    local text = pipe:read("*a")
    pipe:close()
    local said = text:match("^(.-)\n?ok\n$")
    if not said then error("this failed: " .. line, 0) end
    return said
end

local ARRAY = [[
#!/bin/bash
#SBATCH --job-name=annotate
#SBATCH --array=1-%d
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%s
exec %s --shard "$SLURM_ARRAY_TASK_ID/%d" --out %s."$SLURM_ARRAY_TASK_ID-of-%d"
]]

local MERGE = [[
#!/bin/bash
#SBATCH --job-name=annotate-merge
#SBATCH --requeue
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --open-mode=append
#SBATCH --output=%s
exec %s
]]

--- Writes `OUT.array.sbatch` and `OUT.merge.sbatch`. A task that is requeued or submitted again goes on where it was;
-- the merge runs when all tasks have ended well, and is cancelled when one has not.
-- @tparam {string,...} words the command of the job, without --out
-- @tparam string program the command itself, for merging
-- @tparam string out the file of all answers
-- @tparam int count the number of shards
-- @tparam[opt=false] boolean submit whether to submit them, too
-- @treturn string the scripts and how they are submitted (or were, with the numbers of the jobs)
-- @raise a folder that cannot be written, a name that Slurm does not take, a submission that fails
function slurm.prepare(words, program, out, count, submit)
    if out:find("[\\\n]") then error(("%s: Slurm takes no name with a backslash or a line break"):format(out), 0) end
    local array, merge, shards = out .. ".array.sbatch", out .. ".merge.sbatch", {}
    for k = 1, count do shards[k] = ("%s.%d-of-%d"):format(out, k, count) end
    local merging = { program, "merge" }
    for _, shard in ipairs(shards) do merging[#merging + 1] = shard end
    merging[#merging + 1], merging[#merging + 2] = "--out", out
    local array_text = ARRAY:format(count, output_name(out, ".%a.log"), joined(words), count, quoted(out), count)
    local merge_text = MERGE:format(output_name(out, ".merge.log"), joined(merging))
    whole_file.write(array, function(output) output(array_text) end)
    whole_file.write(merge, function(output) output(merge_text) end)
    local told = { ("# %s\n%s\n# %s\n%s\n"):format(array, array_text, merge, merge_text) }
    if submit then
        local first = output_of("sbatch --parsable " .. quoted(array)):match("^%d+")
        if not first then error("sbatch said no job's number", 0) end
        local second = output_of(("sbatch --parsable --dependency=afterok:%s %s"):format(first, quoted(merge)))
        told[2] = ("# submitted: array job %s, merge job %s\n"):format(first, second:match("^%d+") or second)
    else
        told[2] = ("# submit with:\narray=$(sbatch --parsable %s)\nsbatch --dependency=afterok:${array%%%%;*} %s\n")
            :format(quoted(array), quoted(merge))
    end
    return table.concat(told)
end

return slurm
