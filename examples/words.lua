-- What the decoder is given and what it could have said: the words that each object token lies nearest to, and the
-- likeliest tokens at each step of the answer.
--
--     pixelrefer run examples/words.lua MODEL PICTURE MASK.png

local pixelrefer = require "pixelrefer"

local directory, path, mask_path = ...
local model = pixelrefer.load(directory)
local scene, mask = model:encode(pixelrefer.image.load(path)), pixelrefer.mask.png(mask_path)

local region = pixelrefer.inside.regions(scene, { mask })[1]
for i, words in ipairs(pixelrefer.inside.words(model, region.embeddings, 4)) do
    local line = {}
    for w, word in ipairs(words) do line[w] = ("%q %.2f"):format(word.text, word.cosine) end
    print(("object token %d: %s"):format(i, table.concat(line, "  ")))
end

local answer = scene:ask("What is <region>?", { mask }, { alternatives = 3, max_new_tokens = 8 })
for t, list in ipairs(answer.alternatives) do
    local line = {}
    for i, one in ipairs(list) do line[i] = ("%q %.0f %%"):format(one.text, 100 * math.exp(one.logprob)) end
    print(("answer token %d: %s"):format(t, table.concat(line, "  ")))
end
