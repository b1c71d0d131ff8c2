--- Random numbers of the shapes world: xoshiro128++, seeded by two integers. The same everywhere, forever.
-- @module shapes.random
local bit = require "bit"

local band, bor, bxor, rol = bit.band, bit.bor, bit.bxor, bit.rol
local lshift, rshift, tobit = bit.lshift, bit.rshift, bit.tobit

local random = {}

local Random = {}
Random.__index = Random

-- The product of two 32-bit integers, modulo 2^32.
local function multiply(a, b)
    return tobit(lshift(band(rshift(a, 16) * band(b, 0xffff) + band(a, 0xffff) * rshift(b, 16), 0xffff), 16)
                 + band(a, 0xffff) * band(b, 0xffff))
end

-- One step of splitmix32: the next state and a word.
local function split_mix(state)
    state = tobit(state + 0x9e3779b9)
    local word = multiply(bxor(state, rshift(state, 16)), 0x21f0aaad)
    word = multiply(bxor(word, rshift(word, 15)), 0x735a2d97)
    return state, bxor(word, rshift(word, 15))
end

--- A generator. Different streams of one seed are independent, so picture 7 is the same however many there are.
-- @tparam int seed
-- @tparam int stream
-- @treturn Random
function random.new(seed, stream)
    local _, mixed = split_mix(tobit(seed))
    local state = bxor(mixed, multiply(tobit(stream), 0x85ebca6b))
    local words = {}
    for i = 1, 4 do state, words[i] = split_mix(state) end
    return setmetatable({ a = words[1], b = words[2], c = words[3], d = bor(words[4], 1) }, Random)
end

--- The next 32 random bits.
-- @treturn int from -2^31 to 2^31-1
function Random:word()
    local a, b, c, d = self.a, self.b, self.c, self.d
    local word = tobit(rol(tobit(a + d), 7) + a)
    local shifted = lshift(b, 9)
    c = bxor(c, a)
    d = bxor(d, b)
    b = bxor(b, c)
    a = bxor(a, d)
    c = bxor(c, shifted)
    d = rol(d, 11)
    self.a, self.b, self.c, self.d = a, b, c, d
    return word
end

--- A number of at least `low` and below `high`.
-- @tparam[opt=0] number low
-- @tparam[opt=1] number high
-- @treturn number
function Random:number(low, high)
    low, high = low or 0, high or 1
    return low + (high - low) * (self:word() + 2147483648) / 4294967296
end

--- An integer from `low` to `high`, both included.
-- @tparam int low
-- @tparam int high
-- @treturn int
function Random:integer(low, high)
    return low + math.floor(self:number() * (high - low + 1))
end

--- True with a probability.
-- @tparam number probability
-- @treturn boolean
function Random:chance(probability)
    return self:number() < probability
end

--- One of a list.
-- @tparam table list
-- @return an element
function Random:choose(list)
    return list[self:integer(1, #list)]
end

--- A list in random order, in place.
-- @tparam table list
-- @treturn table the list
function Random:shuffle(list)
    for i = #list, 2, -1 do
        local j = self:integer(1, i)
        list[i], list[j] = list[j], list[i]
    end
    return list
end

return random
