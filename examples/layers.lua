-- Reading, replacing and stopping: what the decoder would say after each of its layers, what it says without its object
-- tokens, and a run that ends at the first stage of interest.
--
--     pixelrefer run examples/layers.lua MODEL PICTURE MASK.png

local pixelrefer = require "pixelrefer"

local directory, path, mask_path = ...
local model = pixelrefer.load(directory)
local scene, mask = model:encode(pixelrefer.image.load(path)), pixelrefer.mask.png(mask_path)

local function ask(inspect)
    return scene:ask("What is <region>?", { mask }, { inspect = inspect, max_new_tokens = 8 })
end

-- Read: each layer's last row, seen through the final norm and the vocabulary.
local answer = ask(function(stage, x)
    local layer = stage:match("^decoder%.layer(%d+)$")
    if not layer then return end
    local last = model.decoder:norm(x:narrow(1, x:size(1), 1))
    local id = model.decoder:logits(last):argmax() - 1
    print(("after layer %s: %q"):format(layer, model.tokenizer:decode { id }))
end)
print("answer: " .. answer.text)

-- Replace: object tokens of zeros.
local blind = ask(function(stage, x) if stage == "object_tokens" then return x * 0 end end)
print("without object tokens: " .. blind.text)

-- Stop: nothing behind the object tokens is computed.
local tokens
local stopped = ask(function(stage, x)
    if stage == "object_tokens" then
        tokens = x:clone()
        return false
    end
end)
print(("stopped (%s) with %d object tokens of width %d"):format(stopped.stopped, tokens:size(1), tokens:size(2)))
