/*** Methods that take indices, sample maps, and draw random numbers.
 *
 * Index tensors count from 1, as all indices in Lua; the core counts from 0, and the conversion is made here.
 * @module pixelrefer.core
 */
#include "lua/tensor.h"

#include "core/random.h"
#include "ops/device.h"

/* ---- indices ----------------------------------------------------------------------------------------------------- */

void pxr_lua_shift_indices(lua_State *L, const pxr_tensor *x, int64_t offset)
{
    pxr_error error = {0};
    pxr_tensor *by = pxr_lua_push_empty(L, pxr_tensor_device(x), PXR_I64, 0, NULL);
    pxr_status status = pxr_fill(&(pxr_fill_args){.out = by, .integer = offset}, &error);
    if (status == PXR_OK)
        status = pxr_binary(&(pxr_binary_args){.out = x, .a = x, .b = by, .kind = PXR_BINARY_ADD}, &error);
    pxr_lua_check(L, status, &error);
    lua_pop(L, 1);
}

/* Pushes the indices at stack index `index` as int64 counted from 0, on `device`. */
static const pxr_tensor *push_indices(lua_State *L, int index, pxr_device *device)
{
    const pxr_tensor *given = pxr_lua_check_tensor(L, index);
    if (pxr_dtype_is_float(given->dtype))
        pxr_lua_argument_error(L, index,
                               lua_pushfstring(L, "indices of an integer type expected, got %s",
                                               pxr_dtype_name(given->dtype)));
    const pxr_tensor *from_zero = pxr_lua_push_copy(L, given, PXR_I64);
    pxr_lua_shift_indices(L, from_zero, -1);
    return pxr_lua_bring(L, lua_gettop(L), device);
}

/*** Elements along a dim by index: `x:gather(1, index)[i][j]` is `x[index[i][j]][j]`, and so on for other dims.
 * @function Tensor:gather
 * @tparam int dim
 * @tparam Tensor index of an integer type, with the result's shape
 * @treturn Tensor
 */
static int gather(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = pxr_lua_check_dim(L, 2, x->rank);
    const pxr_tensor *index = push_indices(L, 3, pxr_tensor_device(x));
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(x), x->dtype, index->rank, index->size);
    const pxr_status status = pxr_gather(&(pxr_gather_args){.out = out, .x = x, .index = index, .dim = dim}, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

static const pxr_tensor *push_index_list(lua_State *L, int index, pxr_device *device)
{
    const pxr_tensor *indices = push_indices(L, index, device);
    if (indices->rank != 1)
        pxr_lua_argument_error(L, index,
                               lua_pushfstring(L, "a list of indices (one dim) expected, got %d dims", indices->rank));
    return indices;
}

/*** The slices of a dim that an index list names, in its order.
 * @function Tensor:indexSelect
 * @tparam int dim
 * @tparam Tensor index a vector of an integer type
 * @treturn Tensor
 */
static int index_select(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = pxr_lua_check_dim(L, 2, x->rank);
    const pxr_tensor *index = push_index_list(L, 3, pxr_tensor_device(x));
    pxr_tensor shape = *x;
    shape.size[dim] = index->size[0];
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(x), x->dtype, shape.rank, shape.size);
    const pxr_status status = pxr_index_select(&(pxr_index_select_args){.out = out, .x = x, .index = index, .dim = dim},
                                               &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Adds slice i of `source` to slice index[i] of a dim, in the order of i; an index may come several times.
 * @function Tensor:indexAdd_
 * @tparam int dim
 * @tparam Tensor index a vector of an integer type
 * @tparam Tensor source of x's type
 * @treturn Tensor self
 */
static int index_add(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int dim = pxr_lua_check_dim(L, 2, x->rank);
    const pxr_tensor *source = pxr_lua_check_tensor_of(L, 4, x->dtype);
    const pxr_tensor *index = push_index_list(L, 3, pxr_tensor_device(x));
    if (pxr_lua_overlap(x, source) || x->storage == source->storage)
        source = pxr_lua_push_copy(L, source, source->dtype);
    const pxr_status status =
        pxr_index_add(&(pxr_index_add_args){.out = x, .index = index, .source = source, .dim = dim}, &error);
    pxr_lua_check(L, status, &error);
    lua_settop(L, 1);
    return 1;
}

/*** The indices of the elements that are not zero, in row-major order: one row an element, one column a dim.
 * @function Tensor:nonzero
 * @treturn Tensor [n,dims] int64
 */
static int nonzero(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    int64_t count = 0;
    pxr_status status = pxr_nonzero(&(pxr_nonzero_args){.x = x, .count = &count}, &error);
    pxr_lua_check(L, status, &error);
    const int64_t size[2] = {count, x->rank};
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(x), PXR_I64, 2, size);
    status = pxr_nonzero(&(pxr_nonzero_args){.out = out, .x = x, .count = &count}, &error);
    pxr_lua_check(L, status, &error);
    pxr_lua_shift_indices(L, out, 1);
    return 1;
}

/* ---- maps -------------------------------------------------------------------------------------------------------- */

/* The map [h,w,C] at index 1 in float32. A map [h,w] has one channel. */
static const pxr_tensor *push_map(lua_State *L)
{
    pxr_error error = {0};
    char shape[PXR_SHAPE_TEXT];
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (x->rank != 2 && x->rank != 3)
        pxr_lua_argument_error(L, 1,
                               lua_pushfstring(L, "a map [h,w,C] or [h,w] expected, got %s",
                                               pxr_tensor_shape_text(x, shape)));
    x = pxr_lua_as_type(L, x, PXR_F32);
    if (x->rank == 3) return x;
    pxr_tensor *map = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_unsqueeze(map, x, 2, &error);
    pxr_lua_check(L, status, &error);
    return map;
}

/* Replaces the tensor on top by one without its last dim of one channel, when the map came without channels. */
static void drop_channel(lua_State *L, const pxr_tensor *out)
{
    pxr_error error = {0};
    if (((const pxr_tensor *)lua_touserdata(L, 1))->rank == 3) return;
    pxr_tensor *plain = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_squeeze(plain, out, out->rank - 1, &error);
    pxr_lua_check(L, status, &error);
}

/*** A map [h,w,C] (or [h,w]) resized as torch's bilinear `interpolate` without aligned corners does, in float32.
 * @function Tensor:resizeBilinear
 * @tparam int height
 * @tparam int width
 * @treturn Tensor [height,width,C] float32
 */
static int resize_bilinear(lua_State *L)
{
    pxr_error error = {0};
    const int64_t limit = INT64_C(1) << 31;
    const int64_t height = pxr_lua_check_integer(L, 2, 0, limit), width = pxr_lua_check_integer(L, 3, 0, limit);
    const pxr_tensor *map = push_map(L);
    const int64_t size[3] = {height, width, map->size[2]};
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(map), PXR_F32, 3, size);
    const pxr_status status = pxr_resize_bilinear(&(pxr_resize_bilinear_args){.out = out, .x = map}, &error);
    pxr_lua_check(L, status, &error);
    drop_channel(L, out);
    return 1;
}

/*** Bilinear samples of a map [h,w,C] (or [h,w]) at points (y, x) in units of cells: (0, 0) is the centre of the first cell.
 * @function Tensor:gridSample
 * @tparam Tensor points [n,2]
 * @tparam[opt="border"] string padding what lies outside: "border" repeats the edge, "zeros" is 0
 * @treturn Tensor [n,C] float32
 */
static int grid_sample(lua_State *L)
{
    static const char *const paddings[] = {"border", "zeros", NULL};
    pxr_error error = {0};
    char shape[PXR_SHAPE_TEXT];
    const bool zeros = luaL_checkoption(L, 3, "border", paddings) == 1;
    const pxr_tensor *points = pxr_lua_check_tensor(L, 2);
    if (points->rank != 2 || points->size[1] != 2)
        pxr_lua_argument_error(L, 2,
                               lua_pushfstring(L, "points [n,2] expected, got %s",
                                               pxr_tensor_shape_text(points, shape)));
    points = pxr_lua_as_type(L, points, PXR_F32);
    const pxr_tensor *map = push_map(L);
    const int64_t size[2] = {points->size[0], map->size[2]};
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(map), PXR_F32, 2, size);
    const pxr_status status =
        pxr_grid_sample(&(pxr_grid_sample_args){.out = out, .x = map, .points = points, .zeros = zeros}, &error);
    pxr_lua_check(L, status, &error);
    drop_channel(L, out);
    return 1;
}

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

/*** A tensor of random numbers; tensor.rand and tensor.randn read the options.
 * @function random
 * @tparam {int,...} sizes
 * @tparam int kind 0 for uniform, 1 for normal numbers
 * @tparam int seed
 * @tparam[opt="float32"] string dtype
 * @tparam[opt="cpu"] string device
 * @treturn Tensor
 */
static int random_tensor(lua_State *L)
{
    pxr_error error = {0};
    pxr_lua_shape shape;
    luaL_checktype(L, 1, LUA_TTABLE);
    pxr_lua_check_sizes(L, 1, 0, &shape);
    const pxr_random_kind kind = (pxr_random_kind)pxr_lua_check_integer(L, 2, 0, 1);
    const int64_t seed = pxr_lua_check_integer(L, 3, 0, INT64_C(1) << 53);
    const pxr_dtype dtype = pxr_lua_opt_dtype(L, 4, PXR_F32);
    pxr_device *device = pxr_lua_opt_device(L, 5);
    pxr_tensor *out = pxr_lua_push_empty(L, device, dtype, shape.rank, shape.size);
    const pxr_status status = pxr_random_fill(&(pxr_random_fill_args){.out = out, .seed = (uint64_t)seed, .kind = kind},
                                              &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** A generator of random numbers; see tensor.generator.
 * @function generator
 * @tparam int seed
 * @treturn Generator
 */
static int generator(lua_State *L)
{
    const int64_t seed = pxr_lua_check_integer(L, 1, 0, INT64_C(1) << 53);
    pxr_mt19937 *state = lua_newuserdata(L, sizeof *state);
    pxr_mt19937_seed(state, (uint64_t)seed);
    luaL_getmetatable(L, PXR_LUA_GENERATOR);
    lua_setmetatable(L, -2);
    return 1;
}

/*** A random permutation of 1 .. n, drawn as `torch.randperm` draws after `torch.manual_seed`.
 * @function Generator:randperm
 * @tparam int n
 * @treturn Tensor [n] int64
 */
static int randperm(lua_State *L)
{
    pxr_mt19937 *state = pxr_lua_check_object(L, 1, PXR_LUA_GENERATOR);
    const int64_t count = pxr_lua_check_integer(L, 2, 0, (INT64_C(1) << 32) - 1);
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_cpu_device(), PXR_I64, 1, &count);
    pxr_randperm(state, out->data, count);
    pxr_lua_shift_indices(L, out, 1);
    return 1;
}

/*** The next 32 random bits, as a number.
 * @function Generator:random
 * @treturn number 0 to 2^32 - 1
 */
static int random_word(lua_State *L)
{
    lua_pushnumber(L, (double)pxr_mt19937_next(pxr_lua_check_object(L, 1, PXR_LUA_GENERATOR)));
    return 1;
}

static int free_generator(lua_State *L)
{
    pxr_lua_check_object(L, 1, PXR_LUA_GENERATOR); /* its state is Lua's */
    return 0;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const luaL_Reg gather_methods[] = {
    {"gather", gather},   {"indexSelect", index_select},       {"indexAdd_", index_add},
    {"nonzero", nonzero}, {"resizeBilinear", resize_bilinear}, {"gridSample", grid_sample},
    {NULL, NULL},
};

static const luaL_Reg gather_functions[] = {{"random", random_tensor}, {"generator", generator}, {NULL, NULL}};

static const luaL_Reg generator_methods[] = {{"randperm", randperm}, {"random", random_word}, {NULL, NULL}};

void pxr_lua_open_tensor_gather(lua_State *L, int methods, int module)
{
    lua_pushvalue(L, methods);
    luaL_setfuncs(L, gather_methods, 0);
    lua_pushvalue(L, module);
    luaL_setfuncs(L, gather_functions, 0);
    pxr_lua_class(L, PXR_LUA_GENERATOR, generator_methods, free_generator);
    lua_pop(L, 3);
}
