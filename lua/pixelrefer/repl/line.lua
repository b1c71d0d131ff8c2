--- Lines typed at a terminal: edited by libedit, with history and completion, where it is installed; else as they come.
-- @module pixelrefer.repl.line
local core = require "pixelrefer.core"
local ffi = require "ffi"

ffi.cdef [[
int isatty(int fd);
typedef struct editline EditLine;
typedef struct history History;
typedef struct { int num; const char *str; } HistEvent;
typedef struct { const char *buffer, *cursor, *lastchar; } LineInfo;
typedef unsigned char (*pxr_el_function)(EditLine *, int);
typedef const char *(*pxr_el_prompt)(EditLine *);
EditLine *el_init(const char *program, void *in, void *out, void *err);
void el_end(EditLine *);
int el_set(EditLine *, int what, ...);
int el_source(EditLine *, const char *path);
const char *el_gets(EditLine *, int *count);
const LineInfo *el_line(EditLine *);
int el_insertstr(EditLine *, const char *text);
History *history_init(void);
void history_end(History *);
int history(History *, HistEvent *, int what, ...);
]]

-- histedit.h
local EL_PROMPT, EL_EDITOR, EL_BIND, EL_ADDFN, EL_HIST = 0, 2, 4, 9, 10
local H_SETSIZE, H_ENTER, H_LOAD, H_SAVE, H_SETUNIQUE = 1, 10, 17, 18, 20
local CC_REFRESH, CC_REDISPLAY, CC_REFRESH_BEEP = 4, 8, 9

local ENTRIES = 1000 -- of the history

local line = {}

--- True when a person types: standard input and output are a terminal.
-- @treturn boolean
function line.on_terminal()
    return ffi.C.isatty(0) == 1 and ffi.C.isatty(1) == 1
end

-- ---- completion -------------------------------------------------------------------------------------------------

--- The longest text with which all words begin.
-- @tparam {string,...} words
-- @treturn string
function line.common_prefix(words)
    local prefix = words[1] or ""
    for _, word in ipairs(words) do
        while word:sub(1, #prefix) ~= prefix do prefix = prefix:sub(1, -2) end
    end
    return prefix
end

--- Words in columns, read downwards.
-- @tparam {string,...} words
-- @tparam int width of a line
-- @treturn string lines, each with its end
function line.columns(words, width)
    local widest = 0
    for _, word in ipairs(words) do widest = math.max(widest, #word) end
    local count = math.max(1, math.floor(width / (widest + 2)))
    local rows = math.ceil(#words / count)
    local out = {}
    for row = 1, rows do
        local cells = {}
        for at = row, #words, rows do cells[#cells + 1] = words[at] .. (" "):rep(widest - #words[at]) end
        out[row] = table.concat(cells, "  "):gsub("%s+$", "") .. "\n"
    end
    return table.concat(out)
end

-- What Tab does: inserts what is certain; shows the choices when nothing is.
local function on_tab(editor, complete)
    local info = editor.library.el_line(editor.handle)
    local before = ffi.string(info.buffer, info.cursor - info.buffer)
    local start, words = complete(before)
    if #words == 0 then return CC_REFRESH_BEEP end
    local certain = line.common_prefix(words):sub(#before - start + 2)
    if certain ~= "" then
        editor.library.el_insertstr(editor.handle, certain)
        return CC_REFRESH
    end
    if #words == 1 then return CC_REFRESH end
    local tails = {}
    for i, word in ipairs(words) do tails[i] = word:match("[^.:/]+[:/]?$") or word end
    io.stdout:write("\n", line.columns(tails, tonumber(os.getenv("COLUMNS")) or 80))
    io.stdout:flush()
    return CC_REDISPLAY
end

-- ---- libedit ----------------------------------------------------------------------------------------------------

local Editor = {}
Editor.__index = Editor

local function integer(value) return ffi.cast("int", value) end

local function open_editor(library, settings)
    os.setlocale("C.UTF-8", "ctype")
    local editor = setmetatable({ library = library, event = ffi.new("HistEvent"), path = settings.history }, Editor)
    editor.handle = library.el_init("pixelrefer", io.stdin, io.stdout, io.stderr)
    if editor.handle == nil then return nil end
    editor.prompt = ffi.cast("pxr_el_prompt", function() return editor.prompt_text end)
    editor.tab = ffi.cast("pxr_el_function", function()
        local fine, answer = pcall(on_tab, editor, settings.complete)
        return fine and answer or CC_REFRESH_BEEP
    end)
    local set, handle = library.el_set, editor.handle
    set(handle, EL_PROMPT, editor.prompt)
    set(handle, EL_EDITOR, "emacs")
    editor.past = library.history_init()
    set(handle, EL_HIST, ffi.cast("void *", library.history), editor.past)
    library.history(editor.past, editor.event, H_SETSIZE, integer(ENTRIES))
    library.history(editor.past, editor.event, H_SETUNIQUE, integer(1))
    if editor.path then library.history(editor.past, editor.event, H_LOAD, editor.path) end
    set(handle, EL_ADDFN, "complete", "completes a name", editor.tab)
    set(handle, EL_BIND, "^I", "complete", nil)
    set(handle, EL_BIND, "^R", "em-inc-search-prev", nil)
    library.el_source(handle, nil)
    return editor
end

--- Reads a line.
-- @tparam string prompt
-- @treturn ?string the line; nil at the end, and at Ctrl-C with "interrupted" behind it
function Editor:read(prompt)
    self.prompt_text = ffi.new("char[?]", #prompt + 1, prompt)
    io.stdout:flush()
    local count = ffi.new("int[1]")
    core.interrupted() -- one that came too late to stop anything
    local text = self.library.el_gets(self.handle, count)
    if text ~= nil then return (ffi.string(text, count[0]):gsub("\n$", "")) end
    io.stdout:write("\n")
    return nil, core.interrupted() and "interrupted" or nil
end
jit.off(Editor.read) -- it is called back

--- Puts something into the history and its file.
-- @tparam string text
function Editor:remember(text)
    self.library.history(self.past, self.event, H_ENTER, text)
    if not self.path then return end
    local new = self.path .. ".new"
    if self.library.history(self.past, self.event, H_SAVE, new) >= 0 then os.rename(new, self.path) end
end

--- Lets go of the terminal.
function Editor:close()
    self.library.history_end(self.past)
    self.library.el_end(self.handle)
    self.prompt:free()
    self.tab:free()
end

-- ---- without it -------------------------------------------------------------------------------------------------

local Plain = {}
Plain.__index = Plain

--- As `Editor:read`.
-- @tparam string prompt
-- @treturn ?string
function Plain:read(prompt)
    if self.prompts then
        io.stdout:write(prompt)
        io.stdout:flush()
    end
    core.interrupted()
    local text = io.stdin:read("*l")
    if text then return text end
    if self.prompts then io.stdout:write("\n") end
    return nil, core.interrupted() and "interrupted" or nil
end

--- Does nothing: there is no history.
function Plain.remember() end

--- Does nothing.
function Plain.close() end

--- Opens standard input for reading line by line; to be used within `core.interruptible`.
-- @tparam table settings history: the file (none: nothing is kept); complete(line up to the cursor) -> where the word
--   begins, what it can be
-- @treturn Editor
function line.open(settings)
    local terminal = line.on_terminal()
    local found, library = false, nil
    if terminal then found, library = pcall(ffi.load, "libedit.so.2") end
    return found and open_editor(library, settings) or setmetatable({ prompts = terminal }, Plain)
end

return line
