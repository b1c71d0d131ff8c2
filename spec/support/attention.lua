-- Attention in pieces: what a query sees must not depend on how many were computed with it.
local core = require "pixelrefer.core"
local tensor = require "pixelrefer.tensor"

local attention = {}

--- Causal attention chunk by chunk, as a prompt is read, over keys and values behind which nothing is a number.
-- @tparam Tensor q [n,heads,dim]
-- @tparam Tensor k [n,key heads,dim]
-- @tparam Tensor v the same
-- @tparam int chunk queries at a time
-- @tparam function check (first, count, found): what a chunk gave, from query `first` on
function attention.in_chunks(q, k, v, chunk, check)
    local n, kv_heads, dim = k:size(1), k:size(2), k:size(3)
    local function nothing()
        return tensor.full({ n + 70, kv_heads, dim }, 0 / 0, { device = k:device() }):to(k:dtype())
    end
    local keys, values = nothing(), nothing()
    for first = 1, n, chunk do
        local count = math.min(chunk, n - first + 1)
        keys:narrow(1, first, count):copy_(k:narrow(1, first, count))
        values:narrow(1, first, count):copy_(v:narrow(1, first, count))
        local segment = { query_count = count, key_count = first + count - 1 }
        check(first, count, core.attention(q:narrow(1, first, count), keys, values,
            { causal = true, segments = { segment } }))
    end
end

return attention
