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

local HEADERS = output_of("make -s --no-print-directory print-CUDA_INCLUDE 2>/dev/null")
local NVCC = output_of("make -s --no-print-directory print-NVCC 2>/dev/null")
local NO_HEADERS = HEADERS == "" and "CUDA's headers are not there (make deps fetches them)" or nil
-- The emulated device is built with the module where it can be.
local TARGETS = NO_HEADERS and "all" or "all emu"

-- ---- what lanes run ----------------------------------------------------------------------------------------------

local GOLDEN = "spec/fixtures/golden"
-- One picture and one video case of each framework; the long form takes all.
local CASES = { "refer_image_two_regions", "lite_video_two_objects" }
-- What the sanitizer and instruction-set lanes leave out: in the long form what only asks whether answers are right,
-- which the bits that those lanes compare settle.
local SLOW = long and "--exclude-tags=quality" or "--exclude-tags=slow"

local function build(folder, flags, link, targets)
    return ("make -j%s --no-print-directory %s BUILD=build/%s CFLAGS='%s' LDFLAGS='%s'"):format(PROCESSORS,
        targets or TARGETS, folder, flags, link or "")
end

--- A command with the environment in which it and bin/pixelrefer find a build folder's module.
local function with(folder, command)
    return ([[BUILD=build/%s PIXELREFER_BUILD="$PWD/build/%s" LUA_PATH='lua/?.lua;lua/?/init.lua;spec/?.lua;;' ]]
        .. [[LUA_CPATH='build/%s/?.so;;' %s]]):format(folder, folder, folder, command)
end

local function busted(folder, specs)
    return with(folder, ("luajit %s --ignore-lua %s %s"):format(BUSTED, SLOW, specs or ""))
end

--- Golden cases.
local function golden_case(folder, device, case)
    return with(folder, ("luajit spec/parity/run.lua --golden %s%s%s"):format(GOLDEN,
        device and " --device " .. device or "", case and " --case " .. case or ""))
end

local function golden(folder, device)
    if long then return golden_case(folder, device) end
    local commands = {}
    for i, case in ipairs(CASES) do commands[i] = golden_case(folder, device, case) end
    return table.concat(commands, " && ")
end

--- Runs commands with sanitizers' runtimes preloaded into the distribution's luajit.
local function preloaded(runtimes, settings, ...)
    local libraries = {}
    for i, name in ipairs(runtimes) do libraries[i] = output_of(("gcc -print-file-name=lib%s.so"):format(name)) end
    local luajit = ("env LD_PRELOAD='%s' luajit "):format(table.concat(libraries, " "))
    local commands = {}
    for i, command in ipairs { ... } do commands[i] = command:gsub("%f[%w]luajit ", luajit) end
    return ("export %s; %s"):format(settings, table.concat(commands, " && "))
end

--- Runs commands with ThreadSanitizer's runtime in every luajit and in nothing else, since the shell breaks with it:
-- the first luajit in PATH is one that has it and does not pass it on.
local function thread_sanitized(settings, ...)
    local folder = "build/tsan/bin"
    local words = ([[exec env LD_PRELOAD=%s %s -e 'dofile "%s/spec/support/childless.lua"' "$@"]]):format(
        output_of("gcc -print-file-name=libtsan.so"), output_of("command -v luajit"), output_of("pwd"))
    local lines = {
        -- put there in one step: another job of the lane may be running it
        ("mkdir -p %s && wrapper=$(mktemp %s/luajit.XXXXXX)"):format(folder, folder),
        ("cat >$wrapper <<'END'\n#!/bin/sh\n%s\nEND"):format(words),
        ("chmod 755 $wrapper && mv $wrapper %s/luajit"):format(folder),
        ('export PATH="$PWD/%s:$PATH" %s'):format(folder, settings),
        table.concat({ ... }, " && "),
    }
    return table.concat(lines, "\n")
end

local CHECKED = "-O2 -g -Werror"
-- Tiles are plain C there, so that every processor with the rest of their instruction set tests what is made of them.
local ADDRESS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined "
    .. "-DPXR_AMX_EMULATED"
local ADDRESS_SETTINGS = "ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 "
    .. "LSAN_OPTIONS=suppressions=$PWD/spec/support/leaks.supp:print_suppressions=0"
local THREAD = "-O1 -g -fsanitize=thread"
-- ThreadSanitizer makes barriers of many threads dear: in short the emulated device leaves the large shapes out.
local THREAD_SPECS = "spec/unit/ops_*_spec.lua spec/unit/tensor_primitives_spec.lua spec/unit/device_recording_spec.lua"
if not long then THREAD_SPECS = "--exclude-tags=large " .. THREAD_SPECS end
local THREAD_SETTINGS = "TSAN_OPTIONS=halt_on_error=1:allocator_may_return_null=1:"
    .. "suppressions=$PWD/spec/support/races.supp PIXELREFER_THREADS=4"

-- The specs of the ops and of what runs in several threads.
local OPS = long and "" or "spec/unit/ops_*_spec.lua"

--- Runs commands side by side, each with its output for itself; fails when one does.
local function together(name, ...)
    local lines = { "jobs=()" }
    for i, command in ipairs { ... } do
        local log = ("%s/%s.%d"):format(LOGS, name:gsub(" ", "-"), i)
        lines[#lines + 1] = ("( %s ) >'%s' 2>&1 & jobs+=($!)"):format(command, log)
    end
    lines[#lines + 1] = "failures=0; for job in ${jobs[@]}; do wait $job || failures=1; done"
    lines[#lines + 1] = ("cat %s/%s.[0-9]*; [ $failures = 0 ]"):format(LOGS, name:gsub(" ", "-"))
    return table.concat(lines, "\n")
end

--- A golden case on the emulated device under ThreadSanitizer, where it takes minutes: in short asked once; in full the
-- first one stands for all.
local function golden_under_threads(case)
    if long then return case == CASES[1] and golden_case("tsan", "emu") or "true" end
    return golden_case("tsan", "emu", case) .. " --once"
end

-- ---- the CUDA backend --------------------------------------------------------------------------------------------

-- What runs on the emulated device beside the golden cases; in one order all specs do.
local DEVICE_SPECS = "spec/unit/ops_*_spec.lua spec/unit/tensor_primitives_spec.lua spec/unit/device_*spec.lua"

--- The specs of the ops on the emulated device, whose threads run in some order.
local function emulated(folder, order, specs)
    return ("export DEVICE=emu REQUIRE_EMU=1 %s; %s"):format(order, busted(folder, specs or DEVICE_SPECS))
end

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
        thread_sanitized(THREAD_SETTINGS, busted("tsan", OPS), golden("tsan")) },
    isa_lane("scalar", "fpu"),
    isa_lane("avx2", "avx2"),
    isa_lane("avx512", "avx512bw"),
    isa_lane("avx512_vnni", "avx512_vnni"),
    isa_lane("avx512_bf16", "avx512_bf16"),
    isa_lane("amx", "amx_int8"),
    { "emu", unless = NO_HEADERS, variable = "REQUIRE_EMU",
        build("check", CHECKED, nil, "all emu build/check/kernels/conformance"),
        together("emu",
            golden("check", "emu"),
            emulated("check", "PIXELREFER_EMU_ORDER=0", ""), emulated("check", "PIXELREFER_EMU_ORDER=1"),
            emulated("check", "PIXELREFER_EMU_ORDER=7"), emulated("check", "PIXELREFER_EMU_LAZY=1"),
            "PIXELREFER_EMU_ORDER=0 build/check/kernels/conformance",
            "PIXELREFER_EMU_ORDER=1 build/check/kernels/conformance",
            "PIXELREFER_EMU_ORDER=7 build/check/kernels/conformance",
            "PIXELREFER_EMU_LAZY=1 build/check/kernels/conformance") },
    { "emu address", unless = NO_HEADERS, variable = "REQUIRE_EMU",
        build("asan", ADDRESS, "-fsanitize=address,undefined", "all emu build/asan/kernels/conformance"),
        together("emu address",
            preloaded({ "asan", "ubsan" }, ADDRESS_SETTINGS, golden("asan", "emu")),
            preloaded({ "asan", "ubsan" }, ADDRESS_SETTINGS, emulated("asan", "PIXELREFER_EMU_ORDER=1")),
            "build/asan/kernels/conformance") },
    { "emu threads", unless = NO_HEADERS, variable = "REQUIRE_EMU",
        build("tsan", THREAD, "-fsanitize=thread", "all emu build/tsan/kernels/conformance"),
        together("emu threads",
            thread_sanitized(THREAD_SETTINGS, golden_under_threads(CASES[1])),
            thread_sanitized(THREAD_SETTINGS, golden_under_threads(CASES[2])),
            thread_sanitized(THREAD_SETTINGS, emulated("tsan", "PIXELREFER_EMU_ORDER=0", THREAD_SPECS)),
            "build/tsan/kernels/conformance") },
    { "defects", unless = NO_HEADERS, variable = "REQUIRE_EMU",
        build("check", CHECKED, nil, "build/check/kernels/defects"),
        build("asan", ADDRESS, "-fsanitize=address,undefined", "build/asan/kernels/defects"),
        build("tsan", THREAD, "-fsanitize=thread", "build/tsan/kernels/defects"),
        "luajit spec/kernels/defects.lua build/check/kernels/defects build/asan/kernels/defects "
            .. "build/tsan/kernels/defects" },
    { "cuda", unless = NVCC == "" and "no nvcc in CUDA_HOME, /usr/local/cuda or PATH" or nil,
        build("check", "-O2 -g", nil, "all cuda build/check/kernels/conformance.cuda"),
        with("check", "luajit spec/kernels/ptx.lua build/check"),
        busted("check", "spec/unit/device_spec.lua"),
        "build/check/kernels/conformance.cuda" },
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
    if lane.unless and lane.variable and os.getenv(lane.variable) == "1" then
        add { failed = 1 }
        print(("FAIL  %-15s %s"):format(name, lane.unless))
        return
    end
    if lane.unless then
        add { skipped = 1 }
        print(("skip  %-15s %s"):format(name, lane.unless))
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
    print(("%s  %-15s %d passed, %d failed, %d skipped  %d s"):format(fine and "ok  " or "FAIL", name, counts.passed,
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
