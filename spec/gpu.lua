-- `make gpu`: everything that can be said of the CUDA backend on a machine with a GPU, in one run: the dialect's
-- conformance, the ops, all golden cases in both precisions, compute-sanitizer over a small model, single kernels
-- beside the rate of copies and beside PyTorch (where PYTHON names an interpreter that has it with CUDA), speed at true
-- size. Writes build/gpu/gpu.json and build/gpu/gpu.md; ends with `N passed, N failed, N skipped`.
-- usage: luajit spec/gpu.lua DEVICE     ("cuda"; "emu" is a dry run with small sizes)
--
-- REQUIRE_CUDA=1 makes a missing device a failure, else it is a counted skip.

local json = require "pixelrefer.json"

local device = arg[1] or "cuda"
local real = device ~= "emu"
local BUILD = os.getenv("BUILD") or "build"
local FOLDER = BUILD .. "/gpu"
local GOLDEN = "spec/fixtures/golden"

-- What must hold on an H200 (docs/performance.md): seconds at most.
local GATES = {
    ["2b"] = { encoder_seconds = 5.5e-3, prefill_seconds = 15e-3, decode_seconds_per_token = 0.95e-3 },
    ["7b"] = { prefill_seconds = 65e-3, decode_seconds_per_token = 3.7e-3 },
}
local NAMES = { "load_seconds", "encoder_seconds", "prefill_seconds", "decode_seconds_per_token" }

local parts = {} -- { name, passed, failed, skipped, seconds, reason }

local function read(path)
    local file = io.open(path, "rb")
    local text = file and file:read("*a") or ""
    if file then file:close() end
    return text
end

local function note(name, passed, failed, skipped, seconds, reason)
    parts[#parts + 1] = { name = name, passed = passed, failed = failed, skipped = skipped, seconds = seconds,
        reason = reason }
    print(("%-4s  %-34s %d passed, %d failed, %d skipped%s"):format(failed > 0 and "FAIL" or "ok", name, passed, failed,
        skipped, reason and ": " .. reason or ""))
    io.flush()
end

--- Runs a command, its output in a log; the sum of its summary lines, or one test without such a line.
local function run(name, command)
    local log, began = ("%s/%s.log"):format(FOLDER, name:gsub("%W+", "-")), os.time()
    local succeeded = os.execute(("( %s ) >'%s' 2>&1 </dev/null"):format(command, log)) == 0
    local passed, failed, skipped, found = 0, 0, 0, false
    for p, f, s in read(log):gmatch("(%d+) passed, (%d+) failed, (%d+) skipped") do
        passed, failed, skipped, found = passed + p, failed + f, skipped + s, true
    end
    if succeeded and not found then passed = 1 end
    if not succeeded and failed == 0 then failed = 1 end
    note(name, passed, failed, skipped, os.time() - began, not succeeded and "see " .. log or nil)
    return succeeded
end

local function lua(script)
    return ("LUA_PATH='lua/?.lua;lua/?/init.lua;spec/?.lua;;' LUA_CPATH='%s/?.so;;' luajit %s"):format(BUILD, script)
end

local function parity(rest)
    return lua(("spec/parity/run.lua --device %s %s"):format(device, rest))
end

local function check_correctness()
    run("conformance", ("%s/kernels/conformance%s"):format(BUILD, real and ".cuda" or ""))
    run("ops", ("PIXELREFER_COMPUTE=f32 DEVICE=%s "):format(device) .. lua("$(command -v busted) --ignore-lua "
        .. "spec/unit/ops_*_spec.lua spec/unit/tensor_primitives_spec.lua spec/unit/device_spec.lua "
        .. "spec/unit/device_recording_spec.lua"))
    local cases = real and "" or ("--golden %s --case refer_text_only"):format(GOLDEN)
    run("parity, f32", parity(cases .. " --compute f32"))
    run("parity, bf16", parity(cases .. " --compute bf16"))
end

local function check_sanitizers()
    for _, tool in ipairs { "memcheck", "racecheck", "synccheck", "initcheck" } do
        local name = "compute-sanitizer " .. tool
        if not real then
            note(name, 0, 0, 1, 0, "no GPU: AddressSanitizer and ThreadSanitizer do it on the emulated device")
        elseif os.execute("command -v compute-sanitizer >/dev/null 2>&1") ~= 0 then
            note(name, 0, 0, 1, 0, "compute-sanitizer is not installed")
        else
            run(name, ("compute-sanitizer --tool %s --error-exitcode 9 --target-processes all env "):format(tool)
                .. parity(("--golden %s --case refer_image_two_regions"):format(GOLDEN)))
        end
    end
end

--- Times of single kernels, and PyTorch's beside them as `torch`.
local function measure_kernels()
    local out, theirs = FOLDER .. "/kernels.json", FOLDER .. "/torch.json"
    os.remove(out)
    os.remove(theirs)
    local divisor, repeats = real and 1 or 100, real and 5 or 1
    if not run("kernels", lua(("spec/bench/device_kernels.lua %s %s %d %d"):format(device, out, divisor, repeats))) then
        return nil
    end
    local figures, python = json.decode(read(out)), os.getenv("PYTHON")
    local question = " -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null"
    if not python or os.execute(python .. question) ~= 0 then
        note("kernels in PyTorch", 0, 0, 1, 0, "PYTHON names no interpreter that has PyTorch with a GPU")
    elseif run("kernels in PyTorch", ("%s spec/bench/torch_kernels.py --repeats %d --out %s"):format(python, repeats,
        theirs)) then
        local torch = json.decode(read(theirs))
        figures.torch = torch.torch
        for _, kernel in ipairs(figures.kernels) do kernel.torch_seconds = torch.seconds[kernel.name] end
    end
    return figures
end

--- A checkpoint of random weights, written on first use.
local function checkpoint(preset)
    local folder = ("%s/%s"):format(FOLDER, preset)
    if read(folder .. "/config.json") == "" then
        assert(os.execute(lua(("spec/fixtures/make_checkpoint.lua --preset %s %s"):format(preset, folder))) == 0)
    end
    return folder
end

--- Speed of one size; the figures, and a test for each gate.
local function measure(preset, cells, tokens, steps, repeats)
    local out = ("%s/%s.json"):format(FOLDER, preset)
    os.remove(out)
    local name = "speed, " .. preset
    if not run(name, lua(("spec/bench/device.lua %s %s %s %d %d %d %d"):format(checkpoint(preset), device, out, cells,
        tokens, steps, repeats))) then return nil end
    local figures = json.decode(read(out))
    for _, key in ipairs(NAMES) do
        local gate = real and (GATES[preset] or {})[key]
        if gate then
            local holds = figures[key] <= gate
            note(("%s, %s"):format(preset, key), holds and 1 or 0, holds and 0 or 1, 0, 0,
                ("%.3g s, at most %.3g s"):format(figures[key], gate))
        end
    end
    return figures
end

--- A row of the kernels' table: its rate, of bytes beside that of copies, and how much faster than PyTorch it is.
local function kernel_row(kernel, copy_rate)
    local work, torch = (kernel.bytes or kernel.operations) / kernel.seconds, kernel.torch_seconds
    local rate = kernel.bytes and ("%.0f GB/s, %.0f %% of a copy's"):format(work / 1e9, 100 * work / copy_rate)
        or ("%.1f TFLOP/s"):format(work / 1e12)
    return ("| %s | %.1f | %s | %s | %s |"):format(kernel.name, 1e6 * kernel.seconds, rate,
        torch and ("%.1f"):format(1e6 * torch) or "-", torch and ("%.2f"):format(torch / kernel.seconds) or "-")
end

local function kernel_lines(figures)
    if not figures then return {} end
    local lines = { "", ("Copies run at %.0f GB/s (read and written); PyTorch %s."):format(figures.copy_bytes_per_second
        / 1e9, figures.torch or "was not there"), "", "| kernel | us | rate | PyTorch, us | PyTorch / here |",
        "|---|---|---|---|---|" }
    for _, kernel in ipairs(figures.kernels) do
        lines[#lines + 1] = kernel_row(kernel, figures.copy_bytes_per_second)
    end
    return lines
end

local function table_text(speeds, kernels)
    local lines = { ("On %s:"):format(device), "", "| part | passed | failed | skipped | |", "|---|---|---|---|---|" }
    for _, part in ipairs(parts) do
        lines[#lines + 1] = ("| %s | %d | %d | %d | %s |"):format(part.name, part.passed, part.failed, part.skipped,
            part.reason or "")
    end
    lines[#lines + 1] = ""
    lines[#lines + 1] = "| size | cells | load | encoder | tokens | prefill | decode, a token |"
    lines[#lines + 1] = "|---|---|---|---|---|---|---|"
    for _, speed in ipairs(speeds) do
        lines[#lines + 1] = ("| %s | %d | %.2f s | %.2f ms | %d | %.2f ms | %.3f ms |"):format(speed.size, speed.cells,
            speed.load_seconds, 1e3 * speed.encoder_seconds, speed.tokens, 1e3 * speed.prefill_seconds,
            1e3 * speed.decode_seconds_per_token)
    end
    for _, line in ipairs(kernel_lines(kernels)) do lines[#lines + 1] = line end
    return table.concat(lines, "\n") .. "\n"
end

local function write(path, text)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
end

os.execute("mkdir -p " .. FOLDER)
local opened, reason = pcall(require("pixelrefer.core").tensor.empty, { 1 }, "float32", device)
local speeds, kernels = {}, nil
if opened then
    check_correctness()
    check_sanitizers()
    kernels = measure_kernels()
    local sizes = real and { { "2b", 50, 3000, 128, 5 }, { "7b", 50, 3000, 128, 5 } } or { { "tiny", 4, 8, 2, 1 } }
    for _, size in ipairs(sizes) do
        local figures = measure(unpack(size))
        if figures then
            figures.size = size[1]
            speeds[#speeds + 1] = figures
        end
    end
else
    local required = os.getenv("REQUIRE_CUDA") == "1"
    note("device " .. device, 0, required and 1 or 0, required and 0 or 1, 0, tostring(reason))
end

local passed, failed, skipped = 0, 0, 0
for _, part in ipairs(parts) do
    passed, failed, skipped = passed + part.passed, failed + part.failed, skipped + part.skipped
end
write(FOLDER .. "/gpu.json", json.encode { device = device, parts = json.array(parts), speeds = json.array(speeds),
    kernels = kernels } .. "\n")
write(FOLDER .. "/gpu.md", table_text(speeds, kernels))
print(("written: %s/gpu.json, %s/gpu.md"):format(FOLDER, FOLDER))
print(("%d passed, %d failed, %d skipped"):format(passed, failed, skipped))
os.exit(failed == 0 and 0 or 1)
