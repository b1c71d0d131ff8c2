-- Option tables: what is refused, in which words, and what comes back.
local options = require "pixelrefer.options"

local SPEC = {
    temperature = { type = "number", min = 0, default = 0.2 },
    top_p = { type = "number", min = 0, max = 1 },
    mode = { "greedy", "sample", default = "greedy" },
    seed = "integer",
    regions = "table|tensor",
    model = { type = "string", required = true },
}

describe("options.check", function()
    local function message(given)
        local ok, text = pcall(options.check, given, SPEC, "describe")
        assert.is_false(ok)
        return text
    end

    it("fills defaults into a new table", function()
        local given = { model = "lite", seed = 7 }
        local checked = options.check(given, SPEC, "describe")
        assert.same({ model = "lite", seed = 7, temperature = 0.2, mode = "greedy" }, checked)
        assert.same({ model = "lite", seed = 7 }, given)
    end)

    it("takes nil for an empty table", function()
        assert.same({ mode = "greedy" }, options.check(nil, { mode = SPEC.mode }, "f"))
    end)

    it("names the nearest known option", function()
        assert.equal("describe: unknown option 'temprature', did you mean 'temperature'?", message { temprature = 1 })
        assert.equal("describe: unknown option 'top-p', did you mean 'top_p'?", message { ["top-p"] = 1 })
        assert.equal("describe: unknown option 'sede', did you mean 'seed'?", message { sede = 1 })
        assert.equal("describe: unknown option 1 (known: mode, model, regions, seed, temperature, top_p)",
            message { "lite" })
        assert.equal("f: unknown option 'x' (there are none)", select(2, pcall(options.check, { x = 1 }, {}, "f")))
    end)

    it("says what was expected and what was found", function()
        assert.equal("describe: option 'seed' must be an integer, got 1.5", message { seed = 1.5 })
        assert.equal("describe: option 'seed' must be an integer, got inf", message { seed = math.huge })
        assert.equal("describe: option 'regions' must be a table or a tensor, got true", message { regions = true })
        assert.equal("describe: option 'mode' must be one of 'greedy', 'sample', got 'beam'", message { mode = "beam" })
        assert.equal("describe: option 'top_p' must be a number from 0 to 1, got 1.5", message { top_p = 1.5 })
        assert.equal("describe: option 'temperature' must be a number of at least 0, got nan",
            (message { temperature = 0 / 0 }:gsub("%-nan", "nan")))
        assert.equal("describe: option 'model' is missing", message {})
        assert.equal("describe: the options must be a table, got 'lite'", message("lite"))
    end)

    it("keeps false apart from nil", function()
        local spec = { stream = { type = "boolean", default = true } }
        assert.is_false(options.check({ stream = false }, spec, "f").stream)
        assert.is_true(options.check({}, spec, "f").stream)
    end)
end)
