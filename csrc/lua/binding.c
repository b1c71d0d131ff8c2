/* Argument checks, userdata and errors shared by the binding; see binding.h. */
#include "lua/binding.h"

#include "core/interrupt.h"
#include "core/memory.h"
#include "ops/device.h"

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

/* ---- errors ---------------------------------------------------------------------------------------------------- */

void pxr_lua_check(lua_State *L, pxr_status status, const pxr_error *error)
{
    if (status == PXR_OK) return;
    lua_pushstring(L, error->message); /* no position: the message says what is wrong, and where */
    lua_error(L);
}

void pxr_lua_check_file(lua_State *L, pxr_status status, pxr_error *error, const char *path)
{
    const size_t length = strlen(path);
    const bool is_named = strncmp(error->message, path, length) == 0 && strchr(": ", error->message[length]);
    if (status != PXR_OK && status != PXR_ERROR_INTERRUPTED && !is_named) pxr_error_prefix(error, "%s", path);
    pxr_lua_check(L, status, error);
}

/* The registry's table METHODS maps a method to its name. */
#define METHODS "pixelrefer.core.methods"

void pxr_lua_name_methods(lua_State *L)
{
    luaL_newmetatable(L, METHODS);
    lua_pushnil(L);
    while (lua_next(L, -3)) {
        lua_pushvalue(L, -2);
        lua_rawset(L, -4); /* [method] = name */
    }
    lua_pop(L, 1);
}

int pxr_lua_argument_error(lua_State *L, int index, const char *message)
{
    lua_Debug call;
    if (!lua_getstack(L, 0, &call)) return luaL_argerror(L, index, message);
    lua_getinfo(L, "nf", &call);
    lua_getfield(L, LUA_REGISTRYINDEX, METHODS);
    lua_insert(L, -2);
    lua_rawget(L, -2);
    const char *name = lua_tostring(L, -1);
    if (call.name || !name) return luaL_argerror(L, index, message);
    if (index == 1) return luaL_error(L, "calling '%s' on bad self (%s)", name, message);
    return luaL_error(L, "bad argument #%d to '%s' (%s)", index - 1, name, message);
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

enum { SOFT_LIMIT = 256 << 20 /* bytes */ };

void pxr_lua_collect_if_needed(lua_State *L)
{
    /* Both grow with what survives a collection, so that live data is not rescanned; the one for devices, where weights
     * survive and room is dear, by less. */
    static size_t limit = SOFT_LIMIT, device_limit = SOFT_LIMIT;
    if (pxr_memory_in_use() < limit && pxr_tensor_device_bytes() < device_limit) return;
    lua_gc(L, LUA_GCCOLLECT, 0);
    const size_t alive = pxr_memory_in_use();
    limit = alive + alive / 2 > SOFT_LIMIT ? alive + alive / 2 : SOFT_LIMIT;
    device_limit = pxr_tensor_device_bytes() + SOFT_LIMIT;
}

void *pxr_lua_scratch(lua_State *L, size_t bytes)
{
    return lua_newuserdata(L, bytes);
}

/* ---- classes --------------------------------------------------------------------------------------------------- */

void pxr_lua_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction finalizer)
{
    luaL_newmetatable(L, name);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_pushcfunction(L, finalizer);
    lua_setfield(L, -2, "free");
    pxr_lua_name_methods(L);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, finalizer);
    lua_setfield(L, -2, "__gc");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
}

void *pxr_lua_check_object(lua_State *L, int index, const char *name)
{
    return luaL_checkudata(L, index, name);
}

void **pxr_lua_new_handle(lua_State *L, const char *name)
{
    void **handle = lua_newuserdata(L, sizeof *handle);
    *handle = NULL;
    luaL_getmetatable(L, name);
    lua_setmetatable(L, -2);
    return handle;
}

void *pxr_lua_check_handle(lua_State *L, int index, const char *name)
{
    void **handle = luaL_checkudata(L, index, name);
    if (!*handle) pxr_lua_argument_error(L, index, "this object was freed");
    return *handle;
}

int64_t pxr_lua_integer_field(lua_State *L, int index, const char *name, int64_t min, int64_t max)
{
    lua_getfield(L, index, name);
    const double value = lua_tonumber(L, -1);
    if (lua_type(L, -1) != LUA_TNUMBER || value != (double)(int64_t)value || value < (double)min || value > (double)max)
        luaL_error(L, "field '%s' must be an integer from %f to %f, found %s", name, (double)min, (double)max,
                   lua_type(L, -1) == LUA_TNUMBER ? lua_tostring(L, -1) : luaL_typename(L, -1));
    lua_pop(L, 1);
    return (int64_t)value;
}

double pxr_lua_number_field(lua_State *L, int index, const char *name)
{
    lua_getfield(L, index, name);
    if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "field '%s' must be a number", name);
    const double value = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

/* ---- arguments ------------------------------------------------------------------------------------------------- */

pxr_tensor *pxr_lua_check_tensor(lua_State *L, int index)
{
    pxr_tensor *tensor = luaL_testudata(L, index, PXR_LUA_TENSOR);
    if (!tensor)
        pxr_lua_argument_error(L, index,
                               lua_pushfstring(L, PXR_LUA_TENSOR " expected, got %s", luaL_typename(L, index)));
    if (!tensor->storage) pxr_lua_argument_error(L, index, "this tensor was freed");
    return tensor;
}

pxr_tensor *pxr_lua_opt_tensor(lua_State *L, int index)
{
    return lua_isnoneornil(L, index) ? NULL : pxr_lua_check_tensor(L, index);
}

pxr_tensor *pxr_lua_check_tensor_of(lua_State *L, int index, pxr_dtype dtype)
{
    pxr_tensor *tensor = pxr_lua_check_tensor(L, index);
    if (tensor->dtype != dtype)
        pxr_lua_argument_error(L, index,
                               lua_pushfstring(L, "%s tensor expected, got %s", pxr_dtype_name(dtype),
                                               pxr_dtype_name(tensor->dtype)));
    return tensor;
}

pxr_tensor *pxr_lua_new_tensor(lua_State *L)
{
    pxr_tensor *tensor = lua_newuserdata(L, sizeof *tensor);
    *tensor = (pxr_tensor){0};
    luaL_getmetatable(L, PXR_LUA_TENSOR);
    lua_setmetatable(L, -2);
    pxr_lua_scope_note(L);
    return tensor;
}

double pxr_lua_check_number(lua_State *L, int index)
{
    if (!lua_isnumber(L, index))
        pxr_lua_argument_error(L, index, lua_pushfstring(L, "number expected, got %s", luaL_typename(L, index)));
    return lua_tonumber(L, index);
}

int64_t pxr_lua_check_integer(lua_State *L, int index, int64_t min, int64_t max)
{
    const double number = pxr_lua_check_number(L, index);
    if (!(number >= (double)min && number <= (double)max) || number != floor(number))
        pxr_lua_argument_error(L, index,
                               lua_pushfstring(L, "an integer from %f to %f expected, got %f", (double)min, (double)max,
                                               number));
    return (int64_t)number;
}

const char *pxr_lua_check_path(lua_State *L, int index)
{
    size_t length;
    const char *path = luaL_checklstring(L, index, &length);
    if (length == 0 || strlen(path) != length) pxr_lua_argument_error(L, index, "a path expected");
    return path;
}

pxr_dtype pxr_lua_opt_dtype(lua_State *L, int index, pxr_dtype fallback)
{
    if (lua_isnoneornil(L, index)) return fallback;
    const char *name = luaL_checkstring(L, index);
    pxr_dtype dtype = fallback;
    if (!pxr_dtype_parse(name, &dtype))
        pxr_lua_argument_error(
            L, index,
            lua_pushfstring(L, "no such type: '%s' (float32, float16, bfloat16, int64, int32, int8, uint8)", name));
    return dtype;
}

pxr_device *pxr_lua_opt_device(lua_State *L, int index)
{
    if (lua_isnoneornil(L, index)) return pxr_cpu_device();
    pxr_error error = {0};
    pxr_device *device = NULL;
    const pxr_status status = pxr_device_open(luaL_checkstring(L, index), &device, &error);
    pxr_lua_check(L, status, &error);
    return device;
}

/* ---- scopes ---------------------------------------------------------------------------------------------------- */

/* The registry's table SCOPES maps a coroutine to its innermost scope: a list with weak values, so that the collector
 * still frees what a long scope drops. Element 0 is the number of tensors noted, `outer` the scope around it. */
#define SCOPES "pixelrefer.core.scopes"

static int open_scopes; /* in all coroutines; 0 spares everybody else the look-up */

static void push_weak_table(lua_State *L, const char *mode)
{
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushstring(L, mode);
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
}

/* Pushes SCOPES and this coroutine's innermost scope (or nil). */
static void push_scope(lua_State *L)
{
    luaL_checkstack(L, 6, "scope");
    lua_getfield(L, LUA_REGISTRYINDEX, SCOPES);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        push_weak_table(L, "k");
        lua_pushvalue(L, -1);
        lua_setfield(L, LUA_REGISTRYINDEX, SCOPES);
    }
    lua_pushthread(L);
    lua_rawget(L, -2);
}

void pxr_lua_scope_begin(lua_State *L)
{
    push_scope(L);
    push_weak_table(L, "v");
    lua_pushinteger(L, 0);
    lua_rawseti(L, -2, 0);
    lua_getmetatable(L, -1); /* strong, unlike the list */
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "outer");
    lua_pop(L, 1);
    lua_pushthread(L);
    lua_insert(L, -2);
    lua_rawset(L, -4);
    lua_pop(L, 2);
    open_scopes++;
}

void pxr_lua_scope_end(lua_State *L)
{
    push_scope(L);
    lua_pushthread(L);
    lua_getmetatable(L, -2);
    lua_getfield(L, -1, "outer");
    lua_remove(L, -2);
    lua_rawset(L, -4);
    lua_remove(L, -2);
    open_scopes--;
}

void pxr_lua_scope_note(lua_State *L)
{
    if (open_scopes == 0) return;
    push_scope(L);
    if (lua_istable(L, -1)) {
        lua_rawgeti(L, -1, 0);
        const int count = (int)lua_tointeger(L, -1) + 1;
        lua_pop(L, 1);
        lua_pushinteger(L, count);
        lua_rawseti(L, -2, 0);
        lua_pushvalue(L, -3);
        lua_rawseti(L, -2, count);
    }
    lua_pop(L, 2);
}

/* ---- tensor maps ----------------------------------------------------------------------------------------------- */

#define TENSOR_MAP "pixelrefer.core.tensor_map"

static int free_tensor_map(lua_State *L)
{
    pxr_tensor_map **map = luaL_checkudata(L, 1, TENSOR_MAP);
    pxr_tensor_map_free(*map);
    *map = NULL;
    return 0;
}

pxr_tensor_map *pxr_lua_check_tensor_map(lua_State *L, int index)
{
    luaL_checktype(L, index, LUA_TTABLE);
    pxr_tensor_map **map = lua_newuserdata(L, sizeof *map);
    *map = NULL;
    if (luaL_newmetatable(L, TENSOR_MAP)) {
        lua_pushcfunction(L, free_tensor_map);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    *map = pxr_tensor_map_new();
    if (!*map) luaL_error(L, "out of memory for a table of weights");
    lua_pushnil(L);
    while (lua_next(L, index)) {
        pxr_error error = {0};
        size_t length;
        if (lua_type(L, -2) != LUA_TSTRING) pxr_lua_argument_error(L, index, "a table from names to tensors expected");
        const char *name = lua_tolstring(L, -2, &length);
        const pxr_tensor *tensor = luaL_testudata(L, -1, PXR_LUA_TENSOR);
        if (!tensor || !tensor->storage)
            pxr_lua_argument_error(L, index, lua_pushfstring(L, "the value of '%s' is no tensor", name));
        const pxr_status status = pxr_tensor_map_add(*map, name, length, tensor, &error);
        pxr_lua_check(L, status, &error);
        lua_pop(L, 1);
    }
    return *map;
}

/* ---- Ctrl-C ---------------------------------------------------------------------------------------------------- */

static struct sigaction previous;
static int depth;

/* Whose Lua code Ctrl-C stops, too (NULL: nobody's), and how the sources of the functions begin that it spares. */
static lua_State *volatile stoppable;
static const char *spared;
static volatile sig_atomic_t returning;

/* The hook that Ctrl-C sets. LuaJIT calls it for a new line, for a jump back, and when a call returns to the middle of a
 * line: that one is let pass, so that what a spared function returns at Ctrl-C arrives. */
static void stop_at_line(lua_State *L, lua_Debug *line)
{
    const bool is_spared = lua_getinfo(L, "S", line) && strncmp(line->source, spared, strlen(spared)) == 0;
    const bool stops = !is_spared && !returning;
    returning = is_spared;
    if (!stops) return;
    lua_pushliteral(L, "interrupted");
    lua_error(L);
}

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    pxr_interrupt();
    if (!stoppable) return;
    returning = true;
    lua_sethook(stoppable, stop_at_line, LUA_MASKLINE, 0); /* made to be called from a signal handler */
}

void pxr_lua_interruptible_begin(void)
{
    if (depth++ > 0) return;
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &previous);
}

void pxr_lua_interruptible_end(void)
{
    if (--depth > 0) return;
    sigaction(SIGINT, &previous, NULL);
    if (pxr_interrupt_take()) raise(SIGINT); /* it came too late to stop our work: it is the caller's */
}

void pxr_lua_stoppable_begin(lua_State *L, const char *sources)
{
    pxr_lua_interruptible_begin();
    spared = sources;
    stoppable = L;
}

bool pxr_lua_stoppable_end(lua_State *L)
{
    stoppable = NULL;
    const bool stopped = lua_gethook(L) == stop_at_line;
    if (stopped) lua_sethook(L, NULL, 0, 0);
    pxr_interrupt_take();
    pxr_lua_interruptible_end();
    return stopped;
}
