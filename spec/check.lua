-- `make check`: the lanes that a change must pass, one line each, and their sum at the end.
-- usage: luajit spec/check.lua [long] [LANE ...]
--
-- Lanes with other compiler flags build into folders of their own below build/. A lane's output lies in
-- build/lanes/LANE.log and is shown when it fails.

local LOGS = "build/lanes"
local long, wanted = false, {}
for _, word in ipairs(arg) do
    if word == "long" then long = true else wanted[word] = true end
end

local function output_of(command)
    local pipe = assert(io.popen(command))
    local text = pipe:read("*a"):gsub("%s+$", "")
    pipe:close()
    return text
end

local PROCESSORS = output_of("nproc")
local BUSTED = output_of("command -v busted")
local CPU_FLAGS = output_of("grep -m1 ^flags /proc/cpuinfo 2>/dev/null") .. " "

-- ---- what lanes run ----------------------------------------------------------------------------------------------

local GOLDEN = "spec/fixtures/golden"
-- One picture and one video case of each framework; the long form takes all.
local CASES = { "refer_image_two_regions", "lite_video_two_objects" }
-- What the short sanitizer and instruction-set lanes leave out.
local SLOW = long and "" or "--exclude-tags=slow"

local function build(folder, flags, link)
    return ("make -j%s --no-print-directory all BUILD=build/%s CFLAGS='%s' LDFLAGS='%s'"):format(PROCESSORS, folder,
        flags, link or "")
end

--- A command with the environment that finds a build folder's module.
local function with(folder, command)
    return ([[BUILD=build/%s LUA_PATH='lua/?.lua;lua/?/init.lua;spec/?.lua;;' LUA_CPATH='build/%s/?.so;;' %s]])
        :format(folder, folder, command)
end

local function busted(folder, specs)
    return with(folder, ("luajit %s --ignore-lua %s %s"):format(BUSTED, SLOW, specs or ""))
end

--- Golden cases.
local function golden(folder)
    local run = with(folder, "luajit spec/parity/run.lua --golden " .. GOLDEN)
    if long then return run end
    local commands = {}
    for i, case in ipairs(CASES) do commands[i] = run .. " --case " .. case end
    return table.concat(commands, " && ")
end

--- Runs commands with sanitizers' runtimes preloaded into the distribution's luajit.
local function preloaded(runtimes, settings, ...)
    local libraries = {}
    for i, name in ipairs(runtimes) do libraries[i] = output_of(("gcc -print-file-name=lib%s.so"):format(name)) end
    local luajit = ("env LD_PRELOAD='%s' luajit "):format(table.concat(libraries, " "))
    if runtimes[1] == "tsan" then luajit = luajit .. "-l support.childless " end
    local commands = {}
    for i, command in ipairs { ... } do commands[i] = command:gsub("%f[%w]luajit ", luajit) end
    return ("export %s; %s"):format(settings, table.concat(commands, " && "))
end

local CHECKED = "-O2 -g -Werror"
local ADDRESS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
local ADDRESS_SETTINGS = "ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 "
    .. "LSAN_OPTIONS=suppressions=$PWD/spec/support/leaks.supp:print_suppressions=0"
local THREAD = "-O1 -g -fsanitize=thread"
local THREAD_SETTINGS = "TSAN_OPTIONS=halt_on_error=1:suppressions=$PWD/spec/support/races.supp PIXELREFER_THREADS=4"

-- The specs of the ops and of what runs in several threads.
local OPS = long and "" or "spec/unit/ops_*_spec.lua"

local function isa_lane(isa, flag)
    return {
        "isa " .. isa,
        unless = not CPU_FLAGS:find(" " .. flag .. " ", 1, true) and "this processor has no " .. isa or nil,
        build("check", CHECKED),
        ("export PIXELREFER_CPU_ISA=%s; %s && %s"):format(isa, busted("check", OPS), golden("check")),
    }
end

local LANES = {
    { "build", build("check", CHECKED) },
    { "test", "make --no-print-directory test BUILD=build/check" },
    { "lint", with("check", "luajit spec/lint/run.lua build/check") },
    { "address", build("asan", ADDRESS, "-fsanitize=address,undefined"),
        preloaded({ "asan", "ubsan" }, ADDRESS_SETTINGS, busted("asan"), golden("asan")) },
    { "threads", build("tsan", THREAD, "-fsanitize=thread"),
        preloaded({ "tsan" }, THREAD_SETTINGS, busted("tsan", OPS), golden("tsan")) },
    isa_lane("scalar", "fpu"),
    isa_lane("avx2", "avx2"),
    isa_lane("avx512", "avx512bw"),
    { "fuzz", ("spec/fuzz/run.sh all %d"):format(long and 60 or 5),
        with("check", ("luajit spec/fuzz/fuzz_config.lua %d"):format(long and 60 or 5)) },
    { "rock", "spec/support/rock.sh" },
    { "docs", "make --no-print-directory docs" },
}

if long then table.insert(LANES, { "kills", with("check", "luajit spec/support/kill_long.lua") }) end

-- ---- running them ------------------------------------------------------------------------------------------------

local total = { passed = 0, failed = 0, skipped = 0 }

local function add(counts)
    for key, count in pairs(counts) do total[key] = total[key] + count end
end

--- The sum of all summary lines in a log; a lane without one counts as one test.
local function counts_of(log, succeeded)
    local counts, found = { passed = 0, failed = 0, skipped = 0 }, false
    for line in io.lines(log) do
        local passed, failed, skipped = line:match("^(%d+) passed, (%d+) failed, (%d+) skipped$")
        if passed then
            found = true
            counts.passed = counts.passed + passed
            counts.failed = counts.failed + failed
            counts.skipped = counts.skipped + skipped
        end
    end
    if succeeded and not found then counts.passed = 1 end
    if not succeeded and counts.failed == 0 then counts.failed = 1 end -- it broke off
    return counts
end

local function run(lane)
    local name = lane[1]
    if lane.unless then
        add { skipped = 1 }
        print(("skip  %-12s %s"):format(name, lane.unless))
        return
    end
    local log = ("%s/%s.log"):format(LOGS, name:gsub(" ", "-"))
    local began = os.time()
    local script = table.concat({ unpack(lane, 2) }, "\n")
    local file = assert(io.open(log .. ".sh", "w"))
    file:write("set -e\n", script, "\n")
    file:close()
    local succeeded = os.execute(("bash '%s.sh' >'%s' 2>&1 </dev/null"):format(log, log)) == 0
    local counts = counts_of(log, succeeded)
    add(counts)
    local fine = succeeded and counts.failed == 0
    print(("%s  %-12s %d passed, %d failed, %d skipped  %d s"):format(fine and "ok  " or "FAIL", name, counts.passed,
        counts.failed, counts.skipped, os.time() - began))
    if not fine then os.execute(("tail -n 150 '%s' | sed 's/^/      | /'"):format(log)) end
    io.flush()
end

os.execute("mkdir -p " .. LOGS)
for _, lane in ipairs(LANES) do
    if next(wanted) == nil or wanted[lane[1]] then run(lane) end
end
print(("%d passed, %d failed, %d skipped"):format(total.passed, total.failed, total.skipped))
os.exit(total.failed == 0 and 0 or 1)
