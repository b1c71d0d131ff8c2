--- Object tokenizers, chosen and checked: the three steps of which a user may replace any.
--
--     local my = { pool = function(features, item, weights) return ... end }
--     local model = pixelrefer.load(directory, { tokenizer = my })        -- prepare and project are SAOT's
--
-- Every step's results are checked, so that a mistake is told where it was made and not three stages later.
-- docs/tokenizers.md says how to write one.
-- @module pixelrefer.object_tokenizer
local core = require "pixelrefer.core"
local interruption = require "pixelrefer.interruption"
local options = require "pixelrefer.options"
local saot = require "pixelrefer.tokenizers.saot"
local tensor = require "pixelrefer.tensor"

local object_tokenizer = {}

--- The names of the tokenizers that are shipped, below pixelrefer.tokenizers.
object_tokenizer.NAMES = { "saot", "saot_lua", "saot_fixed_scale", "mask_average", "farthest_point", "roi_align" }

local STEPS = { "prepare", "pool", "project" }
local LOCAL_SIDE = 224 -- pixels of the picture that Lite's OCI attends to first

-- ---- choosing --------------------------------------------------------------------------------------------------

local function read_file(path)
    local chunk, reason = loadfile(path)
    if not chunk then error("tokenizer: " .. reason, 0) end
    return chunk()
end

-- A name or path becomes what its file returns, with a name for messages.
local function open(given)
    if type(given) ~= "string" then return given, "(own)" end
    for _, name in ipairs(object_tokenizer.NAMES) do
        local module = "pixelrefer.tokenizers." .. name
        if name == given then return require(module), name end
    end
    if given:find("%.lua$") or given:find("/", 1, true) then
        return read_file(given), given:match("([^/]+)%.lua$") or given
    end
    return error(("tokenizer: no shipped one is named '%s'%s; a path ends in .lua"):format(given,
        options.hint(given, object_tokenizer.NAMES)), 0)
end

-- The tokenizer that the weights were trained with. A file that config.json might name is not run.
local function default_of(config)
    local trained = config.object_tokenizer or "saot"
    for _, name in ipairs(object_tokenizer.NAMES) do
        if name == trained then return name end
    end
    return error(("config.json: the weights were trained with the object tokenizer '%s', which is not shipped; "
        .. "give it as tokenizer"):format(trained), 0)
end

--- Whether a model's weights were trained with an object tokenizer (SAOT in C and in Lua are one).
-- @tparam table config of the model
-- @tparam string name of the object tokenizer
-- @treturn boolean
function object_tokenizer.isTrained(config, name)
    local trained = config.object_tokenizer or "saot"
    return (trained == "saot_lua" and "saot" or trained) == (name == "saot_lua" and "saot" or name)
end

local function check_table(found, name)
    if type(found) ~= "table" then
        error(("tokenizer %s: a table { prepare =, pool =, project = } expected, found %s"):format(name, type(found)),
              0)
    end
    local count = 0
    for key, value in pairs(found) do
        local known = key == "name"
        for _, step in ipairs(STEPS) do known = known or key == step end
        local meant = not known and type(key) == "string" and options.nearest(key, STEPS)
        if meant then
            error(("tokenizer %s: unknown step '%s', did you mean '%s'?"):format(name, key, meant), 0)
        elseif known and key ~= "name" then
            count = count + 1
            if type(value) ~= "function" then
                error(("tokenizer %s: %s must be a function, found %s"):format(name, key, type(value)), 0)
            end
        end
    end
    if count == 0 then error(("tokenizer %s: it has none of prepare, pool, project"):format(name), 0) end
end

-- ---- checking what steps return --------------------------------------------------------------------------------

local function describe(value)
    if not tensor.isTensor(value) then return type(value) end
    return ("%s [%s]"):format(value:dtype(), table.concat(value:size(), "x"))
end

-- A uint8 picture [h,w,3] with pixels.
local function is_picture(value)
    return tensor.isTensor(value) and value:dtype() == "uint8" and value:dim() == 3 and value:size(3) == 3
        and value:nElement() > 0
end

local function is_box(box)
    if type(box) ~= "table" then return false end
    for i = 1, 4 do
        if type(box[i]) ~= "number" or box[i] % 1 ~= 0 or box[i] < 0 then return false end
    end
    return true
end

local function check_item(where, item, framework)
    local function fail(field, expected)
        error(("%s: %s is %s, expected %s"):format(where, field, describe(item[field]), expected), 0)
    end
    if type(item) ~= "table" then error(("%s: %s returned, expected a table"):format(where, describe(item)), 0) end
    if not is_picture(item.picture) then fail("picture", "uint8 [h x w x 3]") end
    local grid = item.mask_grid
    if not tensor.isTensor(grid) or grid:dim() ~= 2 or grid:nElement() == 0 then
        fail("mask_grid", "a tensor [gh x gw]")
    end
    if not is_box(item.box) then fail("box", "{top, left, bottom, right}, pixels of the image") end
    item.picture, item.mask_grid = item.picture:contiguous(), grid:float():contiguous()
    if framework ~= "object_only" then return item end
    item.local_picture = item.local_picture or core.resize(item.picture, LOCAL_SIDE, LOCAL_SIDE, "opencv_area")
    if not is_picture(item.local_picture) then fail("local_picture", "uint8 [h x w x 3]") end
    item.local_picture = item.local_picture:contiguous()
    return item
end

local function check_rows(where, tokens, width, rows)
    local shape = ("a float32 tensor [%s x %d]"):format(rows or "k", width)
    if not tensor.isTensor(tokens) or tokens:dtype() ~= "float32" or tokens:dim() ~= 2 or tokens:size(2) ~= width
        or (rows and tokens:size(1) ~= rows) then
        error(("%s: %s returned, expected %s"):format(where, describe(tokens), shape), 0)
    end
    if tokens:size(1) == 0 then error(where .. ": no token returned, expected at least one row", 0) end
    return tokens:contiguous()
end

local function check_optional(where, what, value, dims)
    if value ~= nil and (not tensor.isTensor(value) or value:dim() ~= dims) then
        error(("%s: %s is %s, expected a tensor of %d dims or nil"):format(where, what, describe(value), dims), 0)
    end
    return value
end

-- A step's results; an error in somebody's own step also says which it was.
local function call(where, own, step, ...)
    if not own then return step(...) end
    local ok, first, second, third = pcall(step, ...)
    if ok then return first, second, third end
    local reason = tostring(first)
    error(interruption.is(reason) and reason or ("%s: %s"):format(where, reason), 0)
end

-- ---- the tokenizer of a model ----------------------------------------------------------------------------------

--- The object tokenizer of a model: the steps that are given, SAOT's for the others, their results checked.
-- @param given nil for the one that the weights were trained with (`config.object_tokenizer`, else SAOT); the name of a
--   shipped tokenizer; a path ending in .lua of a file that returns a tokenizer; a table of any of `prepare`, `pool`,
--   `project`; or a function that makes such a table, called with SAOT's own
-- @tparam table config of the model, with `framework`
-- @tparam table weights name -> Tensor: `pos_linear.*`, `feat_linear.*`
-- @tparam string device
-- @treturn table {name =, prepare =, pool =, project =, own = step -> the function that was given for it}
-- @raise a name or file that is not there, a table without any step or with one that is misspelled
function object_tokenizer.new(given, config, weights, device)
    local builtin = saot.new(config.framework, config, weights, device)
    local found, name = open(given or default_of(config))
    if found == saot then found = builtin end
    if type(found) == "function" then found = found(builtin) end
    if type(found) == "table" and type(found.name) == "string" then name = found.name end
    check_table(found, name)
    local where, steps = {}, {}
    for _, step in ipairs(STEPS) do
        where[step] = ("tokenizer %s: %s"):format(name, step)
        steps[step] = found ~= builtin and found[step] or nil
    end
    local function run(step, ...)
        return call(where[step], steps[step], steps[step] or builtin[step], ...)
    end
    -- What a step in Lua works on lies on the host, as the weights in `own` do, whatever device the model is on.
    local function run_at(step, x, ...) return run(step, steps[step] and x:to("cpu") or x, ...) end
    local hidden = config.vision_encoder_config.hidden_size
    return {
        name = name, own = steps,
        prepare = function(image, mask, settings)
            local prepared = run("prepare", image, mask, settings or config)
            local item = check_item(where.prepare, prepared, config.framework)
            item.config, item.image_size = settings or config, { image:size(1), image:size(2) }
            return item
        end,
        pool = function(features, item, own)
            local tokens, cells, assignment = run_at("pool", features, item, own or weights)
            return check_rows(where.pool, tokens, hidden), check_optional(where.pool, "cells", cells, 2),
                check_optional(where.pool, "assignment", assignment, 1)
        end,
        project = function(tokens, own)
            local projected = run_at("project", tokens, own or weights)
            return check_rows(where.project, projected, config.hidden_size, tokens:size(1))
        end,
    }
end

return object_tokenizer
