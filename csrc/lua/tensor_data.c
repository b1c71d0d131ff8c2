/*** Elements as Lua values: numbers, nested tables, byte strings, pointers.
 *
 * Integers beyond 2^53 in size have no exact Lua number: reading one as a number raises, and names data(), through which
 * all 64 bits can be read.
 * @module pixelrefer.core
 */
#include "lua/tensor.h"

#include "ops/device.h"

#include <math.h>
#include <string.h>

/* ---- single elements --------------------------------------------------------------------------------------------- */

static void push_integer(lua_State *L, int64_t value)
{
    const int64_t exact = INT64_C(1) << 53;
    if (value > exact || value < -exact) {
        char text[32];
        snprintf(text, sizeof text, "%lld", (long long)value);
        luaL_error(L, "the integer %s has no exact Lua number: read it through data()", text);
    }
    lua_pushnumber(L, (double)value);
}

/* The element at `at`, in host memory, at any byte. */
static void push_host_element(lua_State *L, pxr_dtype dtype, const char *at)
{
    union {
        float f32;
        uint16_t u16;
        int64_t i64;
        int32_t i32;
        int8_t i8;
        uint8_t u8;
    } value;
    memcpy(&value, at, pxr_dtype_size(dtype));
    switch (dtype) {
    case PXR_F32:
        lua_pushnumber(L, (double)value.f32);
        break;
    case PXR_F16:
        lua_pushnumber(L, (double)pxr_f16_to_f32(value.u16));
        break;
    case PXR_BF16:
        lua_pushnumber(L, (double)pxr_bf16_to_f32(value.u16));
        break;
    case PXR_I64:
        push_integer(L, value.i64);
        break;
    case PXR_I32:
        lua_pushnumber(L, (double)value.i32);
        break;
    case PXR_I8:
        lua_pushnumber(L, (double)value.i8);
        break;
    default:
        lua_pushnumber(L, (double)value.u8);
        break;
    }
}

void pxr_lua_push_element(lua_State *L, const pxr_tensor *x)
{
    pxr_device *device = pxr_tensor_device(x);
    if (device->is_host) {
        push_host_element(L, x->dtype, x->data);
        return;
    }
    pxr_error error = {0};
    char bytes[8];
    const pxr_status status = device->download(device, bytes, x->data, pxr_dtype_size(x->dtype), &error);
    pxr_lua_check(L, status, &error);
    push_host_element(L, x->dtype, bytes);
}

/*** The value of a tensor of one element.
 * @function Tensor:item
 * @treturn number
 */
static int item(lua_State *L)
{
    char shape[PXR_SHAPE_TEXT];
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (pxr_tensor_count(x) != 1)
        return pxr_lua_argument_error(L, 1,
                                      lua_pushfstring(L, "a tensor of one element expected, got %s",
                                                      pxr_tensor_shape_text(x, shape)));
    pxr_lua_push_element(L, x);
    return 1;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static const char *push_rows(lua_State *L, const pxr_tensor *x, int dim, const char *at)
{
    if (dim == x->rank) {
        push_host_element(L, x->dtype, at);
        return at + pxr_dtype_size(x->dtype);
    }
    lua_createtable(L, x->size[dim] < 1 << 26 ? (int)x->size[dim] : 0, 0);
    for (int64_t i = 0; i < x->size[dim]; i++) {
        at = push_rows(L, x, dim + 1, at);
        lua_rawseti(L, -2, (int)(i + 1));
    }
    return at;
}

/*** The elements as nested tables, one level for each dim (a number for no dims).
 * @function Tensor:totable
 * @treturn table
 */
static int to_table(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (x->rank > 0 && x->size[0] >= INT32_MAX) return luaL_error(L, "a table of that many elements is not possible");
    const pxr_tensor *dense = pxr_lua_push_host(L, x);
    luaL_checkstack(L, PXR_MAX_RANK + 4, "nested tables");
    push_rows(L, dense, 0, dense->data);
    return 1;
}

/* What reading a table fills. */
struct reading {
    pxr_lua_shape shape;
    pxr_dtype dtype; /* that the user asked for: numbers must fit it */
    float *floats;   /* one of the two, by the kind of dtype */
    int64_t *integers;
    int64_t done;
};

static void read_number(lua_State *L, struct reading *reading)
{
    const int type = lua_type(L, -1);
    const double number = type == LUA_TBOOLEAN ? lua_toboolean(L, -1) : lua_tonumber(L, -1);
    if (type != LUA_TNUMBER && type != LUA_TBOOLEAN)
        luaL_error(L, "element %d of the table is a %s, a number expected", (int)reading->done + 1,
                   luaL_typename(L, -1));
    if (!pxr_lua_fits(reading->dtype, number))
        luaL_error(L, "element %d of the table, %f, does not fit %s", (int)reading->done + 1, number,
                   pxr_dtype_name(reading->dtype));
    if (reading->floats)
        reading->floats[reading->done++] = (float)number;
    else
        reading->integers[reading->done++] = (int64_t)number;
}

/* Reads the value on top of the stack, which belongs to dim `dim`. */
static void read_rows(lua_State *L, struct reading *reading, int dim)
{
    if (dim == reading->shape.rank) {
        read_number(L, reading);
        return;
    }
    const int64_t expected = reading->shape.size[dim];
    if (!lua_istable(L, -1))
        luaL_error(L, "a table of %d elements expected at depth %d, got %s", (int)expected, dim + 1,
                   luaL_typename(L, -1));
    const int64_t found = (int64_t)lua_objlen(L, -1);
    if (found != expected)
        luaL_error(L, "the tables at depth %d differ: one has %d elements, the first %d", dim + 1, (int)found,
                   (int)expected);
    for (int64_t i = 1; i <= expected; i++) {
        lua_rawgeti(L, -1, (int)i);
        read_rows(L, reading, dim + 1);
        lua_pop(L, 1);
    }
}

/* The shape of the nested table at index 1, by following first elements. */
static void measure(lua_State *L, pxr_lua_shape *shape)
{
    const int top = lua_gettop(L);
    luaL_checkstack(L, 2 * PXR_MAX_RANK + 4, "nested tables");
    lua_pushvalue(L, 1);
    while (lua_istable(L, -1)) {
        if (shape->rank == PXR_MAX_RANK)
            luaL_error(L, "a table is nested deeper than the %d dims of a tensor", (int)PXR_MAX_RANK);
        shape->size[shape->rank++] = (int64_t)lua_objlen(L, -1);
        lua_rawgeti(L, -1, 1);
    }
    lua_settop(L, top);
}

/*** A tensor of the numbers (or booleans) of nested tables; see tensor.fromTable.
 * @function from_table
 * @tparam table|number values
 * @tparam[opt="float32"] string dtype
 * @tparam[opt="cpu"] string device
 * @treturn Tensor
 */
static int from_table(lua_State *L)
{
    struct reading reading = {.dtype = pxr_lua_opt_dtype(L, 2, PXR_F32)};
    pxr_device *device = pxr_lua_opt_device(L, 3);
    const bool is_float = pxr_dtype_is_float(reading.dtype);
    measure(L, &reading.shape);
    const pxr_dtype wide = is_float ? PXR_F32 : PXR_I64;
    pxr_tensor *read = pxr_lua_push_empty(L, pxr_cpu_device(), wide, reading.shape.rank, reading.shape.size);
    reading.floats = is_float ? pxr_tensor_data(read) : NULL;
    reading.integers = is_float ? NULL : pxr_tensor_data(read);
    lua_pushvalue(L, 1);
    read_rows(L, &reading, 0);
    lua_pop(L, 1);
    if (wide == reading.dtype && device == pxr_cpu_device()) return 1;
    pxr_tensor *out = pxr_lua_push_empty(L, device, reading.dtype, reading.shape.rank, reading.shape.size);
    pxr_lua_copy(L, out, read);
    return 1;
}

/* ---- byte strings ------------------------------------------------------------------------------------------------ */

/*** The elements' bytes in row-major order, as they lie in memory (little-endian).
 * @function Tensor:bytes
 * @treturn string
 * @see tensor.fromString
 */
static int to_bytes(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_push_host(L, pxr_lua_check_tensor(L, 1));
    lua_pushlstring(L, pxr_tensor_count(x) ? x->data : "", (size_t)pxr_tensor_count(x) * pxr_dtype_size(x->dtype));
    return 1;
}

/*** A tensor of the bytes of a string; see tensor.fromString.
 * @function from_string
 * @tparam string bytes
 * @tparam {int,...} sizes
 * @tparam[opt="float32"] string dtype
 * @tparam[opt="cpu"] string device
 * @treturn Tensor
 */
static int from_string(lua_State *L)
{
    size_t length;
    pxr_lua_shape shape;
    const char *bytes = luaL_checklstring(L, 1, &length);
    luaL_checktype(L, 2, LUA_TTABLE);
    pxr_lua_check_sizes(L, 2, 0, &shape);
    const pxr_dtype dtype = pxr_lua_opt_dtype(L, 3, PXR_F32);
    pxr_device *device = pxr_lua_opt_device(L, 4);
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_cpu_device(), dtype, shape.rank, shape.size);
    const size_t expected = (size_t)pxr_tensor_count(out) * pxr_dtype_size(dtype);
    char text[PXR_SHAPE_TEXT];
    if (length != expected)
        return pxr_lua_argument_error(L, 1,
                                      lua_pushfstring(L, "%f bytes expected for %s %s, got %f", (double)expected,
                                                      pxr_tensor_shape_text(out, text), pxr_dtype_name(dtype),
                                                      (double)length));
    if (length > 0) memcpy(out->data, bytes, length);
    if (device == pxr_cpu_device()) return 1;
    pxr_tensor *moved = pxr_lua_push_empty(L, device, dtype, shape.rank, shape.size);
    pxr_lua_copy(L, moved, out);
    return 1;
}

/* ---- pointers ---------------------------------------------------------------------------------------------------- */

/*** The address of the first element of a tensor in host memory; see Tensor:data.
 * @function pointer
 * @tparam Tensor x
 * @treturn userdata a light userdata
 */
static int pointer(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const pxr_device *device = pxr_tensor_device(x);
    if (!device->is_host)
        return luaL_error(L, "the elements of a tensor on %s cannot be reached by a pointer: x:to(\"cpu\") first",
                          device->name);
    lua_pushlightuserdata(L, x->data);
    return 1;
}

/* The Lua value that owns the bytes of a wrapped tensor, kept in the registry until the storage goes. */
struct anchor {
    lua_State *L; /* the state that opened the module, itself anchored */
    int reference;
};

static void drop_anchor(void *context)
{
    struct anchor *anchor = context;
    luaL_unref(anchor->L, LUA_REGISTRYINDEX, anchor->reference);
    anchor->reference = LUA_NOREF;
}

/*** A tensor over foreign host memory; see tensor.fromPointer.
 * @function from_pointer
 * @tparam number address
 * @tparam {int,...} sizes
 * @tparam string dtype
 * @param anchor what keeps the memory alive
 * @treturn Tensor
 */
/* The registry keeps the userdata of the struct anchor, which holds the Lua value in its environment. */
static int from_pointer(lua_State *L)
{
    pxr_error error = {0};
    pxr_lua_shape shape;
    const double address = luaL_checknumber(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    pxr_lua_check_sizes(L, 2, 0, &shape);
    const pxr_dtype dtype = pxr_lua_opt_dtype(L, 3, PXR_F32);
    luaL_checkany(L, 4);
    pxr_tensor *out = pxr_lua_new_tensor(L);
    struct anchor *anchor = lua_newuserdata(L, sizeof *anchor);
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 4);
    lua_rawseti(L, -2, 1);
    lua_setfenv(L, -2);
    lua_getfield(L, LUA_REGISTRYINDEX, PXR_LUA_TENSOR ".state");
    anchor->L = lua_tothread(L, -1);
    lua_pop(L, 1);
    anchor->reference = luaL_ref(L, LUA_REGISTRYINDEX);
    const pxr_status status = pxr_tensor_wrap(out, pxr_cpu_device(), dtype, shape.rank, shape.size,
                                              (void *)(uintptr_t)address, drop_anchor, anchor, &error);
    if (status != PXR_OK) drop_anchor(anchor);
    pxr_lua_check(L, status, &error);
    return 1;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const luaL_Reg data_methods[] = {
    {"item", item},
    {"totable", to_table},
    {"bytes", to_bytes},
    {NULL, NULL},
};

static const luaL_Reg data_functions[] = {
    {"from_table", from_table},
    {"from_string", from_string},
    {"from_pointer", from_pointer},
    {"pointer", pointer},
    {NULL, NULL},
};

void pxr_lua_open_tensor_data(lua_State *L, int methods, int module)
{
    lua_pushvalue(L, methods);
    luaL_setfuncs(L, data_methods, 0);
    lua_pushvalue(L, module);
    luaL_setfuncs(L, data_functions, 0);
    lua_pop(L, 2);
    lua_pushthread(L);
    lua_setfield(L, LUA_REGISTRYINDEX, PXR_LUA_TENSOR ".state");
}
