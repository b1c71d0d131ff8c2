--- A small bitmap font for labels: ASCII, five columns of eight pixels a glyph (the eighth hangs below the line).
-- @module pixelrefer.draw.font

local font = {}

--- Columns of a glyph and one blank; rows of one and a blank.
font.ADVANCE, font.LINE = 6, 10

-- Glyphs from the blank on, five bytes each: a byte is a column, its lowest bit the top row.
local COLUMNS = [[
0000000000 00005F0000 0007000700 147F147F14 242A7F2A12 2313086462 3649562050 0000070000 001C224100 0041221C00
14083E0814 08083E0808 0080600000 0808080808 0060600000 2010080402 3E5149453E 00427F4000 4261514946 2141454B31
1814127F10 2745454539 3C4A494930 0171090503 3649494936 064949291E 0036360000 0080360000 0814224100 1414141414
4122140800 0201510906 3E415D551E 7E1111117E 7F49494936 3E41414122 7F4141413E 7F49494941 7F09090901 3E4149497A
7F0808087F 00417F4100 2040413F01 7F08142241 7F40404040 7F020C027F 7F0408107F 3E4141413E 7F09090906 3E4151215E
7F09192946 2649494932 01017F0101 3F4040403F 1F2040201F 3F4038403F 6314081463 0708700807 6151494543 007F414100
0204081020 0041417F00 0402010204 8080808080 0003040000 2054545478 7F48444438 3844444428 384444487F 3854545418
087E090102 18A4A4A47C 7F08040478 00447D4000 4080847D00 7F10284400 00417F4000 7C04180478 7C08040478 3844444438
FC24242418 18242424FC 7C08040408 4854545424 043F444020 3C4040207C 1C2040201C 3C4030403C 4428102844 1CA0A0A07C
4464544C44 0008364100 00007F0000 0041360800 1008081008
]]

local glyphs = {}
do
    local code = 32
    for hex in COLUMNS:gmatch("%x+") do
        local columns = {}
        for byte in hex:gmatch("%x%x") do columns[#columns + 1] = tonumber(byte, 16) end
        glyphs[code], code = columns, code + 1
    end
end

--- The characters of a text as glyphs can show them: one ASCII byte each; what the font lacks is "?", control
-- characters are blanks.
-- @tparam string text UTF-8
-- @treturn string
function font.plain(text)
    return (text:gsub("[\192-\255][\128-\191]*", "?"):gsub("[\128-\255]", "?"):gsub("%c", " "))
end

--- The columns of a character.
-- @tparam int byte of what `plain` returned
-- @treturn {int,...} five bytes, the lowest bit on top
function font.glyph(byte)
    return glyphs[byte]
end

return font
