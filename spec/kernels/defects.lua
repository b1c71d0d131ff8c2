-- Every planted defect of defects.cu is found by its lane, and none is seen where it is mended. Ends with
-- `N passed, N failed, N skipped`.
-- usage: luajit spec/kernels/defects.lua PLAIN ADDRESS THREADS   (the three builds of build/.../kernels/defects)

local plain, address, threads = arg[1], arg[2], arg[3]

-- Where a defect shows: the build, its environment, and what is said.
local DEFECTS = {
    { "missing_barrier", threads, "", "data race" },
    { "static_index", address, "", "out of bounds" },
    { "dynamic_index", address, "", "AddressSanitizer: use%-after%-poison" },
    { "copy_not_waited_for", plain, "", "wrong value: element 0 is %-?nan" },
    { "missing_lane", plain, "", "the mask ffffffff names lanes that have returned" },
    { "different_barriers", plain, "", "threads of one block wait at different barriers" },
    { "unaligned_store", address, "", "misaligned address" },
    { "unordered_blocks", threads, "", "data race" },
    { "missing_stream_wait", plain, "PIXELREFER_EMU_LAZY=1", "wrong value: element 0 is %-?nan" },
    { "staging_reused", plain, "PIXELREFER_EMU_LAZY=1", "wrong value: element 0 is %-1" },
    { "read_before_wait", plain, "PIXELREFER_EMU_LAZY=1", "wrong value: element 0 is %-?nan" },
    { "read_before_wait", threads, "PIXELREFER_EMU_LAZY=1", "data race" },
    { "no_wait", plain, "", "returns without having waited for the kernel before: kernel no_wait.*thread %(7,0,0%)" },
    { "host_pointer_in_kernel", plain, "", "no device memory: argument 2 of copy_row" },
    { "device_pointer_on_host", plain, "", "code 139" },
    { "too_much_shared_memory", plain, "", "invalid argument" },
}

local function locks_memory()
    local file = io.open("/proc/cpuinfo")
    local text = file and file:read("*a") or ""
    if file then file:close() end
    return text:find(" ospke ", 1, true) ~= nil
end

--- Runs one program; true when it noticed nothing, and what it said.
local function run(program, environment, name, variant)
    local settings = "ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 "
        .. "TSAN_OPTIONS=halt_on_error=1:atexit_sleep_ms=0"
    local line = ("(env %s %s '%s' %s %s) 2>&1; echo \"code $?\""):format(settings, environment, program, name, variant)
    local pipe = assert(io.popen(("bash -c '%s' 2>/dev/null"):format(line:gsub("'", "'\\''"))))
    local text = pipe:read("*a")
    pipe:close()
    return text:match("code (%d+)%s*$") == "0", text
end

local counts = { passed = 0, failed = 0, skipped = 0 }

local function add(verdict, name, text)
    counts[verdict] = counts[verdict] + 1
    if verdict ~= "passed" then print(("%s %s%s"):format(verdict:upper(), name, text and ": " .. text or "")) end
end

for _, defect in ipairs(DEFECTS) do
    local name, program, environment, expected = unpack(defect)
    if name == "device_pointer_on_host" and not locks_memory() then
        add("skipped", name, "the processor has no protection keys")
    else
        local silent, said = run(program, environment, name, "planted")
        local found = not silent and said:find(expected)
        add(found and "passed" or "failed", name .. " planted", ("expected %s, got %s"):format(expected, said))
    end
    for _, build in ipairs { plain, address, threads } do
        for _, setting in ipairs { environment, "PIXELREFER_EMU_ORDER=1", "PIXELREFER_EMU_ORDER=7" } do
            local silent, said = run(build, setting, name, "mended")
            add(silent and "passed" or "failed", ("%s mended, %s %s"):format(name, build, setting), said)
        end
    end
end
print(("%d passed, %d failed, %d skipped"):format(counts.passed, counts.failed, counts.skipped))
os.exit(counts.failed == 0 and 0 or 1)
