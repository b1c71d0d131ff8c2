--- Answers of the shapes world, read for what they say: free text to attributes, and whether two say the same.
-- @module shapes.answers

local answers = {}

local function set(...)
    local words = {}
    for i, word in ipairs { ... } do words[word] = i end
    return words
end

local WORDS = {
    colour = set("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "white"),
    shape = set("circle", "square", "triangle", "star", "cross", "heart", "moon", "diamond", "arrow", "bar"),
    size = set("small", "medium", "large"),
    filling = set("plain", "striped", "dotted", "outlined"),
    verdict = set("yes", "no"),
    which = set("first", "second"),
    number = set("one", "two", "three", "four", "five", "six"),
    direction = set("left", "right", "up", "down"),
    speed = set("slowly", "fast"),
    absence = set("nothing"),
    rest = set("still"),
}

--- What an answer says: for each attribute the words of it, in order.
-- @tparam string text
-- @treturn table such as {colour = {"red", "blue"}, verdict = {"no"}}; an attribute that is not spoken of is missing
function answers.parse(text)
    local said = {}
    for word in text:lower():gmatch("%a+") do
        for attribute, words in pairs(WORDS) do
            if words[word] then
                said[attribute] = said[attribute] or {}
                table.insert(said[attribute], word)
            end
        end
    end
    return said
end

-- What must agree for an answer of each kind to be right.
local ATTRIBUTES = {
    describe = { "size", "filling", "colour", "shape" },
    colour = { "colour" },
    shape = { "shape" },
    size = { "size" },
    filling = { "filling" },
    larger = { "which" },
    left = { "which", "verdict" },
    above = { "which", "verdict" },
    same_colour = { "verdict" },
    count = { "number" },
    touch = { "colour", "shape", "absence" },
    cover = { "colour", "shape", "absence" },
    direction = { "direction", "rest" },
    speed = { "speed", "rest" },
    change = { "verdict", "colour" },
}

--- Whether an answer is right: it names exactly the attributes that the kind asks for, and they are those expected.
-- @tparam string kind of `questions.KINDS`
-- @tparam string expected the answer that the world gives
-- @tparam string text the answer to judge
-- @treturn boolean
function answers.right(kind, expected, text)
    local wanted, said = answers.parse(expected), answers.parse(text)
    for _, attribute in ipairs(ATTRIBUTES[kind]) do
        if table.concat(wanted[attribute] or {}, " ") ~= table.concat(said[attribute] or {}, " ") then return false end
    end
    return true
end

return answers
