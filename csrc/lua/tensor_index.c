/* x[key] and x[key] = value.
 *
 *     x[i]                 element i of the first dim: a view, or a number when x has one dim
 *     x[{i, {a, b}, {}}]   for each dim an index, a range a .. b (inclusive; {a} is one element; {a, b, step}), or all;
 *                          dims that are not named are taken whole; indices for every dim give a number
 *     x[mask]              the elements where a uint8 tensor of x's shape is not zero, as a vector
 *
 * Indices count from 1, negative ones from the end. A string key names a method.
 */
#include "lua/tensor.h"

#include <math.h>

/* The number at stack index `at` as a position in dim `dim` of x, from 0. */
static int64_t position_in(lua_State *L, const pxr_tensor *x, int dim, int at)
{
    char shape[PXR_SHAPE_TEXT];
    const double number = lua_tonumber(L, at);
    const double position = number < 0 ? number + (double)x->size[dim] + 1 : number;
    if (lua_type(L, at) != LUA_TNUMBER)
        luaL_error(L, "a number expected as an index of dim %d, got %s", dim + 1, luaL_typename(L, at));
    if (!(position >= 1 && position <= (double)x->size[dim]) || position != floor(position))
        luaL_error(L, "index %f is out of range for dim %d of a tensor %s", number, dim + 1,
                   pxr_tensor_shape_text(x, shape));
    return (int64_t)position - 1;
}

/* Replaces the view by one of its parts: the core writes to another struct than it reads. */
static void take(pxr_tensor *view, pxr_tensor *part)
{
    pxr_tensor_release(view);
    *view = *part;
    *part = (pxr_tensor){0};
}

/* Narrows dim `dim` of the view by the range table on top of the stack. */
static void apply_range(lua_State *L, pxr_tensor *view, int dim)
{
    pxr_error error = {0};
    pxr_tensor part;
    const int range = lua_gettop(L), given = (int)lua_objlen(L, range);
    if (given == 0) return;
    if (given > 3) luaL_error(L, "a range is {}, {index}, {first, last} or {first, last, step}");
    lua_rawgeti(L, range, 1);
    const int64_t first = position_in(L, view, dim, -1);
    lua_rawgeti(L, range, given > 1 ? 2 : 1);
    const int64_t last = position_in(L, view, dim, -1);
    lua_rawgeti(L, range, 3);
    const double step = given == 3 ? lua_tonumber(L, -1) : 1;
    if (!(step >= 1 && step <= 0x1p53) || step != floor(step)) luaL_error(L, "a range's step is a positive integer");
    if (last < first) luaL_error(L, "the range from %d to %d is empty", (int)first + 1, (int)last + 1);
    const int64_t whole = view->size[dim];
    const pxr_status status = pxr_tensor_slice(&part, view, dim, first, last + 1,
                                               step < (double)whole ? (int64_t)step : whole, &error);
    pxr_lua_check(L, status, &error);
    take(view, &part);
    lua_settop(L, range);
}

static void apply_index(lua_State *L, pxr_tensor *view, int dim, int64_t index)
{
    pxr_error error = {0};
    pxr_tensor part;
    const pxr_status status = pxr_tensor_select(&part, view, dim, index, &error);
    pxr_lua_check(L, status, &error);
    take(view, &part);
}

/* Pushes the view that the number or table at index 2 names. */
static pxr_tensor *push_part(lua_State *L, const pxr_tensor *x)
{
    pxr_tensor *view = pxr_lua_new_tensor(L);
    pxr_tensor_alias(view, x);
    char shape[PXR_SHAPE_TEXT];
    if (lua_type(L, 2) == LUA_TNUMBER) {
        if (x->rank == 0) luaL_error(L, "a tensor of no dims has no elements to index: use item()");
        apply_index(L, view, 0, position_in(L, x, 0, 2));
        return view;
    }
    const int given = (int)lua_objlen(L, 2);
    if (given > x->rank) luaL_error(L, "%d indices for a tensor %s", given, pxr_tensor_shape_text(x, shape));
    for (int i = 1, dim = 0; i <= given; i++) {
        lua_rawgeti(L, 2, i);
        if (lua_istable(L, -1))
            apply_range(L, view, dim++);
        else
            apply_index(L, view, dim, position_in(L, view, dim, -1));
        lua_pop(L, 1);
    }
    return view;
}

static const pxr_tensor *mask_at(lua_State *L, int index)
{
    const pxr_tensor *mask = luaL_testudata(L, index, PXR_LUA_TENSOR);
    if (mask && mask->dtype != PXR_U8)
        luaL_error(L, "a tensor used as an index is a mask and must be uint8, got %s (indexSelect takes indices)",
                   pxr_dtype_name(mask->dtype));
    return mask;
}

static int index_tensor(lua_State *L)
{
    lua_settop(L, 2);                    /* also when the metamethod is called by hand */
    if (lua_type(L, 2) == LUA_TSTRING) { /* upvalue 1: the methods */
        lua_rawget(L, lua_upvalueindex(1));
        return 1;
    }
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (mask_at(L, 2)) {
        lua_getfield(L, lua_upvalueindex(1), "maskedSelect");
        lua_insert(L, 1);
        lua_call(L, 2, 1);
        return 1;
    }
    if (lua_type(L, 2) != LUA_TNUMBER && !lua_istable(L, 2))
        return luaL_error(L, "a tensor is indexed by a number, a table of indices or a mask, not by a %s",
                          luaL_typename(L, 2));
    if (x->rank == 1 && lua_type(L, 2) == LUA_TNUMBER) { /* the common case makes no view */
        pxr_tensor element = {.dtype = x->dtype, .storage = x->storage};
        const int64_t offset = position_in(L, x, 0, 2) * x->stride[0] * (int64_t)pxr_dtype_size(x->dtype);
        element.data = (char *)x->data + offset;
        pxr_lua_push_element(L, &element);
        return 1;
    }
    pxr_tensor *part = push_part(L, x);
    const bool whole = lua_istable(L, 2) && lua_objlen(L, 2) == 0;
    if (part->rank > 0 || whole) return 1;
    pxr_lua_push_element(L, part);
    pxr_tensor_release(part);
    return 1;
}

static int assign_tensor(lua_State *L)
{
    lua_settop(L, 3);
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (lua_type(L, 2) == LUA_TSTRING)
        return luaL_error(L, "a tensor has no field '%s' to assign to", lua_tostring(L, 2));
    const bool is_number = lua_type(L, 3) == LUA_TNUMBER;
    if (!is_number && !luaL_testudata(L, 3, PXR_LUA_TENSOR))
        return luaL_error(L, "a number or a tensor expected as the new value, got %s", luaL_typename(L, 3));
    if (mask_at(L, 2)) {
        lua_getfield(L, lua_upvalueindex(1), is_number ? "maskedFill_" : "maskedCopy_");
        lua_insert(L, 1);
        lua_call(L, 3, 0);
        return 0;
    }
    if (lua_type(L, 2) != LUA_TNUMBER && !lua_istable(L, 2))
        return luaL_error(L, "a tensor is indexed by a number, a table of indices or a mask, not by a %s",
                          luaL_typename(L, 2));
    pxr_tensor *part = push_part(L, x);
    if (is_number)
        pxr_lua_fill(L, part, 3);
    else
        pxr_lua_copy(L, part, pxr_lua_check_tensor(L, 3));
    pxr_tensor_release(part);
    return 0;
}

/* #x: the size of the first dim, so that `for i = 1, #x do x[i] end` works. */
static int length(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    if (x->rank == 0) return luaL_error(L, "a tensor of no dims has no length");
    lua_pushnumber(L, (double)x->size[0]);
    return 1;
}

void pxr_lua_open_tensor_index(lua_State *L, int methods, int metatable)
{
    lua_pushvalue(L, methods);
    lua_pushcclosure(L, index_tensor, 1);
    lua_setfield(L, metatable, "__index");
    lua_pushvalue(L, methods);
    lua_pushcclosure(L, assign_tensor, 1);
    lua_setfield(L, metatable, "__newindex");
    lua_pushcfunction(L, length);
    lua_setfield(L, metatable, "__len");
}
