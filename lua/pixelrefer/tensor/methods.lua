--- Methods of tensors that are composed of others, in Lua.
-- @module pixelrefer.tensor.methods

local core = require "pixelrefer.core"

local native = core.tensor
local Tensor = core.Tensor

-- ==== statistics =====================================================================================================

--- The variance, of all elements (a number) or along a dim.
-- @function Tensor:var
-- @tparam[opt] int dim
-- @tparam[opt=false] boolean keepdim
-- @tparam[opt=true] boolean unbiased divided by n - 1 rather than n
-- @treturn number|Tensor
function Tensor:var(dim, keepdim, unbiased)
    local flat = dim and self or self:reshape(-1)
    local along = dim or 1
    local count = flat:size(along)
    local centred = flat - flat:mean(along, true)
    local variance = centred:square_():sum(along, keepdim) / (unbiased == false and count or count - 1)
    return dim and variance or variance:item()
end

--- The standard deviation, as `var`.
-- @function Tensor:std
-- @tparam[opt] int dim
-- @tparam[opt=false] boolean keepdim
-- @tparam[opt=true] boolean unbiased
-- @treturn number|Tensor
function Tensor:std(dim, keepdim, unbiased)
    local variance = self:var(dim, keepdim, unbiased)
    return dim and variance:sqrt_() or math.sqrt(variance)
end

--- The p-norm, of all elements (a number) or along a dim; integers in float32.
-- @function Tensor:norm
-- @tparam[opt=2] number p at least 0; `math.huge` is the largest absolute value, 0 counts what is not zero
-- @tparam[opt] int dim
-- @tparam[opt=false] boolean keepdim
-- @treturn number|Tensor
function Tensor:norm(p, dim, keepdim)
    p = p or 2
    if type(p) ~= "number" or p ~= p or p < 0 then
        error(("norm: p must be a number of at least 0, got %s"):format(tostring(p)), 2)
    end
    local x = self:dtype():match "float" and self or self:float()
    if not dim then x, keepdim = x:reshape(-1), false end
    local along = dim or 1
    local result
    if p == math.huge then
        result = (x:abs():max(along, keepdim))
    elseif p == 0 then
        result = x:ne(0):sum(along, keepdim):to(x:dtype())
    elseif p == 1 then
        result = x:abs():sum(along, keepdim)
    elseif p == 2 then
        result = x:square():sum(along, keepdim):sqrt_()
    else
        result = x:abs():pow(p):sum(along, keepdim):pow_(1 / p)
    end
    return dim and result or result:item()
end

--- Values below `min` raised to it, values above `max` lowered to it.
-- @function Tensor:clamp
-- @tparam ?number|Tensor min
-- @tparam ?number|Tensor max
-- @treturn Tensor
function Tensor:clamp(min, max)
    local result = self
    if min ~= nil then result = result:cmax(min) end
    if max ~= nil then result = result:cmin(max) end
    return result == self and self:clone() or result
end

--- As `clamp`, in place.
-- @function Tensor:clamp_
-- @tparam ?number|Tensor min
-- @tparam ?number|Tensor max
-- @treturn Tensor self
function Tensor:clamp_(min, max)
    if min ~= nil then self:cmax_(min) end
    if max ~= nil then self:cmin_(max) end
    return self
end

-- ==== masks ==========================================================================================================

--- A mask as uint8 in the shape of x, which it must broadcast to.
local function mask_for(x, mask, name)
    if mask:dtype() ~= "uint8" then
        error(("%s: the mask must be uint8, got %s"):format(name, mask:dtype()), 3)
    end
    return mask:expandAs(x)
end

--- The elements where the mask is not zero, in row-major order; also `x[mask]`.
-- @function Tensor:maskedSelect
-- @tparam Tensor mask uint8, broadcast to x's shape
-- @treturn Tensor a vector
function Tensor:maskedSelect(mask)
    local places = mask_for(self, mask, "maskedSelect"):reshape(-1):nonzero()
    return self:reshape(-1):indexSelect(1, places:select(2, 1))
end

--- A copy with a number where the mask is not zero.
-- @function Tensor:maskedFill
-- @tparam Tensor mask uint8, broadcast to x's shape
-- @tparam number value
-- @treturn Tensor
function Tensor:maskedFill(mask, value)
    return self:clone():maskedFill_(mask, value)
end

--- As `maskedFill`, in place; also `x[mask] = value`.
-- @function Tensor:maskedFill_
-- @tparam Tensor mask uint8, broadcast to x's shape
-- @tparam number value must fit x's type
-- @treturn Tensor self
function Tensor:maskedFill_(mask, value)
    mask = mask_for(self, mask, "maskedFill_")
    local fill = native.empty({}, self:dtype(), self:device()):fill_(value)
    return self:copy_(native.where(mask, fill, self))
end

--- The elements where the mask is not zero, replaced in row-major order by those of `source`; also `x[mask] = source`.
-- @function Tensor:maskedCopy_
-- @tparam Tensor mask uint8, broadcast to x's shape
-- @tparam Tensor source as many elements as the mask has ones, or one
-- @treturn Tensor self
function Tensor:maskedCopy_(mask, source)
    mask = mask_for(self, mask, "maskedCopy_"):ne(0)
    local wanted, given = mask:sum(), source:nElement()
    if given ~= 1 and given ~= wanted then
        error(("maskedCopy_: the mask has %d ones, the source %d elements"):format(wanted, given), 2)
    end
    if wanted == 0 then return self end
    local values = source:to(self:dtype()):reshape(-1)
    local place = given == 1 and mask:long():mul_(0):add_(1) or mask:reshape(-1):cumsum(1):cmax_(1)
    local spread = values:indexSelect(1, place:reshape(-1)):view(self:size())
    return self:copy_(native.where(mask, spread, self))
end

-- ==== pieces =========================================================================================================

--- Pieces of `length` along a dim; the last may be shorter.
-- @function Tensor:split
-- @tparam int length
-- @tparam[opt=1] int dim
-- @treturn {Tensor,...} views
function Tensor:split(length, dim)
    dim = dim or 1
    if type(length) ~= "number" or length < 1 or length ~= math.floor(length) then
        error(("split: a positive integer expected as length, got %s"):format(tostring(length)), 2)
    end
    local pieces, size = {}, self:size(dim)
    for start = 1, size, length do
        pieces[#pieces + 1] = self:narrow(dim, start, math.min(length, size - start + 1))
    end
    return pieces
end

--- At most `count` pieces of equal length along a dim; the last may be shorter.
-- @function Tensor:chunk
-- @tparam int count
-- @tparam[opt=1] int dim
-- @treturn {Tensor,...} views
function Tensor:chunk(count, dim)
    if type(count) ~= "number" or count < 1 or count ~= math.floor(count) then
        error(("chunk: a positive integer expected as count, got %s"):format(tostring(count)), 2)
    end
    return self:split(math.max(1, math.ceil(self:size(dim or 1) / count)), dim)
end

--- The tensor repeated along each dim: `x:repeatTensor(2, 3)` is 2 times as high and 3 times as wide.
-- @function Tensor:repeatTensor
-- @param ... how often along each dim (at least as many as x has dims), or one table of them
-- @treturn Tensor
function Tensor:repeatTensor(...)
    local times = type(...) == "table" and ... or { ... }
    local missing = #times - self:dim()
    if missing < 0 then
        error(("repeatTensor: %d counts for a tensor of %d dims"):format(#times, self:dim()), 2)
    end
    local x = self
    for _ = 1, missing do x = x:unsqueeze(1) end
    for dim, count in ipairs(times) do
        local size = x:size()
        local width = size[dim]
        size[dim] = width * count
        local wider = native.empty(size, x:dtype(), x:device())
        for k = 0, count - 1 do wider:narrow(dim, k * width + 1, width):copy_(x) end
        x = wider
    end
    return x
end

return Tensor
