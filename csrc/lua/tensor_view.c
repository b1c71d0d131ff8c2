/*** Shapes and views of tensors. A view shares its tensor's storage: writing to one writes to the other.
 * @module pixelrefer.core
 */
#include "lua/tensor.h"

#include <math.h>

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

static int push_dims(lua_State *L, const int64_t *values, int rank)
{
    if (!lua_isnoneornil(L, 2)) {
        lua_pushnumber(L, (double)values[pxr_lua_check_dim(L, 2, rank)]);
        return 1;
    }
    lua_createtable(L, rank, 0);
    for (int dim = 0; dim < rank; dim++) {
        lua_pushnumber(L, (double)values[dim]);
        lua_rawseti(L, -2, dim + 1);
    }
    return 1;
}

/*** The sizes, or the size of one dim.
 * @function Tensor:size
 * @tparam[opt] int dim from 1, or from -1 backwards
 * @treturn {int,...}|int
 */
static int size(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    return push_dims(L, x->size, x->rank);
}

/*** The strides in elements, or the stride of one dim.
 * @function Tensor:stride
 * @tparam[opt] int dim
 * @treturn {int,...}|int
 */
static int stride(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    return push_dims(L, x->stride, x->rank);
}

/*** The number of dims, 0 to 6.
 * @function Tensor:dim
 * @treturn int
 */
static int dim_count(lua_State *L)
{
    lua_pushinteger(L, pxr_lua_check_tensor(L, 1)->rank);
    return 1;
}

/*** The number of elements.
 * @function Tensor:nElement
 * @treturn int
 */
static int element_count(lua_State *L)
{
    lua_pushnumber(L, (double)pxr_tensor_count(pxr_lua_check_tensor(L, 1)));
    return 1;
}

/*** True when the elements lie densely in row-major order.
 * @function Tensor:isContiguous
 * @treturn boolean
 */
static int is_contiguous(lua_State *L)
{
    lua_pushboolean(L, pxr_tensor_is_contiguous(pxr_lua_check_tensor(L, 1)));
    return 1;
}

/*** True when both have the same sizes.
 * @function Tensor:isSameSizeAs
 * @tparam Tensor other
 * @treturn boolean
 */
static int is_same_size(lua_State *L)
{
    lua_pushboolean(L, pxr_tensor_same_shape(pxr_lua_check_tensor(L, 1), pxr_lua_check_tensor(L, 2)));
    return 1;
}

/*** True when both are views of one storage.
 * @function Tensor:sharesStorage
 * @tparam Tensor other
 * @treturn boolean
 */
static int shares_storage(lua_State *L)
{
    lua_pushboolean(L, pxr_lua_check_tensor(L, 1)->storage == pxr_lua_check_tensor(L, 2)->storage);
    return 1;
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

/*** Elements `start` to `start + length - 1` of a dim.
 * @function Tensor:narrow
 * @tparam int dim
 * @tparam int start
 * @tparam int length
 * @treturn Tensor a view
 */
static int narrow(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = pxr_lua_check_dim(L, 2, x->rank);
    const int64_t length = pxr_lua_check_integer(L, 4, 0, x->size[dim]);
    /* Nothing may be taken from behind the last element, too. */
    const int64_t start = length == 0 ? pxr_lua_check_integer(L, 3, 1, x->size[dim] + 1) - 1
                                      : pxr_lua_check_position(L, 3, x->size[dim]);
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_narrow(out, x, dim, start, length, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Every `step`-th element of a dim, from `first` to `last` inclusive.
 * @function Tensor:slice
 * @tparam int dim
 * @tparam[opt=1] int first
 * @tparam[opt=-1] int last
 * @tparam[opt=1] int step
 * @treturn Tensor a view
 */
static int slice(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = pxr_lua_check_dim(L, 2, x->rank);
    const int64_t first = lua_isnoneornil(L, 3) ? 0 : pxr_lua_check_position(L, 3, x->size[dim]);
    const int64_t last = lua_isnoneornil(L, 4) ? x->size[dim] - 1 : pxr_lua_check_position(L, 4, x->size[dim]);
    const int64_t step = lua_isnoneornil(L, 5) ? 1 : pxr_lua_check_integer(L, 5, 1, INT64_C(1) << 53);
    const int64_t whole = x->size[dim] > 0 ? x->size[dim] : 1; /* a longer step takes no more than the first */
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_slice(out, x, dim, first, last < first ? first : last + 1,
                                               step < whole ? step : whole, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Element `index` of a dim, which vanishes.
 * @function Tensor:select
 * @tparam int dim
 * @tparam int index
 * @treturn Tensor a view
 */
static int select_index(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = pxr_lua_check_dim(L, 2, x->rank);
    const int64_t index = pxr_lua_check_position(L, 3, x->size[dim]);
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_select(out, x, dim, index, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/* ---- order of dims ----------------------------------------------------------------------------------------------- */

static int push_transposed(lua_State *L, const pxr_tensor *x, int a, int b)
{
    pxr_error error = {0};
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_transpose(out, x, a, b, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Two dims exchanged.
 * @function Tensor:transpose
 * @tparam int a
 * @tparam int b
 * @treturn Tensor a view
 */
static int transpose(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int a = pxr_lua_check_dim(L, 2, x->rank), b = pxr_lua_check_dim(L, 3, x->rank);
    return push_transposed(L, x, a, b);
}

/*** A matrix transposed.
 * @function Tensor:t
 * @treturn Tensor a view
 */
static int transpose_matrix(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (x->rank != 2) pxr_lua_argument_error(L, 1, lua_pushfstring(L, "a matrix expected, got %d dims", x->rank));
    return push_transposed(L, x, 0, 1);
}

/*** The dims in another order: `x:permute(3, 1, 2)` puts the third first.
 * @function Tensor:permute
 * @param ... all dims, each once; or one table of them
 * @treturn Tensor a view
 */
static int permute(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    pxr_lua_shape given;
    pxr_lua_check_sizes(L, 2, -PXR_MAX_RANK, &given);
    if (given.rank != x->rank)
        pxr_lua_argument_error(L, 2, lua_pushfstring(L, "%d dims expected, got %d", x->rank, given.rank));
    int order[PXR_MAX_RANK];
    for (int i = 0; i < x->rank; i++) {
        const int64_t dim = given.size[i] < 0 ? given.size[i] + x->rank : given.size[i] - 1;
        if (dim < 0 || dim >= x->rank)
            pxr_lua_argument_error(L, 2,
                                   lua_pushfstring(L, "dims from 1 to %d expected, got %d", x->rank,
                                                   (int)given.size[i]));
        order[i] = (int)dim;
    }
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_permute(out, x, order, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/* ---- other shapes ------------------------------------------------------------------------------------------------ */

/*** The elements in another shape; one size may be -1 and is inferred. Raises when the strides allow no such view.
 * @function Tensor:view
 * @param ... sizes, or one table of them
 * @treturn Tensor a view
 * @see Tensor:reshape
 */
static int view(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    pxr_lua_shape shape;
    pxr_lua_check_sizes(L, 2, -1, &shape);
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_view(out, x, shape.rank, shape.size, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** As `view`, but copies where the strides demand it.
 * @function Tensor:reshape
 * @param ... sizes, or one table of them; one may be -1
 * @treturn Tensor a view or a copy
 */
static int reshape(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    pxr_lua_shape shape;
    pxr_lua_check_sizes(L, 2, -1, &shape);
    pxr_tensor *out = pxr_lua_new_tensor(L);
    if (pxr_tensor_view(out, x, shape.rank, shape.size, NULL) == PXR_OK) return 1;
    const pxr_tensor *dense = pxr_tensor_is_contiguous(x) ? x : pxr_lua_push_copy(L, x, x->dtype);
    const pxr_status status = pxr_tensor_view(out, dense, shape.rank, shape.size, &error);
    pxr_lua_check(L, status, &error);
    lua_pushvalue(L, dense == x ? -1 : -2);
    return 1;
}

static int push_expanded(lua_State *L, const pxr_tensor *x, int rank, const int64_t *sizes)
{
    pxr_error error = {0};
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_expand(out, x, rank, sizes, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Dims of size 1 grown without a copy (their stride becomes 0); new dims may come in front; -1 keeps a size. The result
 * cannot be written to.
 * @function Tensor:expand
 * @param ... sizes, or one table of them
 * @treturn Tensor a view
 */
static int expand(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    pxr_lua_shape shape;
    pxr_lua_check_sizes(L, 2, -1, &shape);
    return push_expanded(L, x, shape.rank, shape.size);
}

/*** Expanded to the sizes of another tensor.
 * @function Tensor:expandAs
 * @tparam Tensor other
 * @treturn Tensor a view
 */
static int expand_as(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1), *other = pxr_lua_check_tensor(L, 2);
    return push_expanded(L, x, other->rank, other->size);
}

/*** A dim of size 1 put in front of dim `dim` (dim() + 1 or -1: behind the last).
 * @function Tensor:unsqueeze
 * @tparam int dim
 * @treturn Tensor a view
 */
static int unsqueeze(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = pxr_lua_check_dim(L, 2, x->rank + 1);
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_unsqueeze(out, x, dim, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Without dim `dim`, whose size must be 1; without all dims of size 1 when none is given.
 * @function Tensor:squeeze
 * @tparam[opt] int dim
 * @treturn Tensor a view
 */
static int squeeze(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = lua_isnoneornil(L, 2) ? -1 : pxr_lua_check_dim(L, 2, x->rank);
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_squeeze(out, x, dim, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Windows of `size` elements along a dim, `step` apart, as a new last dim: a dim of n elements becomes one of
 * floor((n - size) / step) + 1 windows. The windows may overlap, then the view is to be read only.
 * @function Tensor:unfold
 * @tparam int dim
 * @tparam int size
 * @tparam int step
 * @treturn Tensor a view
 */
static int unfold(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = pxr_lua_check_dim(L, 2, x->rank);
    const int64_t window = pxr_lua_check_integer(L, 3, 1, x->size[dim]);
    const int64_t step = pxr_lua_check_integer(L, 4, 1, INT64_C(1) << 53);
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_unfold(out, x, dim, window, step, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const luaL_Reg view_methods[] = {
    {"size", size},
    {"stride", stride},
    {"dim", dim_count},
    {"nElement", element_count},
    {"isContiguous", is_contiguous},
    {"isSameSizeAs", is_same_size},
    {"sharesStorage", shares_storage},
    {"narrow", narrow},
    {"slice", slice},
    {"select", select_index},
    {"transpose", transpose},
    {"t", transpose_matrix},
    {"permute", permute},
    {"view", view},
    {"reshape", reshape},
    {"expand", expand},
    {"expandAs", expand_as},
    {"unsqueeze", unsqueeze},
    {"squeeze", squeeze},
    {"unfold", unfold},
    {NULL, NULL},
};

void pxr_lua_open_tensor_view(lua_State *L, int methods)
{
    lua_pushvalue(L, methods);
    luaL_setfuncs(L, view_methods, 0);
    lua_pop(L, 1);
}
