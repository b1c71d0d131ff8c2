/*** The fused ops as functions on tensors.
 * @module pixelrefer.core
 */
#include "lua/binding.h"

#include "ops/ops.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { LARGEST_INTEGER_BITS = 53 /* of a Lua number */, LARGEST_WIDTH = 1 << 24 };

/* ---- options --------------------------------------------------------------------------------------------------- */

/* Raises unless every key of the option table at `index` (nil: no options) is among `names`, which ends with NULL. */
static void check_keys(lua_State *L, int index, const char *const *names)
{
    if (lua_isnoneornil(L, index)) return;
    luaL_checktype(L, index, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING) luaL_argerror(L, index, "the keys of options are names");
        const char *key = lua_tostring(L, -1);
        int i = 0;
        while (names[i] && strcmp(names[i], key) != 0) i++;
        if (!names[i]) luaL_argerror(L, index, lua_pushfstring(L, "there is no option '%s'", key));
    }
}

/* Pushes options[key]; false (and nothing pushed) when it is nil or there are no options. */
static bool push_option(lua_State *L, int index, const char *key)
{
    if (lua_isnoneornil(L, index)) return false;
    lua_pushstring(L, key);
    lua_rawget(L, index); /* what `__index` would make nothing would keep */
    if (!lua_isnil(L, -1)) return true;
    lua_pop(L, 1);
    return false;
}

static double number_option(lua_State *L, int index, const char *key, double fallback)
{
    if (!push_option(L, index, key)) return fallback;
    if (lua_type(L, -1) != LUA_TNUMBER)
        luaL_argerror(L, index, lua_pushfstring(L, "%s: a number expected, got %s", key, luaL_typename(L, -1)));
    const double value = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

static int64_t integer_option(lua_State *L, int index, const char *key, int64_t fallback, int64_t min)
{
    const double value = number_option(L, index, key, (double)fallback);
    if (!(value >= (double)min && value <= ldexp(1.0, LARGEST_INTEGER_BITS) && value == floor(value)))
        luaL_argerror(L, index,
                      lua_pushfstring(L, "%s: an integer from %f on expected, got %f", key, (double)min, value));
    return (int64_t)value;
}

static bool boolean_option(lua_State *L, int index, const char *key)
{
    if (!push_option(L, index, key)) return false;
    const bool value = lua_toboolean(L, -1) != 0;
    lua_pop(L, 1);
    return value;
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

/* Size `dim` (0-based), 0 where the tensor has no such dim: what does not fit is reported by the op. */
static int64_t size_of(const pxr_tensor *tensor, int dim)
{
    return tensor->rank > dim ? tensor->size[dim] : 0;
}

/* Pushes a new tensor on the device of `like`. */
static pxr_tensor *push_tensor(lua_State *L, const pxr_tensor *like, pxr_dtype dtype, int rank, const int64_t *size)
{
    pxr_error error = {0};
    pxr_tensor *tensor = pxr_lua_new_tensor(L);
    pxr_lua_check(L, pxr_tensor_new(tensor, pxr_tensor_device(like), dtype, rank, size, &error), &error);
    return tensor;
}

static pxr_tensor *push_matrix(lua_State *L, const pxr_tensor *like, int64_t rows, int64_t columns)
{
    return push_tensor(L, like, PXR_F32, 2, (const int64_t[]){rows, columns});
}

static float check_float(lua_State *L, int index)
{
    return (float)luaL_checknumber(L, index);
}

/* Host integers: a Lua array of numbers or an int64 tensor of one dim. */
typedef struct integers {
    int64_t *values; /* scratch on the stack */
    int64_t count;
} integers;

static integers read_integer_tensor(lua_State *L, const pxr_tensor *tensor)
{
    pxr_error error = {0};
    const int64_t count = pxr_tensor_count(tensor);
    integers read = {.values = pxr_lua_scratch(L, (size_t)count * sizeof *read.values), .count = count};
    pxr_device *device = pxr_tensor_device(tensor);
    pxr_lua_check(L, device->download(device, read.values, tensor->data, (size_t)count * sizeof *read.values, &error),
                  &error);
    return read;
}

/* Reads what is on top of the stack and puts the scratch in its place; `argument` and `what` are for the message. */
static integers read_integers(lua_State *L, int argument, const char *what)
{
    integers read = {0};
    const pxr_tensor *tensor = luaL_testudata(L, -1, PXR_LUA_TENSOR);
    if (tensor) {
        if (!tensor->storage || tensor->dtype != PXR_I64 || tensor->rank != 1 || !pxr_tensor_is_contiguous(tensor))
            luaL_argerror(L, argument, lua_pushfstring(L, "%s: a contiguous int64 tensor of one dim expected", what));
        read = read_integer_tensor(L, tensor);
    } else if (lua_istable(L, -1)) {
        const int table = lua_gettop(L);
        read.count = (int64_t)lua_objlen(L, table);
        read.values = pxr_lua_scratch(L, (size_t)read.count * sizeof *read.values);
        for (int64_t i = 0; i < read.count; i++) {
            lua_rawgeti(L, table, (int)i + 1);
            const double value = lua_tonumber(L, -1);
            if (lua_type(L, -1) != LUA_TNUMBER || value != floor(value) ||
                fabs(value) > ldexp(1.0, LARGEST_INTEGER_BITS))
                luaL_argerror(L, argument, lua_pushfstring(L, "%s: entry %d is no integer", what, (int)i + 1));
            read.values[i] = (int64_t)value;
            lua_pop(L, 1);
        }
    } else {
        luaL_argerror(L, argument,
                      lua_pushfstring(L, "%s: an array of integers or an int64 tensor expected, got %s", what,
                                      luaL_typename(L, -1)));
    }
    lua_remove(L, -2);
    return read;
}

/* Pushes an int64 tensor of `count` values. */
static pxr_tensor *push_integers(lua_State *L, const pxr_tensor *like, const int64_t *values, int64_t count)
{
    pxr_error error = {0};
    pxr_tensor *tensor = push_tensor(L, like, PXR_I64, 1, &count);
    pxr_device *device = pxr_tensor_device(tensor);
    pxr_lua_check(L, device->upload(device, tensor->data, values, (size_t)count * sizeof *values, &error), &error);
    return tensor;
}

/* Pushes the places in a past that are at `index`, counted from 1 there and from 0 in the tensor. */
static pxr_tensor *push_places(lua_State *L, int index, const pxr_tensor *like)
{
    lua_pushvalue(L, index);
    const integers places = read_integers(L, index, "places");
    for (int64_t i = 0; i < places.count; i++) places.values[i]--;
    return push_integers(L, like, places.values, places.count);
}

/* ---- products and rows ----------------------------------------------------------------------------------------- */

static const char *const activation_names[] = {"none", "gelu_tanh", "gelu", NULL};

/*** A linear layer: `activation(x weight^T + bias) + residual`, in float32.
 * @function linear
 * @tparam Tensor x [n,K] float32
 * @tparam Tensor weight [N,K] float32, float16 or bfloat16; or integers, as `quantize` gives them
 * @tparam ?Tensor bias [N] any float type
 * @tparam ?string activation "none", "gelu_tanh" or "gelu" (the exact one, by erf)
 * @tparam ?Tensor residual [n,N] float32
 * @tparam ?Tensor scales of integer weights
 * @treturn Tensor [n,N] float32
 */
static int linear(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1), *weight = pxr_lua_check_tensor(L, 2);
    const pxr_tensor *bias = pxr_lua_opt_tensor(L, 3), *residual = pxr_lua_opt_tensor(L, 5);
    const pxr_tensor *scales = pxr_lua_opt_tensor(L, 6);
    const int activation = luaL_checkoption(L, 4, "none", activation_names);
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_matrix(L, x, size_of(x, 0), size_of(weight, 0));
    const pxr_linear_args args = {.out = out,
                                  .x = x,
                                  .weight = weight,
                                  .scales = scales,
                                  .bias = bias,
                                  .residual = residual,
                                  .activation = (pxr_activation)activation};
    pxr_lua_check(L, pxr_linear(&args, &error), &error);
    return 1;
}

/* The tensor under `key` of the options at `index`; NULL where there is none. */
static const pxr_tensor *tensor_option(lua_State *L, int index, const char *key)
{
    if (!push_option(L, index, key)) return NULL;
    const pxr_tensor *tensor = pxr_lua_check_tensor(L, -1);
    lua_pop(L, 1); /* the table keeps it */
    return tensor;
}

/* The product that the table at `index` describes; pushes its result. */
static pxr_linear_args read_product(lua_State *L, int index, const pxr_tensor *x)
{
    static const char *const keys[] = {"weight", "bias", "activation", "residual", "scales", NULL};
    luaL_checktype(L, index, LUA_TTABLE);
    check_keys(L, index, keys);
    pxr_linear_args args = {.x = x,
                            .weight = tensor_option(L, index, "weight"),
                            .bias = tensor_option(L, index, "bias"),
                            .residual = tensor_option(L, index, "residual"),
                            .scales = tensor_option(L, index, "scales")};
    if (push_option(L, index, "activation")) {
        args.activation = (pxr_activation)luaL_checkoption(L, -1, NULL, activation_names);
        lua_pop(L, 1);
    }
    if (!args.weight) luaL_argerror(L, index, "weight expected");
    args.out = push_matrix(L, x, size_of(x, 0), size_of(args.weight, 0));
    return args;
}

/*** Several linear layers of the same rows, each to the bit what @{linear} gives: what can be done once is.
 * @function linears
 * @tparam Tensor x [n,K] float32
 * @tparam table ... one for each layer, at most four: {weight =, bias =, activation =, residual =, scales =} as for
 *   @{linear}
 * @treturn Tensor ... [n,N] float32, one for each layer
 */
static int linears(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int count = lua_gettop(L) - 1;
    pxr_linear_args each[PXR_LINEARS_MAX];
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    for (int i = 0; i < count && i < PXR_LINEARS_MAX; i++) each[i] = read_product(L, i + 2, x);
    pxr_lua_check(L, pxr_linears(&(pxr_linears_args){.each = each, .count = count}, &error), &error);
    return count;
}

/*** @{linears} of `rms_norm(x, weight, epsilon)`, and `silu_mul` of two of them: what stands around products in a layer.
 * @function normed_linears
 * @tparam Tensor x [n,K] float32
 * @tparam Tensor weight [K] any float type: the norm's
 * @tparam number epsilon added to the mean square
 * @tparam boolean gated whether two products become `silu(first) * second`
 * @tparam table ... one for each layer, as in @{linears}
 * @treturn Tensor ... [n,N] float32, one for each layer, or one
 */
static int normed_linears(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1), *weight = pxr_lua_check_tensor(L, 2);
    const float epsilon = check_float(L, 3);
    const bool gated = lua_toboolean(L, 4) != 0;
    const int count = lua_gettop(L) - 4;
    pxr_linear_args each[PXR_LINEARS_MAX];
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    const pxr_tensor *normed = push_matrix(L, x, size_of(x, 0), size_of(x, 1));
    for (int i = 0; i < count && i < PXR_LINEARS_MAX; i++) each[i] = read_product(L, i + 5, normed);
    const pxr_rms_norm_args norm = {.out = normed, .x = x, .weight = weight, .epsilon = epsilon};
    pxr_silu_mul_args silu_mul = {0};
    if (gated && count == 2) silu_mul = (pxr_silu_mul_args){.out = each[0].out, .gate = each[0].out, .up = each[1].out};
    const pxr_linears_args args = {.each = each, .count = count, .norm = &norm, .silu_mul = gated ? &silu_mul : NULL};
    pxr_lua_check(L, pxr_linears(&args, &error), &error);
    if (!gated) return count;
    lua_pop(L, 1);
    return 1;
}

/*** Layer normalisation of the rows of x.
 * @function layer_norm
 * @tparam Tensor x [n,D] float32
 * @tparam Tensor weight [D] any float type
 * @tparam Tensor bias [D] any float type
 * @tparam number epsilon added to the variance
 * @treturn Tensor [n,D] float32
 */
static int layer_norm(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1), *weight = pxr_lua_check_tensor(L, 2);
    const pxr_tensor *bias = pxr_lua_check_tensor(L, 3);
    const float epsilon = check_float(L, 4);
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_matrix(L, x, size_of(x, 0), size_of(x, 1));
    const pxr_layer_norm_args args = {.out = out, .x = x, .weight = weight, .bias = bias, .epsilon = epsilon};
    pxr_lua_check(L, pxr_layer_norm(&args, &error), &error);
    return 1;
}

/*** Root-mean-square normalisation of the rows of x.
 * @function rms_norm
 * @tparam Tensor x [n,D] float32
 * @tparam Tensor weight [D] any float type
 * @tparam number epsilon added to the mean square
 * @treturn Tensor [n,D] float32
 */
static int rms_norm(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1), *weight = pxr_lua_check_tensor(L, 2);
    const float epsilon = check_float(L, 3);
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_matrix(L, x, size_of(x, 0), size_of(x, 1));
    const pxr_rms_norm_args args = {.out = out, .x = x, .weight = weight, .epsilon = epsilon};
    pxr_lua_check(L, pxr_rms_norm(&args, &error), &error);
    return 1;
}

/*** Rotary positions in rotate-half form, in place.
 * @function rope
 * @tparam Tensor x [n,heads,head_dim] float32; it is changed
 * @tparam Tensor cos [n,head_dim/2] float32
 * @tparam Tensor sin [n,head_dim/2] float32
 * @treturn Tensor x
 */
static int rope(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const pxr_tensor *cosines = pxr_lua_check_tensor(L, 2), *sines = pxr_lua_check_tensor(L, 3);
    pxr_error error = {0};
    pxr_lua_check(L, pxr_rope(&(pxr_rope_args){.out = x, .cos = cosines, .sin = sines}, &error), &error);
    lua_settop(L, 1);
    return 1;
}

/*** What queries, keys and values go through before they meet a past: rope on q and k, in place, then the rows of k and
 * v go into the past.
 * @function rope_store
 * @tparam Tensor q [n,heads,head_dim] float32; it is changed
 * @tparam Tensor k [n,kv_heads,head_dim] float32; it is changed
 * @tparam Tensor v [n,kv_heads,head_dim] float32
 * @tparam Tensor cos [n,head_dim/2] float32
 * @tparam Tensor sin [n,head_dim/2] float32
 * @tparam Tensor keys [batch,m,kv_heads,head_dim] any float type; it is changed
 * @tparam Tensor values as keys; it is changed
 * @tparam Tensor|{int,...} places where each row goes, (batch - 1) * m + position, counted from 1
 * @treturn Tensor q
 */
static int rope_store(lua_State *L)
{
    const pxr_rope_store_args args = {
        .q = pxr_lua_check_tensor(L, 1),
        .k = pxr_lua_check_tensor(L, 2),
        .v = pxr_lua_check_tensor(L, 3),
        .cos = pxr_lua_check_tensor(L, 4),
        .sin = pxr_lua_check_tensor(L, 5),
        .keys = pxr_lua_check_tensor(L, 6),
        .values = pxr_lua_check_tensor(L, 7),
        .places = push_places(L, 8, pxr_lua_check_tensor(L, 1)),
    };
    pxr_error error = {0};
    pxr_lua_check(L, pxr_rope_store(&args, &error), &error);
    lua_pushvalue(L, 1);
    return 1;
}

/*** The gated unit of SwiGLU: `silu(gate) * up`.
 * @function silu_mul
 * @tparam Tensor gate [n,F] float32
 * @tparam Tensor up [n,F] float32
 * @treturn Tensor [n,F] float32
 */
static int silu_mul(lua_State *L)
{
    const pxr_tensor *gate = pxr_lua_check_tensor(L, 1), *up = pxr_lua_check_tensor(L, 2);
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_matrix(L, gate, size_of(gate, 0), size_of(gate, 1));
    pxr_lua_check(L, pxr_silu_mul(&(pxr_silu_mul_args){.out = out, .gate = gate, .up = up}, &error), &error);
    return 1;
}

/*** Rows of a table, widened to float32.
 * @function embedding
 * @tparam Tensor table [V,D] any float type; or integers, as `quantize` gives them
 * @tparam Tensor|{int,...} ids token ids, from 0
 * @tparam ?Tensor scales of an integer table
 * @tparam ?int width D, of an integer table
 * @treturn Tensor [n,D] float32
 */
static int embedding(lua_State *L)
{
    const pxr_tensor *table = pxr_lua_check_tensor(L, 1), *ids = luaL_testudata(L, 2, PXR_LUA_TENSOR);
    const pxr_tensor *scales = pxr_lua_opt_tensor(L, 3);
    const int64_t width = scales ? pxr_lua_check_integer(L, 4, 1, LARGEST_WIDTH) : size_of(table, 1);
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    if (!ids) {
        lua_pushvalue(L, 2);
        const integers read = read_integers(L, 2, "ids");
        ids = push_integers(L, table, read.values, read.count);
    } else {
        ids = pxr_lua_check_tensor(L, 2);
    }
    pxr_tensor *out = push_matrix(L, table, size_of(ids, 0), width);
    const pxr_embedding_args args = {.out = out, .table = table, .scales = scales, .ids = ids};
    pxr_lua_check(L, pxr_embedding(&args, &error), &error);
    return 1;
}

/*** A matrix as integers and scales, an eighth or a quarter of float32's bytes.
 *
 * `group` neighbours of a row share a float16 scale. Eight bits are int8 [N,K]; four bits are two values q to a byte,
 * uint8 [N,ceil(K/2)], stored as q + 8, the earlier one in the low half. `embedding` widens rows again.
 * @function quantize
 * @tparam Tensor x [N,K] any float type
 * @tparam int bits 8 or 4
 * @tparam int group a power of two, 16 to 1024
 * @treturn Tensor the integers
 * @treturn Tensor float16 [N,ceil(K/group)] the scales
 * @raise a weight that is not finite, with its row
 */
static int quantize(lua_State *L)
{
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int64_t bits = pxr_lua_check_integer(L, 2, 4, 8);
    const int64_t group = pxr_lua_check_integer(L, 3, 1 << PXR_GROUP_SHIFT_MIN, 1 << PXR_GROUP_SHIFT_MAX);
    pxr_error error = {0};
    if (bits != 4 && bits != 8) luaL_argerror(L, 2, "4 or 8 bits expected");
    if ((group & (group - 1)) != 0) luaL_argerror(L, 3, "a power of two expected");
    if (x->rank != 2) luaL_argerror(L, 1, "a matrix expected");
    const int64_t rows = x->size[0], columns = x->size[1];
    pxr_lua_collect_if_needed(L);
    const pxr_tensor *out = push_tensor(L, x, bits == 8 ? PXR_I8 : PXR_U8, 2,
                                        (const int64_t[]){rows, bits == 8 ? columns : columns / 2 + columns % 2});
    const pxr_tensor *scales = push_tensor(L, x, PXR_F16, 2,
                                           (const int64_t[]){rows, columns / group + (columns % group != 0)});
    pxr_lua_check(L, pxr_quantize(&(pxr_quantize_args){.out = out, .scales = scales, .x = x}, &error), &error);
    return 2;
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

/* The segments of options.segments (their scratch is pushed), or one segment of everything. */
static pxr_attention_segment *read_segments(lua_State *L, int index, const pxr_tensor *q, const pxr_tensor *k,
                                            int64_t *count)
{
    static const char *const keys[] = {"query_begin", "query_count", "key_begin", "key_count", "batch", NULL};
    const int64_t queries = size_of(q, 0), all_keys = size_of(k, k->rank == 4 ? 1 : 0);
    if (!push_option(L, index, "segments")) {
        pxr_attention_segment *all = pxr_lua_scratch(L, sizeof *all);
        *all = (pxr_attention_segment){.query_count = queries, .key_count = all_keys};
        *count = 1;
        return all;
    }
    const int list = lua_gettop(L);
    if (!lua_istable(L, list)) luaL_argerror(L, index, "segments: an array of tables expected");
    *count = (int64_t)lua_objlen(L, list);
    pxr_attention_segment *segments = pxr_lua_scratch(L, (size_t)*count * sizeof *segments);
    for (int64_t i = 0; i < *count; i++) {
        lua_rawgeti(L, list, (int)i + 1);
        const int segment = lua_gettop(L);
        if (!lua_istable(L, segment)) luaL_argerror(L, index, "segments: an array of tables expected");
        check_keys(L, segment, keys);
        const int64_t query_begin = integer_option(L, segment, "query_begin", 1, 1) - 1;
        const int64_t key_begin = integer_option(L, segment, "key_begin", 1, 1) - 1;
        segments[i] = (pxr_attention_segment){
            .query_begin = query_begin,
            .query_count = integer_option(L, segment, "query_count", queries > query_begin ? queries - query_begin : 0,
                                          0),
            .key_begin = key_begin,
            .key_count = integer_option(L, segment, "key_count", all_keys > key_begin ? all_keys - key_begin : 0, 0),
            .batch = integer_option(L, segment, "batch", 1, 1) - 1,
        };
        lua_pop(L, 1);
    }
    return segments;
}

/*** Scaled dot-product attention, `softmax(scale q k^T) v`, of packed sequences. With fewer heads in k than in q,
 * neighbouring query heads share a key head.
 * @function attention
 * @tparam Tensor q [n,heads,head_dim] float32
 * @tparam Tensor k [m,kv_heads,head_dim] or [batch,m,kv_heads,head_dim] float32
 * @tparam Tensor v as k
 * @tparam ?table options `scale` (1/sqrt(head_dim)); `causal` (false; the last query of a segment sees all its keys, the
 * one before it all but the last, and so on); `segments`, an array of `{query_begin, query_count, key_begin, key_count,
 * batch}`: rows that see each other, counted from 1 (everything is one segment); `places`, for segments of one query each,
 * the last key that each sees, as in @{rope_store}: it must say what the segments say
 * @treturn Tensor [n,heads,head_dim] float32; rows in no segment are zero
 */
static int attention(lua_State *L)
{
    static const char *const keys[] = {"scale", "causal", "segments", "places", NULL};
    const pxr_tensor *q = pxr_lua_check_tensor(L, 1), *k = pxr_lua_check_tensor(L, 2), *v = pxr_lua_check_tensor(L, 3);
    check_keys(L, 4, keys);
    lua_settop(L, 4);
    const int64_t head_dim = size_of(q, 2);
    pxr_attention_args args = {
        .q = q,
        .k = k,
        .v = v,
        .scale = (float)number_option(L, 4, "scale", head_dim > 0 ? 1.0 / sqrt((double)head_dim) : 1.0),
        .causal = boolean_option(L, 4, "causal"),
    };
    args.segments = read_segments(L, 4, q, k, &args.segment_count);
    if (push_option(L, 4, "places")) args.places = push_places(L, lua_gettop(L), q);
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_tensor(L, q, PXR_F32, 3, (const int64_t[]){size_of(q, 0), size_of(q, 1), head_dim});
    args.out = out;
    pxr_lua_check(L, pxr_fill(&(pxr_fill_args){.out = out, .value = 0.0}, &error), &error);
    pxr_lua_check(L, pxr_attention(&args, &error), &error);
    return 1;
}

/*** What attention multiplies v with, for looking inside: `softmax(scale q k^T)`, each row summing to 1.
 * @function attention_weights
 * @tparam Tensor q [n,heads,head_dim] float32
 * @tparam Tensor k [m,kv_heads,head_dim] float32
 * @tparam ?table options `scale` (1/sqrt(head_dim)); `causal` (false; the last query sees all keys, the one before it
 * all but the last, and so on; what a query does not see has weight 0)
 * @treturn Tensor [heads,n,m] float32
 */
static int attention_weights(lua_State *L)
{
    static const char *const keys[] = {"scale", "causal", NULL};
    const pxr_tensor *q = pxr_lua_check_tensor(L, 1), *k = pxr_lua_check_tensor(L, 2);
    check_keys(L, 3, keys);
    const int64_t head_dim = size_of(q, 2);
    pxr_attention_weights_args args = {
        .q = q,
        .k = k,
        .scale = (float)number_option(L, 3, "scale", head_dim > 0 ? 1.0 / sqrt((double)head_dim) : 1.0),
        .causal = boolean_option(L, 3, "causal"),
    };
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    args.out = push_tensor(L, q, PXR_F32, 3, (const int64_t[]){size_of(q, 1), size_of(q, 0), size_of(k, 0)});
    pxr_lua_check(L, pxr_attention_weights(&args, &error), &error);
    return 1;
}

/* ---- k-means --------------------------------------------------------------------------------------------------- */

/*** k-means as SAOT merges cells.
 * @function kmeans
 * @tparam Tensor points [n,E] float32
 * @tparam Tensor|{int,...} start rows of points, counted from 1, that the k clusters start from
 * @tparam int rounds at most
 * @treturn Tensor [k,E] the centroids
 * @treturn Tensor [n] int64: each point's cluster, counted from 1
 */
static int kmeans(lua_State *L)
{
    const pxr_tensor *points = pxr_lua_check_tensor(L, 1);
    const int rounds = (int)pxr_lua_check_integer(L, 3, 1, INT32_MAX);
    pxr_error error = {0};
    lua_settop(L, 3);
    pxr_lua_collect_if_needed(L);
    lua_pushvalue(L, 2);
    const integers start = read_integers(L, 2, "start");
    for (int64_t i = 0; i < start.count; i++) {
        if (start.values[i] < 1 || start.values[i] > size_of(points, 0))
            luaL_argerror(L, 2,
                          lua_pushfstring(L, "start: entry %d is %f, expected a row of points, 1 to %f", (int)i + 1,
                                          (double)start.values[i], (double)size_of(points, 0)));
        start.values[i]--;
    }
    const pxr_tensor *rows = push_integers(L, points, start.values, start.count);
    pxr_tensor *assignment = push_tensor(L, points, PXR_I64, 1, (const int64_t[]){size_of(points, 0)});
    pxr_tensor *centroids = push_matrix(L, points, start.count, size_of(points, 1));
    const pxr_kmeans_args args = {.out = centroids,
                                  .points = points,
                                  .start = rows,
                                  .assignment = assignment,
                                  .rounds = rounds};
    pxr_lua_check(L, pxr_kmeans(&args, &error), &error);
    integers clusters = read_integer_tensor(L, assignment);
    for (int64_t i = 0; i < clusters.count; i++) clusters.values[i]++;
    push_integers(L, points, clusters.values, clusters.count);
    lua_pushvalue(L, -3);
    lua_insert(L, -2);
    return 2;
}

/* ---- sampling -------------------------------------------------------------------------------------------------- */

/* options.generated: one array (or int64 tensor) of token ids a row. */
static void read_generated(lua_State *L, int index, int64_t rows, pxr_sample_args *args)
{
    if (!push_option(L, index, "generated")) return;
    const int list = lua_gettop(L);
    if (!lua_istable(L, list) || (int64_t)lua_objlen(L, list) != rows)
        luaL_argerror(L, index, "generated: an array with the ids of each row expected");
    const int64_t **ids = pxr_lua_scratch(L, (size_t)rows * sizeof *ids);
    int64_t *counts = pxr_lua_scratch(L, (size_t)rows * sizeof *counts);
    lua_createtable(L, (int)rows, 0); /* holds the rows' scratch */
    const int holder = lua_gettop(L);
    for (int64_t row = 0; row < rows; row++) {
        lua_rawgeti(L, list, (int)row + 1);
        const integers read = read_integers(L, index, "generated");
        lua_rawseti(L, holder, (int)row + 1);
        ids[row] = read.values;
        counts[row] = read.count;
    }
    args->generated = ids;
    args->generated_count = counts;
}

static const uint64_t *read_streams(lua_State *L, int index, int64_t rows)
{
    if (!push_option(L, index, "streams")) return NULL;
    const integers read = read_integers(L, index, "streams");
    if (read.count != rows) luaL_argerror(L, index, "streams: one number a row expected");
    uint64_t *streams = pxr_lua_scratch(L, (size_t)rows * sizeof *streams);
    for (int64_t i = 0; i < rows; i++) streams[i] = (uint64_t)read.values[i];
    return streams;
}

/*** Chooses a token id for each row of logits.
 * @function sample
 * @tparam Tensor logits [n,V] float32
 * @tparam ?table options `temperature` (0: greedy), `top_k` (0: off), `top_p` (1: off; 0: the most probable alone),
 * `repetition_penalty` (1: off) over `generated` (for each row an array or int64 tensor of token ids), `seed` and
 * `step` (both 0: key and counter of Philox4x32-10), `streams` (a number a row, all 0), `probabilities` (true: return
 * them too)
 * @treturn Tensor [n] int64 token ids, from 0
 * @treturn ?Tensor [n,V] float32: what was drawn from, if asked for
 */
static int sample(lua_State *L)
{
    static const char *const keys[] = {"temperature", "top_k", "top_p",   "repetition_penalty", "generated",
                                       "seed",        "step",  "streams", "probabilities",      NULL};
    const pxr_tensor *logits = pxr_lua_check_tensor(L, 1);
    check_keys(L, 2, keys);
    lua_settop(L, 2);
    const int64_t rows = size_of(logits, 0);
    pxr_sample_args args = {
        .logits = logits,
        .temperature = (float)number_option(L, 2, "temperature", 0.0),
        .top_k = integer_option(L, 2, "top_k", 0, 0),
        .top_p = (float)number_option(L, 2, "top_p", 1.0),
        .repetition_penalty = (float)number_option(L, 2, "repetition_penalty", 1.0),
        .seed = (uint64_t)integer_option(L, 2, "seed", 0, 0),
        .step = (uint64_t)integer_option(L, 2, "step", 0, 0),
        .streams = read_streams(L, 2, rows),
    };
    const bool wants_probabilities = boolean_option(L, 2, "probabilities");
    read_generated(L, 2, rows, &args);
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    args.out = push_tensor(L, logits, PXR_I64, 1, &rows);
    if (wants_probabilities) args.probabilities = push_matrix(L, logits, rows, size_of(logits, 1));
    pxr_lua_check(L, pxr_sample(&args, &error), &error);
    return wants_probabilities ? 2 : 1;
}

void pxr_lua_open_ops(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"linear", linear},       {"linears", linears},       {"normed_linears", normed_linears},
        {"quantize", quantize},   {"layer_norm", layer_norm}, {"rms_norm", rms_norm},
        {"rope", rope},           {"rope_store", rope_store}, {"silu_mul", silu_mul},
        {"embedding", embedding}, {"attention", attention},   {"attention_weights", attention_weights},
        {"kmeans", kmeans},       {"sample", sample},         {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
