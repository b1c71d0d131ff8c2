-- A Slurm of a test's own: controller and node on this machine, reachable from it alone, with all it has in one folder.
-- spec/support/slurm.sh runs its daemons and ends them, however the test ends.
local command = require "support.command"
local core = require "pixelrefer.core"
local ffi = require "ffi"
local files = require "support.files"
local skip = require "support.skip"

local slurm = {}

local LIMIT = 180 -- seconds until what is waited for counts as never coming

local CPUS = 4 -- more than there may be: they are counted, not bound

local CONFIGURATION = [[
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000
SlurmdTimeout=0
MessageTimeout=60
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE
]]

local FINAL = { COMPLETED = true, FAILED = true, CANCELLED = true, TIMEOUT = true, NODE_FAIL = true, DEADLINE = true,
    OUT_OF_MEMORY = true, BOOT_FAIL = true }

-- Whether a sanitizer's runtime is in this process: the daemons do not bear it.
local function is_sanitized()
    local maps = files.read("/proc/self/maps")
    return maps:find("/libasan.so", 1, true) or maps:find("/libtsan.so", 1, true)
end

-- Why there is no Slurm to be had; nil where it is installed.
local function missing()
    if not package.searchpath("socket", package.path) then return "LuaSocket is not installed" end
    for _, name in ipairs { "munged", "slurmctld", "slurmd", "sbatch", "scontrol" } do
        local found = command.output_of('PATH="$PATH:/usr/sbin:/sbin"; command -v ' .. name)
        if found == "" then return "Slurm is not installed" end
    end
    return nil
end

-- Two ports that nobody listens at, below those that the system gives to whoever connects.
local function free_ports()
    local socket, found = require "socket", {}
    for i = 0, 9999 do
        local port = 20000 + (ffi.C.getpid() * 16 + i) % 10000
        local server = socket.bind("127.0.0.1", port)
        if server then
            server:close()
            found[#found + 1] = port
            if #found == 2 then break end
        end
    end
    return unpack(found)
end

-- What goes before a command for this Slurm: none of the settings of another one that this machine may belong to.
local function variables_of(folder)
    local words = { "env" }
    for name in ("\n" .. command.output_of("env")):gmatch("\n(S[LB][%u_]+)=") do
        if name:find("^SLURM_") or name:find("^SBATCH_") then words[#words + 1] = "-u " .. name end
    end
    words[#words + 1] = "SLURM_CONF=" .. command.quoted(folder .. "/slurm.conf")
    return table.concat(words, " ")
end

local function configure(folder)
    local controller_port, node_port = free_ports()
    local values = {
        folder = folder, cpus = CPUS, controller_port = controller_port, node_port = node_port,
        host = command.output_of("uname -n"):match("^[^.\n]+"),
        user = command.output_of("id -un 2>/dev/null"):match("%S+") or "unknown",
    }
    files.write(folder .. "/slurm.conf", (CONFIGURATION:gsub("{([%a_]+)}", values)))
    files.make_directories(folder .. "/state")
    files.make_directories(folder .. "/spool")
    local random = assert(io.open("/dev/urandom", "rb"))
    files.write(folder .. "/munge.key", random:read(256))
    random:close()
    os.execute("chmod 400 " .. command.quoted(folder .. "/munge.key"))
end

-- ---- a cluster ---------------------------------------------------------------------------------------------------

local Cluster = {}
Cluster.__index = Cluster

--- Runs one of Slurm's commands.
-- @tparam string line
-- @treturn string what it prints
function Cluster:ask(line)
    return command.output_of(("%s timeout 60 %s 2>&1"):format(self.variables, line))
end

--- Waits until something is so.
-- @tparam string what it is, for the message
-- @tparam function seen returns true, or what is returned
function Cluster:wait(what, seen)
    local started = os.time()
    while true do
        local found = seen()
        if found then return found end
        if os.time() - started > LIMIT then
            error(("waited %d s for %s:\n%s"):format(LIMIT, what, self:ask("scontrol show jobs")), 0)
        end
        os.execute("sleep 0.1")
    end
end

--- What Slurm knows of a job or of an array's task.
-- @tparam string job "7", "7_2"
-- @treturn table JobState, Reason, Restarts and so on, as strings
function Cluster:job(job)
    local fields = {}
    for name, value in self:ask("scontrol -o show job " .. job):gmatch("(%a+)=(%S*)") do fields[name] = value end
    return fields
end

--- Waits until a job has ended.
-- @tparam string job
-- @treturn string its state, such as "COMPLETED"
function Cluster:ended(job)
    return self:wait("the end of job " .. job, function()
        local state = self:job(job).JobState
        return FINAL[state] and state
    end)
end

--- Has a running task killed and put back into the queue, and waits until it has started again.
-- @tparam string task "7_2"
function Cluster:requeue(task)
    local refused = self:ask("scontrol requeue " .. task)
    if refused ~= "" then error(refused, 0) end
    -- Slurm would let it wait for two minutes. One second must be: what starts in the second of the kill is refused.
    self:wait("the end of task " .. task, function() return self:job(task).Reason == "BeginTime" end)
    self:ask(("scontrol update jobid=%s starttime=now+1"):format(task))
    self:wait("another start of task " .. task, function()
        local found = self:job(task)
        return found.Restarts == "1" and (found.JobState == "RUNNING" or FINAL[found.JobState])
    end)
end

--- Ends the daemons and the jobs, and removes the folder.
function Cluster:stop() self.daemons:close() end

-- What the daemons say of their end, or of their waiting.
local function complaint(folder)
    for _, name in ipairs { "munged", "slurmctld", "slurmd" } do
        local path = ("%s/%s.out"):format(folder, name)
        local text = core.path_kind(path) and files.read(path) or ""
        local said = text:match("fatal: [^\n]*") or text:match("Error: [^\n]*")
        if said then return ("%s: %s"):format(name, said) end
    end
    return "no node comes up"
end

--- Starts a cluster, or marks the running test as skipped; REQUIRE_SLURM=1 makes that a failure.
-- @treturn Cluster with `folder`, which is its own and has room for a job's files, and `variables` for command.run
function slurm.start()
    if is_sanitized() then return skip.because("Slurm is tested without sanitizers") end
    local lacking = missing()
    if lacking then return skip.because(lacking, "REQUIRE_SLURM") end
    local folder = files.directory()
    configure(folder)
    local self = setmetatable({ folder = folder, variables = variables_of(folder) }, Cluster)
    -- In a session of its own, a terminal's Ctrl-C does not reach it.
    self.daemons = io.popen("exec setsid spec/support/slurm.sh " .. command.quoted(folder), "w")
    local started = os.time()
    local fine, found = pcall(self.wait, self, "a node", function()
        if core.path_kind(folder .. "/ended") or os.time() - started > LIMIT / 2 then return "nothing" end
        return self:ask("timeout 10 sinfo -h -o %t"):match("^idle")
    end)
    if found == "idle" then return self end
    local reason = complaint(folder)
    self:stop()
    if not fine then error(found, 0) end
    return skip.because("Slurm does not start here: " .. reason, "REQUIRE_SLURM")
end

return slurm
