-- How often two runs of examples/shapes/accuracy.lua gave the same answer to the same question, by kind of question:
-- the quality of quantised weights, paired against the weights that they were made of.
--
--     luajit spec/bench/paired.lua ANSWERS.jsonl OTHER.jsonl
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = (os.getenv("BUILD") or "build") .. "/?.so;" .. package.cpath
local json = require "pixelrefer.json"

local function read(path)
    local list = {}
    for line in io.lines(path) do list[#list + 1] = json.decode(line) end
    return list
end

local left, right = read(arg[1]), read(arg[2])
assert(#left == #right, ("%d answers and %d: not of the same questions"):format(#left, #right))
local counts, kinds = {}, {}
local function count(kind, a, b)
    if not counts[kind] then
        counts[kind], kinds[#kinds + 1] = { asked = 0, same = 0, left = 0, right = 0 }, kind
    end
    local of = counts[kind]
    of.asked = of.asked + 1
    if a.text == b.text then of.same = of.same + 1 end
    if a.right then of.left = of.left + 1 end
    if b.right then of.right = of.right + 1 end
end
for i, a in ipairs(left) do
    local b = right[i]
    assert(a.question == b.question and a.scene == b.scene, ("line %d: another question"):format(i))
    count(a.kind, a, b)
    count("all", a, b)
end
table.sort(kinds)
print(("%-12s %7s %7s %16s"):format("kind", "asked", "same", "right, of each"))
for _, kind in ipairs(kinds) do
    local of = counts[kind]
    print(("%-12s %7d %6.1f%% %6.1f%% %6.1f%%"):format(kind, of.asked, 100 * of.same / of.asked,
        100 * of.left / of.asked, 100 * of.right / of.asked))
end
