--- The Qwen2 tokenizer: text to token ids and back.
--
--     local tokenizer = require "pixelrefer.tokenizer"
--     local tok = tokenizer.load "weights/PixelRefer-2B"   -- a directory; tokenizer files alone are enough
--     local ids = tok:encode "a dog <|im_end|>"            -- { 64, 5562, 220, 151645 }
--     print(tok:decode(ids, { skip_special_tokens = true }))
--
-- It gives the ids of transformers' `Qwen2Tokenizer`. Added tokens (`<|im_end|>`, `<image>`, `<REGION>`) are recognised
-- wherever they stand in a text; a text that must not be able to contain them has to be checked by its user, as
-- `pixelrefer.prompt` does. Bytes that are no UTF-8 count as U+FFFD, in both directions, as Python's
-- `errors="replace"` has it.
--
-- Ids are data and count from 0.
-- @module pixelrefer.tokenizer

local core = require "pixelrefer.core"
local options = require "pixelrefer.options"

local tokenizer = {}

local Tokenizer = {}
Tokenizer.__index = Tokenizer
Tokenizer.__name = "pixelrefer.Tokenizer"

local DECODING = { skip_special_tokens = { type = "boolean", default = false } }

--- Makes a tokenizer from a directory's files: `tokenizer.json`, or `vocab.json` and `merges.txt`; added tokens also
-- from `tokenizer_config.json` and `added_tokens.json`.
-- @tparam string directory
-- @treturn Tokenizer
-- @raise the file, and what in it was expected and found
function tokenizer.load(directory)
    if type(directory) ~= "string" then
        error(("tokenizer.load: a directory's path expected, got %s"):format(type(directory)), 0)
    end
    return setmetatable({ native = core.loadTokenizer(directory) }, Tokenizer)
end

--- The ids of a text.
-- @tparam string text
-- @treturn {integer,...}
function Tokenizer:encode(text)
    if type(text) ~= "string" then error(("encode: a text expected, got %s"):format(type(text)), 0) end
    return self.native:encode(text)
end

--- The text of ids.
-- @tparam {integer,...} ids
-- @tparam[opt] table given `skip_special_tokens`: true leaves out special tokens like `<|im_end|>`
-- @treturn string valid UTF-8
-- @raise an id that stands for no token
function Tokenizer:decode(ids, given)
    if type(ids) ~= "table" then error(("decode: a list of ids expected, got %s"):format(type(ids)), 0) end
    return self.native:decode(ids, options.check(given, DECODING, "decode").skip_special_tokens)
end

--- A decoder for ids that come one by one. `stream:push(id)` returns the text that has become certain, whole characters
-- or ""; `stream:finish()` returns what an unfinished character at the end becomes. The pieces join to what `decode`
-- gives.
-- @tparam[opt] table given as for `decode`
-- @treturn TokenStream
function Tokenizer:stream(given)
    return self.native:stream(options.check(given, DECODING, "stream").skip_special_tokens)
end

--- The id of a token.
-- @tparam string token as the tokenizer's files write it: `<REGION>`, `Ġthe`
-- @treturn ?integer nil when there is no such token
function Tokenizer:id(token)
    return self.native:id(token)
end

--- A token as the tokenizer's files write it.
-- @tparam integer id
-- @treturn string
-- @raise an id that stands for no token
function Tokenizer:token(id)
    return self.native:token(id)
end

--- Whether decoding can leave a token out.
-- @tparam integer id
-- @treturn boolean
-- @raise an id that stands for no token
function Tokenizer:isSpecial(id)
    return self.native:isSpecial(id)
end

--- One more than the highest id. A model's embedding may have more rows.
-- @treturn integer
function Tokenizer:size()
    return self.native:size()
end

--- Frees the tables now rather than at the next collection.
function Tokenizer:free()
    self.native:free()
end

return tokenizer
