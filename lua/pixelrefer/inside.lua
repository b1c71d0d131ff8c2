--- Looking inside: what an answer attends to, which cells an object token took, which words it lies near.
--
--     local attention = inside.attention(model)
--     local answer = scene:ask("What is <region>?", { dog }, { inspect = attention.inspect })
--     print(attention:shares().object:mean(3):mean(2))             -- of each layer
--     image.save("layers.png", attention:plot())
--     image.save("where.png", attention:overlay(scene))
--
--     local region = inside.regions(scene, { dog })[1]
--     image.save("tokens.png", draw.tokens(region.picture, region.item, region.assignment))
--     print(inside.words(model, region.embeddings)[1][1].text)
--
-- All of it is made of what `inspect` shows (docs/model.md); docs/inside.md has more of it in a few lines each.
-- @module pixelrefer.inside
local core = require "pixelrefer.core"
local draw = require "pixelrefer.draw"
local options = require "pixelrefer.options"
local Session = require "pixelrefer.session"
local tensor = require "pixelrefer.tensor"

local inside = {}

-- ---- attention ---------------------------------------------------------------------------------------------------

--- What an answer attends to.
-- @type Attention
-- @field inspect the function to pass on as `inspect`; a new turn begins anew
-- @field ids the turn's token ids
local Attention = {}
Attention.__index = Attention

local KINDS = { "visual", "object", "text", "earlier", "answer" }

-- The place of a position in a prompt.
local function kind_of(model, id)
    return id == model.image_id and "visual" or id == model.region_id and "object" or "text"
end

-- One stage: the turn's ids, a region's cells, or a layer's attention. What is kept lies on the host.
local function take(self, stage, value)
    if tensor.isTensor(value) then value = value:to("cpu") end
    if stage == "prompt_ids" then -- its regions, if it has any, have been shown before
        self.ids, self.rows, self.regions, self.coming = value:totable(), {}, self.coming, {}
    end
    local number, field = stage:match("^region(%d+)%.([%w_]+)$")
    if number then
        if number == "0" and field == "box" then self.coming = {} end
        local j = tonumber(number) + 1
        self.coming[j] = self.coming[j] or {}
        self.coming[j][field] = field == "box" and value:totable() or value
    end
    local token, layer = stage:match("^(.-)decoder%.layer(%d+)%.attention$")
    if not token then return end
    local t = (tonumber(token:match("%d+")) or 0) + 1
    self.rows[t] = self.rows[t] or {}
    self.rows[t][tonumber(layer) + 1] = value
end

--- A recorder of the attention with which each token of an answer was drawn. Pass its `inspect` to `scene:ask`.
-- @tparam Model model
-- @treturn Attention
function inside.attention(model)
    local self = setmetatable({ model = model, ids = {}, rows = {}, regions = {}, coming = {} }, Attention)
    self.inspect = function(stage, value) take(self, stage, value) end
    return self
end

-- Positions before the answer: the prompt, and earlier turns in a conversation.
local function positions(self)
    if not self.rows[1] then error("attention: no answer has been recorded; pass .inspect to scene:ask", 0) end
    return self.rows[1][1]:size(2)
end

--- What each position before the answer is.
-- @treturn {string,...} "visual", "object", "text" or "earlier" (of a turn before)
function Attention:kinds()
    local kinds, past = {}, positions(self) - #self.ids
    for i = 1, past do kinds[i] = "earlier" end
    for i, id in ipairs(self.ids) do kinds[past + i] = kind_of(self.model, id) end
    if past > 0 then kinds[past + 1] = "text" end -- the last token of the answer before, whatever it is
    return kinds
end

-- Answer tokens whose layers were all recorded.
local function token_count(self)
    local count = 0
    while self.rows[count + 1] and #self.rows[count + 1] == #self.rows[1] do count = count + 1 end
    return count
end

-- Runs f over the layers and stacks what it returns, freeing what it needs.
local function each_layer(self, f)
    local list = {}
    for i = 1, #self.rows[1] do list[i] = tensor.scope(f, i) end
    return tensor.stack(list, 1)
end

--- The weights: of each layer and head how much each token of the answer, when it was drawn, looked at each position
-- before the answer. A row sums to 1 less what went to the answer's own earlier tokens.
-- @tparam[opt] int layer one layer alone, from 1
-- @treturn Tensor float32 [layers, heads, answer tokens, prompt tokens]; of one layer without the first dim
function Attention:weights(layer)
    local count = positions(self)
    if not layer then return each_layer(self, function(i) return self:weights(i) end) end
    if not self.rows[1][layer] then
        error(("attention: there is no layer %s, but %d"):format(tostring(layer), #self.rows[1]), 0)
    end
    local tokens = {}
    for t = 1, token_count(self) do tokens[t] = self.rows[t][layer]:narrow(2, 1, count) end
    return tensor.stack(tokens, 2)
end

-- Positions of one kind as an index; nil when there are none.
local function places_of(self, kind)
    local list = {}
    for position, its in ipairs(self:kinds()) do
        if its == kind then list[#list + 1] = position end
    end
    return #list > 0 and tensor.fromTable(list, "int64") or nil
end

--- How much of the attention goes where. The five sum to 1.
-- @treturn table `visual`, `object`, `text`, `earlier`, `answer`: Tensors [layers, heads, answer tokens]; a kind that
--   the prompt lacks is missing
function Attention:shares()
    local shares = { answer = each_layer(self, function(i) return (1 - self:weights(i):sum(3)):clamp(0, 1) end) }
    for _, kind in ipairs(KINDS) do
        local places = places_of(self, kind)
        if places then
            shares[kind] = each_layer(self, function(i) return self:weights(i):indexSelect(3, places):sum(3) end)
        end
    end
    return shares
end

--- The paper's layer-by-layer plot: shares of visual tokens, object tokens and text, the mean over heads and tokens.
-- @tparam[opt] table given options of `draw.chart`
-- @treturn Tensor uint8 [h,w,3]
function Attention:plot(given)
    local shares, series = self:shares(), {}
    for _, kind in ipairs(KINDS) do
        if shares[kind] then
            local name = (kind == "visual" or kind == "object") and kind .. " tokens" or kind
            series[#series + 1] = { name = name, values = shares[kind]:mean(3):mean(2) }
        end
    end
    local settings = { title = "Where the answer looks, by layer", x = "decoder layer", percent = true }
    for key, value in pairs(given or {}) do settings[key] = value end
    return draw.chart(series, settings)
end

--- Options that choose among the weights; what is not chosen is averaged.
-- @table Choice
-- @field layer from 1
-- @field head from 1
-- @field token of the answer, from 1
-- @field picture of the scene, from 1 (`overlay`; 1)
local CHOICE = {
    layer = { type = "integer", min = 1 }, head = { type = "integer", min = 1 }, token = { type = "integer", min = 1 },
    picture = { type = "integer", min = 1, default = 1 },
}

-- Weights of the chosen layer, head and token over the positions of one kind: [n]; nil when there are none.
local function chosen(self, kind, given)
    local function choose(weights, name) -- of [heads or tokens, ...]
        local number = given[name]
        if not number then return weights:mean(1) end
        if number > weights:size(1) then
            error(("attention: there is no %s %d, but %d"):format(name, number, weights:size(1)), 0)
        end
        return weights:select(1, number)
    end
    local function of_layer(i) return choose(choose(self:weights(i), "head"), "token") end
    local weights = given.layer and of_layer(given.layer) or each_layer(self, of_layer):mean(1)
    local places = places_of(self, kind)
    return places and weights:indexSelect(1, places)
end

--- Attention to the visual tokens, as heat on a picture of the scene: dark where it is least, bright where it is most.
-- @tparam Scene scene
-- @tparam[opt] table given @{Choice}
-- @treturn Tensor uint8 [h,w,3]
-- @raise PixelRefer-Lite has no visual tokens (see `onRegion`); a later turn of a conversation shows none
function Attention:overlay(scene, given)
    given = options.check(given, CHOICE, "overlay")
    local values, encoded = chosen(self, "visual", given), scene.encoded
    if not values then error("overlay: there are no visual tokens in this turn's prompt", 0) end
    local k = given.picture
    if not encoded.counts[k] then error(("overlay: there are %d pictures, no %d"):format(#encoded.counts, k), 0) end
    local start = 1
    for i = 1, k - 1 do start = start + encoded.counts[i] end
    local own, grid = values:narrow(1, start, encoded.counts[k]), encoded.grids[k]
    if encoded.kept then -- what did not change from frame to frame has no token
        own = tensor.zeros(grid[1] * grid[2]):maskedCopy_(encoded.kept[k], own)
    end
    local ends = { least = values:min(), most = values:max() } -- over all pictures
    return draw.heat(scene.pictures[k], own:contiguous():view(grid[1], grid[2]), ends)
end

--- Attention to a region's object tokens, as heat on the cells that each token took.
-- @tparam Tensor picture the image, or the frame that the mask lies on
-- @tparam int index of the region, from 1; a frame of an object counts as one
-- @tparam[opt] table given @{Choice}
-- @treturn Tensor uint8 [h,w,3]
-- @raise a turn without regions; an object tokenizer that does not say where its cells went
function Attention:onRegion(picture, index, given)
    given = options.check(given, CHOICE, "onRegion")
    local values, region = chosen(self, "object", given), self.regions[index]
    if not values then error("onRegion: there are no object tokens in this turn's prompt", 0) end
    if not region then error(("onRegion: there are %d regions, no %d"):format(#self.regions, index), 0) end
    if not region.assignment then error("onRegion: the object tokenizer gives no assignment", 0) end
    local start = 1
    for j = 1, index - 1 do start = start + self.regions[j].pooled:size(1) end
    local grid, inside_mask = region.mask_grid, region.mask_grid:gt(0)
    local cells = tensor.zeros(grid:size())
    if region.assignment:nElement() > 0 then
        local own = values:narrow(1, start, region.pooled:size(1))
        cells:maskedCopy_(inside_mask, own:indexSelect(1, region.assignment))
    end
    return draw.heat(picture, cells, {
        box = region.box, mask = inside_mask, least = values:min(), most = values:max(),
    })
end

-- ---- regions -----------------------------------------------------------------------------------------------------

--- What becomes of regions on their way to the decoder, without asking anything.
-- @tparam Scene scene
-- @tparam table regions masks, as `scene:ask` takes them
-- @tparam[opt] table given `seed` (0), `local_crop`
-- @treturn table for each region (an object's frames one by one) {picture = what the mask lies on, mask =, frame =,
--   item = {picture = the crop, mask_grid =, box =}, features = [gh,gw,E], cells = [n,E], pooled = [k,E],
--   assignment = int64 [n] or nil, embeddings = [k,D] what the decoder gets}
function inside.regions(scene, regions, given)
    given = options.check(given, { seed = "integer", local_crop = { "own", "first" } }, "inside.regions")
    local model, list = scene.model, {}
    local flat = scene:regions(regions).flat
    for j, region in ipairs(flat) do
        list[j] = { picture = region.picture, mask = region.mask, frame = region.frame, item = {} }
    end
    local stage = Session.watcher(function(name, value)
        local number, field = name:match("^region(%d+)%.([%w_]+)$")
        local region = list[tonumber(number or -1) + 1]
        if not region then return end
        if field == "box" then region.item.box = value:totable()
        elseif field == "crop" then region.item.picture = value
        elseif field == "mask_grid" then region.item.mask_grid = value
        elseif field ~= "picture" then region[field] = value:to("cpu") end
    end)
    local tokens, counts = model.pipeline.tokenize(model, flat, tensor.generator(given.seed or 0), stage,
        { local_crop = given.local_crop or "own", remembered = scene.remembered })
    local start = 1
    tokens = tokens:to("cpu")
    for j, region in ipairs(list) do
        region.embeddings, start = tokens:narrow(1, start, counts[j]), start + counts[j]
    end
    return list
end

-- ---- words -------------------------------------------------------------------------------------------------------

local CHUNK = 8192 -- rows of the vocabulary that are widened at a time

-- Rows first .. first + count - 1 of the embedding matrix as float32.
local function embeddings(weights, first, count, width)
    local matrix, integers = weights["embed_tokens.weight"], weights["embed_tokens.qweight"]
    if matrix then return matrix:narrow(1, first, count):float() end
    local ids = tensor.arange(first - 1, first - 1 + count, { dtype = "int64" })
    return core.embedding(integers, ids, weights["embed_tokens.scales"], width)
end

-- The cosine of each row with each of the first `named` rows of the embedding matrix, [k,named].
local function cosines_with_words(rows, weights, named)
    local parts = {}
    for first = 1, named, CHUNK do
        parts[#parts + 1] = tensor.scope(function()
            local words = embeddings(weights, first, math.min(CHUNK, named - first + 1), rows:size(2))
            return core.linear(rows, words) / (words:norm(2, 2):view(1, words:size(1)) + 1e-12)
        end)
    end
    return tensor.cat(parts, 2) / (rows:norm(2, 2, true) + 1e-12)
end

--- The words of the vocabulary that object tokens (or any rows of the decoder's width) lie nearest to.
--
-- Nearest by cosine: rows of an embedding matrix differ in length by how often a word was seen in training, and a dot
-- product would find the longest rows rather than those that point the same way.
-- @tparam Model model
-- @tparam Tensor rows float32 [k,D]
-- @tparam[opt=5] int count words of each row
-- @treturn table for each row a list of {text =, id =, cosine =}, the nearest first
function inside.words(model, rows, count)
    local width = model.config.hidden_size
    if not tensor.isTensor(rows) or rows:dim() ~= 2 or rows:size(2) ~= width then
        error(("words: rows [k,%d] expected"):format(width), 0)
    end
    local named = math.min(model.tokenizer:size(), model.config.vocab_size) -- a matrix may have more rows than tokens
    rows = rows:to("cpu"):contiguous()
    return tensor.scope(function()
        local cosines = cosines_with_words(rows, model.weights.decoder, named)
        local values, places = cosines:topk(math.min(count or 5, named), 2)
        local lists = {}
        for r = 1, rows:size(1) do
            lists[r] = {}
            for i, place in ipairs(places[r]:totable()) do
                local ok, text = pcall(model.tokenizer.decode, model.tokenizer, { place - 1 })
                lists[r][i] = { text = ok and text or "", id = place - 1, cosine = values[r][i] }
            end
        end
        return lists
    end)
end

return inside
