-- The two small models that come with the project still read regions: a fixed small part of `make accuracy`.

local MODELS = { "shapes-vision-object", "shapes-object-only" }

-- Right answers in percent per kind, from the table that accuracy.lua prints: kind -> { first model, second model }.
local function measure(words)
    local pipe = io.popen("bin/pixelrefer run examples/shapes/accuracy.lua " .. words .. " 2>&1; echo \"exit $?\"")
    local out, shares = pipe:read("*a"), {}
    pipe:close()
    assert.matches("exit 0\n$", out)
    for kind, first, second in out:gmatch("\n([%l_]+) +([%d.]+) %%[^\n]-%) +([%d.]+) %%") do
        shares[kind] = { tonumber(first), tonumber(second) }
    end
    return shares
end

describe("the small models #slow #quality", function()
    it("name colour, filling, size and shape of a region, and compare two", function()
        local shares = measure("shapes-vision-object shapes-object-only --seed 11 --pictures 25 --clips 5")
        local least_shares = { colour = 95, filling = 95, size = 90, shape = 90, describe = 85, larger = 90, left = 80,
                               above = 80, same_colour = 90, count = 50, swap = 85 }
        for kind, least in pairs(least_shares) do
            for i, name in ipairs(MODELS) do
                assert.is_true(shares[kind][i] >= least, ("%s, %s: %.1f %%"):format(name, kind, shares[kind][i]))
            end
        end
    end)
end)
