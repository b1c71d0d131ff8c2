-- Writes the seeds of the fuzz targets whose input is not a file of ours as it is: luajit spec/fuzz/make_seeds.lua
-- luacheck: no max line length
local ffi = require "ffi"

local function write(target, name, bytes)
    local folder = "spec/fuzz/corpus/fuzz_" .. target
    os.execute("mkdir -p " .. folder)
    local file = assert(io.open(folder .. "/" .. name, "wb"))
    file:write(bytes)
    file:close()
end

-- The tokenizer's files, behind the byte that says which one it is.
local ADDED = [[{"id":4,"content":"<|im_end|>","special":true,"lstrip":false,"rstrip":false,"normalized":false,
"single_word":false}]]
write("tokenizer", "tokenizer_json", "\0" .. [=[{"version":"1.0","added_tokens":[]=] .. ADDED .. [=[],
"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":
"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},
"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"Ġ":3},"merges":["a b",["Ġ","a"]]}}]=])
write("tokenizer", "merges", "\1#version: 0.2\na b\nab a\n")
write("tokenizer", "added_tokens", "\2" .. [[{"<|im_start|>":4,"<|im_end|>":5}]])
write("tokenizer", "config", "\3" .. [[{"added_tokens_decoder":{"4":]] .. ADDED:gsub('"id":4,', "")
    .. [[},"eos_token":"<|im_end|>","model_max_length":32768}]])
write("tokenizer", "special_tokens_map", "\4" .. [[{"eos_token":{"content":"<|im_end|>"},
"additional_special_tokens":["<|im_end|>"]}]])
write("tokenizer", "vocab_and_merges", "\5" .. [[{"a":0,"b":1,"ab":2,"Ġ":3}]] .. "\0#version: 0.2\na b\n")

-- Height and width, then the text of the runs.
local function side(n) return string.char(n % 256, math.floor(n / 256)) end
write("rle", "square", side(10) .. side(10) .. "R120N0")
write("rle", "empty", side(5) .. side(5) .. "i0")
write("rle", "wide", side(9) .. side(300) .. "T2403P2")

-- Height, width, then pairs of doubles.
local function polygon(name, ...)
    local xy = ffi.new("double[?]", select("#", ...), ...)
    write("polygon", name, "\40\60" .. ffi.string(xy, ffi.sizeof(xy)))
end
polygon("triangle", 3, 3, 50, 8, 20, 35.5)
polygon("outside", -100, -20, 400, 10, 30, 500)
polygon("not_a_number", 1, 2, 0 / 0, 4, 1 / 0, 6)
