-- Videos: frame numbers by content, the reference's two ways of sampling, what is refused.
local ffi = require "ffi"

local core = require "pixelrefer.core"
local video = require "pixelrefer.video"
local json = require "pixelrefer.json"
local media = require "support.media"
local shared = require "support.shared"

local function sequence(first, last)
    local list = {}
    for i = first, last do list[#list + 1] = i end
    return list
end

local function message(f, ...)
    local ok, text = pcall(f, ...)
    assert.is_false(ok)
    return text
end

ffi.cdef "int raise(int signal);"

describe("VideoReader", function()
    local CLIPS = {
        { "bframes.mp4", 40 }, { "bframes.mkv", 40 }, { "clip.ts", 20 }, { "clip.webm", 20 }, { "altref.webm", 30 },
        { "clip.avi", 20 }, { "clip.gif", 30 }, { "variable.mp4", 12 }, { "late.mp4", 20 },
    }

    for _, clip in ipairs(CLIPS) do
        it("counts and reads the frames of " .. clip[1] .. " in presentation order", function()
            local reader = core.open_video(media.path(clip[1]))
            local info = reader:info()
            assert.equal(clip[2], info.frames)
            assert.same({ 64, 48, 0 }, { info.width, info.height, info.rotation })
            for number = 0, clip[2] - 1 do assert.equal(number, media.number(reader:read(number))) end
            reader:free()
        end)

        it("reads the same frames of " .. clip[1] .. " out of order", function()
            local reader = core.open_video(media.path(clip[1]))
            local last = clip[2] - 1
            for _, number in ipairs { last, 0, math.floor(last / 2), math.floor(last / 2), 3, last - 1, 2 } do
                local picture = reader:read(number)
                assert.equal(number, media.number(picture))
                assert.equal("bottom left", media.red_corner(picture))
            end
            reader:free()
        end)
    end

    it("gives the same picture whether it went there directly or not", function()
        local straight, jumping = core.open_video(media.path "bframes.mp4"), core.open_video(media.path "bframes.mp4")
        for number = 0, 39 do
            local picture = straight:read(number):bytes()
            if number % 13 == 5 or number > 36 then assert.equal(picture, jumping:read(number):bytes()) end
        end
    end)

    it("turns rotated clips upright", function()
        for angle, expected in pairs { [90] = 90, [180] = 180, [270] = 270 } do
            local reader = core.open_video(media.path(("rotated_%d.mp4"):format(angle)))
            local info, picture = reader:info(), reader:read(2)
            local lies = angle ~= 180
            assert.equal(expected, info.rotation)
            assert.same(lies and { 48, 64 } or { 64, 48 }, { info.width, info.height })
            assert.same({ info.height, info.width, 3 }, { picture:size(1), picture:size(2), picture:size(3) })
            local corners = { [90] = "top left", [180] = "top right", [270] = "bottom right" }
            assert.equal(corners[angle], media.red_corner(picture))
        end
    end)

    it("knows when frames are shown", function()
        local reader = core.open_video(media.path "variable.mp4")
        assert.near(0.5, reader:time(5), 1e-3)
        assert.near(1.2, reader:time(6), 1e-3)
        reader = core.open_video(media.path "late.mp4")
        assert.near(2, reader:time(0), 1e-3)
        reader = core.open_video(media.path "clip.ts")
        assert.near(0, reader:time(0), 1e-3)
    end)

    it("samples as FFmpeg's filter does", function()
        -- frames that `ffmpeg -filter_complex fps=...:round=down` put out over these clips
        local reader = core.open_video(media.path "clip.avi")
        local function shown(fps, start, finish)
            local list = {}
            for tick = 0, reader:ticks(fps, start, finish) - 1 do
                list[#list + 1] = reader:frameAt(tick, fps, start, finish)
            end
            return list
        end
        assert.same({ 1, 3, 6, 8, 11, 13, 16, 18 }, shown(4))
        assert.same({ 1, 3, 6, 8, 11, 13 }, shown(4, nil, 1.5))
        reader = core.open_video(media.path "short.mp4")
        assert.same({ 4 }, shown(1)) -- there none
        assert.same({ 0, 1, 2, 3, 4 }, shown())
        reader = core.open_video(media.path "variable.mp4")
        assert.same(12, reader:ticks())
    end)

    it("is bit for bit what the ffmpeg command gives", function()
        for _, case in ipairs {
            { "bframes.mp4", 3, "" }, { "bframes.mp4", 2.5, "-ss 0.31 -t 1.39 ", 0.31, 1.7 }, { "clip.webm", 7, "" },
            { "rotated_90.mp4", 5, "" }, { "variable.mp4", 2, "-ss 0.2 -t 3 ", 0.2, 3.2 }, { "clip.avi", 4, "" },
        } do
            local command = "ffmpeg -nostdin -v quiet %s-i %s -filter_complex '[0]fps=fps=%g:round=down[s0]' " ..
                "-map '[s0]' -f rawvideo -pix_fmt rgb24 pipe: 2>/dev/null"
            local pipe = assert(io.popen(command:format(case[3], media.path(case[1]), case[2])))
            local expected = pipe:read "*a"
            pipe:close()
            if #expected == 0 then return require("support.skip").because "the ffmpeg command is not there" end
            local reader, got = core.open_video(media.path(case[1])), {}
            for tick = 0, reader:ticks(case[2], case[4], case[5]) - 1 do
                got[#got + 1] = reader:read(reader:frameAt(tick, case[2], case[4], case[5])):bytes()
            end
            assert.is_true(expected == table.concat(got), case[1] .. " " .. case[3] .. case[2])
        end
    end)

    it("refuses frames that are not there", function()
        local reader = core.open_video(media.path "clip.gif")
        assert.matches("clip.gif: frame 30 is out of range: it has 30 frames, 0 to 29",
            message(reader.read, reader, 30), 1, true)
        assert.matches("frame %-1 is out of range", message(reader.read, reader, -1))
        reader:free()
        assert.matches("was closed", message(reader.read, reader, 0))
    end)

    it("says what is wrong with a file", function()
        local cases = {
            ["missing.mp4"] = "missing.mp4: No such file",
            ["sound.m4a"] = "holds no pictures",
            ["truncated.mp4"] = "truncated.mp4 is truncated: %d+ of its 40 frames",
            ["truncated.mkv"] = "truncated.mkv is truncated: %d+ bytes expected, %d+ found",
            ["playlist.m3u8"] = "'hls'%), which is not among the formats",
            ["playlist.ffconcat"] = "'concat'%), which is not among the formats",
            ["make_media.sh"] = "no picture or video format",
            ["frames"] = "is a directory",
        }
        for name, expected in pairs(cases) do assert.matches(expected, message(core.open_video, media.path(name))) end
        local file = assert(io.open(media.path "picture.ppm", "rb"))
        local path, pixels = os.tmpname(), file:read "*a":sub(15)
        file:close()
        file = assert(io.open(path, "wb"))
        file:write("P6\n100000 100000\n255\n", pixels)
        file:close()
        assert.matches("no picture that can be decoded .*100000x100000", message(core.open_video, path))
        os.remove(path)
        assert.matches("a path expected", message(core.open_video, media.path "clip.gif" .. "\0.mp4"))
        assert.matches("only files are read", message(core.open_video, "http://127.0.0.1/clip.mp4"))
        assert.matches("no regular file", message(core.open_video, "/dev/zero"))
        assert.matches("cannot open file:spec", message(core.open_video, "file:" .. media.path "clip.ts"))
    end)

    it("survives broken bytes", function()
        local file = assert(io.open(media.path "bframes.mp4", "rb"))
        local bytes = file:read "*a"
        file:close()
        local path = os.tmpname()
        for at = 1, #bytes, 97 do
            file = assert(io.open(path, "wb"))
            file:write(bytes:sub(1, at - 1), string.char((bytes:byte(at) + 128) % 256), bytes:sub(at + 1))
            file:close()
            local ok, reader = pcall(core.open_video, path)
            if ok then
                pcall(reader.read, reader, 20)
                reader:free()
            else
                assert.is_string(reader)
            end
        end
        os.remove(path)
    end)
end)

describe("video.ahead", function()
    local OPTIONS = { fps = 2, frame_ids = { 33, 1 } }

    --- The numbers of all pictures of a clip.
    local function numbers(clip)
        local found = media.numbers(clip.frames)
        for _, number in ipairs(OPTIONS.frame_ids) do
            found[#found + 1] = clip.masked_frames[number] and media.number(clip.masked_frames[number])
        end
        return found
    end

    it("gives the next load its frames, whatever else is asked for", function()
        local path = media.path "bframes.mp4"
        for _, given in ipairs { OPTIONS, { fps = 5 }, { fps = 0, max_frames = 7, frame_ids = { 1 } } } do
            local expected = numbers(video.load(path, given))
            video.ahead(path, OPTIONS)
            assert.same(expected, numbers(video.load(path, given)))
            assert.same(expected, numbers(video.load(path, given))) -- and again without
        end
    end)

    it("says nothing of what is wrong: load does", function()
        for _, name in ipairs { "truncated.mp4", "nothing.mp4", "direct.png", "sound.m4a" } do
            local expected = message(video.load, media.path(name))
            video.ahead(media.path(name))
            assert.equal(expected, message(video.load, media.path(name)))
        end
        local path = media.path "clip.ts"
        video.ahead(path, { frame_ids = { 99 } })
        assert.matches("frame 99 is out of range", message(video.load, path, { frame_ids = { 99 } }))
        video.ahead(path, { fsp = 1 })
        assert.matches("fsp", message(video.load, path, { fsp = 1 }))
        video.ahead(media.path "frames")
        assert.equal(#video.load(media.path "frames").frames, #video.load(media.path "frames").frames)
        assert.matches("video.ahead: a path expected", message(video.ahead, 3))
    end)

    it("has one clip at a time, and frees one that nobody asks for", function()
        collectgarbage()
        collectgarbage()
        local before = core.memory()
        video.ahead(media.path "bframes.mp4")
        video.ahead(media.path "clip.avi")
        video.load(media.path "bframes.mp4"):free()
        video.ahead(media.path "nothing.mp4")
        collectgarbage()
        collectgarbage()
        assert.equal(before, core.memory())
    end)

    it("reads each picture once, and what was not begun when it is asked for", function()
        local reader = core.open_video(media.path "bframes.mp4")
        reader:begin { 3, 5, 12 }
        assert.equal(40, reader:info().frames)
        for _, number in ipairs { 5, 3, 3, 12, 20, 0 } do assert.equal(number, media.number(reader:read(number))) end
        reader:begin {}
        reader:begin { 7 }
        assert.equal(8, media.number(reader:read(8)))
        assert.equal(7, media.number(reader:read(7)))
        reader:begin { 39, 40, 1 } -- there is no frame 40: what is behind it is not begun
        assert.equal(39, media.number(reader:read(39)))
        assert.matches("frame 40 is out of range", message(function() reader:read(40) end))
        assert.equal(1, media.number(reader:read(1)))
        assert.error_matches(function() reader:begin "3" end, "table expected")
        reader:begin { 1, 2, 3 }
        reader:free()
        assert.matches("was closed", message(function() reader:begin { 1 } end))
    end)

    it("leaves Ctrl-C to whoever waits", function()
        local reader = core.open_video(media.path "bframes.mp4")
        local all = sequence(0, 39)
        reader:begin(all)
        local ok, reason = pcall(core.interruptible, function()
            ffi.C.raise(2)
            for _, number in ipairs(all) do reader:read(number) end
        end)
        assert.is_false(ok)
        assert.matches("interrupted", tostring(reason))
        for _, number in ipairs { 0, 39 } do assert.equal(number, media.number(reader:read(number))) end
    end)
end)

describe("opening a video", function()
    for _, name in ipairs { "bframes.mp4", "clip.ts", "clip.webm", "clip.gif" } do
        it("is stopped by Ctrl-C, and is not taken for a damaged file: " .. name, function()
            local ok, reason = pcall(core.interruptible, function()
                ffi.C.raise(2)
                core.open_video(media.path(name))
            end)
            assert.is_false(ok)
            assert.equal("interrupted", reason)
            assert.is_false(core.interrupted())
            core.open_video(media.path(name)):free()
        end)
    end
end)

describe("video.load", function()
    it("samples by time", function()
        local clip = video.load(media.path "bframes.mp4", { fps = 2, start = 1, ["end"] = 3 })
        assert.equal(4, #clip.frames)
        assert.same({ 1, 1.5, 2, 2.5 }, clip.times)
        assert.same(clip.frame_numbers, media.numbers(clip.frames))
        assert.same({ 64, 48, 40, 10 }, { clip.width, clip.height, clip.frame_count, clip.fps })
    end)

    it("thins what is more than max_frames", function()
        local clip = video.load(media.path "bframes.mp4", { fps = 0, max_frames = 7 })
        assert.same({ 0, 6, 13, 19, 26, 32, 39 }, media.numbers(clip.frames))
        assert.near(4, clip.times[7], 1e-9)
        assert.near(6 * 4 / 39, clip.times[2], 1e-9)
        clip = video.load(media.path "bframes.mp4", { fps = 10, max_frames = 1 })
        assert.same({ 0 }, media.numbers(clip.frames))
        assert.equal(40, #video.load(media.path "bframes.mp4", { fps = 0 }).frames)
    end)

    it("gives a clip shorter than a tick one picture", function()
        assert.equal(1, #video.load(media.path "short.mp4").frames)
    end)

    it("samples by index", function()
        local clip = video.load(media.path "bframes.mp4", { way = "index", fps = 2 })
        assert.same({ 2, 7, 12, 17, 22, 27, 32, 37 }, media.numbers(clip.frames))
        assert.same({ 0.2, 0.7, 1.2, 1.7, 2.2, 2.7, 3.2, 3.7 }, clip.times)
        clip = video.load(media.path "bframes.mp4", { way = "index", fps = 100, start = 1, ["end"] = 2 })
        assert.same(sequence(9, 19), media.numbers(clip.frames))
        clip = video.load(media.path "bframes.mp4", { way = "index", fps = 0, max_frames = 4 })
        assert.same({ 0, 13, 26, 39 }, media.numbers(clip.frames))
    end)

    it("goes by index for brief ranges and GIFs", function()
        local clip = video.load(media.path "bframes.mp4", { fps = 10, start = 1, ["end"] = 1.5 })
        assert.same(sequence(9, 14), media.numbers(clip.frames))
        clip = video.load(media.path "clip.gif", { fps = 5 })
        assert.same({ 2, 7, 12, 17, 22, 27 }, media.numbers(clip.frames))
        assert.equal(25, clip.fps)
        assert.near(2 / 25, clip.times[1], 1e-12)
    end)

    it("keeps the frames that carry masks", function()
        local clip = video.load(media.path "bframes.mp4", { start = 2, frame_ids = { 33, 1 } })
        assert.equal(33, media.number(clip.masked_frames[33]))
        assert.equal(1, media.number(clip.masked_frames[1]))
        assert.same({ [33] = 3.3, [1] = 0.1 }, clip.masked_times)
        local picture, seconds = clip:frame(17) -- not asked for before
        assert.equal(17, media.number(picture))
        assert.equal(1.7, seconds)
        assert.matches("frame 40 is out of range: it has 40 frames", message(clip.frame, clip, 40), 1, true)
    end)

    it("loads only the frames named", function()
        local clip = video.load(media.path "bframes.mp4", { way = "ids", frame_ids = { 21, 4 } })
        assert.same({ 4, 21 }, media.numbers(clip.frames))
        assert.same({ 0.4, 2.1 }, clip.times)
    end)

    it("prints a directory of which no picture was taken", function()
        local clip = video.load(media.path "frames", { way = "ids" })
        assert.equal(("Video(%s, 0 of 9 frames)"):format(media.path "frames"), tostring(clip))
    end)

    it("reads a directory of pictures in name order", function()
        local clip = video.load(media.path "frames", { fps = 1, frame_ids = { 8 } })
        assert.same({ 1, 4, 7 }, media.numbers(clip.frames))
        assert.same({ 1 / 3, 4 / 3, 7 / 3 }, clip.times)
        assert.same({ 3, 9, 64, 48 }, { clip.fps, clip.frame_count, clip.width, clip.height })
        assert.equal(8, media.number(clip:frame(8)))
    end)

    it("tells how far it is", function()
        local seen = {}
        local function progress(done, total) seen[#seen + 1] = done .. "/" .. total end
        video.load(media.path "bframes.mp4", { progress = progress })
        assert.same({ "1/4", "2/4", "3/4", "4/4" }, seen)
    end)

    it("stops when it is interrupted, and leaves no file open", function()
        ffi.cdef "int raise(int);"
        local function open_files() return #core.list_directory "/proc/self/fd" end
        local before, calls = open_files(), 0
        local function progress()
            calls = calls + 1
            ffi.C.raise(2) -- what Ctrl-C sends
        end
        local text = message(video.load, media.path "bframes.mp4", { progress = progress })
        assert.matches("interrupted", text)
        assert.equal(1, calls)
        message(video.load, media.path "truncated.mp4")
        message(video.load, media.path "bframes.mp4", { frame_ids = { 99 } })
        assert.equal(before, open_files())
        assert.equal(4, #video.load(media.path "bframes.mp4").frames)
    end)

    it("refuses what makes no sense", function()
        local path = media.path "bframes.mp4"
        assert.matches("unknown option 'max_frame', did you mean 'max_frames'",
            message(video.load, path, { max_frame = 3 }))
        assert.matches("'way' must be one of 'time', 'index', 'ids'", message(video.load, path, { way = "both" }))
        assert.matches("'end' must lie behind 'start'", message(video.load, path, { start = 2, ["end"] = 2 }))
        assert.matches("no frame from 9 seconds on", message(video.load, path, { start = 9 }))
        assert.matches("no frame from 9 seconds on", message(video.load, path, { start = 9, way = "index" }))
        assert.matches("frame 40 is out of range: it has 40 frames, 0 to 39",
            message(video.load, path, { frame_ids = { 40 } }))
        assert.matches("frame 1.5 is out of range", message(video.load, path, { frame_ids = { 1.5 } }))
        assert.matches("is a picture", message(video.load, media.path "picture.bmp"))
        assert.matches("a path expected, got table", message(video.load, {}))
    end)
end)

describe("video.fromFrames", function()
    local pictures = {}
    setup(function()
        local reader = core.open_video(media.path "bframes.mp4")
        for i = 1, 3 do pictures[i] = reader:read(i) end
        reader:free()
    end)

    it("makes a video of tensors", function()
        local clip = video.fromFrames(pictures, { times = { 0.25, 1.25, 2.25 } })
        local picture, seconds = clip:frame(1)
        assert.same({ 2, 1.25 }, { media.number(picture), seconds })
        assert.same({ 64, 48, 3 }, { clip.width, clip.height, clip.frame_count })
        assert.matches("no picture for a mask on frame 3 %(it has 3 frames%)", message(clip.frame, clip, 3))
    end)

    it("takes masked frames apart from the sampled ones", function()
        local clip = video.fromFrames({ pictures[1] },
            { masked_frames = { [7] = pictures[3] }, masked_times = { [7] = 0.5 } })
        local picture, seconds = clip:frame(7)
        assert.same({ 3, 0.5 }, { media.number(picture), seconds })
        assert.matches("no picture for a mask on frame 0 %(it has 1 frames%)", message(clip.frame, clip, 0))
    end)

    it("refuses what is no picture", function()
        assert.matches("frame 1 is no uint8 tensor", message(video.fromFrames, { 5 }))
        assert.matches("2 times for 3 frames", message(video.fromFrames, pictures, { times = { 1, 2 } }))
        assert.matches("no frames", message(video.fromFrames, {}))
    end)
end)

describe("the reference's loaders", function()
    local function load_units()
        local file = assert(io.open(shared.path "golden/units/video.json"))
        local units = json.decode(file:read "*a")
        file:close()
        return units, core.read_safetensors(shared.path "golden/units/video.safetensors")
    end

    local function worst_difference(picture, thumb)
        local ours, theirs, worst = core.resize(picture, 18, 32, "opencv_area"):bytes(), thumb:contiguous():bytes(), 0
        assert.equal(#theirs, #ours)
        for i = 1, #ours do worst = math.max(worst, math.abs(ours:byte(i) - theirs:byte(i))) end
        return worst
    end

    it("agree over a real clip", function()
        local units, thumbs = load_units()
        local path = shared.path("data/media/" .. units.video)
        for i, call in ipairs(units.calls) do
            local args, name = call.args, ("%02d."):format(i - 1)
            local clip = video.load(path, {
                way = call.way, fps = args.fps or 0, start = args.start or args.s, ["end"] = args["end"] or args.e,
                max_frames = args.max_frames or 768, frame_ids = args.frame_ids,
            })
            assert.equal(call.frames, #clip.frames)
            assert.equal(units.frames, clip.frame_count)
            for k, seconds in ipairs(call.timestamps) do
                assert.near(seconds, clip.times[k], 1e-9)
                assert.is_true(worst_difference(clip.frames[k], thumbs[name .. "thumbs"]:select(1, k)) <= 3)
            end
            for k, number in ipairs(args.frame_ids or {}) do
                local thumb = thumbs[name .. "additional"]:select(1, k)
                assert.is_true(worst_difference(clip.masked_frames[number], thumb) <= 3)
            end
            clip:free()
        end
    end)
end)
