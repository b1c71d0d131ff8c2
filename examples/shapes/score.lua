-- Whether an answer about the shapes world is right, however it is put: for `pixelrefer compare --score`.
--
--     pixelrefer compare OUT/dataset.jsonl --model MODEL --tokenizer saot --tokenizer mask_average
--                --score examples/shapes/score.lua -o comparison

local path = ... -- this file
package.path = (path:match("^(.*)/[^/]*$") or ".") .. "/../?.lua;" .. package.path
local answers = require "shapes.answers"

return function(expected, text, record)
    return answers.right(record.extra.kind, expected, text)
end
