/*** Decoder and KV cache as Lua objects.
 * @module pixelrefer.core
 */
#include "lua/binding.h"
#include "lua/tensor.h"

#include "model/decoder.h"
#include "ops/ops.h"

#define DECODER "pixelrefer.Decoder"
#define KV_CACHE "pixelrefer.KVCache"

/* ---- decoder --------------------------------------------------------------------------------------------------- */

/* The type of the caches of the decoder whose config is at 1: its field `kv`, float32 unless it is there. */
static pxr_dtype check_cache_dtype(lua_State *L)
{
    pxr_dtype dtype = PXR_F32;
    lua_getfield(L, 1, "kv");
    const char *name = lua_tostring(L, -1);
    const bool known = name && pxr_dtype_parse(name, &dtype);
    if (!lua_isnil(L, -1) && (!known || (dtype != PXR_F32 && dtype != PXR_F16 && dtype != PXR_BF16)))
        luaL_error(L, "kv: 'float32', 'float16' or 'bfloat16' expected, found '%s'",
                   name ? name : luaL_typename(L, -1));
    lua_pop(L, 1);
    return dtype;
}

/*** The Qwen2 decoder.
@function decoder
@tparam table config hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads,
  head_dim, vocab_size, rms_norm_eps, rope_theta; kv: the type of its caches, "float32" (the default), "float16" or "bfloat16"
@tparam table weights names (`layers.0.self_attn.q_proj.weight`, ...) to tensors
@tparam[opt="cpu"] string device
@treturn Decoder */
static int new_decoder(lua_State *L)
{
    pxr_error error = {0};
    luaL_checktype(L, 1, LUA_TTABLE);
    const pxr_decoder_config config = {
        .hidden = pxr_lua_integer_field(L, 1, "hidden_size", 1, 1 << 20),
        .intermediate = pxr_lua_integer_field(L, 1, "intermediate_size", 1, 1 << 20),
        .layers = pxr_lua_integer_field(L, 1, "num_hidden_layers", 0, 1 << 12),
        .heads = pxr_lua_integer_field(L, 1, "num_attention_heads", 1, 1 << 12),
        .kv_heads = pxr_lua_integer_field(L, 1, "num_key_value_heads", 1, 1 << 12),
        .head_dim = pxr_lua_integer_field(L, 1, "head_dim", 2, 1 << 12),
        .vocab = pxr_lua_integer_field(L, 1, "vocab_size", 1, 1 << 24),
        .epsilon = (float)pxr_lua_number_field(L, 1, "rms_norm_eps"),
        .rope_theta = (float)pxr_lua_number_field(L, 1, "rope_theta"),
        .cache_dtype = check_cache_dtype(L),
    };
    pxr_device *device = pxr_lua_opt_device(L, 3);
    const pxr_tensor_map *weights = pxr_lua_check_tensor_map(L, 2);
    void **handle = pxr_lua_new_handle(L, DECODER);
    pxr_lua_check(L, pxr_decoder_new((pxr_decoder **)handle, &config, weights, device, &error), &error);
    return 1;
}

static int decoder_free(lua_State *L)
{
    void **handle = luaL_checkudata(L, 1, DECODER);
    pxr_decoder_free(*handle);
    *handle = NULL;
    return 0;
}

static pxr_tensor *push_result(lua_State *L, pxr_decoder *decoder, int64_t rows, int64_t columns)
{
    pxr_error error = {0};
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const int64_t size[2] = {rows, columns};
    pxr_lua_check(L, pxr_tensor_new(out, pxr_decoder_device(decoder), PXR_F32, 2, size, &error), &error);
    return out;
}

/* Brought to the decoder's device. */
static pxr_tensor *check_hidden(lua_State *L, int index, const pxr_decoder *decoder)
{
    const pxr_tensor *x = pxr_lua_check_tensor_of(L, index, PXR_F32);
    if (x->rank != 2) luaL_argerror(L, index, "a tensor [n,D] expected");
    return pxr_lua_bring(L, index, pxr_decoder_device(decoder));
}

/*** Embeddings of token ids.
@function Decoder:embed
@tparam Tensor ids int64 [n], 0-based token ids
@treturn Tensor float32 [n,D] */
static int decoder_embed(lua_State *L)
{
    pxr_error error = {0};
    pxr_decoder *decoder = pxr_lua_check_handle(L, 1, DECODER);
    const pxr_tensor *given = pxr_lua_check_tensor_of(L, 2, PXR_I64);
    const bool goes_up = pxr_tensor_device(given)->is_host && !pxr_decoder_device(decoder)->is_host;
    if (given->rank != 1) luaL_argerror(L, 2, "a tensor [n] expected");
    if (goes_up) pxr_lua_check(L, pxr_decoder_check_ids(decoder, given, &error), &error);
    pxr_tensor *ids = pxr_lua_bring(L, 2, pxr_decoder_device(decoder));
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_result(L, decoder, pxr_tensor_count(ids), pxr_decoder_get_config(decoder)->hidden);
    pxr_lua_check(L, pxr_decoder_embed(decoder, out, ids, goes_up, &error), &error);
    return 1;
}

/* The list {{row, count}, ...} at `index` (rows 1-based) as scratch memory; nil: all rows of x continue row 1. */
static pxr_decoder_sequence *check_sequences(lua_State *L, int index, const pxr_tensor *x, int64_t *count)
{
    const bool is_default = lua_isnoneornil(L, index);
    if (!is_default) luaL_checktype(L, index, LUA_TTABLE);
    *count = is_default ? 1 : (int64_t)lua_objlen(L, index);
    pxr_decoder_sequence *sequences = pxr_lua_scratch(L, (size_t)*count * sizeof *sequences + 1);
    if (is_default) sequences[0] = (pxr_decoder_sequence){0, x->size[0]};
    for (int64_t s = 0; !is_default && s < *count; s++) {
        lua_rawgeti(L, index, (int)s + 1);
        if (!lua_istable(L, -1)) luaL_argerror(L, index, "a list of sequences {row, count} expected");
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        sequences[s].row = pxr_lua_check_integer(L, -2, 1, 1 << 20) - 1;
        sequences[s].count = pxr_lua_check_integer(L, -1, 1, 1 << 24);
        lua_pop(L, 3);
    }
    return sequences;
}

/*** All layers over new positions; keys and values go into the cache, whose lengths advance.
@function Decoder:forward
@tparam Tensor x float32 [n,D] embeddings; left as it is
@tparam KVCache cache
@tparam[opt] table sequences {{row, count}, ...}: which cache rows the rows of x continue; default: all row 1
@treturn Tensor float32 [n,D], not yet normed */
static int decoder_forward(lua_State *L)
{
    pxr_error error = {0};
    int64_t count;
    pxr_decoder *decoder = pxr_lua_check_handle(L, 1, DECODER);
    pxr_tensor *x = check_hidden(L, 2, decoder);
    pxr_kv_cache *cache = pxr_lua_check_handle(L, 3, KV_CACHE);
    const pxr_decoder_sequence *sequences = check_sequences(L, 4, x, &count);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_result(L, decoder, x->size[0], x->size[1]);
    pxr_status status = pxr_copy(&(pxr_copy_args){.out = out, .x = x}, &error);
    pxr_lua_check(L, status, &error);
    pxr_lua_interruptible_begin();
    status = pxr_decoder_forward(decoder, cache, out, sequences, count, &error);
    pxr_lua_interruptible_end();
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Some layers, for looking inside. The cache's lengths do not advance: call cache:advance when all have run.
@function Decoder:layers
@tparam Tensor x float32 [n,D]; left as it is
@tparam KVCache cache
@tparam int first 1-based
@tparam int last inclusive
@tparam[opt] table sequences as in forward
@treturn Tensor float32 [n,D] */
static int decoder_layers(lua_State *L)
{
    pxr_error error = {0};
    int64_t count;
    pxr_decoder *decoder = pxr_lua_check_handle(L, 1, DECODER);
    const int64_t layers = pxr_decoder_get_config(decoder)->layers;
    pxr_tensor *x = check_hidden(L, 2, decoder);
    pxr_kv_cache *cache = pxr_lua_check_handle(L, 3, KV_CACHE);
    const int64_t first = pxr_lua_check_integer(L, 4, 1, layers), last = pxr_lua_check_integer(L, 5, first - 1, layers);
    const pxr_decoder_sequence *sequences = check_sequences(L, 6, x, &count);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_result(L, decoder, x->size[0], x->size[1]);
    pxr_status status = pxr_copy(&(pxr_copy_args){.out = out, .x = x}, &error);
    pxr_lua_check(L, status, &error);
    pxr_lua_interruptible_begin();
    status = pxr_decoder_layers(decoder, cache, out, sequences, count, first - 1, last, &error);
    pxr_lua_interruptible_end();
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** The rotated queries with which a layer looks at the cache; with `cache:keys(layer)` and core.attention_weights they
give its attention.
@function Decoder:queries
@tparam Tensor x float32 [n,D]: what goes into the layer
@tparam int layer 1-based
@tparam int past positions before the first row of x
@treturn Tensor float32 [n,heads,head_dim] */
static int decoder_queries(lua_State *L)
{
    pxr_error error = {0};
    pxr_decoder *decoder = pxr_lua_check_handle(L, 1, DECODER);
    const pxr_decoder_config *config = pxr_decoder_get_config(decoder);
    pxr_tensor *x = check_hidden(L, 2, decoder);
    const int64_t layer = pxr_lua_check_integer(L, 3, 1, config->layers);
    const int64_t past = pxr_lua_check_integer(L, 4, 0, 1 << 24);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = pxr_lua_new_tensor(L);
    const int64_t size[3] = {x->size[0], config->heads, config->head_dim};
    pxr_lua_check(L, pxr_tensor_new(out, pxr_decoder_device(decoder), PXR_F32, 3, size, &error), &error);
    pxr_lua_check(L, pxr_decoder_queries(decoder, out, x, layer - 1, past, &error), &error);
    return 1;
}

/*** The final RMSNorm.
@function Decoder:norm
@tparam Tensor x float32 [n,D]
@treturn Tensor float32 [n,D] */
static int decoder_norm(lua_State *L)
{
    pxr_error error = {0};
    pxr_decoder *decoder = pxr_lua_check_handle(L, 1, DECODER);
    pxr_tensor *x = check_hidden(L, 2, decoder);
    pxr_tensor *out = push_result(L, decoder, x->size[0], x->size[1]);
    pxr_lua_check(L, pxr_decoder_norm(decoder, out, x, &error), &error);
    return 1;
}

/*** Logits of normed hidden states.
@function Decoder:logits
@tparam Tensor hidden float32 [n,D]
@treturn Tensor float32 [n,V] */
static int decoder_logits(lua_State *L)
{
    pxr_error error = {0};
    pxr_decoder *decoder = pxr_lua_check_handle(L, 1, DECODER);
    pxr_tensor *hidden = check_hidden(L, 2, decoder);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *out = push_result(L, decoder, hidden->size[0], pxr_decoder_get_config(decoder)->vocab);
    pxr_lua_check(L, pxr_decoder_logits(decoder, out, hidden, &error), &error);
    return 1;
}

/* ---- KV cache -------------------------------------------------------------------------------------------------- */

/*** An empty cache for this decoder.
@function Decoder:cache
@tparam int capacity positions a row can hold before it has to grow
@tparam[opt=1] int rows sequences side by side
@treturn KVCache */
static int decoder_cache(lua_State *L)
{
    pxr_error error = {0};
    pxr_decoder *decoder = pxr_lua_check_handle(L, 1, DECODER);
    const pxr_decoder_config *config = pxr_decoder_get_config(decoder);
    const int64_t capacity = pxr_lua_check_integer(L, 2, 1, 1 << 24);
    const int64_t rows = lua_isnoneornil(L, 3) ? 1 : pxr_lua_check_integer(L, 3, 1, 1 << 16);
    pxr_lua_collect_if_needed(L);
    void **handle = pxr_lua_new_handle(L, KV_CACHE);
    const pxr_status status = pxr_kv_cache_new((pxr_kv_cache **)handle, pxr_decoder_device(decoder),
                                               config->cache_dtype, config->layers, rows, capacity, config->kv_heads,
                                               config->head_dim, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

static int cache_free(lua_State *L)
{
    void **handle = luaL_checkudata(L, 1, KV_CACHE);
    pxr_kv_cache_free(*handle);
    *handle = NULL;
    return 0;
}

static int64_t check_row(lua_State *L, int index, const pxr_kv_cache *cache)
{
    return lua_isnoneornil(L, index) ? 0 : pxr_lua_check_integer(L, index, 1, cache->rows) - 1;
}

/*** Positions in use.
@function KVCache:length
@tparam[opt=1] int row
@treturn int */
static int cache_length(lua_State *L)
{
    const pxr_kv_cache *cache = pxr_lua_check_handle(L, 1, KV_CACHE);
    lua_pushnumber(L, (lua_Number)cache->length[check_row(L, 2, cache)]);
    return 1;
}

/*** Makes room for more positions; views of keys and values become stale.
@function KVCache:reserve
@tparam int capacity at least so many positions a row */
static int cache_reserve(lua_State *L)
{
    pxr_error error = {0};
    pxr_kv_cache *cache = pxr_lua_check_handle(L, 1, KV_CACHE);
    pxr_lua_check(L, pxr_kv_cache_reserve(cache, pxr_lua_check_integer(L, 2, 1, 1 << 24), &error), &error);
    return 0;
}

/*** Positions that fit without growing.
@function KVCache:capacity
@treturn int */
static int cache_capacity(lua_State *L)
{
    const pxr_kv_cache *cache = pxr_lua_check_handle(L, 1, KV_CACHE);
    lua_pushnumber(L, (lua_Number)cache->capacity);
    return 1;
}

/*** Moves a row's end: forward after layer-by-layer work, back to forget the newest positions.
@function KVCache:setLength
@tparam int length
@tparam[opt=1] int row */
static int cache_set_length(lua_State *L)
{
    pxr_kv_cache *cache = pxr_lua_check_handle(L, 1, KV_CACHE);
    const int64_t length = pxr_lua_check_integer(L, 2, 0, cache->capacity);
    cache->length[check_row(L, 3, cache)] = length;
    return 0;
}

/*** Makes a row begin with another row's positions.
@function KVCache:copy
@tparam KVCache from
@tparam[opt] int length of them; default: all
@tparam[opt=1] int row of this cache
@tparam[opt=1] int from_row
@treturn KVCache itself */
static int cache_copy(lua_State *L)
{
    pxr_error error = {0};
    pxr_kv_cache *cache = pxr_lua_check_handle(L, 1, KV_CACHE), *from = pxr_lua_check_handle(L, 2, KV_CACHE);
    const int64_t row = check_row(L, 4, cache), from_row = check_row(L, 5, from);
    const int64_t length = lua_isnoneornil(L, 3) ? from->length[from_row]
                                                 : pxr_lua_check_integer(L, 3, 0, from->length[from_row]);
    pxr_lua_check(L, pxr_kv_cache_copy(cache, row, from, from_row, length, &error), &error);
    lua_settop(L, 1);
    return 1;
}

static int push_timeline(lua_State *L, const pxr_tensor *keys_or_values, const pxr_kv_cache *cache)
{
    pxr_error error = {0};
    const int64_t layer = pxr_lua_check_integer(L, 2, 1, cache->layers) - 1, row = check_row(L, 3, cache);
    const pxr_tensor borrowed = pxr_kv_cache_layer(keys_or_values, layer);
    pxr_tensor *scratch = pxr_lua_new_tensor(L), *out = pxr_lua_new_tensor(L);
    pxr_lua_check(L, pxr_tensor_select(scratch, &borrowed, 0, row, &error), &error);
    pxr_lua_check(L, pxr_tensor_narrow(out, scratch, 0, 0, cache->length[row], &error), &error);
    return 1;
}

/*** The keys of one layer (rotated), a view that stays valid until the cache grows.
@function KVCache:keys
@tparam int layer 1-based
@tparam[opt=1] int row
@treturn Tensor float32, float16, or bfloat16 where the device computes in it: [length,kv_heads,head_dim] */
static int cache_keys(lua_State *L)
{
    const pxr_kv_cache *cache = pxr_lua_check_handle(L, 1, KV_CACHE);
    return push_timeline(L, &cache->keys, cache);
}

/*** The values of one layer.
@function KVCache:values
@tparam int layer 1-based
@tparam[opt=1] int row
@treturn Tensor as keys */
static int cache_values(lua_State *L)
{
    const pxr_kv_cache *cache = pxr_lua_check_handle(L, 1, KV_CACHE);
    return push_timeline(L, &cache->values, cache);
}

/* ---- module ---------------------------------------------------------------------------------------------------- */

void pxr_lua_open_decoder(lua_State *L)
{
    static const luaL_Reg decoder[] = {{"embed", decoder_embed},   {"forward", decoder_forward},
                                       {"layers", decoder_layers}, {"queries", decoder_queries},
                                       {"norm", decoder_norm},     {"logits", decoder_logits},
                                       {"cache", decoder_cache},   {NULL, NULL}};
    static const luaL_Reg cache[] = {{"length", cache_length},   {"setLength", cache_set_length},
                                     {"copy", cache_copy},       {"capacity", cache_capacity},
                                     {"keys", cache_keys},       {"values", cache_values},
                                     {"reserve", cache_reserve}, {NULL, NULL}};
    pxr_lua_class(L, DECODER, decoder, decoder_free);
    pxr_lua_class(L, KV_CACHE, cache, cache_free);
    lua_pop(L, 2);
    lua_pushcfunction(L, new_decoder);
    lua_setfield(L, -2, "decoder");
}
