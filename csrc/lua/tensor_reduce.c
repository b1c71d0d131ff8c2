/*** Methods that work along a dim: reductions, running sums, softmax, sorting; and products of matrices.
 *
 * Without a dim a reduction takes all elements and gives a Lua value. With a dim it gives a tensor without that dim, or
 * with size 1 there when `keepdim` is true.
 * @module pixelrefer.core
 */
#include "lua/tensor.h"

/* ---- reductions -------------------------------------------------------------------------------------------------- */

/* Pushes the reduction of x, with size 1 at `dim`. */
static pxr_tensor *push_reduced(lua_State *L, const pxr_tensor *x, int dim, pxr_reduce_kind kind)
{
    pxr_error error = {0};
    pxr_tensor shape = *x;
    shape.size[dim] = 1;
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(x), pxr_reduced_type(kind, x->dtype), shape.rank,
                                         shape.size);
    const pxr_status status = pxr_reduce(&(pxr_reduce_args){.out = out, .x = x, .dim = dim, .kind = kind}, &error);
    pxr_lua_check(L, status, &error);
    if (kind == PXR_REDUCE_ARGMAX || kind == PXR_REDUCE_ARGMIN) pxr_lua_shift_indices(L, out, 1);
    return out;
}

/* Replaces the tensor on top of the stack by a view of it without dim `dim`, unless keepdim. */
static void drop_dim(lua_State *L, const pxr_tensor *reduced, int dim, bool keepdim)
{
    pxr_error error = {0};
    if (keepdim) return;
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_squeeze(out, reduced, dim, &error);
    pxr_lua_check(L, status, &error);
    lua_remove(L, -2);
}

/* Pushes a vector of all elements of x. */
static const pxr_tensor *push_flat(lua_State *L, const pxr_tensor *x)
{
    pxr_error error = {0};
    const int64_t count = -1;
    pxr_tensor *flat = pxr_lua_new_tensor(L);
    if (pxr_tensor_count(x) > 0 && pxr_tensor_view(flat, x, 1, &count, NULL) == PXR_OK) return flat;
    const int64_t elements = pxr_tensor_count(x);
    const pxr_tensor *dense = pxr_lua_push_copy(L, x, x->dtype);
    const pxr_status status = pxr_tensor_view(flat, dense, 1, &elements, &error);
    pxr_lua_check(L, status, &error);
    return flat;
}

static int reduce_all(lua_State *L, const pxr_tensor *x, pxr_reduce_kind kind)
{
    pxr_tensor *out = push_reduced(L, push_flat(L, x), 0, kind);
    pxr_lua_push_element(L, out);
    if (kind == PXR_REDUCE_ANY || kind == PXR_REDUCE_ALL) lua_pushboolean(L, lua_tonumber(L, -1) != 0);
    pxr_tensor_release(out);
    return 1;
}

/*** The sum of all elements (a number), or the sums along a dim. Integers are summed in int64, float types in float32.
 * @function Tensor:sum
 * @tparam[opt] int dim
 * @tparam[opt=false] boolean keepdim
 * @treturn number|Tensor
 */
/*** The product, as `sum`.
 * @function Tensor:prod
 * @tparam[opt] int dim
 * @tparam[opt=false] boolean keepdim
 * @treturn number|Tensor
 */
/*** The mean, as `sum`; of integers in float32.
 * @function Tensor:mean
 * @tparam[opt] int dim
 * @tparam[opt=false] boolean keepdim
 * @treturn number|Tensor
 */
/*** The place of the largest element, the first one on ties: in the flattened tensor (a number), or along a dim (int64).
 * @function Tensor:argmax
 * @tparam[opt] int dim
 * @tparam[opt=false] boolean keepdim
 * @treturn number|Tensor counted from 1
 */
/*** The place of the smallest element, as `argmax`.
 * @function Tensor:argmin
 * @tparam[opt] int dim
 * @tparam[opt=false] boolean keepdim
 * @treturn number|Tensor counted from 1
 */
/*** True when an element is not zero; along a dim: 1 or 0, as uint8.
 * @function Tensor:any
 * @tparam[opt] int dim
 * @tparam[opt=false] boolean keepdim
 * @treturn boolean|Tensor
 */
/*** True when no element is zero; along a dim: 1 or 0, as uint8.
 * @function Tensor:all
 * @tparam[opt] int dim
 * @tparam[opt=false] boolean keepdim
 * @treturn boolean|Tensor
 */
static const pxr_lua_kind reductions[] = {
    {"sum", PXR_REDUCE_SUM},       {"prod", PXR_REDUCE_PROD},     {"mean", PXR_REDUCE_MEAN}, {"any", PXR_REDUCE_ANY},
    {"argmax", PXR_REDUCE_ARGMAX}, {"argmin", PXR_REDUCE_ARGMIN}, {"all", PXR_REDUCE_ALL},   {NULL, 0},
};

static int reduction(lua_State *L)
{
    const pxr_reduce_kind kind = (pxr_reduce_kind)lua_tointeger(L, lua_upvalueindex(1));
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    lua_settop(L, 3);
    const bool keepdim = lua_toboolean(L, 3);
    const int dim = lua_isnil(L, 2) ? -1 : pxr_lua_check_dim(L, 2, x->rank);
    if (kind == PXR_REDUCE_MEAN && !pxr_dtype_is_float(x->dtype)) x = pxr_lua_push_copy(L, x, PXR_F32);
    if (dim < 0) return reduce_all(L, x, kind);
    drop_dim(L, push_reduced(L, x, dim, kind), dim, keepdim);
    return 1;
}

/*** The largest element (a number), or along a dim: the largest elements and their places. A NaN is larger than all.
 * @function Tensor:max
 * @tparam[opt] int dim
 * @tparam[opt=false] boolean keepdim
 * @treturn number|Tensor
 * @treturn ?Tensor int64, counted from 1
 */
/*** The smallest element (a number), or along a dim: the smallest elements and their places. A NaN is smaller than all.
 * @function Tensor:min
 * @tparam[opt] int dim
 * @tparam[opt=false] boolean keepdim
 * @treturn number|Tensor
 * @treturn ?Tensor int64, counted from 1
 */
static const pxr_lua_kind extrema[] = {{"max", PXR_REDUCE_MAX}, {"min", PXR_REDUCE_MIN}, {NULL, 0}};

static int extremum(lua_State *L)
{
    const pxr_reduce_kind kind = (pxr_reduce_kind)lua_tointeger(L, lua_upvalueindex(1));
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    lua_settop(L, 3);
    const bool keepdim = lua_toboolean(L, 3);
    if (lua_isnil(L, 2)) return reduce_all(L, x, kind);
    const int dim = pxr_lua_check_dim(L, 2, x->rank);
    drop_dim(L, push_reduced(L, x, dim, kind), dim, keepdim);
    const pxr_reduce_kind place = kind == PXR_REDUCE_MAX ? PXR_REDUCE_ARGMAX : PXR_REDUCE_ARGMIN;
    drop_dim(L, push_reduced(L, x, dim, place), dim, keepdim);
    return 2;
}

/* ---- along a dim, same shape ------------------------------------------------------------------------------------- */

/*** Running sums along a dim; of integers in int64.
 * @function Tensor:cumsum
 * @tparam int dim
 * @treturn Tensor
 */
static int cumsum(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = pxr_lua_check_dim(L, 2, x->rank);
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(x), pxr_reduced_type(PXR_REDUCE_SUM, x->dtype), x->rank,
                                         x->size);
    const pxr_status status = pxr_cumsum(&(pxr_cumsum_args){.out = out, .x = x, .dim = dim}, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

static int push_softmax(lua_State *L, bool logarithm)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = pxr_lua_check_dim(L, 2, x->rank);
    if (!pxr_dtype_is_float(x->dtype)) x = pxr_lua_push_copy(L, x, PXR_F32);
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(x), x->dtype, x->rank, x->size);
    const pxr_status status = pxr_softmax(&(pxr_softmax_args){.out = out, .x = x, .dim = dim, .logarithm = logarithm},
                                          &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** exp(x) divided by its sum along a dim.
 * @function Tensor:softmax
 * @tparam int dim
 * @treturn Tensor
 */
static int softmax(lua_State *L)
{
    return push_softmax(L, false);
}

/*** The logarithm of `softmax`.
 * @function Tensor:logSoftmax
 * @tparam int dim
 * @treturn Tensor
 */
static int log_softmax(lua_State *L)
{
    return push_softmax(L, true);
}

/* ---- sorting ----------------------------------------------------------------------------------------------------- */

/* Pushes the first `wanted` elements of x sorted along dim, and their places. */
static int push_sorted(lua_State *L, const pxr_tensor *x, int dim, int64_t wanted, bool descending)
{
    pxr_error error = {0};
    pxr_tensor shape = *x;
    shape.size[dim] = wanted;
    pxr_device *device = pxr_tensor_device(x);
    pxr_tensor *out = pxr_lua_push_empty(L, device, x->dtype, shape.rank, shape.size);
    pxr_tensor *indices = pxr_lua_push_empty(L, device, PXR_I64, shape.rank, shape.size);
    const pxr_sort_args args = {.out = out, .indices = indices, .x = x, .dim = dim, .descending = descending};
    const pxr_status status = pxr_sort(&args, &error);
    pxr_lua_check(L, status, &error);
    pxr_lua_shift_indices(L, indices, 1);
    return 2;
}

/*** The elements sorted along a dim, and where each came from. Equal elements keep their order; NaN counts as largest.
 * @function Tensor:sort
 * @tparam[opt=-1] int dim
 * @tparam[opt=false] boolean descending
 * @treturn Tensor
 * @treturn Tensor int64, counted from 1
 */
static int sort(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (x->rank == 0) pxr_lua_argument_error(L, 1, "a tensor of at least one dim expected");
    const int dim = lua_isnoneornil(L, 2) ? x->rank - 1 : pxr_lua_check_dim(L, 2, x->rank);
    return push_sorted(L, x, dim, x->size[dim], lua_toboolean(L, 3));
}

/*** The k largest (or smallest) elements along a dim, best first, and where each came from.
 * @function Tensor:topk
 * @tparam int k
 * @tparam[opt=-1] int dim
 * @tparam[opt=true] boolean largest
 * @treturn Tensor
 * @treturn Tensor int64, counted from 1
 */
static int topk(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (x->rank == 0) pxr_lua_argument_error(L, 1, "a tensor of at least one dim expected");
    const int dim = lua_isnoneornil(L, 3) ? x->rank - 1 : pxr_lua_check_dim(L, 3, x->rank);
    const int64_t k = pxr_lua_check_integer(L, 2, 0, x->size[dim]);
    return push_sorted(L, x, dim, k, lua_isnoneornil(L, 4) || lua_toboolean(L, 4));
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* Pushes x as a matrix when it is a vector: a row before the product, a column behind it. */
static const pxr_tensor *as_matrix(lua_State *L, const pxr_tensor *x, int new_dim)
{
    pxr_error error = {0};
    if (x->rank != 1) return x;
    pxr_tensor *matrix = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_unsqueeze(matrix, x, new_dim, &error);
    pxr_lua_check(L, status, &error);
    return matrix;
}

/* The shape of the product of two tensors of at least two dims. */
static void product_shape(lua_State *L, const pxr_tensor *a, const pxr_tensor *b, pxr_lua_shape *shape)
{
    char a_text[PXR_SHAPE_TEXT], b_text[PXR_SHAPE_TEXT];
    shape->rank = a->rank > b->rank ? a->rank : b->rank;
    bool fits = a->size[a->rank - 1] == b->size[b->rank - 2];
    for (int dim = 0; dim < shape->rank - 2; dim++) {
        const int a_dim = dim - (shape->rank - a->rank), b_dim = dim - (shape->rank - b->rank);
        const int64_t a_size = a_dim < 0 ? 1 : a->size[a_dim], b_size = b_dim < 0 ? 1 : b->size[b_dim];
        fits = fits && (a_size == b_size || a_size == 1 || b_size == 1);
        shape->size[dim] = a_size == 1 ? b_size : a_size;
    }
    shape->size[shape->rank - 2] = a->size[a->rank - 2];
    shape->size[shape->rank - 1] = b->size[b->rank - 1];
    if (!fits)
        luaL_error(L, "tensors %s and %s cannot be multiplied as matrices", pxr_tensor_shape_text(a, a_text),
                   pxr_tensor_shape_text(b, b_text));
}

/*** The product of matrices: [...,n,K] by [...,K,m] gives [...,n,m], leading dims broadcast. A vector on the left is a row,
 * on the right a column, and its dim vanishes from the result; two vectors give a tensor of one element. Integers are
 * multiplied as float32.
 * @function Tensor:matmul
 * @tparam Tensor other
 * @treturn Tensor
 */
static int matmul(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *a = pxr_lua_check_tensor(L, 1), *b = pxr_lua_check_tensor(L, 2);
    const bool a_vector = a->rank == 1, b_vector = b->rank == 1;
    if (a->rank == 0 || b->rank == 0) pxr_lua_argument_error(L, a->rank == 0 ? 1 : 2, "at least one dim expected");
    const pxr_dtype dtype = a->dtype == b->dtype && pxr_dtype_is_float(a->dtype) ? a->dtype : PXR_F32;
    a = as_matrix(L, pxr_lua_as_type(L, a, dtype), 0);
    b = as_matrix(L, pxr_lua_as_type(L, b, dtype), 1);
    pxr_lua_shape shape;
    product_shape(L, a, b, &shape);
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(a), dtype, shape.rank, shape.size);
    const pxr_status status = pxr_matmul(&(pxr_matmul_args){.out = out, .a = a, .b = b}, &error);
    pxr_lua_check(L, status, &error);
    if (b_vector) drop_dim(L, out, shape.rank - 1, false);
    if (a_vector) drop_dim(L, lua_touserdata(L, -1), shape.rank - 2, false);
    return 1;
}

/*** Squared Euclidean distances between the rows of two matrices: out[i][j] is the sum of (a[i] - b[j])^2, in the fixed order
 * that the object tokenizers' k-means uses.
 * @function Tensor:pairwiseDistance
 * @tparam Tensor other [m,D] float32
 * @treturn Tensor [n,m] float32
 */
static int pairwise_distance(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *a = pxr_lua_check_tensor_of(L, 1, PXR_F32), *b = pxr_lua_check_tensor_of(L, 2, PXR_F32);
    if (a->rank != 2 || b->rank != 2 || a->size[1] != b->size[1]) {
        char a_text[PXR_SHAPE_TEXT], b_text[PXR_SHAPE_TEXT];
        return luaL_error(L, "two matrices with rows of one length expected, got %s and %s",
                          pxr_tensor_shape_text(a, a_text), pxr_tensor_shape_text(b, b_text));
    }
    const int64_t size[2] = {a->size[0], b->size[0]};
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(a), PXR_F32, 2, size);
    const pxr_status status = pxr_pairwise_distance(&(pxr_pairwise_distance_args){.out = out, .a = a, .b = b}, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const luaL_Reg reduce_methods[] = {
    {"cumsum", cumsum},
    {"softmax", softmax},
    {"logSoftmax", log_softmax},
    {"sort", sort},
    {"topk", topk},
    {"matmul", matmul},
    {"pairwiseDistance", pairwise_distance},
    {NULL, NULL},
};

void pxr_lua_open_tensor_reduce(lua_State *L, int methods)
{
    lua_pushvalue(L, methods);
    pxr_lua_set_kinds(L, reductions, reduction);
    pxr_lua_set_kinds(L, extrema, extremum);
    luaL_setfuncs(L, reduce_methods, 0);
    lua_pop(L, 1);
}
