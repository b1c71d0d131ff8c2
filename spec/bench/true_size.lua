-- make bench: both frameworks at the size of PixelRefer-2B (27-layer encoder, Qwen2.5-1.5B decoder, bfloat16, random
-- weights), as ratios: load time and memory beyond the weights against their bounds; encoder, prefill and decode in
-- float32 and in what is fastest here against PyTorch on the same cores (float32 against its float32, others against
-- its faster type), decode against the memory bandwidth measured in the same run too.
--
--     luajit spec/bench/true_size.lua [--threads N] [--repeats N] [--kept] [--write-docs]
--
-- PYTHON names an interpreter that has torch; its figures are measured once and kept in build/bench/torch.json (delete
-- it to measure anew). --kept measures no model, only shows an earlier run. --write-docs puts the tables into
-- docs/performance.md. The machine must have nothing else to do.

local bandwidth = require "bench.bandwidth"
local json = require "pixelrefer.json"
local setting = require "bench.setting"

local FOLDER, run = setting.FOLDER, setting.run
local MEBI, GIGA = 2 ^ 20, 1e9

-- What must hold; encoder and prefill must be at least as fast as PyTorch.
local LOAD_SECONDS, MEMORY_MEBI, BANDWIDTH_SHARE = 1, 700, 0.7

--- A framework's figures, with the bandwidth that was measured before and after.
local function measure(framework, threads, given)
    local out = ("%s/%s.json"):format(FOLDER, framework)
    if given.kept then return json.read(out) end
    local folder, before = setting.checkpoint(framework), bandwidth.measure(threads)
    run("%s spec/bench/stages.lua %s %s %d %d", arg[-1], folder, out, threads, given.repeats)
    local figures = json.read(out)
    figures.read_bytes_per_second = math.max(before, bandwidth.measure(threads))
    setting.write(out, figures)
    return figures
end

--- PyTorch's figures of both types, by type; nil where there is none.
local function torch_figures(threads)
    local python, out = os.getenv("PYTHON") or "python3", FOLDER .. "/torch.json"
    if not setting.exists(out) then
        if os.execute(python .. " -c 'import torch' 2>/dev/null") ~= 0 then return nil end
        for _, dtype in ipairs { "float32", "bfloat16" } do
            run("%s spec/bench/torch_baseline.py --dtype %s --threads %d --repeats 3 --out %s", python, dtype, threads,
                out)
        end
    end
    local figures = json.read(out)
    return figures.float32 and figures.float32.threads == threads and figures or nil
end

--- PyTorch's rate that ours is held against: float32's, or that of its faster type.
local function torch_rate(torch, compute, part)
    local best, name
    for dtype, figures in pairs(torch or {}) do
        local rate = (compute ~= "f32" or dtype == "float32") and figures[part] and figures[part].rate
        if rate and rate > (best or 0) then best, name = rate, dtype end
    end
    return best, name
end

--- Rows of {what, measured, against, ratio, holds}.
local function rows_of(figures, torch)
    local rows = {}
    local function row(what, measured, against, ratio, holds)
        rows[#rows + 1] = { what, measured, against or "", ratio or "", holds == nil and "" or holds and "yes" or "NO" }
    end
    local function most(what, form, value, bound)
        local ratio = ("%.2f"):format(value / bound)
        row(what, form:format(value), ("at most " .. form):format(bound), ratio, value <= bound)
    end
    local function against_torch(what, rate, compute, part)
        local theirs, dtype = torch_rate(torch, compute, part)
        row(what, ("%.1f/s"):format(rate), theirs and ("PyTorch %s %.1f/s"):format(dtype, theirs)
            or "PyTorch not measured", theirs and ("%.2f"):format(rate / theirs), theirs and rate >= theirs)
    end
    most("load, page cache warm", "%.2f s", figures.load_seconds, LOAD_SECONDS)
    most("peak memory beyond the weights", "%.0f MiB", figures.beyond_weights_bytes / MEBI, MEMORY_MEBI)
    local bytes_per_second = figures.read_bytes_per_second
    for _, rates in ipairs(figures.variants or {}) do
        local compute, kind = rates.compute, ("%s weights, %s"):format(rates.weights or "bfloat16", rates.compute)
        if rates.weights then
            row(kind .. ": quantised while loading", ("%.1f s"):format(rates.load_seconds))
        end
        against_torch(kind .. ": encoder, cells", rates.encoder_cells_per_second, compute, "encoder")
        for _, length in ipairs { 1100, 2048 } do
            against_torch(("%s: prefill of %d, tokens"):format(kind, length),
                rates[("prefill_%d_tokens_per_second"):format(length)], compute, "prefill_" .. length)
        end
        against_torch(kind .. ": decode behind 1,100 tokens", rates.decode_tokens_per_second, "any", "decode")
        if bytes_per_second then
            local share = rates.decode_bytes_per_second / bytes_per_second
            row("  of the bandwidth", ("%.1f GB/s"):format(rates.decode_bytes_per_second / GIGA),
                ("%.1f GB/s"):format(bytes_per_second / GIGA), ("%.2f"):format(share), share >= BANDWIDTH_SHARE)
        end
        local one, all = rates.decode_tokens_per_second, rates.together_tokens_per_second
        row(("%s: decode of %d answers together"):format(kind, figures.together), ("%.2f/s"):format(all),
            ("alone %.2f/s"):format(one), ("%.2f"):format(all / one))
    end
    row("picture of 1,024 cells, two regions, " .. figures.ask.new_tokens .. " tokens",
        ("%.2f s"):format(figures.ask.seconds))
    for _, part in ipairs(figures.ask.stages) do
        if part.seconds >= 0.005 then row("  " .. part.stage, ("%.3f s"):format(part.seconds)) end
    end
    return rows
end

local function table_text(framework, rows)
    local lines = {
        ("| %s | measured | against | ratio | holds |"):format(framework),
        "|---|---|---|---|---|",
    }
    for _, row in ipairs(rows) do lines[#lines + 1] = "| " .. table.concat(row, " | ") .. " |" end
    return table.concat(lines, "\n")
end

--- Replaces what lies between the two marks in docs/performance.md.
local function write_docs(text)
    local path, open, close = "docs/performance.md", "<!-- true size -->", "<!-- /true size -->"
    local page = setting.read(path)
    local begin, finish = page:find(open, 1, true), page:find(close, 1, true)
    assert(begin and finish, path .. " has no marks for the table")
    local file = assert(io.open(path, "w"))
    file:write(page:sub(1, begin + #open - 1), "\n", text, "\n", page:sub(finish))
    file:close()
end

local function main()
    local given, docs, i = { repeats = 3 }, false, 1
    while arg[i] do
        local name = arg[i]:match("^%-%-(.+)$")
        if (name == "threads" or name == "repeats") and tonumber(arg[i + 1]) then
            given[name], i = tonumber(arg[i + 1]), i + 1
        elseif name == "write-docs" then
            docs = true
        elseif name == "kept" then
            given.kept = true
        else
            io.stderr:write(("unknown argument '%s'\n"):format(arg[i]))
            os.exit(2)
        end
        i = i + 1
    end
    local threads = given.threads or setting.processors()
    run("mkdir -p %s", FOLDER)

    local torch = torch_figures(threads)
    local tables, result = {}, { threads = threads, torch = torch, frameworks = {} }
    for _, framework in ipairs { "vision_object", "object_only" } do
        local figures = measure(framework, threads, given)
        result.frameworks[framework] = figures
        tables[#tables + 1] = table_text(framework, rows_of(figures, torch))
        print("\n" .. tables[#tables])
    end
    setting.write(FOLDER .. "/true_size.json", result)
    if docs then write_docs(table.concat(tables, "\n\n")) end
end

main()
