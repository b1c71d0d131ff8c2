--- SAOT, the scale-adaptive object tokenizer of both frameworks, on the C objects: the default and the fast path.
--
-- An object tokenizer is three functions; a user's own may replace any of them:
--
--     prepare(image, mask, config) -> item { picture, mask_grid, box [, local_picture] }
--     pool(features, item, weights) -> Tensor [k,E] [, cells [n,E], assignment [n]: the token of each cell, from 1]
--     project(tokens, weights) -> Tensor [k,D]
--
-- Between the first and the second, `item.picture` goes through the vision encoder; `features` are [gh,gw,E]. `item`
-- then also has `image_size` {h, w}, the model's `config`, and `generator`, which serves all regions of a call.
-- @module pixelrefer.tokenizers.saot
local core = require "pixelrefer.core"

local saot = {}

--- Makes the three functions for a model.
-- @tparam string framework "vision_object" or "object_only"
-- @tparam table config the model's config: hidden sizes, mask_num
-- @tparam table weights name -> Tensor: `pos_linear.*`, `feat_linear.*`
-- @tparam string device
-- @treturn table {prepare =, pool =, project =}
function saot.new(framework, config, weights, device)
    local hidden = config.vision_encoder_config.hidden_size
    local pooling = core.object_tokenizer(framework, hidden, config.mask_num, weights, device)
    local projector = core.projector(hidden, config.hidden_size, 2, "feat_linear", weights, device)
    return {
        prepare = function(image, mask)
            local picture, mask_grid, box, local_picture = core.saot_prepare(framework, config.mask_num, image, mask)
            return { picture = picture, mask_grid = mask_grid, box = box, local_picture = local_picture }
        end,
        pool = function(features, item)
            local height, width = features:size(1), features:size(2)
            return pooling:pool(features:reshape(height * width, hidden), { height, width }, item.mask_grid, item.box,
                                item.image_size, item.generator)
        end,
        project = function(tokens)
            return projector:forward(tokens)
        end,
    }
end

return saot
