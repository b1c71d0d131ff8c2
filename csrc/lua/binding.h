/* What the files of the Lua binding share. Only csrc/lua includes lua.h, and only it may raise.
 *
 * Every bound function has one shape: check all arguments; push the result's userdata (zeroed payload, metatable set);
 * only then allocate into it through the core; raise on failure. Whatever is held when an error is raised is held by a
 * userdata on the stack, so nothing leaks. Scratch memory is a userdata too (pxr_lua_scratch).
 *
 * Lua counts dims and indices from 1; token ids, frame indices and pixel coordinates are data and count from 0. The
 * conversion happens in these files and nowhere else.
 */
#ifndef PXR_LUA_BINDING_H
#define PXR_LUA_BINDING_H

#include "core/tensor.h"
#include "core/tensor_map.h"

#include <lauxlib.h>
#include <lua.h>

/* Names of the metatables in the registry. */
#define PXR_LUA_TENSOR "pixelrefer.Tensor"
#define PXR_LUA_GENERATOR "pixelrefer.Generator" /* payload: pxr_mt19937; made by tensor.generator(seed) */

/** Raises the error's message if status is not PXR_OK. */
void pxr_lua_check(lua_State *L, pxr_status status, const pxr_error *error);

/** pxr_lua_check of what was done with a file, whose name goes in front unless the message begins with it. */
void pxr_lua_check_file(lua_State *L, pxr_status status, pxr_error *error, const char *path);

/** Raises an error about the argument at stack index `index`. As luaL_argerror, but it knows methods by name where they
 * are called in a tail call or by pcall, and counts their arguments as their callers do: without the object. */
int pxr_lua_argument_error(lua_State *L, int index, const char *message);

/** Makes known the names of the methods in the table on top of the stack. */
void pxr_lua_name_methods(lua_State *L);

/** Collects garbage when the library's memory has outgrown the soft limit (docs/memory.md). Call on entry to functions
 * that allocate tensors, before any C state is held. */
void pxr_lua_collect_if_needed(lua_State *L);

/** The tensor at stack index `index`, or an argument error (also for one that was freed). */
pxr_tensor *pxr_lua_check_tensor(lua_State *L, int index);

/** As above, NULL for nil or none. */
pxr_tensor *pxr_lua_opt_tensor(lua_State *L, int index);

/** The tensor at `index` with the given type, or an argument error. */
pxr_tensor *pxr_lua_check_tensor_of(lua_State *L, int index, pxr_dtype dtype);

/** Pushes a tensor userdata with an empty view, to be filled by the core; it releases the view when collected. Inside
 * a scope of this coroutine (tensor.scope) the userdata is noted there. */
pxr_tensor *pxr_lua_new_tensor(lua_State *L);

/** Opens a scope in this coroutine: tensors made from now on are noted. */
void pxr_lua_scope_begin(lua_State *L);

/** Closes it and pushes its list: element 0 is the number of tensors, 1 .. n are those that are still alive. */
void pxr_lua_scope_end(lua_State *L);

/** Notes the tensor on top of the stack in the scope of this coroutine, if there is one. */
void pxr_lua_scope_note(lua_State *L);

/** Pushes `bytes` of scratch memory (uninitialised, aligned to 8, collected by Lua). */
void *pxr_lua_scratch(lua_State *L, size_t bytes);

/** A number at `index`, or an argument error. */
double pxr_lua_check_number(lua_State *L, int index);

/** A number at `index` that is an integer in min .. max, or an argument error. */
int64_t pxr_lua_check_integer(lua_State *L, int index, int64_t min, int64_t max);

/** A file's path at `index`: a string that is not empty and holds no NUL byte, or an argument error. */
const char *pxr_lua_check_path(lua_State *L, int index);

/** A dtype name at `index`; `fallback` for nil or none. */
pxr_dtype pxr_lua_opt_dtype(lua_State *L, int index, pxr_dtype fallback);

/** The device named at `index`; the CPU for nil or none. */
pxr_device *pxr_lua_opt_device(lua_State *L, int index);

/** Reads the table name -> Tensor at `index` into a new map (owned by a userdata that is pushed). */
pxr_tensor_map *pxr_lua_check_tensor_map(lua_State *L, int index);

/** Registers a class: a metatable named `name` with `methods` as __index, the finalizer as __gc and :free(). The
 * metatable is left on the stack. */
void pxr_lua_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction finalizer);

/** The payload of class `name` at `index`, or an argument error. */
void *pxr_lua_check_object(lua_State *L, int index, const char *name);

/** Calls into long work: installs the SIGINT handler; _end restores the old one, hands on a signal that nothing noticed,
 * and must be called before raising. */
void pxr_lua_interruptible_begin(void);
void pxr_lua_interruptible_end(void);

/** The same for calls into Lua code, which Ctrl-C stops at its next line unless its source begins with `sources` (which
 * stays there meanwhile). _end says whether there was a signal, and forgets it if nothing noticed. */
void pxr_lua_stoppable_begin(lua_State *L, const char *sources);
bool pxr_lua_stoppable_end(lua_State *L);

/** Pushes a userdata of class `name` whose payload is one pointer, NULL until the core fills it. */
void **pxr_lua_new_handle(lua_State *L, const char *name);

/** The pointer in a handle of class `name` at `index`, or an argument error (also when it was freed). */
void *pxr_lua_check_handle(lua_State *L, int index, const char *name);

/** The integer in min .. max at field `name` of the table at `index`, or an error. */
int64_t pxr_lua_integer_field(lua_State *L, int index, const char *name, int64_t min, int64_t max);

/** The number at field `name` of the table at `index`, or an error. */
double pxr_lua_number_field(lua_State *L, int index, const char *name);

/** One opener a family: adds its functions to the module table on top of the stack. */
void pxr_lua_open_tensor(lua_State *L);  /* lua/tensor.c: class Tensor, creation, views, primitives */
void pxr_lua_open_ops(lua_State *L);     /* lua/ops.c: the fused ops */
void pxr_lua_open_machine(lua_State *L); /* lua/machine.c: devices, threads, memory, time */
void pxr_lua_open_io(lua_State *L);      /* lua/io.c: safetensors, .bin, .npy */
void pxr_lua_open_text(lua_State *L);    /* lua/text.c: class Tokenizer */
void pxr_lua_open_picture(lua_State *L); /* lua/picture.c: pictures, resizes, masks */
void pxr_lua_open_video(lua_State *L);   /* lua/video.c: video and FFmpeg pictures */
void pxr_lua_open_model(lua_State *L);   /* lua/model.c: encoder, object tokenizer, infusion, projector */
void pxr_lua_open_decoder(lua_State *L); /* lua/decoder.c: decoder, KV cache */

#endif
