/*** Arithmetic element by element, comparisons, truth values, and the operators.
 *
 * The rule of the names: `x:add(y)` and `x + y` make a new tensor, `x:add_(y)` writes into x and returns it.
 *
 * The rule of the types: two tensors of one type keep it; a float type wins over an integer type; two different float
 * types give float32; of two integer types the wider wins, and int8 with uint8 gives int32. A number takes the tensor's
 * type when it fits; else it makes an integer tensor int64 (a whole number) or float32 (a fraction). `/` and the
 * functions of real numbers (exp, sin, ...) turn integers into float32. Comparisons give uint8: 0 or 1, a mask.
 * In place, the result must have the type of x.
 * @module pixelrefer.core
 */
#include "lua/tensor.h"

#include <string.h>

/* ---- types and shapes of results --------------------------------------------------------------------------------- */

static pxr_dtype common_type(pxr_dtype a, pxr_dtype b)
{
    if (a == b) return a;
    const bool a_float = pxr_dtype_is_float(a), b_float = pxr_dtype_is_float(b);
    if (a_float && b_float) return PXR_F32;
    if (a_float || b_float) return a_float ? a : b;
    if (a == PXR_I64 || b == PXR_I64) return PXR_I64;
    return PXR_I32; /* int32 with a narrower one, or int8 with uint8 */
}

static pxr_dtype type_with_number(pxr_dtype dtype, double number)
{
    if (pxr_lua_fits(dtype, number)) return dtype;
    return pxr_lua_fits(PXR_I64, number) ? PXR_I64 : PXR_F32;
}

static void broadcast_shape(lua_State *L, const pxr_tensor *a, const pxr_tensor *b, pxr_lua_shape *shape)
{
    char a_text[PXR_SHAPE_TEXT], b_text[PXR_SHAPE_TEXT];
    shape->rank = a->rank > b->rank ? a->rank : b->rank;
    for (int dim = 0; dim < shape->rank; dim++) {
        const int a_dim = dim - (shape->rank - a->rank), b_dim = dim - (shape->rank - b->rank);
        const int64_t a_size = a_dim < 0 ? 1 : a->size[a_dim], b_size = b_dim < 0 ? 1 : b->size[b_dim];
        if (a_size != b_size && a_size != 1 && b_size != 1)
            luaL_error(L, "shapes %s and %s do not broadcast: dim %d is %f and %f", pxr_tensor_shape_text(a, a_text),
                       pxr_tensor_shape_text(b, b_text), dim + 1, (double)a_size, (double)b_size);
        shape->size[dim] = a_size == 1 ? b_size : a_size;
    }
}

/* ---- operands ---------------------------------------------------------------------------------------------------- */

/* The operand at stack index `index` in `dtype`: the tensor there, a converted copy, or the number as a tensor. */
static const pxr_tensor *operand(lua_State *L, int index, pxr_dtype dtype, pxr_device *device)
{
    const pxr_tensor *tensor = luaL_testudata(L, index, PXR_LUA_TENSOR);
    return tensor ? pxr_lua_as_type(L, tensor, dtype) : pxr_lua_push_scalar(L, device, dtype, index);
}

/* The tensor at stack index `index`, NULL for a number. */
static const pxr_tensor *tensor_or_number(lua_State *L, int index)
{
    if (lua_type(L, index) == LUA_TNUMBER) return NULL;
    if (!luaL_testudata(L, index, PXR_LUA_TENSOR))
        pxr_lua_argument_error(L, index,
                               lua_pushfstring(L, "a tensor or a number expected, got %s", luaL_typename(L, index)));
    return pxr_lua_check_tensor(L, index);
}

/* The type in which operands 1 and 2 meet. One of them is a tensor; the other may be a number. */
static pxr_dtype meeting_type(lua_State *L, pxr_device **device)
{
    const pxr_tensor *a = tensor_or_number(L, 1), *b = tensor_or_number(L, 2);
    if (!a && !b) pxr_lua_argument_error(L, 1, "a tensor expected, got numbers only");
    *device = pxr_tensor_device(a ? a : b);
    if (a && b) return common_type(a->dtype, b->dtype);
    return type_with_number(a ? a->dtype : b->dtype, lua_tonumber(L, a ? 2 : 1));
}

/* ---- binary ------------------------------------------------------------------------------------------------------ */

/* Leaves two operands on the stack. Torch7's x:add(2, y) is x + 2y: a third must not be lost silently. */
static void two_operands(lua_State *L)
{
    if (!lua_isnoneornil(L, 3))
        pxr_lua_argument_error(L, 3, "one operand expected, got more: instead of Torch7's x:add(2, y) write x + 2 * y");
    lua_settop(L, 2);
}

/* a kind b into a new tensor, which is left on top of the stack. */
static int binary(lua_State *L, pxr_binary_kind kind)
{
    pxr_error error = {0};
    pxr_device *device;
    pxr_lua_shape shape;
    two_operands(L);
    pxr_dtype dtype = meeting_type(L, &device);
    if (kind == PXR_BINARY_DIV && !pxr_dtype_is_float(dtype)) dtype = PXR_F32;
    const pxr_tensor *a = operand(L, 1, dtype, device), *b = operand(L, 2, dtype, device);
    broadcast_shape(L, a, b, &shape);
    pxr_tensor *out = pxr_lua_push_empty(L, device, kind >= PXR_BINARY_LT ? PXR_U8 : dtype, shape.rank, shape.size);
    const pxr_status status = pxr_binary(&(pxr_binary_args){.out = out, .a = a, .b = b, .kind = kind}, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

static int binary_method(lua_State *L)
{
    return binary(L, (pxr_binary_kind)lua_tointeger(L, lua_upvalueindex(1)));
}

static int binary_in_place(lua_State *L)
{
    pxr_error error = {0};
    pxr_device *device;
    const pxr_binary_kind kind = (pxr_binary_kind)lua_tointeger(L, lua_upvalueindex(1));
    two_operands(L);
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    pxr_dtype dtype = meeting_type(L, &device);
    if (kind == PXR_BINARY_DIV && !pxr_dtype_is_float(dtype)) dtype = PXR_F32;
    if (dtype != x->dtype)
        return luaL_error(L, "the result is %s and cannot be written into a tensor of %s", pxr_dtype_name(dtype),
                          pxr_dtype_name(x->dtype));
    const pxr_tensor *b = operand(L, 2, dtype, device);
    if (pxr_lua_overlap(x, b)) b = pxr_lua_push_copy(L, b, dtype);
    const pxr_status status = pxr_binary(&(pxr_binary_args){.out = x, .a = x, .b = b, .kind = kind}, &error);
    pxr_lua_check(L, status, &error);
    lua_settop(L, 1);
    return 1;
}

/*** Sum with a tensor or number, broadcasting; also `x + y`. In place: `add_`.
 * @function Tensor:add
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** Difference; also `x - y`. In place: `sub_`.
 * @function Tensor:sub
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** Product element by element; also `x * y` (matrices are multiplied by `matmul`). In place: `mul_`.
 * @function Tensor:mul
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** Quotient, in float32 for integers; also `x / y`. In place: `div_`.
 * @function Tensor:div
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** Power; also `x ^ y`. In place: `pow_`.
 * @function Tensor:pow
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** Remainder with the sign of the divisor, as Lua's; also `x % y`. In place: `mod_`.
 * @function Tensor:mod
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** The larger of two elements; a NaN wins. In place: `cmax_`.
 * @function Tensor:cmax
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** The smaller of two elements; a NaN wins. In place: `cmin_`.
 * @function Tensor:cmin
 * @tparam Tensor|number other
 * @treturn Tensor
 */
static const pxr_lua_kind arithmetic[] = {
    {"add", PXR_BINARY_ADD},  {"sub", PXR_BINARY_SUB},  {"mul", PXR_BINARY_MUL},
    {"div", PXR_BINARY_DIV},  {"pow", PXR_BINARY_POW},  {"mod", PXR_BINARY_MOD},
    {"cmax", PXR_BINARY_MAX}, {"cmin", PXR_BINARY_MIN}, {NULL, 0},
};

static const pxr_lua_kind operators[] = {
    {"__add", PXR_BINARY_ADD},
    {"__sub", PXR_BINARY_SUB},
    {"__mul", PXR_BINARY_MUL},
    {"__div", PXR_BINARY_DIV},
    {"__pow", PXR_BINARY_POW},
    {"__mod", PXR_BINARY_MOD},
    {NULL, 0},
};

/*** 1 where x < y, else 0, as uint8. Lua's own `<` and `==` do not do this: they always give one boolean.
 * @function Tensor:lt
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** 1 where x <= y, else 0.
 * @function Tensor:le
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** 1 where x > y, else 0.
 * @function Tensor:gt
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** 1 where x >= y, else 0.
 * @function Tensor:ge
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** 1 where x equals y, else 0.
 * @function Tensor:eq
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** 1 where x differs from y, else 0.
 * @function Tensor:ne
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** 1 where both are not zero, else 0.
 * @function Tensor:logicalAnd
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** 1 where one or both are not zero, else 0.
 * @function Tensor:logicalOr
 * @tparam Tensor|number other
 * @treturn Tensor
 */
/*** 1 where exactly one is not zero, else 0.
 * @function Tensor:logicalXor
 * @tparam Tensor|number other
 * @treturn Tensor
 */
static const pxr_lua_kind comparisons[] = {
    {"lt", PXR_BINARY_LT},          {"le", PXR_BINARY_LE},
    {"gt", PXR_BINARY_GT},          {"ge", PXR_BINARY_GE},
    {"eq", PXR_BINARY_EQ},          {"ne", PXR_BINARY_NE},
    {"logicalAnd", PXR_BINARY_AND}, {"logicalOr", PXR_BINARY_OR},
    {"logicalXor", PXR_BINARY_XOR}, {NULL, 0},
};

/*** Quotient rounded towards minus infinity, in the type of the operands.
 * @function Tensor:floorDivide
 * @tparam Tensor|number other
 * @treturn Tensor
 */
static int floor_divide(lua_State *L)
{
    pxr_error error = {0};
    pxr_device *device;
    pxr_lua_shape shape;
    two_operands(L);
    const pxr_dtype dtype = meeting_type(L, &device);
    const pxr_tensor *a = operand(L, 1, dtype, device), *b = operand(L, 2, dtype, device);
    broadcast_shape(L, a, b, &shape);
    pxr_tensor *out = pxr_lua_push_empty(L, device, dtype, shape.rank, shape.size);
    pxr_status status = pxr_binary(&(pxr_binary_args){.out = out, .a = a, .b = b, .kind = PXR_BINARY_DIV}, &error);
    if (status == PXR_OK && pxr_dtype_is_float(dtype))
        status = pxr_unary(&(pxr_unary_args){.out = out, .x = out, .kind = PXR_UNARY_FLOOR}, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/* ---- unary ------------------------------------------------------------------------------------------------------- */

/* Whether integers have the op as it is. */
static bool integers_have(pxr_unary_kind kind)
{
    return kind == PXR_UNARY_NEG || kind == PXR_UNARY_ABS || kind == PXR_UNARY_SQUARE || kind == PXR_UNARY_SIGN ||
           kind == PXR_UNARY_NOT;
}

static bool rounds(pxr_unary_kind kind)
{
    return kind == PXR_UNARY_FLOOR || kind == PXR_UNARY_CEIL || kind == PXR_UNARY_ROUND;
}

static pxr_unary_kind unary_kind(lua_State *L)
{
    const pxr_unary_kind kind = (pxr_unary_kind)lua_tointeger(L, lua_upvalueindex(1));
    if (kind != PXR_UNARY_GELU || lua_type(L, 2) != LUA_TSTRING) return kind;
    static const char *const forms[] = {"erf", "tanh", NULL};
    return luaL_checkoption(L, 2, NULL, forms) == 0 ? PXR_UNARY_GELU : PXR_UNARY_GELU_TANH;
}

static int unary_method(lua_State *L)
{
    pxr_error error = {0};
    const pxr_unary_kind kind = unary_kind(L);
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const bool is_float = pxr_dtype_is_float(x->dtype);
    if (!is_float && rounds(kind)) {
        pxr_lua_push_copy(L, x, x->dtype);
        return 1;
    }
    if (!is_float && !integers_have(kind)) x = pxr_lua_push_copy(L, x, PXR_F32);
    const pxr_dtype dtype = kind == PXR_UNARY_NOT ? PXR_U8 : x->dtype;
    pxr_tensor *out = pxr_lua_push_empty(L, pxr_tensor_device(x), dtype, x->rank, x->size);
    const pxr_status status = pxr_unary(&(pxr_unary_args){.out = out, .x = x, .kind = kind}, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

static int unary_in_place(lua_State *L)
{
    pxr_error error = {0};
    const pxr_unary_kind kind = unary_kind(L);
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const pxr_status status = pxr_unary(&(pxr_unary_args){.out = x, .x = x, .kind = kind}, &error);
    pxr_lua_check(L, status, &error);
    lua_settop(L, 1);
    return 1;
}

/*** The negative; also `-x`. Like all methods of one operand it has a form in place: `neg_`.
 * @function Tensor:neg
 * @treturn Tensor
 */
/*** The absolute value.
 * @function Tensor:abs
 * @treturn Tensor
 */
/*** e to the power of x.
 * @function Tensor:exp
 * @treturn Tensor
 */
/*** The natural logarithm.
 * @function Tensor:log
 * @treturn Tensor
 */
/*** The square root.
 * @function Tensor:sqrt
 * @treturn Tensor
 */
/*** 1 / sqrt(x).
 * @function Tensor:rsqrt
 * @treturn Tensor
 */
/*** x times x.
 * @function Tensor:square
 * @treturn Tensor
 */
/*** Rounded down; integers stay as they are.
 * @function Tensor:floor
 * @treturn Tensor
 */
/*** Rounded up; integers stay as they are.
 * @function Tensor:ceil
 * @treturn Tensor
 */
/*** Rounded to the nearest integer, halves to the even one; integers stay as they are.
 * @function Tensor:round
 * @treturn Tensor
 */
/*** -1, 0 or 1.
 * @function Tensor:sign
 * @treturn Tensor
 */
/*** The sine.
 * @function Tensor:sin
 * @treturn Tensor
 */
/*** The cosine.
 * @function Tensor:cos
 * @treturn Tensor
 */
/*** The hyperbolic tangent.
 * @function Tensor:tanh
 * @treturn Tensor
 */
/*** The error function.
 * @function Tensor:erf
 * @treturn Tensor
 */
/*** 1 / (1 + exp(-x)).
 * @function Tensor:sigmoid
 * @treturn Tensor
 */
/*** x * sigmoid(x).
 * @function Tensor:silu
 * @treturn Tensor
 */
/*** The larger of x and 0.
 * @function Tensor:relu
 * @treturn Tensor
 */
/*** x times the normal distribution's cumulative function of x.
 * @function Tensor:gelu
 * @tparam[opt="erf"] string form "erf" is exact; "tanh" the usual approximation
 * @treturn Tensor
 */
/*** 1 where x is 0, else 0, as uint8. Has no form in place.
 * @function Tensor:logicalNot
 * @treturn Tensor
 */
static const pxr_lua_kind unaries[] = {
    {"neg", PXR_UNARY_NEG},         {"abs", PXR_UNARY_ABS},        {"exp", PXR_UNARY_EXP},
    {"log", PXR_UNARY_LOG},         {"sqrt", PXR_UNARY_SQRT},      {"rsqrt", PXR_UNARY_RSQRT},
    {"square", PXR_UNARY_SQUARE},   {"floor", PXR_UNARY_FLOOR},    {"ceil", PXR_UNARY_CEIL},
    {"round", PXR_UNARY_ROUND},     {"sign", PXR_UNARY_SIGN},      {"sin", PXR_UNARY_SIN},
    {"cos", PXR_UNARY_COS},         {"tanh", PXR_UNARY_TANH},      {"erf", PXR_UNARY_ERF},
    {"sigmoid", PXR_UNARY_SIGMOID}, {"silu", PXR_UNARY_SILU},      {"relu", PXR_UNARY_RELU},
    {"gelu", PXR_UNARY_GELU},       {"logicalNot", PXR_UNARY_NOT}, {NULL, 0},
};

/* ---- where ------------------------------------------------------------------------------------------------------- */

/* Grows `shape` by the shape of one more operand. */
static void broadcast_with(lua_State *L, pxr_lua_shape *shape, const pxr_tensor *tensor)
{
    pxr_tensor so_far = {.rank = shape->rank};
    memcpy(so_far.size, shape->size, sizeof so_far.size);
    broadcast_shape(L, &so_far, tensor, shape);
}

/*** condition ~= 0 ? a : b, element by element; see tensor.where.
 * @function where
 * @tparam Tensor condition uint8
 * @tparam Tensor|number a
 * @tparam Tensor|number b
 * @treturn Tensor
 */
static int where(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *condition = pxr_lua_check_tensor(L, 1);
    lua_settop(L, 3);
    if (condition->dtype != PXR_U8)
        pxr_lua_argument_error(L, 1,
                               lua_pushfstring(L, "a uint8 tensor (a mask) expected, got %s",
                                               pxr_dtype_name(condition->dtype)));
    pxr_device *device = pxr_tensor_device(condition);
    const pxr_tensor *a_tensor = tensor_or_number(L, 2), *b_tensor = tensor_or_number(L, 3);
    pxr_dtype dtype = PXR_F32;
    if (a_tensor && b_tensor)
        dtype = common_type(a_tensor->dtype, b_tensor->dtype);
    else if (a_tensor)
        dtype = type_with_number(a_tensor->dtype, lua_tonumber(L, 3));
    else if (b_tensor)
        dtype = type_with_number(b_tensor->dtype, lua_tonumber(L, 2));
    const pxr_tensor *a = operand(L, 2, dtype, device), *b = operand(L, 3, dtype, device);
    pxr_lua_shape shape;
    broadcast_shape(L, a, b, &shape);
    broadcast_with(L, &shape, condition);
    pxr_tensor *out = pxr_lua_push_empty(L, device, dtype, shape.rank, shape.size);
    const pxr_status status = pxr_where(&(pxr_where_args){.out = out, .condition = condition, .a = a, .b = b}, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** The name of the type in which two types meet.
 * @function common_type
 * @tparam Tensor|string a a tensor, or a type's name
 * @tparam Tensor|string b
 * @treturn string
 */
static int push_common_type(lua_State *L)
{
    pxr_dtype types[2];
    for (int i = 0; i < 2; i++)
        types[i] = lua_isstring(L, i + 1) ? pxr_lua_opt_dtype(L, i + 1, PXR_F32)
                                          : pxr_lua_check_tensor(L, i + 1)->dtype;
    lua_pushstring(L, pxr_dtype_name(common_type(types[0], types[1])));
    return 1;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* Adds each method of the list again, as `function` with an underscore behind the name. */
static void set_in_place(lua_State *L, const pxr_lua_kind *kinds, lua_CFunction function)
{
    for (; kinds->name; kinds++) {
        lua_pushfstring(L, "%s_", kinds->name);
        lua_pushinteger(L, kinds->kind);
        lua_pushcclosure(L, function, 1);
        lua_settable(L, -3);
    }
}

static int unary_minus(lua_State *L)
{
    lua_settop(L, 1); /* Lua passes the operand twice */
    return unary_method(L);
}

void pxr_lua_open_tensor_math(lua_State *L, int methods, int module, int metatable)
{
    lua_pushvalue(L, methods);
    pxr_lua_set_kinds(L, arithmetic, binary_method);
    set_in_place(L, arithmetic, binary_in_place);
    pxr_lua_set_kinds(L, comparisons, binary_method);
    pxr_lua_set_kinds(L, unaries, unary_method);
    set_in_place(L, unaries, unary_in_place);
    lua_pushnil(L); /* the result of logicalNot has another type */
    lua_setfield(L, -2, "logicalNot_");
    lua_pushcfunction(L, floor_divide);
    lua_setfield(L, -2, "floorDivide");
    lua_pushcfunction(L, where);
    lua_setfield(L, module, "where");
    lua_pushcfunction(L, push_common_type);
    lua_setfield(L, module, "common_type");
    lua_pushvalue(L, metatable);
    pxr_lua_set_kinds(L, operators, binary_method);
    lua_pushinteger(L, PXR_UNARY_NEG);
    lua_pushcclosure(L, unary_minus, 1);
    lua_setfield(L, -2, "__unm");
    lua_pop(L, 2);
}
