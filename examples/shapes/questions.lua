--- Questions about scenes, with answers in free text, read off the scene itself.
--
-- Every kind has several phrasings. Where an answer can be yes or no, the first or the second, it is drawn first and
-- regions that fit are looked for, so that no answer is a better guess than another.
-- @module shapes.questions

local questions = {}

-- Pixels by which centres differ for sure, edges with which objects touch, pixels with which one covers another.
local APART, TOUCHING, COVERING = 20, 4, 10

local PHRASINGS = {
    describe = {
        "Describe <region> in detail.", "Describe <region>.", "What is <region>?", "Tell me what <region> looks like.",
        "What can be seen in <region>?",
    },
    colour = {
        "What colour is <region>?", "Which colour does <region> have?", "What is the colour of <region>?",
        "Tell me the colour of <region>.", "What color is <region>?",
    },
    shape = {
        "What shape is <region>?", "Which shape does <region> have?", "What is the shape of <region>?",
        "Tell me the shape of <region>.",
    },
    size = {
        "How big is <region>?", "What size is <region>?", "What is the size of <region>?",
        "Is <region> small, medium or large?",
    },
    filling = {
        "How is <region> filled?", "What is the filling of <region>?", "Which pattern does <region> have?",
        "Is <region> plain, striped, dotted or outlined?",
    },
    larger = {
        "Which is larger, <region> or <region>?", "Which of <region> and <region> is larger?",
        "Which one is bigger: <region> or <region>?",
    },
    left = {
        "Which is further left, <region> or <region>?", "Which of <region> and <region> is further left?",
    },
    is_left = { "Is <region> to the left of <region>?", "Is <region> left of <region>?" },
    above = {
        "Which is further up, <region> or <region>?", "Which of <region> and <region> is higher up?",
    },
    is_above = { "Is <region> above <region>?", "Does <region> lie above <region>?" },
    same_colour = {
        "Do <region> and <region> have the same colour?", "Is <region> of the same colour as <region>?",
        "Are <region> and <region> of one colour?",
    },
    count = {
        "How many objects have the colour of <region>?", "How many objects share the colour of <region>?",
        "How many things in the picture have the same colour as <region>?",
    },
    touch = {
        "What touches <region>?", "Which object touches <region>?", "What is next to <region> and touches it?",
    },
    cover = { "What covers a part of <region>?", "Which object hides a part of <region>?" },
    direction = {
        "Which way does <region> move?", "Where does <region> go?", "In which direction does <region> move?",
    },
    speed = { "How fast does <region> move?", "At what speed does <region> move?", "Is <region> slow or fast?" },
    change = {
        "Does <region> change its colour?", "Does the colour of <region> change?",
        "Is the colour of <region> constant?",
    },
}

--- Kinds of questions as the accuracy is counted, in order.
questions.KINDS = {
    "describe", "colour", "shape", "size", "filling", "larger", "left", "above", "same_colour", "count", "touch",
    "cover", "direction", "speed", "change",
}

local NUMBERS = { "one", "two", "three", "four" }

local function capital(text)
    return text:sub(1, 1):upper() .. text:sub(2)
end

local function article(text)
    return (text:find("^[aeiou]") and "an " or "a ") .. text
end

-- "a red star", "an orange bar".
local function name(object)
    return article(object.colour .. " " .. object.shape)
end

local function ask(source, phrasing, kind, regions, answer)
    return { kind = kind, question = source:choose(PHRASINGS[phrasing]), answer = answer, regions = regions }
end

-- ---- one region --------------------------------------------------------------------------------------------------

local LOOKS = { "describe", "colour", "shape", "size", "filling" }
local ONE = {
    describe = function(object)
        return capital(("%s %s %s %s."):format(article(object.size), object.filling, object.colour, object.shape))
    end,
    colour = function(object) return capital(object.colour) .. "." end,
    shape = function(object) return capital(article(object.shape)) .. "." end,
    size = function(object) return capital(object.size) .. "." end,
    filling = function(object) return capital(object.filling) .. "." end,
}

-- ---- two regions -------------------------------------------------------------------------------------------------

-- For each kind, whether a pair can be asked about, and whether the first is meant. Centres are those of what is seen.
local SIZE_RANK = { small = 1, medium = 2, large = 3 }
local function by_place(axis)
    return function(a, b)
        local difference = b.seen[axis] - a.seen[axis]
        if math.abs(difference) < APART then return nil end
        return difference > 0
    end
end
local PAIRS = {
    larger = function(a, b)
        if a.size == b.size then return nil end
        return SIZE_RANK[a.size] > SIZE_RANK[b.size]
    end,
    left = by_place("x"),
    above = by_place("y"),
    same_colour = function(a, b) return a.colour == b.colour end,
}

local function answer_pair(source, kind, i, j, a, b, holds)
    if kind == "same_colour" then
        local colours = capital(a.colour) .. " and " .. b.colour
        return ask(source, kind, kind, { i, j }, colours .. (holds and ": yes." or ": no."))
    end
    if kind ~= "larger" and source:chance(0.5) then
        return ask(source, "is_" .. kind, kind, { i, j }, holds and "Yes." or "No.")
    end
    return ask(source, kind, kind, { i, j }, holds and "The first." or "The second.")
end

-- A question about two regions whose answer was drawn before.
local function ask_pair(source, objects, kind)
    local wanted, test = source:chance(0.5), PAIRS[kind]
    local order = {}
    for i = 1, #objects do
        for j = 1, #objects do
            if i ~= j then order[#order + 1] = { i, j } end
        end
    end
    for _, pair in ipairs(source:shuffle(order)) do
        local a, b = objects[pair[1]], objects[pair[2]]
        if test(a, b) == wanted then return answer_pair(source, kind, pair[1], pair[2], a, b, wanted) end
    end
    return nil
end

-- ---- the rest of the picture --------------------------------------------------------------------------------------

-- How many objects have a colour. Colours of many objects are rarer, so they are preferred: no number is a better
-- guess.
local PREFERENCE = { 1, 3, 8, 20 }
local function ask_count(source, objects)
    local counts, weights, total = {}, {}, 0
    for _, object in ipairs(objects) do counts[object.colour] = (counts[object.colour] or 0) + 1 end
    for i, object in ipairs(objects) do
        local count = counts[object.colour]
        weights[i] = (PREFERENCE[count] or 0) / count
        total = total + weights[i]
    end
    local drawn = source:number(0, total)
    for i, object in ipairs(objects) do
        drawn = drawn - weights[i]
        if drawn < 0 then
            local answer = ("%s: %s."):format(capital(object.colour), NUMBERS[counts[object.colour]])
            return ask(source, "count", "count", { i }, answer)
        end
    end
    return nil
end

-- The only object that touches another (that covers a part of it), 0 for none; nil when there are several, or when so
-- few pixels decide that one could disagree.
local function only_neighbour(objects, i, must_cover)
    local found = 0
    for j, edges in pairs(objects[i].seen.borders) do
        local covered = objects[j].seen.hides[i] or 0
        if edges < TOUCHING or must_cover and covered > 0 and covered < COVERING then return nil end
        if covered > 0 or not must_cover then
            if found ~= 0 then return nil end
            found = j
        end
    end
    return found
end

local function ask_contact(source, objects, kind)
    local wants_some = source:chance(0.6)
    for _, i in ipairs(source:shuffle(objects.order)) do
        local found = only_neighbour(objects, i, kind == "cover")
        if found and (found ~= 0) == wants_some then
            local answer = found == 0 and "Nothing." or capital(name(objects[found])) .. "."
            return ask(source, kind, kind, { i }, answer)
        end
    end
    return nil
end

-- ---- clips -------------------------------------------------------------------------------------------------------

local MOVING = {
    direction = function(object)
        return object.direction and ("It moves %s."):format(object.direction) or "It stands still."
    end,
    speed = function(object)
        return object.speed and ("It moves %s."):format(object.speed) or "It stands still."
    end,
    change = function(object)
        if not object.later_colour then return ("No, it stays %s."):format(object.colour) end
        return ("Yes, from %s to %s."):format(object.colour, object.later_colour)
    end,
}
local CONSTANT = "Is the colour of <region> constant?" -- asks the other way round

local function ask_moving(source, object, kind, i)
    local made = ask(source, kind, kind, { i }, MOVING[kind](object))
    if made.question == CONSTANT then
        made.answer = object.later_colour and made.answer:gsub("^Yes,", "No,") or made.answer:gsub("^No,", "Yes,")
    end
    return made
end

-- ---- all of a scene ----------------------------------------------------------------------------------------------

-- Questions of a picture, in the order of their kinds: each object kind is asked about one region.
local function about_picture(source, objects, list)
    for _, kind in ipairs(LOOKS) do
        local i = source:integer(1, #objects)
        list[#list + 1] = ask(source, kind, kind, { i }, ONE[kind](objects[i]))
    end
    if #objects > 1 then
        for _, kind in ipairs { "larger", "left", "above", "same_colour" } do
            list[#list + 1] = ask_pair(source, objects, kind)
        end
    end
    list[#list + 1] = ask_count(source, objects)
    list[#list + 1] = ask_contact(source, objects, "touch")
    list[#list + 1] = ask_contact(source, objects, "cover")
end

-- Questions of a clip: how objects move, and what one that keeps its colour looks like.
local function about_clip(source, objects, list)
    for _, kind in ipairs { "direction", "speed", "change" } do
        local i = source:integer(1, #objects)
        list[#list + 1] = ask_moving(source, objects[i], kind, i)
    end
    for _, kind in ipairs { "describe", source:choose(LOOKS) } do
        local i = source:integer(1, #objects)
        if not objects[i].later_colour then list[#list + 1] = ask(source, kind, kind, { i }, ONE[kind](objects[i])) end
    end
end

--- Questions about a scene. Each call draws others.
-- @tparam table scene as `world.make` gives it
-- @tparam[opt] Random source the scene's own unless said
-- @treturn table list of {kind, question, answer, regions = {numbers of objects}}
function questions.make(scene, source)
    source = source or scene.source
    local objects, list = { order = {} }, {}
    for i, object in ipairs(scene.objects) do
        objects[i] = setmetatable({ seen = scene.seen[1][i] }, { __index = object })
        objects.order[i] = i
    end
    local about = scene.kind == "picture" and about_picture or about_clip
    about(source, objects, list)
    return list
end

return questions
