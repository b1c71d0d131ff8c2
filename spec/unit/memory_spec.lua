-- Allocations that fail: always an error, never a crash, nothing left behind. Large ones.
local core = require "pixelrefer.core"
local seed = require "support.seed"
local failing = require "support.failing_allocations"
local ffi = require "ffi"
local pixelrefer = require "pixelrefer"
local skip = require "support.skip"

local MODELS = "spec/fixtures/golden/models/"
local SETTINGS = { max_new_tokens = 2 }

describe("failing allocations", function()
    after_each(function() core.memory_fail_at(0) end)

    local function shown(name, f, options)
        it(name, function() assert.is_true(failing.each(f, options) > 0) end)
    end

    shown("in tensors", function()
        local x = pixelrefer.tensor.ones(3, 4)
        x:add(x:transpose(1, 2):contiguous():view(3, 4)):sum(1):sort()
    end)

    shown("in masks", function()
        local canvas = pixelrefer.tensor.zeros(20, 30, { dtype = "uint8" })
        local mask = pixelrefer.mask.polygon(canvas, { { 2, 2, 20, 3, 11, 17 } })
        pixelrefer.mask.rle(pixelrefer.mask.toRle(mask))
    end)

    shown("in pictures", function()
        pixelrefer.image.decode(pixelrefer.image.encode(pixelrefer.tensor.zeros(20, 30, 3, { dtype = "uint8" })))
        pixelrefer.image.load("spec/fixtures/media/picture.bmp")
    end)

    shown("in videos", function() pixelrefer.video.load("spec/fixtures/media/clip.webm", { max_frames = 2 }):free() end)

    for _, name in ipairs { "refer", "lite_sharded_bin" } do
        shown("in the loader of " .. name, function() pixelrefer.load(MODELS .. name) end)

        it("in an answer of " .. name, function()
            local model = pixelrefer.load(MODELS .. name)
            local image = pixelrefer.tensor.full({ 64, 96, 3 }, 90, { dtype = "uint8" })
            local mask = pixelrefer.mask.box(image, 10, 10, 60, 50)
            local failed = failing.each(function()
                local scene = model:encode(image)
                scene:ask("What is <region>?", { mask }, SETTINGS)
                scene:free()
            end)
            assert.is_true(failed > 20)
        end)
    end

    it("in a conversation, which goes on as if nothing had been asked", function()
        local model = pixelrefer.load(MODELS .. "refer")
        local scene = model:encode(pixelrefer.tensor.full({ 64, 96, 3 }, 90, { dtype = "uint8" }))
        local function second_answer(failing_allocation)
            local session = scene:session()
            session:ask("Hello?", nil, SETTINGS)
            core.memory_fail_at(failing_allocation and core.memory_allocations() + failing_allocation or 0)
            local fine = pcall(session.score, session, "Again?", nil, { "yes it is" })
            core.memory_fail_at(0)
            return session:ask("Again?", nil, SETTINGS).ids, fine
        end
        local expected, failed = second_answer(), 0
        repeat
            failed = failed + 1
            local ids, fine = second_answer(failed)
            assert.same(expected, ids)
        until fine
        assert.is_true(failed > 10)
    end)

    it("in other libraries", function()
        local build = os.getenv("BUILD") or "build"
        if (os.getenv("LD_PRELOAD") or "") ~= "" or package.loaded["support.childless"] then
            return pending("a sanitizer has its own malloc")
        end
        local shim = build .. "/fail_malloc.so"
        assert.equal(0, os.execute(("cc -shared -fPIC -O1 -o %s spec/support/fail_malloc.c"):format(shim)))
        local pipe = io.popen(([[LUA_PATH="lua/?.lua;lua/?/init.lua;;" LUA_CPATH="%s/?.so;;" LD_PRELOAD="$PWD/%s" \
            luajit spec/support/fail_elsewhere.lua 200 %d 2>&1]]):format(build, shim, seed))
        local output = pipe:read("*a")
        pipe:close()
        assert.truthy(output:match("200 failed, %d+ raised"), output)
    end)
end)

describe("large blocks", function()
    --- What the system says of the mapping that an address lies in; nil where it says nothing.
    local function flags_at(address)
        local inside
        for line in io.lines("/proc/self/smaps") do
            local first, last = line:match("^(%x+)%-(%x+) ")
            if first then inside = tonumber(first, 16) <= address and address < tonumber(last, 16) end
            if inside and line:find("^VmFlags:") then return line end
        end
    end

    it("ask for huge pages", function()
        local x = pixelrefer.tensor.empty(16, 2 ^ 18) -- 16 MiB
        local flags = flags_at(tonumber(ffi.cast("uintptr_t", x:data())) + 2 ^ 23)
        if not flags or not io.open("/sys/kernel/mm/transparent_hugepage/enabled") then
            skip.because("this system does not say where it may use huge pages")
        end
        assert.matches(" hg", flags, 1, true)
        x:free()
    end)
end)
