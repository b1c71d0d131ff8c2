--- From pictures to the encoder's input: the budget's resize, patches, cell grids (REFERENCE section 4).
--
-- Pictures that are encoded together share a budget of pixels: `mm_max_length` merged cells in all. An image and every
-- region crop have blocks of one cell, video frames blocks of `spatial_merge_size` cells a side.
-- @module pixelrefer.pictures
local core = require "pixelrefer.core"
local tensor = require "pixelrefer.tensor"

local pictures = {}

--- Resizes pictures to sides that are whole blocks, within the budget they share.
-- @tparam table list uint8 Tensors [h,w,3]
-- @tparam table config a model's config
-- @tparam int block cells of a block's side: 1, or `config.spatial_merge_size` for frames
-- @tparam[opt="picture"] string what what the list holds, for messages
-- @treturn table uint8 Tensors [H,W,3]
-- @raise a picture, by its number from 1, whose shape the budget or the encoder cannot take
function pictures.fit(list, config, block, what)
    local budget = core.budget_max_pixels(config.mm_max_length, config.spatial_merge_size, block, #list)
    local factor, fitted = config.vision_encoder_config.patch_size * block, {}
    for i, picture in ipairs(list) do
        local ok, height, width = pcall(core.smart_resize, picture:size(1), picture:size(2), factor, config.min_pixels,
                                        budget)
        local where = ("%s %d: "):format(what or "picture", i)
        if not ok then error(where .. height, 0) end
        if height == 0 or width == 0 then -- where the reference crashes, too
            error(("%s%d x %d pixels do not fit into its budget of %d with sides of whole %d: mm_max_length %d, %d %ss")
                :format(where, picture:size(1), picture:size(2), budget, factor, config.mm_max_length, #list,
                    what or "picture"), 0)
        end
        fitted[i] = core.resize(picture, height, width, "pillow_bicubic")
    end
    return fitted
end

--- Cuts fitted pictures into normalised patches, one picture behind the other.
-- @tparam table fitted uint8 Tensors [H,W,3]
-- @tparam table config a model's config
-- @tparam int block as for `fit`
-- @treturn Tensor patches: float32 [cells,588], block order
-- @treturn table grids: {height, width, block} in cells, one for each picture
function pictures.patches(fitted, config, block)
    local patch = config.vision_encoder_config.patch_size
    local parts, grids = {}, {}
    for i, picture in ipairs(fitted) do
        parts[i] = core.patches(picture, patch, block, config.image_mean, config.image_std)
        grids[i] = { picture:size(1) / patch, picture:size(2) / patch, block }
    end
    return #parts == 1 and parts[1] or tensor.cat(parts, 1), grids
end

--- Runs the vision encoder; layer by layer when somebody looks.
-- @tparam Model model
-- @tparam Tensor patches [cells,588]
-- @tparam table grids as `patches` gives them
-- @tparam[opt] function stage called with "<prefix>vision.layer<i>" and the value; what it returns is used
-- @tparam[opt=""] string prefix
-- @treturn Tensor [cells,E]
function pictures.features(model, patches, grids, stage, prefix)
    if not (stage and stage.watched) then return model.encoder:forward(patches, grids) end
    local x = model.encoder:embed(patches)
    for i = 1, model.config.vision_encoder_config.num_hidden_layers do
        x = stage(("%svision.layer%d"):format(prefix or "", i - 1), model.encoder:layers(x, grids, i, i))
    end
    return model.encoder:norm(x)
end

--- Encodes fitted pictures, each on its own: cut, run the vision encoder.
-- @tparam Model model
-- @tparam table fitted uint8 Tensors [H,W,3], as `fit` gives them for blocks of one cell
-- @tparam[opt] function stage as in `features`
-- @tparam[opt] string prefix
-- @treturn table for each picture {features = Tensor [cells,E], height =, width = (cells), picture = the fitted one}
function pictures.encodeFitted(model, fitted, stage, prefix)
    if #fitted == 0 then return {} end
    local patches, grids = pictures.patches(fitted, model.config, 1)
    local features = pictures.features(model, patches, grids, stage, prefix)
    local encoded, start = {}, 1
    for i, grid in ipairs(grids) do
        local cells = grid[1] * grid[2]
        encoded[i] = {
            features = features:narrow(1, start, cells),
            height = grid[1],
            width = grid[2],
            picture = fitted[i],
        }
        start = start + cells
    end
    features:free() -- the parts are views of their own
    return encoded
end

--- Fits pictures to the budget they share and encodes them.
-- @tparam Model model
-- @tparam table list uint8 Tensors [h,w,3]
-- @tparam[opt="picture"] string what what the list holds, for messages
-- @treturn table as `encodeFitted`
function pictures.encode(model, list, what)
    return pictures.encodeFitted(model, pictures.fit(list, model.config, 1, what))
end

return pictures
