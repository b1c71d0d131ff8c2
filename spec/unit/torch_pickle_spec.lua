-- PyTorch's state dicts: the zip around them, the pickle in them, and every lie in either is refused in words.
local bit = require "bit"

local core = require "pixelrefer.core"

local files = require "support.files"

local FIXTURES = "spec/fixtures/io/"
local little = files.little

describe("PyTorch's files", function()
    local directory

    before_each(function() directory = files.directory() end)
    after_each(function() files.remove(directory) end)

    local function temporary(name, content)
        return files.write(directory .. "/" .. name, content)
    end

    --- The message with which a file is refused.
    local function refusal(path)
        local ok, message = pcall(core.read_torch, path)
        assert.is_false(ok, path .. " was not refused")
        assert.is_truthy(message:find(path, 1, true), "no path in: " .. message)
        return message
    end

    local function refused(name)
        return refusal(FIXTURES .. name .. ".bin")
    end

    it("gives views: strides as saved, storages shared", function()
        local found = core.read_torch(FIXTURES .. "views.bin")
        assert.same({ 1, 6 }, found.transposed:stride())
        assert.same({ 0, 1 }, found.expanded:stride())
        assert.is_true(found.tied:sharesStorage(found.base))
    end)

    it("runs nothing: other globals are refused by name", function()
        assert.matches("the global os.system", refused("refused_call"))
        assert.matches("the global collections.Counter", refused("refused_object"))
    end)

    it("refuses other opcodes and protocols by name", function()
        assert.matches("the opcode EMPTY_LIST %(0x5d%) at byte 2", refused("refused_list"))
        assert.matches("protocol 4; only 2", refused("refused_protocol"))
        assert.matches("before version 1.6", refused("refused_old"))
    end)

    it("refuses what is not made of tensors", function()
        assert.matches('"epoch" is not a tensor', refused("refused_number"))
        assert.matches('"weight": the type torch.DoubleStorage', refused("refused_float64"))
        assert.matches("a tensor of 7 dims; at most 6", refused("refused_seven_dims"))
    end)

    it("refuses archives that are not as torch.save makes them", function()
        assert.matches('is compressed %(method 8%)', refused("refused_compressed"))
        assert.matches("has no data.pkl", refused("refused_no_pickle"))
        assert.matches('no storage "data/0"', refused("refused_no_storage"))
        assert.matches('storage "data/0" should hold 6 float32 elements, but has 4 bytes',
            refused("refused_short_storage"))
        assert.matches("not little%-endian", refused("refused_big_endian"))
    end)

    it("refuses a file cut anywhere", function()
        local content = files.read(FIXTURES .. "module.bin")
        for length = 1, #content - 1, 7 do
            local message = refusal(temporary("cut.bin", content:sub(1, length)))
            assert.is_truthy(message:find("zip: "), message)
        end
    end)

    it("survives any one byte changed", function()
        local content = files.read(FIXTURES .. "module.bin")
        for at = 1, #content, 3 do
            local changed = string.char(bit.bxor(content:byte(at), 0xff))
            local path = temporary("changed.bin", content:sub(1, at - 1) .. changed .. content:sub(at + 1))
            local ok, found = pcall(core.read_torch, path)
            if ok then
                for _, tensor in pairs(found) do tensor:totable() end
            else
                assert.is_truthy(found:find(path, 1, true), found)
            end
        end
    end)

    -- A zip archive made by hand, of stored entries {name, content}; the other fields of an entry are lies to tell.
    -- `change` gets body, directory and end record, and returns the whole.
    local function archive(entries, change)
        local body, listing = "", ""
        for _, entry in ipairs(entries) do
            local name, content, local_name = entry[1], entry[2], entry.local_name or entry[1]
            local flags, method = little(entry.flags or 0, 2), little(entry.method or 0, 2)
            local sizes = little(#content, 4) .. little(#content, 4)
            listing = listing .. "PK\1\2" .. little(20, 4) .. flags .. method .. little(0, 8) .. sizes
                .. little(#name, 2) .. little(0, 12) .. little(entry.at or #body, 4) .. name
            body = body .. "PK\3\4" .. little(20, 2) .. flags .. method .. little(0, 8)
                .. (entry.local_sizes or sizes) .. little(#local_name, 2) .. little(0, 2) .. local_name .. content
        end
        local tail = "PK\5\6" .. little(0, 4) .. little(#entries, 2) .. little(#entries, 2) .. little(#listing, 4)
            .. little(#body, 4) .. little(0, 2)
        return temporary("x.bin", change and change(body, listing, tail) or body .. listing .. tail)
    end

    local function refused_archive(entries, change)
        return refusal(archive(entries, change))
    end

    local EMPTY = "\128\2}." -- an empty dict

    it("reads an archive made by hand", function()
        assert.same({}, core.read_torch(archive { { "a/data.pkl", EMPTY } }))
    end)

    it("refuses zip entries that contradict themselves", function()
        assert.matches("another local header",
            refused_archive { { "a/data.pkl", EMPTY, local_name = "a/data.pkx" } })
        assert.matches("another local header",
            refused_archive { { "a/data.pkl", EMPTY, local_sizes = little(0, 8) } })
        assert.matches("is encrypted", refused_archive { { "a/data.pkl", EMPTY, flags = 1 } })
        assert.matches("is compressed %(method 12%)", refused_archive { { "a/data.pkl", EMPTY, method = 12 } })
        assert.matches("has no local header at byte 7", refused_archive { { "a/data.pkl", EMPTY, at = 7 } })
        assert.matches("has no local header at byte 4294967294",
            refused_archive { { "a/data.pkl", EMPTY, at = 2 ^ 32 - 2 } })
        assert.matches("impossible sizes", refused_archive { { "a/data.pkl", EMPTY, at = 2 ^ 32 - 1 } })
        assert.matches("is there twice", refused_archive { { "a/data.pkl", EMPTY }, { "a/data.pkl", EMPTY } })
        assert.matches("more than one data.pkl",
            refused_archive { { "a/data.pkl", EMPTY }, { "b/data.pkl", EMPTY } })
        assert.matches("has no data.pkl", refused_archive { { "data.pkl", EMPTY } })
    end)

    it("refuses zip directories that lie", function()
        local function lie(at, bytes) -- at a byte of the end record, from 0
            return refused_archive({ { "a/data.pkl", EMPTY } }, function(body, listing, tail)
                return body .. listing .. tail:sub(1, at) .. bytes .. tail:sub(at + 1 + #bytes)
            end)
        end
        assert.matches("entries in %d+ bytes at byte %d+ does not fit", lie(12, "\255\255"))
        assert.matches("entries in %d+ bytes at byte %d+ does not fit", lie(16, "\255\255"))
        assert.matches("entries in %d+ bytes at byte %d+ does not fit", lie(10, "\255\255"))
        assert.matches("in several parts", lie(4, "\1"))
        assert.matches("no end of a zip archive", lie(20, "\1"))
        assert.matches("does not begin a directory entry", refused_archive({ { "a/data.pkl", EMPTY } },
            function(body, listing, tail) return body .. listing:gsub("PK", "QK") .. tail end))
        assert.matches("zip64 end record at byte 9 is not there", refused_archive({ { "a/data.pkl", EMPTY } },
            function(body, listing, tail)
                return body .. listing .. "PK\6\7" .. little(0, 4) .. little(9, 8) .. little(1, 4) .. tail
            end))
    end)

    -- ---- the pickle machine --------------------------------------------------------------------------------

    local function text(string) return "X" .. little(#string, 4) .. string end
    local STORAGE = "(" .. text "storage" .. "ctorch\nFloatStorage\n" .. text "0" .. text "cpu" .. "K\4tQ"
    local REBUILD = "ctorch._utils\n_rebuild_tensor_v2\n"
    local HOOKS = "\137ccollections\nOrderedDict\n)R" -- requires_grad, backward_hooks

    local function read_pickle(code)
        return core.read_torch(archive { { "a/data.pkl", "\128\2" .. code }, { "a/data/0", ("\0"):rep(16) } })
    end

    local function refused_pickle(code)
        local ok, message = pcall(read_pickle, code)
        assert.is_false(ok)
        return message
    end

    local function tensor(offset, size, stride, storage)
        local arguments = (storage or STORAGE) .. offset .. size .. stride .. HOOKS
        return "}" .. text "w" .. REBUILD .. "(" .. arguments .. "tRs."
    end

    it("lays tensors over storages", function()
        assert.same({ 2, 2 }, read_pickle(tensor("K\0", "K\2K\2\134", "K\2K\1\134")).w:size())
        assert.same({ 3 }, read_pickle(tensor("K\1", "K\3\133", "K\1\133")).w:size())
        assert.same({}, read_pickle(tensor("K\3", ")", ")")).w:size())
        assert.same({ 0 }, read_pickle(tensor("K\4", "K\0\133", "K\1\133")).w:size())
        assert.same({ 2 }, read_pickle(tensor("\138\1\0", "\138\1\2\133", "\138\0\133")).w:size())
    end)

    it("refuses tensors that reach outside their storage", function()
        for _, code in ipairs {
            tensor("K\0", "K\5\133", "K\1\133"), tensor("K\1", "K\4\133", "K\1\133"),
            tensor("K\0", "K\2\133", "K\4\133"),
            tensor("K\0", "K\2K\3\134", "K\3K\1\134"), tensor("K\0", "J\255\255\255\255\133", "K\1\133"),
            tensor("K\0", "K\2\133", "J\255\255\255\255\133"), tensor("K\4", ")", ")"),
            tensor("K\0", "\138\8\0\0\0\0\0\0\0\127\138\8\0\0\0\0\0\0\0\127\134", "K\0K\0\134"),
            tensor("K\0", "K\2\133", "\138\8\255\255\255\255\255\255\255\127\133"),
        } do
            assert.matches('"w": .* does not lie within 16 bytes', refused_pickle(code))
        end
        assert.matches("begins at element 5 of a storage of 4", refused_pickle(tensor("K\5", ")", ")")))
        assert.matches("begins at element %-1 of", refused_pickle(tensor("J\255\255\255\255", ")", ")")))
        local minus = STORAGE:gsub("K\4tQ", "J\255\255\255\255tQ")
        assert.matches("should hold %-1 float32", refused_pickle(tensor("K\0", ")", ")", minus)))
        local large = STORAGE:gsub("K\4tQ", "\138\8\1\0\0\0\0\0\0\64tQ")
        assert.matches("should hold 4611686018427387905 float32", refused_pickle(tensor("K\0", ")", ")", large)))
    end)

    it("refuses calls with other arguments", function()
        assert.matches("other arguments than a tensor", refused_pickle(tensor("K\0", "K\1\133", ")")))
        assert.matches("other arguments than a tensor", refused_pickle(tensor("N", "K\1\133", "K\1\133")))
        assert.matches("not made of integers", refused_pickle(tensor("K\0", "N\133", "K\1\133")))
        assert.matches("other arguments than a tensor", refused_pickle(REBUILD .. ")R."))
        assert.matches("OrderedDict with arguments", refused_pickle("ccollections\nOrderedDict\nK\1\133R."))
        assert.matches("other arguments than a parameter", refused_pickle("ctorch._utils\n_rebuild_parameter\n)R."))
        assert.matches("a call of a storage type", refused_pickle("ctorch\nFloatStorage\n)R."))
        assert.matches("a call without a callable", refused_pickle("))R."))
        assert.matches("a persistent id that is no storage", refused_pickle("K\1Q."))
        assert.matches("a persistent id that is no storage", refused_pickle("(" .. text "module" .. "NNNNtQ."))
        assert.matches("attributes for something", refused_pickle(")}b."))
    end)

    it("refuses broken code", function()
        assert.matches("does not begin with a protocol",
            refusal(archive { { "a/data.pkl", "}." } }))
        assert.matches("ends without STOP", refused_pickle("}"))
        assert.matches("leaves more or less than one value", refused_pickle("."))
        assert.matches("leaves more or less than one value", refused_pickle("NN."))
        assert.matches("leaves more or less than one value", refused_pickle("(."))
        assert.matches("holds no state dict", refused_pickle("K\1."))
        assert.matches("within an opcode's argument", refused_pickle("J\1"))
        assert.matches("a string runs beyond", refused_pickle("X\255\255\255\255a"))
        assert.matches("a global's name does not end", refused_pickle("ctorch\nFloat"))
        assert.matches("more than 64 bits", refused_pickle("\138\009123456789."))
        assert.matches("too few values for a tuple", refused_pickle("(K\1\134."))
        assert.matches("a tuple without a mark", refused_pickle("t."))
        assert.matches("pairs without a mark", refused_pickle("}NNu."))
        assert.matches("a key without a value", refused_pickle("}(Nu."))
        assert.matches("pairs for something", refused_pickle("N(NNu."))
        assert.matches("too few values for a dict's pair", refused_pickle("}Ns."))
        assert.matches("a key of the state dict is not a string", refused_pickle("}NNs."))
        assert.matches("nothing was put at that memo", refused_pickle("h\7."))
        assert.matches("nothing was put at that memo", refused_pickle("}q\5h\4."))
        assert.matches("nothing to put into the memo", refused_pickle("q\1."))
        assert.matches("a memo index without measure", refused_pickle("}r\255\255\255\255."))
        assert.matches("the opcode unknown %(0xff%)", refused_pickle("\255."))
        assert.matches("the opcode INST", refused_pickle("(ios\nsystem\n."))
        assert.matches("the opcode STACK_GLOBAL", refused_pickle(text "os" .. text "system" .. "\147."))
    end)

    it("refuses a name twice, and one with a NUL", function()
        local one = REBUILD .. "(" .. STORAGE .. "K\0))" .. HOOKS .. "tR"
        assert.matches('"w" is there twice', refused_pickle("}(" .. text "w" .. one .. text "w" .. one .. "u."))
        assert.matches("NUL byte", refused_pickle("}" .. text "w\0" .. one .. "s."))
    end)

    it("takes a dict that holds itself", function()
        assert.matches('"w" is not a tensor', refused_pickle("}q\1" .. text "w" .. "h\1s."))
        assert.matches('"model" is not a tensor', refused_pickle("}q\1" .. text "model" .. "h\1s."))
    end)
end)
