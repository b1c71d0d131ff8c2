-- What benchmarks need around them: commands, files of figures, the checkpoint of true size.

local json = require "pixelrefer.json"

local setting = {}

--- Where everything that benchmarks make lies.
setting.FOLDER = (os.getenv("BUILD") or "build") .. "/bench"

--- Runs a command of the shell, with what it formats; raises when it fails.
function setting.run(command, ...)
    command = command:format(...)
    local status = os.execute(command)
    if status ~= 0 then error(("'%s' failed"):format(command), 0) end
end

function setting.read(path)
    local file = assert(io.open(path, "rb"))
    local content = file:read("*a")
    file:close()
    return content
end

function setting.write(path, figures)
    local file = assert(io.open(path, "w"))
    file:write(json.encode(figures), "\n")
    file:close()
end

function setting.exists(path)
    local file = io.open(path)
    if file then file:close() end
    return file ~= nil
end

--- Processors that this process may use.
function setting.processors()
    local pipe = assert(io.popen("nproc"))
    local count = tonumber(pipe:read("*l"))
    pipe:close()
    return count
end

--- The folder of a framework's checkpoint, made on first use and read once, so that it lies in the page cache.
function setting.checkpoint(framework)
    local folder = ("%s/%s-2b"):format(setting.FOLDER, framework)
    if not setting.exists(folder .. "/config.json") then
        print(("writing a checkpoint of random weights: %s"):format(folder))
        local full = (os.getenv("PIXELREFER_SHARED") or "../shared") .. "/data/tokenizer"
        setting.run("%s spec/fixtures/make_checkpoint.lua --preset 2b --framework %s %s %s", arg[-1], framework,
            setting.exists(full .. "/vocab.json") and "--tokenizer " .. full or "", folder)
    end
    setting.run("cat %s/* >/dev/null", folder)
    return folder
end

return setting
