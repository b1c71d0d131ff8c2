-- Several regions of one picture: it is encoded once, then asked about each of them and about how they relate.
--
--     pixelrefer run examples/relation.lua MODEL PICTURE MASK.png OTHER.png

local pixelrefer = require "pixelrefer"

local directory, path, first, second = ...
local model = pixelrefer.load(directory)
local scene = model:encode(pixelrefer.image.load(path))
local regions = { pixelrefer.mask.png(first), pixelrefer.mask.png(second) }

for i, answer in ipairs(scene:describe(regions, { max_new_tokens = 24 })) do
    print(("region %d (%d object tokens): %s"):format(i, answer.tokens[1], answer.text))
end

-- A conversation goes on over what it has read.
local session = scene:session()
print(session:ask("What is the relation of <region> and <region>?", regions, { max_new_tokens = 24 }))
print(session:ask("Which of them is larger?", nil, { max_new_tokens = 24 }))
