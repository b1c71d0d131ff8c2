--- Pieces of a large JSON file, found without holding more of it than one of them.
--
-- A window is moved over the file. It tells where lines and values end and leaves it to others what stands in them.
-- @module pixelrefer.dataset.pieces
local ffi = require "ffi"

local pieces = {}

local CHUNK_BYTES = 2 ^ 16
local PIECE_BYTES = 2 ^ 26 -- a longer piece is none: an unclosed string would swallow the file

local QUOTE, BACKSLASH, COMMA, BRACKET, BRACE, BRACKET_END, BRACE_END = ('"\\,[{]}'):byte(1, 7)

-- What a byte means to who looks for the end of a value.
local PLAIN, STRING, ESCAPE, SEPARATOR, OPEN, CLOSE = 0, 1, 2, 3, 4, 5
local MEANING = ffi.new("uint8_t[256]")
MEANING[QUOTE], MEANING[BACKSLASH], MEANING[COMMA] = STRING, ESCAPE, SEPARATOR
MEANING[BRACKET], MEANING[BRACE], MEANING[BRACKET_END], MEANING[BRACE_END] = OPEN, OPEN, CLOSE, CLOSE

--- A window on a file.
-- @type Window
-- @field path the file
-- @field text what has been read
-- @field from the position in `text` of the first byte that is not yet dropped
-- @field line the line of that byte
-- @field newline the position of the next line break in `text`, or one before `from`
-- @field bytes of the file
local Window = {}
Window.__index = Window

--- Opens a file.
-- @tparam string path
-- @treturn Window
-- @raise a file that cannot be read
function pieces.open(path)
    local file, reason = io.open(path, "rb")
    if not file then error(reason, 0) end -- "path: why"
    local bytes = file:seek("end") or 0 -- 0: of a pipe
    file:seek("set")
    local window = { path = path, file = file, bytes = bytes, text = "", from = 1, line = 1, read = 0, newline = 0 }
    setmetatable(window, Window)
    while window:length() < 3 and window:more() do end
    if window.text:sub(1, 3) == "\239\187\191" then window:take(3) end -- a byte order mark
    return window
end

--- Closes the file.
function Window:close()
    if self.file then self.file:close() end
    self.file = nil
end

--- Reads on, what was dropped thrown away: positions in the text change, those relative to `from` do not. A long piece
-- is doubled, so that its bytes are copied a few times only.
-- @treturn boolean false at the file's end
function Window:more()
    local length = self:length()
    local chunk, reason = self.file:read(math.max(CHUNK_BYTES, math.min(length, PIECE_BYTES - length)))
    if reason then error(("%s: %s"):format(self.path, reason), 0) end
    if not chunk then return false end
    self.read = self.read + #chunk
    self.text, self.from, self.newline = self.text:sub(self.from) .. chunk, 1, 0
    return true
end

--- Bytes that are there and not dropped.
-- @treturn int
function Window:length()
    return #self.text - self.from + 1
end

--- Where the first byte that is not dropped stands in the file, from 0.
-- @treturn int
function Window:offset()
    return self.read - self:length()
end

--- The first `count` bytes, which are dropped.
-- @tparam int count
-- @treturn string
function Window:take(count)
    local first, last = self.from, self.from + count - 1
    while self.newline <= last do
        if self.newline >= first then self.line = self.line + 1 end
        self.newline = self.text:find("\n", math.max(self.newline + 1, first), true) or math.huge
    end
    self.from = last + 1
    return self.text:sub(first, last)
end

--- The first character; empty when nothing is there.
-- @treturn string
function Window:first()
    return self.text:sub(self.from, self.from)
end

--- Drops blanks.
-- @treturn boolean false at the file's end
function Window:skip_blanks()
    while true do
        local at = self.text:find("%S", self.from)
        self:take((at or #self.text + 1) - self.from)
        if at then return true end
        if not self:more() then return false end
    end
end

--- Drops blanks and the character behind them, if it is the expected one.
-- @tparam string character
-- @treturn boolean whether it was
function Window:accept(character)
    if not self:skip_blanks() or self:first() ~= character then return false end
    self:take(1)
    return true
end

--- The next line that is not blank.
-- @treturn ?string its text; nil at the file's end
-- @treturn int its number
-- @treturn ?string why it cannot be a piece
function Window:next_line()
    if not self:skip_blanks() then return nil end
    local line, scanned = self.line, 0
    while true do
        local at = self.text:find("\n", self.from + scanned, true)
        if at then return self:take(at - self.from + 1), line end
        scanned = self:length()
        if scanned > PIECE_BYTES then break end
        if not self:more() then return self:take(scanned), line end
    end
    repeat -- the rest of a line that is too long
        local at = self.text:find("\n", self.from, true)
        self:take(at and at - self.from + 1 or self:length())
    until at or not self:more()
    return "", line, ("a line of more than %d bytes"):format(PIECE_BYTES)
end

-- Goes on from `state` {at = bytes scanned, depth =, quoted =} to the end of the value or of the text; true when the
-- value ends at `at`.
local function scan(text, first, state)
    local bytes, last = ffi.cast("const uint8_t *", text), #text
    local at, depth, quoted = first - 1 + state.at, state.depth, state.quoted
    while at < last do
        local meaning = MEANING[bytes[at]]
        if quoted then
            if meaning == STRING then quoted = false elseif meaning == ESCAPE then at = at + 1 end
        elseif meaning >= OPEN then
            if meaning == OPEN then
                depth = depth + 1
            elseif depth == 0 then
                break
            else
                depth = depth - 1
            end
        elseif meaning ~= PLAIN then
            if meaning == STRING then quoted = true elseif meaning == SEPARATOR and depth == 0 then break end
        end
        at = at + 1
    end
    state.at, state.depth, state.quoted = at - (first - 1), depth, quoted
    return at < last
end

--- Bytes of the value that begins the window, up to the `,`, `]` or `}` behind it.
-- @treturn ?int nil when the file ends in it, or it is too long
function Window:value_length()
    local state = { at = 0, depth = 0, quoted = false }
    while not scan(self.text, self.from, state) do
        if self:length() > PIECE_BYTES or not self:more() then return nil end
    end
    return state.at
end

--- The value that begins the window, dropped, and a comma behind it.
-- @tparam string what it is called where it is too long, or the file ends in it
-- @treturn string its text; empty where there is a reason
-- @treturn int its line
-- @treturn ?string why it is no value; nothing can be read behind it
-- @treturn int where it begins in the file
function Window:next_value(what)
    local line, offset, length = self.line, self:offset(), self:value_length()
    if not length then
        return "", line, self:length() > PIECE_BYTES and ("a %s of more than %d bytes"):format(what, PIECE_BYTES)
            or ("the file ends within a %s"):format(what), offset
    end
    local text = self:take(length)
    if self:first() == "," then self:take(1) end
    return text, line, nil, offset
end

--- The next element of an array whose `[` has been dropped.
-- @treturn ?string its text; nil behind the array's `]`
-- @treturn int its line
-- @treturn ?string why it is no value; nothing can be read behind it
-- @treturn int where it begins in the file
function Window:next_element()
    if not self:skip_blanks() then
        return "", self.line, "the file ends within the list: ']' expected", self:offset()
    end
    if self:accept("]") then return nil end
    return self:next_value("record")
end

--- The next key of an object whose `{` has been dropped; then the window begins with its value.
-- @treturn ?string nil behind the object's `}`
-- @treturn int its line
-- @treturn ?string why it is no key; nothing can be read behind it
function Window:next_key()
    if self:accept("}") then return nil end
    while true do
        local key, behind = self.text:match('^%s*,?%s*"([^"\\]*)"%s*:%s*()', self.from)
        if key and behind <= #self.text then
            self:take(behind - self.from)
            return key, self.line
        end
        if self:length() > CHUNK_BYTES or not self:more() then return "", self.line, "a key or '}' expected" end
    end
end

return pieces
