/*** Files of tensors: safetensors, PyTorch's .bin, NumPy's .npy; what stands at a path.
 * @module pixelrefer.core
 */
#include "lua/binding.h"

#include "core/memory.h"
#include "io/mapped_file.h"
#include "io/npy.h"
#include "io/path.h"
#include "io/safetensors.h"
#include "io/torch_pickle.h"

#include <string.h>
#include <stdlib.h>

#define KEEPER "pixelrefer.core.io_keeper"
#define WRITER "pixelrefer.SafetensorsWriter"

/* ---- what a call holds while it may raise ---------------------------------------------------------------------- */

typedef struct keeper {
    pxr_tensor file;
    pxr_tensor_map *tensors;
    pxr_metadata metadata;
    pxr_names names;
} keeper;

static int free_keeper(lua_State *L)
{
    keeper *held = luaL_checkudata(L, 1, KEEPER);
    pxr_tensor_release(&held->file);
    pxr_tensor_map_free(held->tensors);
    held->tensors = NULL;
    pxr_metadata_free(&held->metadata);
    pxr_names_free(&held->names);
    return 0;
}

/* Pushes an empty keeper; it lets go when collected, or at once by release_keeper. */
static keeper *new_keeper(lua_State *L)
{
    keeper *held = lua_newuserdata(L, sizeof *held);
    *held = (keeper){0};
    luaL_getmetatable(L, KEEPER);
    lua_setmetatable(L, -2);
    return held;
}

static void release_keeper(lua_State *L, int index)
{
    lua_pushcfunction(L, free_keeper);
    lua_pushvalue(L, index);
    lua_call(L, 1, 0);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Pushes a table from names to tensors. */
static void push_tensors(lua_State *L, const pxr_tensor_map *tensors)
{
    const size_t count = pxr_tensor_map_count(tensors);
    lua_createtable(L, 0, (int)count);
    for (size_t i = 0; i < count; i++) {
        const char *name;
        const pxr_tensor *tensor = pxr_tensor_map_at(tensors, i, &name);
        pxr_tensor_alias(pxr_lua_new_tensor(L), tensor);
        lua_setfield(L, -2, name);
    }
}

static void push_metadata(lua_State *L, const pxr_metadata *metadata)
{
    lua_createtable(L, 0, (int)metadata->count);
    for (size_t i = 0; i < metadata->count; i++) {
        lua_pushstring(L, metadata->entries[i].value);
        lua_setfield(L, -2, metadata->entries[i].key);
    }
}

/* Maps the file at argument 1 into a keeper (stack index 2) with an empty map. */
static keeper *open_file(lua_State *L, const char *path)
{
    pxr_error error = {0};
    lua_settop(L, 1);
    keeper *held = new_keeper(L);
    held->tensors = pxr_tensor_map_new();
    const pxr_status status = held->tensors ? pxr_mapped_file_open(&held->file, path, &error)
                                            : pxr_fail_memory(&error, 0, "a table of tensors");
    pxr_lua_check_file(L, status, &error, path);
    return held;
}

/*** Reads a safetensors file. The tensors are views of the mapped file; writing into one changes memory, never the file.
@function read_safetensors
@tparam string path
@treturn table name -> Tensor
@treturn table the file's `__metadata__`: string -> string
*/
static int read_safetensors(lua_State *L)
{
    const char *path = pxr_lua_check_path(L, 1);
    pxr_error error = {0};
    keeper *held = open_file(L, path);
    pxr_lua_check_file(L, pxr_safetensors_read(&held->file, held->tensors, &held->metadata, &error), &error, path);
    push_tensors(L, held->tensors);
    push_metadata(L, &held->metadata);
    release_keeper(L, 2);
    return 2;
}

/*** Reads the state dict of a PyTorch file (`.bin`, `.pt`) without running anything in it. The tensors are views of the
mapped file.
@function read_torch
@tparam string path
@treturn table name -> Tensor
*/
static int read_torch(lua_State *L)
{
    const char *path = pxr_lua_check_path(L, 1);
    pxr_error error = {0};
    keeper *held = open_file(L, path);
    pxr_lua_check_file(L, pxr_torch_read(&held->file, held->tensors, &error), &error, path);
    push_tensors(L, held->tensors);
    release_keeper(L, 2);
    return 1;
}

/*** Reads a NumPy `.npy` file as a view of the mapped file.
@function read_npy
@tparam string path
@treturn Tensor
*/
static int read_npy(lua_State *L)
{
    const char *path = pxr_lua_check_path(L, 1);
    pxr_error error = {0};
    keeper *held = open_file(L, path);
    pxr_lua_check_file(L, pxr_npy_read(pxr_lua_new_tensor(L), &held->file, &error), &error, path);
    release_keeper(L, 2);
    return 1;
}

/*** Gives the memory of a mapped tensor back: its pages are read from the file again when they are next touched. What
was written into it is lost. Nothing happens to a tensor that lies in memory of its own.
@function forget
@tparam Tensor tensor
*/
static int forget(lua_State *L)
{
    pxr_mapped_file_forget(pxr_lua_check_tensor(L, 1));
    return 0;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/*** Writes a tensor as a NumPy `.npy` file, whole or not at all.
@function write_npy
@tparam string path
@tparam Tensor tensor any type but bfloat16, which NumPy lacks
*/
static int write_npy(lua_State *L)
{
    const char *path = pxr_lua_check_path(L, 1);
    const pxr_tensor *tensor = pxr_lua_check_tensor(L, 2);
    pxr_error error = {0};
    pxr_lua_check_file(L, pxr_npy_write(path, tensor, &error), &error, path);
    return 0;
}

/* Fills the metadata from the table at `index`, if there is one. */
static void read_metadata_table(lua_State *L, int index, pxr_metadata *metadata)
{
    if (lua_isnoneornil(L, index)) return;
    luaL_checktype(L, index, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, index)) {
        pxr_error error = {0};
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
            luaL_argerror(L, index, "metadata goes from strings to strings");
        if (strlen(lua_tostring(L, -2)) != lua_objlen(L, -2) || strlen(lua_tostring(L, -1)) != lua_objlen(L, -1))
            luaL_argerror(L, index, lua_pushfstring(L, "metadata '%s' has NUL bytes", lua_tostring(L, -2)));
        pxr_lua_check(L, pxr_metadata_add(metadata, lua_tostring(L, -2), lua_tostring(L, -1), &error), &error);
        lua_pop(L, 1);
    }
}

static int by_name(const void *left, const void *right)
{
    return strcmp(((const pxr_safetensors_entry *)left)->name, ((const pxr_safetensors_entry *)right)->name);
}

/* Pushes scratch with one entry for each tensor of the map, sorted by name so that equal tables give equal files. */
static pxr_safetensors_entry *push_entries(lua_State *L, const pxr_tensor_map *tensors)
{
    const size_t count = pxr_tensor_map_count(tensors);
    pxr_safetensors_entry *entries = pxr_lua_scratch(L, (count + 1) * sizeof *entries);
    for (size_t i = 0; i < count; i++) {
        const pxr_tensor *tensor = pxr_tensor_map_at(tensors, i, &entries[i].name);
        entries[i].dtype = tensor->dtype;
        entries[i].rank = tensor->rank;
        memcpy(entries[i].size, tensor->size, sizeof tensor->size);
    }
    qsort(entries, count, sizeof *entries, by_name);
    return entries;
}

/*** Writes tensors as a safetensors file, whole or not at all.
@function write_safetensors
@tparam string path
@tparam table tensors name -> Tensor
@tparam[opt] table metadata string -> string
*/
static int write_safetensors(lua_State *L)
{
    const char *path = pxr_lua_check_path(L, 1);
    pxr_error error = {0};
    lua_settop(L, 3);
    const pxr_tensor_map *tensors = pxr_lua_check_tensor_map(L, 2);
    keeper *held = new_keeper(L);
    read_metadata_table(L, 3, &held->metadata);
    const pxr_safetensors_entry *entries = push_entries(L, tensors);
    const size_t count = pxr_tensor_map_count(tensors);

    pxr_safetensors_writer *writer;
    pxr_status status = pxr_safetensors_writer_open(&writer, path, entries, count, &held->metadata, &error);
    for (size_t i = 0; i < count && status == PXR_OK; i++)
        status = pxr_safetensors_writer_write(writer, entries[i].name, pxr_tensor_map_find(tensors, entries[i].name),
                                              &error);
    if (status == PXR_OK)
        status = pxr_safetensors_writer_close(writer, &error);
    else
        pxr_safetensors_writer_abandon(writer);
    pxr_lua_check_file(L, status, &error, path);
    return 0;
}

/* ---- class SafetensorsWriter ----------------------------------------------------------------------------------- */

static int free_writer(lua_State *L)
{
    pxr_safetensors_writer **writer = luaL_checkudata(L, 1, WRITER);
    pxr_safetensors_writer_abandon(*writer);
    *writer = NULL;
    return 0;
}

static pxr_safetensors_writer **check_writer(lua_State *L)
{
    pxr_safetensors_writer **writer = luaL_checkudata(L, 1, WRITER);
    if (!*writer) luaL_argerror(L, 1, "this writer is closed");
    return writer;
}

/* The shape table on top of the stack, popped. `declared` is the number of its tensor, for messages. */
static void read_shape(lua_State *L, pxr_safetensors_entry *entry, int declared)
{
    const size_t rank = lua_istable(L, -1) ? lua_objlen(L, -1) : PXR_MAX_RANK + 1;
    if (rank > PXR_MAX_RANK)
        luaL_error(L, "tensor %d: shape: a list of at most %d sizes expected", declared, PXR_MAX_RANK);
    entry->rank = (int)rank;
    for (int dim = 0; dim < entry->rank; dim++) {
        lua_rawgeti(L, -1, dim + 1);
        const double size = lua_tonumber(L, -1);
        if (!lua_isnumber(L, -1) || !(size >= 0 && size <= 9007199254740992.0) || size != (double)(int64_t)size)
            luaL_error(L, "tensor %d: size %d of its shape is not a non-negative integer", declared, dim + 1);
        entry->size[dim] = (int64_t)size;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Pushes a field that the table on top of the stack itself holds, and so keeps. */
static void push_field(lua_State *L, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, -2);
}

/* One {name=, dtype=, shape=} on top of the stack, popped. Its name stays anchored by the list. */
static void read_entry(lua_State *L, pxr_safetensors_entry *entry, int declared)
{
    if (!lua_istable(L, -1)) luaL_error(L, "tensor %d: a table {name=, dtype=, shape=} expected", declared);
    push_field(L, "name");
    size_t length = 0;
    entry->name = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
    if (!entry->name || strlen(entry->name) != length)
        luaL_error(L, "tensor %d: name: a string without NUL bytes expected", declared);
    lua_pop(L, 1);
    push_field(L, "dtype");
    const char *dtype = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    if (!pxr_dtype_parse(dtype, &entry->dtype)) luaL_error(L, "tensor %d: no such dtype: '%s'", declared, dtype);
    lua_pop(L, 1);
    push_field(L, "shape");
    read_shape(L, entry, declared);
    lua_pop(L, 1);
}

/*** Begins a safetensors file that is written tensor by tensor, so that it may be larger than memory. The file has its
name only after `close`; until then, and if the writer is dropped, there is none.
@function safetensors_writer
@tparam string path
@tparam table tensors list of {name = string, dtype = string, shape = {sizes}}
@tparam[opt] table metadata string -> string
@treturn SafetensorsWriter
*/
static int new_writer(lua_State *L)
{
    const char *path = pxr_lua_check_path(L, 1);
    pxr_error error = {0};
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 3);
    keeper *held = new_keeper(L);
    read_metadata_table(L, 3, &held->metadata);
    const size_t count = lua_objlen(L, 2);
    pxr_safetensors_entry *entries = pxr_lua_scratch(L, (count + 1) * sizeof *entries);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        read_entry(L, &entries[i], (int)i + 1);
    }
    pxr_safetensors_writer **writer = lua_newuserdata(L, sizeof *writer);
    *writer = NULL;
    luaL_getmetatable(L, WRITER);
    lua_setmetatable(L, -2);
    pxr_lua_check_file(L, pxr_safetensors_writer_open(writer, path, entries, count, &held->metadata, &error), &error,
                       path);
    return 1;
}

/*** Writes one declared tensor; any order, each once.
@function SafetensorsWriter:write
@tparam string name
@tparam Tensor tensor of the declared type and shape, any strides
*/
static int writer_write(lua_State *L)
{
    pxr_safetensors_writer **writer = check_writer(L);
    const char *name = luaL_checkstring(L, 2);
    const pxr_tensor *tensor = pxr_lua_check_tensor(L, 3);
    pxr_error error = {0};
    pxr_lua_check(L, pxr_safetensors_writer_write(*writer, name, tensor, &error), &error);
    return 0;
}

/*** Completes the file. Raises, and leaves no file, when a declared tensor was not written or the disk is full.
@function SafetensorsWriter:close
*/
static int writer_close(lua_State *L)
{
    pxr_safetensors_writer **writer = check_writer(L), *closing = *writer;
    pxr_error error = {0};
    *writer = NULL;
    pxr_lua_check(L, pxr_safetensors_writer_close(closing, &error), &error);
    return 0;
}

/* ---- paths ----------------------------------------------------------------------------------------------------- */

/*** What stands at a path, links followed.
@function path_kind
@tparam string path
@treturn ?string "file", "directory", "other" (a device, a fifo), or nil for nothing
*/
static int path_kind(lua_State *L)
{
    switch (pxr_path_kind_of(pxr_lua_check_path(L, 1))) {
    case PXR_PATH_FILE:
        lua_pushliteral(L, "file");
        break;
    case PXR_PATH_DIRECTORY:
        lua_pushliteral(L, "directory");
        break;
    case PXR_PATH_OTHER:
        lua_pushliteral(L, "other");
        break;
    case PXR_PATH_NOTHING:
        lua_pushnil(L);
        break;
    }
    return 1;
}

/*** The names in a directory, sorted by bytes, without "." and "..".
@function list_directory
@tparam string path
@treturn table list of strings
*/
static int list_directory(lua_State *L)
{
    const char *path = pxr_lua_check_path(L, 1);
    pxr_error error = {0};
    lua_settop(L, 1);
    keeper *held = new_keeper(L);
    pxr_lua_check(L, pxr_directory_read(&held->names, path, &error), &error);
    lua_createtable(L, (int)held->names.count, 0);
    for (size_t i = 0; i < held->names.count; i++) {
        lua_pushstring(L, held->names.names[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    release_keeper(L, 2);
    return 1;
}

void pxr_lua_open_io(lua_State *L)
{
    static const luaL_Reg writer_methods[] = {{"write", writer_write}, {"close", writer_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"read_safetensors", read_safetensors},
                                         {"write_safetensors", write_safetensors},
                                         {"safetensors_writer", new_writer},
                                         {"read_torch", read_torch},
                                         {"forget", forget},
                                         {"read_npy", read_npy},
                                         {"write_npy", write_npy},
                                         {"path_kind", path_kind},
                                         {"list_directory", list_directory},
                                         {NULL, NULL}};
    luaL_newmetatable(L, KEEPER);
    lua_pushcfunction(L, free_keeper);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    pxr_lua_class(L, WRITER, writer_methods, free_writer);
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
