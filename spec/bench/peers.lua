-- make bench-peers: our speed beside others' on the same cores, as ratios (ours / theirs: larger is better): the
-- decoder of PixelRefer-2B by PyTorch, llama.cpp and OpenVINO, single products by oneDNN. Whichever of them the scripts
-- in spec/bench/peers have set up is measured; the others are named.
--
--     luajit spec/bench/peers.lua [--threads N] [--rounds N] [--repeats N] [--prompts N,N] [--pasts N,N] [--steps N]
--         [--shapes MxNxK,...] [--only f32,bf16,int8,int4,products] [--kept]
--
-- A machine's speed drifts, so that within a round we and our peers take turns, each in a process of its own, and the
-- ratio of each round is shown beside that of the best of all rounds. --kept only shows an earlier run. Figures go to
-- build/bench/peers.json. The machine must have nothing else to do.

local json = require "pixelrefer.json"
local setting = require "bench.setting"

local FOLDER = setting.FOLDER .. "/peers"
local PRODUCTS = { "f32", "bf16", "int8" }

-- For single products: the C library keeps a result's memory for the next call, as models keep theirs. Fresh pages
-- would be a fifth of the time.
local KEEPING = "MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4000000000 "

local given = {
    threads = setting.processors(), rounds = 3, repeats = 1, steps = 24, -- decode steps of one timing
    prompts = { 1100, 2048 }, pasts = { 1100, 3000 },                    -- tokens
    shapes = { "2048x1536x8960", "2048x8960x1536", "2304x1152x4304", "2304x4304x1152" }, -- rows x N x K
    only = { "f32", "bf16", "int8", "int4", "products" },
}

-- ---- who is measured ----------------------------------------------------------------------------------------------
--
-- A peer has a name, `missing()`, which gives the reason why it cannot be measured, and `measure(out)`, which gives
-- {version =, rates = name -> rate} with the names that spec/bench/peers/own.lua uses, or raises.

--- Runs one measurement; what it says goes to a file beside its figures.
local function run(out, command, ...)
    os.remove(out)
    setting.run(command:format(...):gsub("%%", "%%%%") .. " 2>%s.log", out)
end

local function list(values)
    return table.concat(values, " ")
end

--- An interpreter that has PyTorch: PYTHON's, or what setup_torch.sh has made.
local function torch_python()
    local own = FOLDER .. "/torch-venv/bin/python"
    return os.getenv("PYTHON") or setting.exists(own) and own or "python3"
end

local has_torch

local function torch_missing()
    if has_torch == nil then has_torch = os.execute(torch_python() .. " -c 'import torch' 2>/dev/null") == 0 end
    return not has_torch and "spec/bench/peers/setup_torch.sh sets it up, or PYTHON names an interpreter with PyTorch"
end

local function torch(dtype)
    return { name = "PyTorch " .. dtype, missing = torch_missing, measure = function(out)
        run(out, "%s spec/bench/torch_baseline.py --parts decoder --dtype %s --threads %d --repeats %d --steps %d " ..
            "--prompts %s --out %s >/dev/null", torch_python(), dtype, given.threads, given.repeats, given.steps,
            list(given.prompts), out)
        local figures, rates = json.read(out)[dtype], {}
        for _, length in ipairs(given.prompts) do rates["prefill_" .. length] = figures["prefill_" .. length].rate end
        rates["decode_" .. given.prompts[1]] = figures.decode.rate
        return { version = "PyTorch " .. figures.torch, rates = rates }
    end }
end

local onednn = { name = "oneDNN, packed", missing = torch_missing, measure = function(out)
    run(out, KEEPING .. "%s spec/bench/peers/onednn_products.py --kinds %s --shapes %s --threads %d " ..
        "--repeats %d --out %s",
        torch_python(), list(PRODUCTS), list(given.shapes), given.threads, 10 * given.repeats, out)
    return json.read(out)
end }

--- The rates of llama-bench's tests: of the best repetition.
local function llama_rates(path, rates)
    for _, test in ipairs(json.read(path)) do
        local prefill = test.n_prompt > 0
        local name = prefill and "prefill_" .. test.n_prompt or "decode_" .. test.n_depth
        rates[name] = math.max(unpack(test.samples_ts))
    end
end

local function llama(kind)
    local model = ("%s/models/qwen2.5-1.5b-%s.gguf"):format(FOLDER, kind)
    local program = FOLDER .. "/llama/bin/llama-bench"
    local function missing()
        local there = setting.exists(program) and setting.exists(model)
        return not there and "spec/bench/peers/setup_llama.sh sets it up"
    end
    return { name = "llama.cpp " .. kind, missing = missing, measure = function(out)
        local rates = {}
        for _, test in ipairs { "-n 0 -p " .. table.concat(given.prompts, ","),
            ("-p 0 -n %d -d %s"):format(given.steps, table.concat(given.pasts, ",")) } do
            run(out, "%s -m %s -t %d -r %d %s -o json >%s", program, model, given.threads, given.repeats, test, out)
            llama_rates(out, rates)
        end
        return { version = setting.read(FOLDER .. "/llama.version"):gsub("%s+$", ""), rates = rates }
    end }
end

local function openvino(bits)
    local python = FOLDER .. "/openvino-venv/bin/python"
    local model = ("%s/models/qwen2.5-1.5b-openvino-%d/openvino_model.xml"):format(FOLDER, bits)
    local function missing()
        local there = setting.exists(python) and setting.exists(model)
        return not there and "spec/bench/peers/setup_openvino.sh sets it up"
    end
    return { name = ("OpenVINO %d bits"):format(bits), missing = missing, measure = function(out)
        run(out, "%s spec/bench/peers/openvino_baseline.py %s/models --bits %d --threads %d --repeats %d --steps %d " ..
            "--prompts %s --pasts %s --out %s >/dev/null", python, FOLDER, bits, given.threads, given.repeats,
            given.steps, list(given.prompts), list(given.pasts), out)
        return json.read(out)
    end }
end

local function own(settings)
    settings.threads, settings.repeats = given.threads, settings.kinds and 10 * given.repeats or given.repeats
    return { name = "here", measure = function(out)
        run(out, "%s%s spec/bench/peers/own.lua %s '%s'", settings.kinds and KEEPING or "", arg[-1], out,
            json.encode(settings))
        return json.read(out)
    end }
end

local function own_decoder(weights, compute, pasts)
    return own { checkpoint = setting.checkpoint "vision_object", weights = weights, compute = compute,
        prompts = given.prompts, pasts = pasts or given.pasts, steps = given.steps }
end

--- Who is compared with whom: {name, our side (made when it is needed), peers}.
local function comparisons()
    return {
        f32 = { "bfloat16 weights in float32", function() return own_decoder(nil, "f32", { given.prompts[1] }) end,
            { torch "float32" } },
        bf16 = { "bfloat16 weights", function() return own_decoder(nil, "auto") end,
            { llama "BF16", torch "bfloat16" } },
        int8 = { "8-bit weights", function() return own_decoder("int8", "auto") end,
            { llama "Q8_0", openvino(8) } },
        int4 = { "4-bit weights", function() return own_decoder("int4", "auto") end,
            { llama "Q4_0", openvino(4) } },
        products = { "products", function() return own { kinds = PRODUCTS, shapes = given.shapes } end,
            { onednn } },
    }
end

-- ---- taking turns ---------------------------------------------------------------------------------------------------

--- The peers that are there; of the others the reason is kept, by name.
local function available(peers, missing)
    local found = {}
    for _, peer in ipairs(peers) do
        local reason = peer.missing()
        if reason then missing[peer.name] = reason else found[#found + 1] = peer end
    end
    return found
end

--- One measurement of one side; a peer that fails is missing from then on.
local function turn(side, name, missing)
    io.stderr:write(("%s: %s\n"):format(name, side.name))
    local out = ("%s/%s.json"):format(FOLDER, (name .. "-" .. side.name):gsub("[^%w]+", "-"))
    local fine, result = pcall(side.measure, out)
    if fine then return result end
    if not side.missing then error(("%s; %s.log says why"):format(result, out), 0) end
    missing[side.name] = ("failed: %s.log says why"):format(out)
end

--- All rounds of a comparison: one list of {here =, theirs =} for each peer, by its name.
local function compare(comparison, figures)
    local name, ours, peers = unpack(comparison)
    peers = available(peers, figures.missing)
    if #peers == 0 then return nil end
    ours = ours()
    local rounds = {}
    for _ = 1, given.rounds do
        for _, peer in ipairs(peers) do
            if not figures.missing[peer.name] then
                local here = turn(ours, name, figures.missing)
                local theirs = turn(peer, name, figures.missing)
                if theirs then
                    figures.versions[peer.name], figures.isa = theirs.version, here.isa
                    rounds[peer.name] = rounds[peer.name] or json.array {}
                    table.insert(rounds[peer.name], { here = here.rates, theirs = theirs.rates })
                end
            end
        end
    end
    return rounds
end

-- ---- what is shown --------------------------------------------------------------------------------------------------

local function sorted(names)
    local keys = {}
    for key in pairs(names) do keys[#keys + 1] = key end
    table.sort(keys)
    return keys
end

--- "prefill_1100" as words, and the unit of its rates.
local function words(rate)
    local part, tokens = rate:match("^(%l+)_(%d+)$")
    if not part then return rate:gsub("_", " "):gsub("(%d)x(%d)", "%1 x %2"):gsub("(%d)x(%d)", "%1 x %2"), "GFLOP/s" end
    return (part == "prefill" and "prefill of %s" or "decode behind %s"):format(tokens), "tokens/s"
end

--- A row of the table: the best of all rounds, and the ratio of each.
local function row_of(name, peer, rate, rounds)
    local here, theirs, ratios = 0, 0, {}
    for i, round in ipairs(rounds) do
        here, theirs = math.max(here, round.here[rate]), math.max(theirs, round.theirs[rate])
        ratios[i] = ("%.2f"):format(round.here[rate] / round.theirs[rate])
    end
    local what, unit = words(rate)
    return ("| %.2f | %s | %s | %s: %s | %.1f %s | %.1f |"):format(here / theirs, list(ratios), peer, name, what, here,
        unit, theirs)
end

--- Lines of text: one table, then the versions and who was missing.
local function lines_of(figures)
    local lines = { "| here / theirs | each round | peer | what | here | theirs |", "|---|---|---|---|---|---|" }
    for _, kind in ipairs { "f32", "bf16", "int8", "int4", "products" } do
        local compared = figures.compared[kind] or { rounds = {} }
        for _, peer in ipairs(sorted(compared.rounds)) do
            local rounds = compared.rounds[peer]
            for _, rate in ipairs(sorted(rounds[1].here)) do
                if rounds[1].theirs[rate] then lines[#lines + 1] = row_of(compared.name, peer, rate, rounds) end
            end
        end
    end
    lines[#lines + 1] = ("\n%d threads, %s"):format(figures.given.threads, figures.isa or "nothing measured")
    for _, peer in ipairs(sorted(figures.versions)) do
        lines[#lines + 1] = ("%s: %s"):format(peer, figures.versions[peer])
    end
    for _, peer in ipairs(sorted(figures.missing)) do
        lines[#lines + 1] = ("%s was not measured: %s"):format(peer, figures.missing[peer])
    end
    return lines
end

-- ---- arguments ------------------------------------------------------------------------------------------------------

--- Fills `given` from the command line.
local function read_arguments()
    local i = 1
    while arg[i] do
        local name, value = arg[i]:match("^%-%-(%l+)$"), arg[i + 1]
        if name == "kept" then
            given.kept, i = true, i - 1
        elseif type(given[name]) == "number" and tonumber(value) then
            given[name] = tonumber(value)
        elseif type(given[name]) == "table" and value then
            given[name] = {}
            for part in value:gmatch("[^,]+") do table.insert(given[name], tonumber(part) or part) end
        else
            io.stderr:write(("unknown argument '%s'\n"):format(arg[i]))
            os.exit(2)
        end
        i = i + 2
    end
end

local function main()
    read_arguments()
    local out = setting.FOLDER .. "/peers.json"
    if given.kept then return print(table.concat(lines_of(json.read(out)), "\n")) end
    setting.run("mkdir -p %s", FOLDER)
    local figures, all = { given = given, compared = {}, versions = {}, missing = {} }, comparisons()
    for _, kind in ipairs(given.only) do
        local comparison = all[kind] or error(("--only: unknown '%s'"):format(kind), 0)
        local rounds = compare(comparison, figures)
        if rounds then figures.compared[kind] = { name = comparison[1], rounds = rounds } end
        setting.write(out, figures)
    end
    print(table.concat(lines_of(figures), "\n"))
end

main()
