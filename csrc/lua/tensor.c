/*** The class Tensor: lifetime, creation, copies and conversions, and what the other tensor*.c files share.
 *
 * C gives every method that computes; lua/pixelrefer/tensor.lua adds what is composed of others, the creation functions
 * with options, and printing. The module table receives `tensor` (functions) and `Tensor` (the table of methods).
 * @module pixelrefer.core
 */
#include "lua/tensor.h"

#include "ops/device.h"

#include <math.h>

/* ---- arguments --------------------------------------------------------------------------------------------------- */

int pxr_lua_check_dim(lua_State *L, int index, int rank)
{
    const double number = pxr_lua_check_number(L, index);
    const double dim = number < 0 ? number + rank + 1 : number;
    if (!(dim >= 1 && dim <= rank) || dim != floor(dim))
        pxr_lua_argument_error(L, index, lua_pushfstring(L, "a dim from 1 to %d expected, got %f", rank, number));
    return (int)dim - 1;
}

int64_t pxr_lua_check_position(lua_State *L, int index, int64_t size)
{
    const double number = pxr_lua_check_number(L, index);
    const double position = number < 0 ? number + (double)size + 1 : number;
    if (!(position >= 1 && position <= (double)size) || position != floor(position))
        pxr_lua_argument_error(L, index,
                               lua_pushfstring(L, "an index from 1 to %f expected, got %f", (double)size, number));
    return (int64_t)position - 1;
}

void pxr_lua_check_sizes(lua_State *L, int first, int64_t min, pxr_lua_shape *shape)
{
    const double limit = 9007199254740992.0; /* 2^53 */
    const bool table = lua_istable(L, first);
    const int count = table ? (int)lua_objlen(L, first) : lua_gettop(L) - first + 1;
    if (count > PXR_MAX_RANK)
        pxr_lua_argument_error(L, first,
                               lua_pushfstring(L, "at most %d sizes expected, got %d", (int)PXR_MAX_RANK, count));
    shape->rank = count < 0 ? 0 : count;
    for (int i = 0; i < shape->rank; i++) {
        if (table) lua_rawgeti(L, first, i + 1);
        const int at = table ? lua_gettop(L) : first + i;
        const double size = lua_type(L, at) == LUA_TNUMBER ? lua_tonumber(L, at) : NAN;
        if (!(size >= (double)min && size <= limit) || size != floor(size))
            pxr_lua_argument_error(L, table ? first : at,
                                   lua_pushfstring(L, "size %d must be an integer of at least %d, got %s", i + 1,
                                                   (int)min,
                                                   lua_type(L, at) == LUA_TNUMBER ? lua_tostring(L, at)
                                                                                  : luaL_typename(L, at)));
        shape->size[i] = (int64_t)size;
        if (table) lua_pop(L, 1);
    }
}

bool pxr_lua_fits(pxr_dtype dtype, double number)
{
    switch (dtype) {
    case PXR_I64:
        return number == floor(number) && number >= -0x1p63 && number < 0x1p63;
    case PXR_I32:
        return number == floor(number) && number >= INT32_MIN && number <= INT32_MAX;
    case PXR_I8:
        return number == floor(number) && number >= INT8_MIN && number <= INT8_MAX;
    case PXR_U8:
        return number == floor(number) && number >= 0 && number <= UINT8_MAX;
    default:
        return true;
    }
}

void pxr_lua_set_kinds(lua_State *L, const pxr_lua_kind *kinds, lua_CFunction function)
{
    for (; kinds->name; kinds++) {
        lua_pushinteger(L, kinds->kind);
        lua_pushcclosure(L, function, 1);
        lua_setfield(L, -2, kinds->name);
    }
}

/* ---- making and copying ------------------------------------------------------------------------------------------ */

pxr_tensor *pxr_lua_push_empty(lua_State *L, pxr_device *device, pxr_dtype dtype, int rank, const int64_t *size)
{
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    pxr_tensor *tensor = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_new(tensor, device, dtype, rank, size, &error);
    pxr_lua_check(L, status, &error);
    return tensor;
}

pxr_tensor *pxr_lua_push_copy(lua_State *L, const pxr_tensor *x, pxr_dtype dtype)
{
    pxr_error error = {0};
    pxr_tensor *copy = pxr_lua_push_empty(L, pxr_tensor_device(x), dtype, x->rank, x->size);
    const pxr_status status = pxr_copy(&(pxr_copy_args){.out = copy, .x = x}, &error);
    pxr_lua_check(L, status, &error);
    return copy;
}

const pxr_tensor *pxr_lua_as_type(lua_State *L, const pxr_tensor *x, pxr_dtype dtype)
{
    return x->dtype == dtype ? x : pxr_lua_push_copy(L, x, dtype);
}

/* Pushes x's elements on `device`, in x's type, dense. */
static pxr_tensor *push_on_device(lua_State *L, const pxr_tensor *x, pxr_device *device)
{
    pxr_error error = {0};
    const bool same = pxr_tensor_device(x) == device;
    if (!pxr_tensor_is_contiguous(x)) x = pxr_lua_push_copy(L, x, x->dtype);
    pxr_tensor *moved = same ? pxr_lua_new_tensor(L) : pxr_lua_push_empty(L, device, x->dtype, x->rank, x->size);
    if (same) {
        pxr_tensor_alias(moved, x);
        return moved;
    }
    const pxr_status status = pxr_copy(&(pxr_copy_args){.out = moved, .x = x}, &error);
    pxr_lua_check(L, status, &error);
    return moved;
}

pxr_tensor *pxr_lua_push_host(lua_State *L, const pxr_tensor *x)
{
    const bool is_host = pxr_tensor_device(x)->is_host;
    return push_on_device(L, x, is_host ? pxr_tensor_device(x) : pxr_cpu_device());
}

pxr_tensor *pxr_lua_bring(lua_State *L, int index, pxr_device *device)
{
    pxr_tensor *x = pxr_lua_check_tensor(L, index);
    if (pxr_tensor_device(x) == device) return x;
    const int top = lua_gettop(L);
    pxr_tensor *moved = push_on_device(L, x, device);
    lua_replace(L, index);
    lua_settop(L, top);
    return moved;
}

bool pxr_lua_overlap(const pxr_tensor *a, const pxr_tensor *b)
{
    if (a->storage != b->storage) return false;
    bool same = a->data == b->data && a->dtype == b->dtype && pxr_tensor_same_shape(a, b);
    for (int dim = 0; same && dim < a->rank; dim++) same = a->stride[dim] == b->stride[dim];
    return !same;
}

void pxr_lua_copy(lua_State *L, const pxr_tensor *out, const pxr_tensor *x)
{
    pxr_error error = {0};
    const int top = lua_gettop(L);
    if (pxr_lua_overlap(out, x)) x = pxr_lua_push_copy(L, x, x->dtype);
    if (pxr_tensor_device(x) != pxr_tensor_device(out)) {
        x = pxr_lua_as_type(L, x, out->dtype);
        x = push_on_device(L, x, pxr_tensor_device(out));
        if (!pxr_tensor_is_contiguous(out) || !pxr_tensor_same_shape(out, x)) x = pxr_lua_push_copy(L, x, x->dtype);
    }
    const pxr_status status = pxr_copy(&(pxr_copy_args){.out = out, .x = x}, &error);
    pxr_lua_check(L, status, &error);
    lua_settop(L, top);
}

void pxr_lua_fill(lua_State *L, const pxr_tensor *out, int index)
{
    pxr_error error = {0};
    const double number = pxr_lua_check_number(L, index);
    if (!pxr_lua_fits(out->dtype, number)) luaL_error(L, "%f does not fit %s", number, pxr_dtype_name(out->dtype));
    const int64_t integer = pxr_dtype_is_float(out->dtype) ? 0 : (int64_t)number;
    const pxr_status status = pxr_fill(&(pxr_fill_args){.out = out, .value = number, .integer = integer}, &error);
    pxr_lua_check(L, status, &error);
}

pxr_tensor *pxr_lua_push_scalar(lua_State *L, pxr_device *device, pxr_dtype dtype, int index)
{
    pxr_tensor *scalar = pxr_lua_push_empty(L, device, dtype, 0, NULL);
    pxr_lua_fill(L, scalar, index);
    return scalar;
}

/* ---- lifetime ---------------------------------------------------------------------------------------------------- */

/*** Gives the tensor's memory up now instead of when the collector finds it. Views of the same storage keep it alive; the
 * freed object itself can no longer be used. Freeing twice is fine.
 * @function Tensor:free
 */
static int free_tensor(lua_State *L)
{
    pxr_tensor_release(luaL_checkudata(L, 1, PXR_LUA_TENSOR));
    return 0;
}

/*** True after `free` (or after the scope that made the tensor ended).
 * @function Tensor:isFreed
 * @treturn boolean
 */
static int is_freed(lua_State *L)
{
    lua_pushboolean(L, ((pxr_tensor *)luaL_checkudata(L, 1, PXR_LUA_TENSOR))->storage == NULL);
    return 1;
}

/* ---- creation (the module's functions; the options are read in Lua) ----------------------------------------------- */

/*** A tensor with undefined contents; tensor.empty reads the options.
 * @function empty
 * @tparam {int,...} sizes
 * @tparam[opt="float32"] string dtype
 * @tparam[opt="cpu"] string device
 * @treturn Tensor
 */
static int empty(lua_State *L)
{
    pxr_lua_shape shape;
    luaL_checktype(L, 1, LUA_TTABLE);
    pxr_lua_check_sizes(L, 1, 0, &shape);
    const pxr_dtype dtype = pxr_lua_opt_dtype(L, 2, PXR_F32);
    pxr_device *device = pxr_lua_opt_device(L, 3);
    pxr_lua_push_empty(L, device, dtype, shape.rank, shape.size);
    return 1;
}

/*** A vector of start, start + step, and so on; tensor.range, arange and linspace read the options.
 * @function sequence
 * @tparam int count
 * @tparam number start
 * @tparam number step
 * @tparam[opt="float32"] string dtype
 * @tparam[opt="cpu"] string device
 * @treturn Tensor
 */
static int sequence(lua_State *L)
{
    pxr_error error = {0};
    const int64_t count = pxr_lua_check_integer(L, 1, 0, INT64_C(1) << 53);
    const double start = luaL_checknumber(L, 2), step = luaL_checknumber(L, 3);
    const pxr_dtype dtype = pxr_lua_opt_dtype(L, 4, PXR_F32);
    pxr_device *device = pxr_lua_opt_device(L, 5);
    pxr_tensor *out = pxr_lua_push_empty(L, device, dtype, 1, &count);
    const pxr_status status = pxr_sequence(&(pxr_sequence_args){.out = out, .start = start, .step = step}, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Opens a scope in the running coroutine: the tensors made from now on are noted in a list; see tensor.scope.
 * @function begin_scope
 */
static int begin_scope(lua_State *L)
{
    pxr_lua_scope_begin(L);
    return 0;
}

/*** Closes the innermost scope.
 * @function end_scope
 * @treturn table its tensors from 1 on, with holes where the collector took one; element 0 is their number
 */
static int end_scope(lua_State *L)
{
    pxr_lua_scope_end(L);
    return 1;
}

/*** Notes a tensor in the innermost scope, if there is one.
 * @function note
 * @tparam Tensor x
 */
static int note(lua_State *L)
{
    luaL_checkudata(L, 1, PXR_LUA_TENSOR);
    lua_settop(L, 1);
    pxr_lua_scope_note(L);
    return 0;
}

/* ---- copies and conversions -------------------------------------------------------------------------------------- */

/*** A copy with storage of its own, dense.
 * @function Tensor:clone
 * @treturn Tensor
 */
static int clone(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    pxr_lua_push_copy(L, x, x->dtype);
    return 1;
}

/*** The same elements, dense in row-major order: a view of the same storage if they already are, else a copy.
 * @function Tensor:contiguous
 * @treturn Tensor
 */
static int contiguous(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (pxr_tensor_is_contiguous(x))
        pxr_tensor_alias(pxr_lua_new_tensor(L), x);
    else
        pxr_lua_push_copy(L, x, x->dtype);
    return 1;
}

static int convert(lua_State *L, pxr_dtype dtype)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (x->dtype == dtype)
        pxr_tensor_alias(pxr_lua_new_tensor(L), x);
    else
        pxr_lua_push_copy(L, x, dtype);
    return 1;
}

/*** The tensor in another element type or on another device: a view of the same storage when nothing has to be done, else a
 * copy. Floats become integers by truncation and saturate (NaN becomes 0); integers become narrower ones by keeping their
 * low bits.
 * @function Tensor:to
 * @tparam string what a type ("float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8") or a device ("cpu", "cuda")
 * @treturn Tensor
 */
static int to(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    pxr_dtype dtype;
    if (pxr_dtype_parse(luaL_checkstring(L, 2), &dtype)) return convert(L, dtype);
    pxr_error error = {0};
    pxr_device *device;
    if (pxr_device_open(lua_tostring(L, 2), &device, &error) != PXR_OK)
        return pxr_lua_argument_error(L, 2,
                                      lua_pushfstring(L, "'%s' is no type, and no device: %s", lua_tostring(L, 2),
                                                      error.message));
    push_on_device(L, x, device);
    return 1;
}

/*** Conversions by name: `x:float()` is `x:to("float32")`, and so on.
 * @function Tensor:float
 * @treturn Tensor
 * @see Tensor:to
 */
/*** To float16.
 * @function Tensor:half
 * @treturn Tensor
 */
/*** To bfloat16.
 * @function Tensor:bfloat16
 * @treturn Tensor
 */
/*** To int64.
 * @function Tensor:long
 * @treturn Tensor
 */
/*** To int32.
 * @function Tensor:int
 * @treturn Tensor
 */
/*** To int8.
 * @function Tensor:char
 * @treturn Tensor
 */
/*** To uint8.
 * @function Tensor:byte
 * @treturn Tensor
 */
static const pxr_lua_kind conversions[] = {
    {"float", PXR_F32}, {"half", PXR_F16}, {"bfloat16", PXR_BF16}, {"long", PXR_I64},
    {"int", PXR_I32},   {"char", PXR_I8},  {"byte", PXR_U8},       {NULL, 0},
};

static int convert_by_name(lua_State *L)
{
    return convert(L, (pxr_dtype)lua_tointeger(L, lua_upvalueindex(1)));
}

/*** Overwrites the elements with those of `source`, converted, broadcast to this shape if need be. `source` may be on another
 * device or overlap.
 * @function Tensor:copy_
 * @tparam Tensor source
 * @treturn Tensor self
 */
static int copy_in_place(lua_State *L)
{
    const pxr_tensor *out = pxr_lua_check_tensor(L, 1), *x = pxr_lua_check_tensor(L, 2);
    pxr_lua_copy(L, out, x);
    lua_settop(L, 1);
    return 1;
}

/*** Sets all elements to a number, which must fit the type.
 * @function Tensor:fill_
 * @tparam number value
 * @treturn Tensor self
 */
static int fill_in_place(lua_State *L)
{
    const pxr_tensor *out = pxr_lua_check_tensor(L, 1);
    pxr_lua_fill(L, out, 2);
    lua_settop(L, 1);
    return 1;
}

/* ---- what it is -------------------------------------------------------------------------------------------------- */

/*** The element type's name.
 * @function Tensor:dtype
 * @treturn string
 */
static int dtype_name(lua_State *L)
{
    lua_pushstring(L, pxr_dtype_name(pxr_lua_check_tensor(L, 1)->dtype));
    return 1;
}

/*** The device's name, such as "cpu".
 * @function Tensor:device
 * @treturn string
 */
static int device_name(lua_State *L)
{
    lua_pushstring(L, pxr_tensor_device(pxr_lua_check_tensor(L, 1))->name);
    return 1;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const luaL_Reg methods[] = {
    {"isFreed", is_freed},    {"clone", clone},      {"contiguous", contiguous}, {"to", to},   {"copy_", copy_in_place},
    {"fill_", fill_in_place}, {"dtype", dtype_name}, {"device", device_name},    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"empty", empty},         {"sequence", sequence}, {"begin_scope", begin_scope},
    {"end_scope", end_scope}, {"note", note},         {NULL, NULL},
};

void pxr_lua_open_tensor(lua_State *L)
{
    const int module = lua_gettop(L);
    pxr_lua_class(L, PXR_LUA_TENSOR, methods, free_tensor);
    const int metatable = module + 1, method_table = module + 2, function_table = module + 3;
    lua_getfield(L, metatable, "__index");
    pxr_lua_set_kinds(L, conversions, convert_by_name);
    lua_newtable(L);
    luaL_setfuncs(L, functions, 0);
    pxr_lua_open_tensor_data(L, method_table, function_table);
    pxr_lua_open_tensor_view(L, method_table);
    pxr_lua_open_tensor_math(L, method_table, function_table, metatable);
    pxr_lua_open_tensor_index(L, method_table, metatable);
    pxr_lua_open_tensor_reduce(L, method_table);
    pxr_lua_open_tensor_gather(L, method_table, function_table);
    lua_pushvalue(L, method_table);
    pxr_lua_name_methods(L);
    lua_settop(L, function_table);
    lua_setfield(L, module, "tensor");
    lua_setfield(L, module, "Tensor");
    lua_settop(L, module);
}
