--- Joins the shards of a job to the file that one run of it would have written.
-- @module pixelrefer.annotate.merge
local fingerprint = require "pixelrefer.annotate.fingerprint"
local json = require "pixelrefer.json"
local results = require "pixelrefer.annotate.results"
local whole_file = require "pixelrefer.whole_file"

local merge = {}

local function open_shard(path)
    local file = results.read(path)
    local shard = file.job.shard
    if type(shard) ~= "table" or type(shard[1]) ~= "number" or type(shard[2]) ~= "number" then
        error(path .. ": this is no shard, but all of a job", 0)
    end
    file.shard, file.job.shard = shard, nil
    return file
end

-- Opens the shards in their order; each must be there once.
local function open_all(paths)
    local shards, first = {}, nil
    for _, path in ipairs(paths) do
        local file = open_shard(path)
        first = first or file
        local differences = fingerprint.differences(first.job, file.job)
        if #differences > 0 or file.shard[2] ~= first.shard[2] then
            error(("%s and %s are not of one job:\n  %s"):format(first.path, path, differences[1]
                or ("%d shards there, %d now"):format(first.shard[2], file.shard[2])), 0)
        end
        local k = file.shard[1]
        if shards[k] then error(("%s and %s are both shard %d"):format(shards[k].path, path, k), 0) end
        shards[k] = file
    end
    for k = 1, first.shard[2] do
        if not shards[k] then error(("shard %d of %d is missing"):format(k, first.shard[2]), 0) end
    end
    return shards, first.job
end

-- The next answer of a shard, which must be one of its own scenes; at the end it must be complete.
local function advance(file, count)
    local object = file:next()
    if object then
        if (object.scene - 1) % count ~= file.shard[1] - 1 then
            error(("%s:%d: scene %d is not of shard %d of %d"):format(file.path, file.line, object.scene,
                file.shard[1], count), 0)
        end
        local kind = object.error and "failed" or "answers"
        file.found[kind] = file.found[kind] + 1
        return object
    end
    local ended = file.ended
    if not ended then
        error(("%s: shard %d of %d is not complete: the command that began it goes on with it"):format(file.path,
            file.shard[1], count), 0)
    end
    for kind, number in pairs(file.found) do
        if ended[kind] ~= number then
            error(("%s: %d %s expected, found %d"):format(file.path, ended[kind], kind, number), 0)
        end
    end
    return nil
end

-- Writes all lines by scene; a scene is whole in one shard.
local function join(shards, job, output)
    local function write(object) output(json.encode(object), "\n") end
    local heads, total = {}, { answers = 0, failed = 0 }
    write({ job = job })
    for k, file in ipairs(shards) do
        file.found = { answers = 0, failed = 0 }
        heads[k] = advance(file, #shards)
    end
    while true do
        local least
        for k = 1, #shards do
            if heads[k] and (not least or heads[k].scene < heads[least].scene) then least = k end
        end
        if not least then break end
        write(heads[least])
        heads[least] = advance(shards[least], #shards)
    end
    for _, file in ipairs(shards) do
        if file.ended.scenes ~= shards[1].ended.scenes then
            error(("%s: %d scenes, %s: %d: not of one dataset"):format(shards[1].path, shards[1].ended.scenes,
                file.path, file.ended.scenes), 0)
        end
        for kind in pairs(total) do total[kind] = total[kind] + file.found[kind] end
    end
    total.scenes = shards[1].ended.scenes
    write({ ["end"] = total })
    return total
end

--- Joins shards, in any order, into one file, which is there whole or not at all.
-- @tparam {string,...} paths the shards' files
-- @tparam string out the file to write
-- @treturn table answers, failed, scenes
-- @raise a shard that is missing, double, not complete or of another job, naming it; a full disk
function merge.run(paths, out)
    if #paths == 0 then error("merge: shards expected", 0) end
    local shards, job = open_all(paths)
    local ok, total = pcall(whole_file.write, out, function(output) return join(shards, job, output) end)
    for _, file in ipairs(shards) do file:close() end
    if not ok then error(total, 0) end
    return total
end

return merge
