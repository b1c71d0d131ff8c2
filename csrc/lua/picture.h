/* What the files of the picture binding (picture*.c) share. */
#ifndef PXR_LUA_PICTURE_H
#define PXR_LUA_PICTURE_H

#include "lua/binding.h"

/** Pushes a new contiguous tensor on the CPU, contents undefined. May collect garbage first. */
pxr_tensor *pxr_lua_new_picture(lua_State *L, pxr_dtype dtype, int rank, const int64_t *size);

/** Adds the functions of picture_file.c to the module table on top of the stack. */
void pxr_lua_open_picture_file(lua_State *L);

#endif
