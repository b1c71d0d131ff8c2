/*** The module pixelrefer.core: everything that C gives to Lua.
 * @module pixelrefer.core
 */
#include "lua/binding.h"

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

/** Opens the module; called by require "pixelrefer.core". */
__attribute__((visibility("default"))) int luaopen_pixelrefer_core(lua_State *L);

int luaopen_pixelrefer_core(lua_State *L)
{
    lua_newtable(L);
    pxr_lua_open_tensor(L);
    pxr_lua_open_ops(L);
    pxr_lua_open_io(L);
    pxr_lua_open_text(L);
    pxr_lua_open_picture(L);
    pxr_lua_open_video(L);
    pxr_lua_open_model(L);
    pxr_lua_open_decoder(L);
    lua_pushcfunction(L, interruptible);
    lua_setfield(L, -2, "interruptible");
    return 1;
}
