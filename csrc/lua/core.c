/*** The module pixelrefer.core: everything that C gives to Lua.
 * @module pixelrefer.core
 */
#include "lua/binding.h"

#include "core/interrupt.h"

/*** Runs a function during which Ctrl-C sets a flag instead of ending the process: the library's long calls then raise
"interrupted". Outside of it they watch for Ctrl-C only while they run.
@function interruptible
@tparam function work
@return what it returns */
static int interruptible(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    pxr_lua_interruptible_begin();
    const int failed = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    pxr_lua_interruptible_end();
    return failed ? lua_error(L) : lua_gettop(L);
}

/*** Runs a function as `interruptible` does; Ctrl-C also stops Lua code itself: from then on and until the work is over,
each new line raises "interrupted", except in functions that are spared, which end on their own. Compiled code has no
lines: what shall be stopped is interpreted (`jit.off`). A Ctrl-C that came too late is forgotten. Calls do not nest.
@function stoppable
@tparam string spared how the sources begin of the functions to spare, such as "@/usr/share/lua/5.1/pixelrefer/"
@tparam function work
@param ... its arguments
@treturn boolean whether Ctrl-C was pressed meanwhile
@return what it returns */
static int stoppable(lua_State *L)
{
    const char *spared = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    pxr_lua_stoppable_begin(L, spared);
    const int failed = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
    lua_pushboolean(L, pxr_lua_stoppable_end(L));
    if (failed) {
        lua_pop(L, 1);
        return lua_error(L);
    }
    lua_replace(L, 1);
    return lua_gettop(L);
}

/*** Whether Ctrl-C was pressed in `interruptible` work and nothing has noticed yet. It counts as noticed then.
@function interrupted
@treturn boolean */
static int interrupted(lua_State *L)
{
    lua_pushboolean(L, pxr_interrupt_take());
    return 1;
}

static const luaL_Reg functions[] = {
    {"interruptible", interruptible},
    {"stoppable", stoppable},
    {"interrupted", interrupted},
    {NULL, NULL},
};

/** Opens the module; called by require "pixelrefer.core". */
__attribute__((visibility("default"))) int luaopen_pixelrefer_core(lua_State *L);

int luaopen_pixelrefer_core(lua_State *L)
{
    lua_newtable(L);
    pxr_lua_open_tensor(L);
    pxr_lua_open_ops(L);
    pxr_lua_open_machine(L);
    pxr_lua_open_io(L);
    pxr_lua_open_text(L);
    pxr_lua_open_picture(L);
    pxr_lua_open_video(L);
    pxr_lua_open_model(L);
    pxr_lua_open_decoder(L);
    luaL_setfuncs(L, functions, 0);
    return 1;
}
