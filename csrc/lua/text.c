/*** The tokenizer's binding: class Tokenizer and its streams. `pixelrefer.tokenizer` wraps them for users.
 * @module pixelrefer.core
 */
#include "lua/binding.h"

#include "core/memory.h"
#include "text/tokenizer.h"

#define TOKENIZER "pixelrefer.Tokenizer"
#define STREAM "pixelrefer.core.token_stream"
#define BLOCK "pixelrefer.core.text_block"

/* ---- memory that a raised error must not leak ------------------------------------------------------------------- */

static int free_block(lua_State *L)
{
    void **block = luaL_checkudata(L, 1, BLOCK);
    pxr_free(*block);
    *block = NULL;
    return 0;
}

/* Pushes an owner for one block of core/memory.h. */
static void **push_block(lua_State *L)
{
    void **block = lua_newuserdata(L, sizeof *block);
    *block = NULL;
    luaL_getmetatable(L, BLOCK);
    lua_setmetatable(L, -2);
    return block;
}

/* ---- the tokenizer ---------------------------------------------------------------------------------------------- */

static pxr_tokenizer *check_tokenizer(lua_State *L, int index)
{
    pxr_tokenizer **tokenizer = pxr_lua_check_object(L, index, TOKENIZER);
    if (!*tokenizer) luaL_argerror(L, index, "this tokenizer was freed");
    return *tokenizer;
}

static int free_tokenizer(lua_State *L)
{
    pxr_tokenizer **tokenizer = pxr_lua_check_object(L, 1, TOKENIZER);
    pxr_tokenizer_free(*tokenizer);
    *tokenizer = NULL;
    return 0;
}

/*** Makes a tokenizer from the tokenizer files of a directory.
 * @function loadTokenizer
 * @tparam string directory
 * @treturn Tokenizer
 */
static int load_tokenizer(lua_State *L)
{
    pxr_error error = {0};
    const char *directory = luaL_checkstring(L, 1);
    pxr_lua_collect_if_needed(L);
    pxr_tokenizer **tokenizer = lua_newuserdata(L, sizeof *tokenizer);
    *tokenizer = NULL;
    luaL_getmetatable(L, TOKENIZER);
    lua_setmetatable(L, -2);
    pxr_lua_check(L, pxr_tokenizer_open(tokenizer, directory, &error), &error);
    return 1;
}

/*** The ids of a text.
 * @function Tokenizer:encode
 * @tparam string text
 * @treturn {integer,...} ids, counted from 0
 */
static int tokenizer_encode(lua_State *L)
{
    pxr_error error = {0};
    size_t length, count = 0;
    const pxr_tokenizer *tokenizer = check_tokenizer(L, 1);
    const char *text = luaL_checklstring(L, 2, &length);
    void **block = push_block(L);
    int32_t *ids = NULL;
    const pxr_status status = pxr_tokenizer_encode(tokenizer, text, length, &ids, &count, &error);
    *block = ids;
    pxr_lua_check(L, status, &error);
    if (count > INT32_MAX - 1) luaL_error(L, "a text of %f tokens does not fit a table", (double)count);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushinteger(L, ids[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    pxr_free(*block);
    *block = NULL;
    return 1;
}

/* The list of ids at `index`, in scratch memory that is pushed. */
static const int32_t *check_ids(lua_State *L, int index, size_t *count)
{
    luaL_checktype(L, index, LUA_TTABLE);
    *count = lua_objlen(L, index);
    int32_t *ids = pxr_lua_scratch(L, *count * sizeof *ids);
    for (size_t i = 0; i < *count; i++) {
        lua_rawgeti(L, index, (int)i + 1);
        const double id = lua_tonumber(L, -1);
        if (lua_type(L, -1) != LUA_TNUMBER || !(id >= INT32_MIN && id <= INT32_MAX) || id != (double)(int32_t)id)
            luaL_argerror(L, index,
                          lua_pushfstring(L, "a list of token ids expected, entry %d is %s", (int)i + 1,
                                          luaL_typename(L, -1)));
        ids[i] = (int32_t)id;
        lua_pop(L, 1);
    }
    return ids;
}

/*** The text of ids.
 * @function Tokenizer:decode
 * @tparam {integer,...} ids
 * @tparam[opt=false] boolean skip_special leaves special tokens out
 * @treturn string
 */
static int tokenizer_decode(lua_State *L)
{
    pxr_error error = {0};
    size_t length = 0, count;
    const pxr_tokenizer *tokenizer = check_tokenizer(L, 1);
    const bool skip_special = lua_toboolean(L, 3);
    const int32_t *ids = check_ids(L, 2, &count);
    void **block = push_block(L);
    char *text = NULL;
    const pxr_status status = pxr_tokenizer_decode(tokenizer, ids, count, skip_special, &text, &length, &error);
    *block = text;
    pxr_lua_check(L, status, &error);
    lua_pushlstring(L, text ? text : "", length);
    pxr_free(*block);
    *block = NULL;
    return 1;
}

/*** The id of a token.
 * @function Tokenizer:id
 * @tparam string token as the tokenizer's files write it: "<REGION>", "Ġthe"
 * @treturn ?integer nil when there is no such token
 */
static int tokenizer_id(lua_State *L)
{
    size_t length;
    const pxr_tokenizer *tokenizer = check_tokenizer(L, 1);
    const char *written = luaL_checklstring(L, 2, &length);
    const int32_t id = pxr_tokenizer_id(tokenizer, written, length);
    if (id == PXR_NO_TOKEN)
        lua_pushnil(L);
    else
        lua_pushinteger(L, id);
    return 1;
}

static const pxr_token *check_token(lua_State *L, const pxr_tokenizer *tokenizer, int index)
{
    const int64_t last = (int64_t)tokenizer->vocabulary.size - 1;
    const int64_t id = pxr_lua_check_integer(L, index, 0, last);
    const pxr_token *token = pxr_vocabulary_token(&tokenizer->vocabulary, id);
    if (!token) luaL_argerror(L, index, lua_pushfstring(L, "id %d stands for no token", (int)id));
    return token;
}

/*** A token as the tokenizer's files write it.
 * @function Tokenizer:token
 * @tparam integer id
 * @treturn string
 */
static int tokenizer_token(lua_State *L)
{
    const pxr_tokenizer *tokenizer = check_tokenizer(L, 1);
    const pxr_token *token = check_token(L, tokenizer, 2);
    char *written = pxr_lua_scratch(L, 2 * (size_t)token->length);
    lua_pushlstring(L, written, pxr_vocabulary_write(&tokenizer->vocabulary, token, written));
    return 1;
}

/*** Whether decoding can leave a token out: <|im_end|>, <REGION>.
 * @function Tokenizer:isSpecial
 * @tparam integer id
 * @treturn boolean
 */
static int tokenizer_is_special(lua_State *L)
{
    const pxr_token *token = check_token(L, check_tokenizer(L, 1), 2);
    lua_pushboolean(L, (token->flags & PXR_TOKEN_SPECIAL) != 0);
    return 1;
}

/*** One more than the highest id.
 * @function Tokenizer:size
 * @treturn integer
 */
static int tokenizer_size(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check_tokenizer(L, 1)->vocabulary.size);
    return 1;
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

/* Its environment holds the tokenizer's userdata at [1]. */
typedef struct stream {
    pxr_token_stream state;
    pxr_text_buffer text; /* of one call, kept for the next */
} stream;

static int free_stream(lua_State *L)
{
    stream *object = pxr_lua_check_object(L, 1, STREAM);
    pxr_free(object->text.data);
    object->text = (pxr_text_buffer){0};
    return 0;
}

/*** A decoder that takes one id after another.
 * @function Tokenizer:stream
 * @tparam[opt=false] boolean skip_special leaves special tokens out
 * @treturn TokenStream
 */
static int tokenizer_stream(lua_State *L)
{
    check_tokenizer(L, 1);
    const bool skip_special = lua_toboolean(L, 2);
    stream *object = lua_newuserdata(L, sizeof *object);
    *object = (stream){.state.skip_special = skip_special};
    luaL_getmetatable(L, STREAM);
    lua_setmetatable(L, -2);
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    lua_setfenv(L, -2);
    return 1;
}

static int push_text(lua_State *L, stream *object, pxr_status status, const pxr_error *error)
{
    pxr_lua_check(L, status, error);
    lua_pushlstring(L, object->text.length ? object->text.data : "", object->text.length);
    return 1;
}

/*** Takes the next id.
 * @function TokenStream:push
 * @tparam integer id
 * @treturn string the whole characters that have become certain, "" when there are none
 */
static int stream_push(lua_State *L)
{
    pxr_error error = {0};
    stream *object = pxr_lua_check_object(L, 1, STREAM);
    const int64_t id = pxr_lua_check_integer(L, 2, INT32_MIN, INT32_MAX);
    lua_getfenv(L, 1);
    lua_rawgeti(L, -1, 1);
    const pxr_tokenizer *tokenizer = check_tokenizer(L, lua_gettop(L));
    object->text.length = 0;
    const pxr_status status = pxr_token_stream_push(&object->state, tokenizer, id, &object->text, &error);
    return push_text(L, object, status, &error);
}

/*** Ends the text.
 * @function TokenStream:finish
 * @treturn string U+FFFD when the ids ended inside a character, else ""
 */
static int stream_finish(lua_State *L)
{
    pxr_error error = {0};
    stream *object = pxr_lua_check_object(L, 1, STREAM);
    object->text.length = 0;
    const pxr_status status = pxr_token_stream_finish(&object->state, &object->text, &error);
    return push_text(L, object, status, &error);
}

/* ---- registration ----------------------------------------------------------------------------------------------- */

void pxr_lua_open_text(lua_State *L)
{
    static const luaL_Reg tokenizer_methods[] = {{"encode", tokenizer_encode}, {"decode", tokenizer_decode},
                                                 {"id", tokenizer_id},         {"token", tokenizer_token},
                                                 {"size", tokenizer_size},     {"isSpecial", tokenizer_is_special},
                                                 {"stream", tokenizer_stream}, {NULL, NULL}};
    static const luaL_Reg stream_methods[] = {{"push", stream_push}, {"finish", stream_finish}, {NULL, NULL}};
    static const luaL_Reg no_methods[] = {{NULL, NULL}};
    pxr_lua_class(L, TOKENIZER, tokenizer_methods, free_tokenizer);
    pxr_lua_class(L, STREAM, stream_methods, free_stream);
    pxr_lua_class(L, BLOCK, no_methods, free_block);
    lua_pop(L, 3);
    lua_pushcfunction(L, load_tokenizer);
    lua_setfield(L, -2, "loadTokenizer");
}
