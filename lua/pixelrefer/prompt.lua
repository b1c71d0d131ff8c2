--- The prompt's story: from what the user wrote to the text that the decoder reads.
--
--     "<image>\nWhat is <region>?"
--       regions      ->  "<image>\nWhat is [<REGION><REGION>]?"                      one <REGION> an object token
--       content      ->  { {type = "image"}, {type = "text", text = "What is [<REGION><REGION>]?"} }
--       render       ->  "<|im_start|>user\n<image>\nWhat is [<REGION><REGION>]?<|im_end|>\n<|im_start|>assistant\n"
--       spreadImages ->  "<|im_start|>user\n<image><image><image>...\nWhat is ..."   one <image> a visual token
--
-- Later the embeddings at `<image>` and `<REGION>` are replaced by visual and object tokens, in order. So a `<REGION>`
-- in the user's own text is refused, and an `<image>` that is not the place of a picture: they would take the tokens
-- meant for others. The rest passes as it does in the reference: `<|im_end|>` in a text is the token and ends the
-- message; who passes on texts of strangers should look for `<|`. `<region0>` and `<object1>` are plain text.
--
-- Everything here is a pure function over strings and tables.
-- @module pixelrefer.prompt

local options = require "pixelrefer.options"

local prompt = {}

--- What is asked about a region when nothing else is said.
prompt.DESCRIBE = "Describe <region> in detail."

local TAGS = { image = "<image>", video = "<video>" }
local REGION_TAG, REGION_TOKEN, IMAGE_TOKEN = "<region>", "<REGION>", "<image>"

local function fail(...)
    error(string.format(...), 0)
end

local function check(where, kind, value, name)
    if type(value) ~= kind then fail("%s: %s must be a %s, got %s", where, name, kind, type(value)) end
end

--- The pieces of a text between the occurrences of a tag, one more than there are tags.
local function split(text, tag)
    local pieces, at = {}, 1
    while true do
        local first, last = text:find(tag, at, true)
        pieces[#pieces + 1] = text:sub(at, first and first - 1)
        if not first then return pieces end
        at = last + 1
    end
end

-- What Python's str.strip removes: these bytes, and these characters beyond ASCII.
local BLANK_BYTES = "[\t-\r\28-\32]"
local WIDE_BLANKS = {
    ["\194\133"] = true, ["\194\160"] = true, ["\225\154\128"] = true, ["\226\128\168"] = true,
    ["\226\128\169"] = true, ["\226\128\175"] = true, ["\226\129\159"] = true, ["\227\128\128"] = true,
}
for byte = 128, 138 do WIDE_BLANKS["\226\128" .. string.char(byte)] = true end -- U+2000 to U+200A

--- Removes blanks at both ends.
local function strip(text)
    local first, last = 1, #text
    while first <= last do
        if text:find("^" .. BLANK_BYTES, first) then first = first + 1
        elseif WIDE_BLANKS[text:sub(first, first + 1)] then first = first + 2
        elseif WIDE_BLANKS[text:sub(first, first + 2)] then first = first + 3
        else break end
    end
    while last >= first do
        if text:find("^" .. BLANK_BYTES, last) then last = last - 1
        elseif WIDE_BLANKS[text:sub(last - 1, last)] then last = last - 2
        elseif WIDE_BLANKS[text:sub(last - 2, last)] then last = last - 3
        else break end
    end
    return text:sub(first, last)
end

--- A time as the prompt prints it: rounded to one decimal, as Python's `str(round(t, 1))`.
-- @tparam number seconds
-- @treturn string such as "0.0", "12.5"
function prompt.formatTime(seconds)
    if type(seconds) ~= "number" or seconds ~= seconds or math.abs(seconds) >= 1e12 then
        fail("a time in seconds expected, got %s", tostring(seconds))
    end
    -- Python rounds a tie to the even digit, LuaJIT away from zero. In binary the only ties are quarters, and they
    -- differ at .25 alone.
    local is_low_tie = math.abs(seconds) % 1 == 0.25
    return ("%.1f"):format(is_low_tie and seconds - (seconds < 0 and -0.05 or 0.05) or seconds)
end

-- ---- regions -----------------------------------------------------------------------------------------------------

local function region_tokens(count, what)
    if type(count) ~= "number" or count < 1 or count ~= math.floor(count) then
        fail("%s: a count of object tokens of at least 1 expected, got %s", what, tostring(count))
    end
    return REGION_TOKEN:rep(count)
end

--- One object in several frames: "Time 0.2:<REGION><REGION>,Time 1.2:<REGION><REGION>".
local function object_over_time(counts, times, what)
    if type(counts) ~= "table" or type(times) ~= "table" or #counts ~= #times or #counts == 0 then
        fail("%s: as many token counts as times expected, got %s and %s", what,
            type(counts) == "table" and #counts or type(counts), type(times) == "table" and #times or type(times))
    end
    local frames = {}
    for i, count in ipairs(counts) do
        frames[i] = ("Time %s:%s"):format(prompt.formatTime(times[i]), region_tokens(count, what))
    end
    return table.concat(frames, ",")
end

--- Puts object tokens in the places of the `<region>` tags, first tag first: `[<REGION><REGION>...]`.
-- @tparam string text what the user wrote
-- @tparam table counts for each region how many object tokens it has; with `times`, for each object a list of such
--   counts, one a frame
-- @tparam[opt] table given `times`: for each object a list of its frames' times in seconds (Lite on a video, where one
--   `<region>` stands for one object in several frames: `[Time 0.2:<REGION>...,Time 1.2:<REGION>...]`)
-- @treturn string
-- @raise more or fewer tags than regions, or a `<REGION>` that the text had of its own
function prompt.regions(text, counts, given)
    local times = options.check(given, { times = "table" }, "prompt.regions").times
    check("prompt.regions", "string", text, "the text")
    check("prompt.regions", "table", counts, "the counts")
    if text:find(REGION_TOKEN, 1, true) then
        fail("the prompt contains '%s', which stands for one object token and cannot be written by hand; "
            .. "a region's place is '%s'", REGION_TOKEN, REGION_TAG)
    end
    local pieces = split(text, REGION_TAG)
    if #pieces - 1 ~= #counts then
        fail("the prompt has %d '%s' tag%s, but %d region%s given", #pieces - 1, REGION_TAG,
            #pieces == 2 and "" or "s", #counts, #counts == 1 and " was" or "s were")
    end
    local parts = { pieces[1] }
    for i, count in ipairs(counts) do
        local what = ("region %d"):format(i)
        local tokens = times and object_over_time(count, times[i], what) or region_tokens(count, what)
        parts[#parts + 1] = "[" .. tokens .. "]" .. pieces[i + 1]
    end
    return table.concat(parts)
end

-- ---- parts of a message ------------------------------------------------------------------------------------------

--- The text without modal tags, its pieces stripped and joined: what PixelRefer-Lite's decoder reads, which sees no
-- picture. (The reference crashes on such a tag.)
-- @tparam string text
-- @treturn string
function prompt.withoutMedia(text)
    check("prompt.withoutMedia", "string", text, "the text")
    local again
    repeat -- taking a tag out may join its surroundings to a new one
        local pieces = {}
        for _, outer in ipairs(split(text, TAGS.image)) do
            for _, inner in ipairs(split(outer, TAGS.video)) do pieces[#pieces + 1] = strip(inner) end
        end
        text = table.concat(pieces)
        again = text:find(TAGS.image, 1, true) or text:find(TAGS.video, 1, true)
    until not again
    return text
end

local MEDIA = {
    kind = { "image", "video", "text", required = true },
    count = { type = "integer", min = 1, default = 1 },
    times = "table",
}

--- The parts of a user's message. The text is cut at the tag of its medium, `<image>` or `<video>`, and each piece
-- stripped of blanks; empty pieces vanish. Without a tag the pictures come first.
-- @tparam string text with `prompt.regions` done
-- @tparam table media `kind` ("image", "video", "text"); `count` of images, 1 unless said; `times` of a video's frames
--   in seconds
-- @treturn table list of `{type = "image"}`, `{type = "video", times =}`, `{type = "text", text =}`
-- @raise more or fewer tags than pictures; an `<image>` where there is no image
function prompt.content(text, media)
    media = options.check(media, MEDIA, "prompt.content")
    check("prompt.content", "string", text, "the text")
    local tag, count = TAGS[media.kind], media.kind == "image" and media.count or 1
    if media.kind == "video" and not media.times then fail("prompt.content: a video needs the times of its frames") end
    if media.kind ~= "image" and text:find(IMAGE_TOKEN, 1, true) then
        fail("the prompt contains '%s', but there is %s", IMAGE_TOKEN,
            media.kind == "video" and ("a video: its place is '%s'"):format(TAGS.video) or "no image")
    end
    if tag and not text:find(tag, 1, true) then text = tag:rep(count) .. text end
    local pieces, parts = tag and split(text, tag) or { text }, {}
    if tag and #pieces - 1 ~= count then
        fail("the prompt has %d '%s' tags, but %d %s%s given", #pieces - 1, tag, count, media.kind,
            count == 1 and " was" or "s were")
    end
    for i, piece in ipairs(pieces) do
        if i > 1 then parts[#parts + 1] = { type = media.kind, times = media.times } end
        piece = strip(piece)
        if piece ~= "" then parts[#parts + 1] = { type = "text", text = piece } end
    end
    return parts
end

-- ---- the chat ----------------------------------------------------------------------------------------------------

local function render_video(times)
    local frames = {}
    for i, seconds in ipairs(times or {}) do
        frames[i] = ("Time %ss:%s"):format(prompt.formatTime(seconds), IMAGE_TOKEN)
    end
    return table.concat(frames, ",") .. "\n"
end

local function render_part(part)
    if type(part) == "string" then return part end
    if type(part) ~= "table" then fail("a part of a message must be a string or a table, got %s", type(part)) end
    if part.type == "text" then return part.text end
    if part.type == "image" then return IMAGE_TOKEN .. "\n" end
    if part.type == "video" then return render_video(part.times) end
    fail("a part of a message must be of type 'text', 'image' or 'video', got '%s'", tostring(part.type))
end

--- The chat as the decoder reads it, up to where the assistant's answer begins. There is no system message unless one
-- is given.
-- @tparam table messages list of `{role = "user", content =}`; content is a string or a list of strings and parts as
--   `prompt.content` makes them
-- @treturn string with one `<image>` for each image or frame
function prompt.render(messages)
    local chat = {}
    check("prompt.render", "table", messages, "the list of messages")
    for i, message in ipairs(messages) do
        check("prompt.render", "table", message, ("message %d"):format(i))
        local parts, texts = message.content, {}
        if type(message.role) ~= "string" then fail("message %d has no role", i) end
        if type(parts) ~= "table" then parts = { parts } end
        for j, part in ipairs(parts) do texts[j] = render_part(part) end
        chat[i] = ("<|im_start|>%s\n%s<|im_end|>\n"):format(message.role, table.concat(texts))
    end
    return table.concat(chat) .. "<|im_start|>assistant\n"
end

--- Repeats each `<image>` once for each visual token of its image or frame.
-- @tparam string chat from `prompt.render`
-- @tparam table counts visual tokens of each image or frame, at least 1: compression leaves every frame one
-- @treturn string
-- @raise another number of `<image>` than of counts
function prompt.spreadImages(chat, counts)
    check("prompt.spreadImages", "string", chat, "the chat")
    check("prompt.spreadImages", "table", counts, "the counts")
    local pieces = split(chat, IMAGE_TOKEN)
    if #pieces - 1 ~= #counts then
        fail("the chat has %d '%s', but there are %d pictures", #pieces - 1, IMAGE_TOKEN, #counts)
    end
    local parts = { pieces[1] }
    for i, count in ipairs(counts) do
        if type(count) ~= "number" or count < 1 or count ~= math.floor(count) then
            fail("picture %d: a count of visual tokens of at least 1 expected, got %s", i, tostring(count))
        end
        parts[#parts + 1] = IMAGE_TOKEN:rep(count) .. pieces[i + 1]
    end
    return table.concat(parts)
end

return prompt
