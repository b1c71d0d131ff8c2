-- JSON: places of mistakes, checked fields, and text that does not depend on the order of a table.
local json = require "pixelrefer.json"

local function refused(...)
    local ok, message = pcall(...)
    assert.is_false(ok)
    return message
end

describe("json.decode", function()
    it("reads objects, lists and scalars", function()
        assert.same({ a = { 1, 2.5, "x", true }, b = json.null }, json.decode '{"a": [1, 2.5, "x", true], "b": null}')
    end)

    it("names file, line and column of a mistake", function()
        assert.equal("f.json: not valid JSON: Expected value but found invalid token (line 3, column 5)",
            refused(json.decode, '{\n"a":\n    tru}', "f.json"))
    end)

    it("is strict about numbers, ends and nesting", function()
        for _, text in ipairs { "NaN", "Infinity", "0x10", "[1,]", '{"a":1,}', "{} {}", "", '"a', ("["):rep(5000) } do
            assert.matches("text: not valid JSON", refused(json.decode, text))
        end
    end)
end)

describe("json.read", function()
    it("names the path", function()
        assert.matches("^/nothing.json: No such file", refused(json.read, "/nothing.json"))
        assert.matches("^/tmp: Is a directory", refused(json.read, "/tmp"))
    end)
end)

describe("json.field", function()
    local object = { width = 8, half = 0.5, name = "x", on = false, list = { 1 }, empty = {}, none = json.null,
        map = { a = 1 }, huge = 1e300 }

    it("gives a checked value, a default, nil, or an error", function()
        assert.equal(8, json.field(object, "width", "integer", { min = 1, max = 8 }, "c.json"))
        assert.equal(0.5, json.field(object, "half", "number", nil, "c.json"))
        assert.equal(false, json.field(object, "on", "boolean", { default = true }, "c.json"))
        assert.equal(7, json.field(object, "absent", "integer", { default = 7 }, "c.json"))
        assert.equal(7, json.field(object, "none", "integer", { default = 7 }, "c.json"))
        assert.is_nil(json.field(object, "none", "integer", { optional = true }, "c.json"))
        assert.same({}, json.field(object, "empty", "list", nil, "c.json"))
        assert.same({}, json.field(object, "empty", "object", nil, "c.json"))
        assert.equal('c.json: "absent" is missing: an integer of at least 1 expected',
            refused(json.field, object, "absent", "integer", { min = 1 }, "c.json"))
    end)

    it("says what is expected and what was found", function()
        local function says(key, kind, limits)
            return refused(json.field, object, key, kind, limits, "c.json")
        end
        assert.equal('c.json: "width": an integer from 1 to 4 expected, found 8',
            says("width", "integer", { min = 1, max = 4 }))
        assert.equal('c.json: "half": an integer expected, found 0.5', says("half", "integer"))
        assert.equal('c.json: "half": a number of at most 0.1 expected, found 0.5',
            says("half", "number", { max = 0.1 }))
        assert.equal('c.json: "name": a number expected, found "x"', says("name", "number"))
        assert.equal('c.json: "list": an object expected, found a list', says("list", "object"))
        assert.equal('c.json: "map": a list expected, found an object', says("map", "list"))
        assert.equal('c.json: "on": a string expected, found false', says("on", "string"))
        assert.equal('c.json: "width": true or false expected, found 8', says("width", "boolean"))
        assert.matches("an integer expected, found 1e%+300", says("huge", "integer"))
    end)
end)

describe("json.encode", function()
    it("sorts keys and writes the shortest number that reads back", function()
        assert.equal('{"a":[1,0.1,-0.25,1e-06,12345678901234,0.30000000000000004],"b":{"x":null,"y":true}}',
            json.encode { b = { y = true, x = json.null }, a = { 1, 0.1, -0.25, 1e-6, 12345678901234, 0.1 + 0.2 } })
    end)

    it("escapes what must be, and leaves UTF-8 and slashes", function()
        assert.equal([["a\"b\\c\n\t\u0001/größe"]], json.encode "a\"b\\c\n\t\1/größe")
    end)

    it("writes an empty table as an object, unless it is marked", function()
        assert.equal("{}", json.encode {})
        assert.equal("[]", json.encode(json.array {}))
        assert.equal("null", json.encode(nil))
    end)

    it("reads back what it wrote", function()
        local value = { text = "\0\127\r", list = { { 1 }, { 2 } }, number = 1 / 3 }
        assert.same(value, json.decode(json.encode(value)))
    end)

    it("refuses what JSON has not", function()
        local cycle = {}
        cycle.self = cycle
        assert.matches("nested too deeply", refused(json.encode, cycle))
        assert.matches("no nan", refused(json.encode, 0 / 0):lower())
        assert.matches("no inf", refused(json.encode, math.huge))
        assert.matches("JSON has no function", refused(json.encode, print))
        assert.matches("keys are strings, got true", refused(json.encode, { [true] = 1 }))
    end)
end)
