/* What the files of the tensor binding (tensor*.c) share. */
#ifndef PXR_LUA_TENSOR_H
#define PXR_LUA_TENSOR_H

#include "lua/binding.h"
#include "ops/ops.h"

typedef struct pxr_lua_shape {
    int rank;
    int64_t size[PXR_MAX_RANK];
} pxr_lua_shape;

/** A dim at stack index `index`: 1 .. rank, or -rank .. -1 counted from the last. Returns it counted from 0. */
int pxr_lua_check_dim(lua_State *L, int index, int rank);

/** A position in a dim of `size` elements: 1 .. size, or -size .. -1. Returns it counted from 0. */
int64_t pxr_lua_check_position(lua_State *L, int index, int64_t size);

/** Sizes given as one table or as numbers, from stack index `first` to the top; at least `min` (0, or -1 to let -1
 * through). */
void pxr_lua_check_sizes(lua_State *L, int first, int64_t min, pxr_lua_shape *shape);

/** Pushes a new tensor with undefined contents. May collect garbage first, so everything that C code holds must be on
 * the stack. */
pxr_tensor *pxr_lua_push_empty(lua_State *L, pxr_device *device, pxr_dtype dtype, int rank, const int64_t *size);

/** Pushes a dense copy of `x` in `dtype`, on x's device. */
pxr_tensor *pxr_lua_push_copy(lua_State *L, const pxr_tensor *x, pxr_dtype dtype);

/** `x` itself when it has the type, else pushes a converted copy. */
const pxr_tensor *pxr_lua_as_type(lua_State *L, const pxr_tensor *x, pxr_dtype dtype);

/** Pushes a dense tensor in host memory with x's elements: a view of x where nothing has to be moved. */
pxr_tensor *pxr_lua_push_host(lua_State *L, const pxr_tensor *x);

/** The tensor at stack index `index` (positive) on `device`: the one that is there, or a copy that takes its place. */
pxr_tensor *pxr_lua_bring(lua_State *L, int index, pxr_device *device);

/** Pushes a tensor of one element (rank 0) with the number at stack index `index`, which must fit `dtype`. */
pxr_tensor *pxr_lua_push_scalar(lua_State *L, pxr_device *device, pxr_dtype dtype, int index);

/** Fills `out` with the number at `index`, which must fit its type. */
void pxr_lua_fill(lua_State *L, const pxr_tensor *out, int index);

/** out = x, broadcast and converted; x may overlap out. */
void pxr_lua_copy(lua_State *L, const pxr_tensor *out, const pxr_tensor *x);

/** Pushes the only element of `x` as a number. Raises for an integer that no Lua number holds exactly. */
void pxr_lua_push_element(lua_State *L, const pxr_tensor *x);

/** True when the two views may share elements and are not the same view. */
bool pxr_lua_overlap(const pxr_tensor *a, const pxr_tensor *b);

/** True when `number` is an integer that `dtype` holds. */
bool pxr_lua_fits(pxr_dtype dtype, double number);

/** Adds `offset` to a tensor of int64 in place: indices count from 1 in Lua, from 0 in the core. */
void pxr_lua_shift_indices(lua_State *L, const pxr_tensor *indices, int64_t offset);

/* A method by its name, and the kind of an op that its closure carries. */
typedef struct pxr_lua_kind {
    const char *name;
    int kind;
} pxr_lua_kind;

/** Adds one closure of `function` for each row (the last has no name) to the table on top of the stack; the row's kind
 * is its first upvalue. */
void pxr_lua_set_kinds(lua_State *L, const pxr_lua_kind *kinds, lua_CFunction function);

/* Openers of the files: each adds its methods to the table at stack index `methods`, its functions to the one at
 * `module`, its metamethods to the one at `metatable`. */

/** tensor_data.c: elements as numbers, tables, strings, pointers. */
void pxr_lua_open_tensor_data(lua_State *L, int methods, int module);

/** tensor_view.c: shapes and views. */
void pxr_lua_open_tensor_view(lua_State *L, int methods);

/** tensor_index.c: x[...] and x[...] = ... */
void pxr_lua_open_tensor_index(lua_State *L, int methods, int metatable);

/** tensor_math.c: element by element, and the operators. */
void pxr_lua_open_tensor_math(lua_State *L, int methods, int module, int metatable);

/** tensor_reduce.c: along a dim, and products. */
void pxr_lua_open_tensor_reduce(lua_State *L, int methods);

/** tensor_gather.c: indices, maps, random numbers. */
void pxr_lua_open_tensor_gather(lua_State *L, int methods, int module);

#endif
