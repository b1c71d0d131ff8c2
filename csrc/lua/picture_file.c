/*** Picture files and drawing for Lua.
 * @module pixelrefer.core
 */
#include "lua/picture.h"

#include "core/background.h"
#include "core/memory.h"
#include "io/mapped_file.h"
#include "io/output_file.h"
#include "media/image.h"
#include "media/overlay.h"
#include "media/picture_header.h"
#include "ops/device.h"

#define KEEPER "pixelrefer.core.picture_keeper"
#define COMING "pixelrefer.core.coming_image"

/* What a call holds while it may raise. */
typedef struct keeper {
    pxr_tensor file;
    void *png;
    pxr_output_file output;
} keeper;

static void let_go(keeper *held)
{
    pxr_tensor_release(&held->file);
    pxr_free(held->png);
    held->png = NULL;
    pxr_output_file_abandon(&held->output);
}

static int free_keeper(lua_State *L)
{
    let_go(luaL_checkudata(L, 1, KEEPER));
    return 0;
}

static keeper *push_keeper(lua_State *L)
{
    keeper *held = lua_newuserdata(L, sizeof *held);
    *held = (keeper){0};
    luaL_getmetatable(L, KEEPER);
    lua_setmetatable(L, -2);
    return held;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

typedef pxr_status (*decoder)(pxr_tensor *out, const void *data, size_t length, pxr_error *error);

static int read_with(lua_State *L, decoder decode)
{
    pxr_error error = {0};
    const char *path = pxr_lua_check_path(L, 1);
    pxr_lua_collect_if_needed(L);
    keeper *held = push_keeper(L);
    pxr_tensor *out = pxr_lua_new_tensor(L);
    pxr_status status = pxr_mapped_file_open(&held->file, path, &error);
    if (status == PXR_OK) status = decode(out, held->file.data, (size_t)held->file.size[0], &error);
    let_go(held);
    pxr_lua_check_file(L, status, &error, path);
    return 1;
}

/***
Reads a JPEG or PNG file: EXIF orientation applied, grey widened, alpha dropped, 16 bits cut to 8.
@function core.read_image
@string path
@treturn Tensor uint8 [h,w,3]
*/
static int read_image(lua_State *L)
{
    return read_with(L, pxr_image_decode);
}

/* A picture that is being read beside what else is done; its fields are the reader's until that is finished. */
typedef struct coming_image {
    pxr_background *reader;
    char *path;
    pxr_tensor picture;
    pxr_status status;
    pxr_error error;
} coming_image;

static void read_beside(void *context)
{
    coming_image *coming = context;
    pxr_tensor file = {0};
    coming->status = pxr_mapped_file_open(&file, coming->path, &coming->error);
    if (coming->status == PXR_OK)
        coming->status = pxr_image_decode(&coming->picture, file.data, (size_t)file.size[0], &coming->error);
    pxr_tensor_release(&file);
}

static int free_coming(lua_State *L)
{
    coming_image *coming = luaL_checkudata(L, 1, COMING);
    pxr_background_finish(coming->reader);
    coming->reader = NULL;
    pxr_tensor_release(&coming->picture);
    pxr_free(coming->path);
    coming->path = NULL;
    return 0;
}

/***
Begins to read a JPEG or PNG file as core.read_image does, beside what else is done.
@function core.begin_image
@string path
@treturn userdata for core.end_image
*/
static int begin_image(lua_State *L)
{
    pxr_error error = {0};
    const char *path = pxr_lua_check_path(L, 1);
    coming_image *coming = lua_newuserdata(L, sizeof *coming);
    *coming = (coming_image){.path = pxr_strndup(path, strlen(path))};
    luaL_getmetatable(L, COMING);
    lua_setmetatable(L, -2);
    if (!coming->path) pxr_lua_check(L, pxr_fail_memory(&error, strlen(path), "a path"), &error);
    coming->reader = pxr_background_start(read_beside, coming);
    return 1;
}

/***
Waits for what core.begin_image began. Once.
@function core.end_image
@tparam userdata coming
@treturn Tensor uint8 [h,w,3]
*/
static int end_image(lua_State *L)
{
    coming_image *coming = luaL_checkudata(L, 1, COMING);
    pxr_background_finish(coming->reader);
    coming->reader = NULL;
    pxr_lua_check_file(L, coming->status, &coming->error, coming->path);
    if (!coming->picture.storage) return luaL_error(L, "core.end_image: the picture was taken already");
    pxr_tensor *out = pxr_lua_new_tensor(L);
    *out = coming->picture;
    coming->picture = (pxr_tensor){0};
    return 1;
}

/***
Reads a JPEG or PNG file as a mask: 1 where the grey value or any colour channel is not 0. Stored pixels, no orientation.
@function core.read_mask
@string path
@treturn Tensor uint8 [h,w] of 0 and 1
*/
static int read_mask(lua_State *L)
{
    return read_with(L, pxr_image_decode_mask);
}

/***
As core.read_image, from the file's bytes.
@function core.decode_image
@string bytes
@treturn Tensor uint8 [h,w,3]
*/
static int decode_image(lua_State *L)
{
    pxr_error error = {0};
    size_t length;
    const char *bytes = luaL_checklstring(L, 1, &length);
    pxr_lua_collect_if_needed(L);
    const pxr_status status = pxr_image_decode(pxr_lua_new_tensor(L), bytes, length, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/***
What a file is by its first bytes.
@function core.picture_format
@string path
@treturn string "jpeg", "png" or "other"
@treturn boolean true for a PNG with a palette
*/
static int picture_format(lua_State *L)
{
    enum { COLOUR_TYPE = 25 /* byte of a PNG: after signature, IHDR's frame, sides and depth */, INDEXED = 3 };
    static const char *const names[] = {"other", "jpeg", "png"};
    pxr_error error = {0};
    const char *path = pxr_lua_check_path(L, 1);
    keeper *held = push_keeper(L);
    const pxr_status status = pxr_mapped_file_open(&held->file, path, &error);
    pxr_picture_format format = PXR_PICTURE_OTHER;
    bool indexed = false;
    if (status == PXR_OK) {
        const uint8_t *data = held->file.data;
        const size_t length = (size_t)held->file.size[0];
        format = pxr_picture_sniff(data, length);
        indexed = format == PXR_PICTURE_PNG && length > COLOUR_TYPE && data[COLOUR_TYPE] == INDEXED;
    }
    let_go(held);
    pxr_lua_check_file(L, status, &error, path);
    lua_pushstring(L, names[format]);
    lua_pushboolean(L, indexed);
    return 2;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/***
Writes a PNG file, whole or not at all.
@function core.write_png
@string path
@tparam Tensor picture uint8 [h,w] or [h,w,3], contiguous
*/
static int write_png(lua_State *L)
{
    pxr_error error = {0};
    const char *path = pxr_lua_check_path(L, 1);
    const pxr_tensor *image = pxr_lua_check_tensor(L, 2);
    keeper *held = push_keeper(L);
    size_t length = 0;
    pxr_status status = pxr_image_encode_png(image, &held->png, &length, &error);
    if (status == PXR_OK) status = pxr_output_file_create(&held->output, path, length, &error);
    if (status == PXR_OK) status = pxr_output_file_write(&held->output, 0, held->png, length, &error);
    if (status == PXR_OK) status = pxr_output_file_commit(&held->output, &error);
    let_go(held);
    pxr_lua_check_file(L, status, &error, path);
    return 0;
}

/***
A picture as PNG bytes.
@function core.encode_png
@tparam Tensor picture uint8 [h,w] or [h,w,3], contiguous
@treturn string
*/
static int encode_png(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *image = pxr_lua_check_tensor(L, 1);
    keeper *held = push_keeper(L);
    size_t length = 0;
    const pxr_status status = pxr_image_encode_png(image, &held->png, &length, &error);
    pxr_lua_check(L, status, &error);
    lua_pushlstring(L, held->png, length);
    let_go(held);
    return 1;
}

/* ---- drawing --------------------------------------------------------------------------------------------------- */

/* Three integers 0 .. 255 in the table at `index`. */
static void check_color(lua_State *L, int index, uint8_t color[3])
{
    luaL_checktype(L, index, LUA_TTABLE);
    for (int c = 0; c < 3; c++) {
        lua_rawgeti(L, index, c + 1);
        const double value = lua_tonumber(L, -1);
        if (lua_type(L, -1) != LUA_TNUMBER || !(value >= 0 && value <= 255))
            luaL_argerror(L, index, "a colour {red, green, blue} expected, each 0 to 255");
        color[c] = (uint8_t)value;
        lua_pop(L, 1);
    }
}

/***
Draws a region into a picture, in place.
@function core.draw_region
@tparam Tensor picture uint8 [h,w,3], contiguous
@tparam Tensor mask uint8 [h,w], contiguous
@tparam {int,int,int} color red, green, blue
@int opacity of the fill, 0 to 255
@int contour thickness in pixels, 0 to 64
*/
static int draw_region(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *image = pxr_lua_check_tensor(L, 1), *mask = pxr_lua_check_tensor(L, 2);
    pxr_overlay_style style;
    check_color(L, 3, style.color);
    style.opacity = (int)pxr_lua_check_integer(L, 4, 0, 255);
    style.contour = (int)pxr_lua_check_integer(L, 5, 0, 64);
    const pxr_status status = pxr_overlay_region(image, mask, &style, &error);
    pxr_lua_check(L, status, &error);
    return 0;
}

/***
Writes a region's number into a picture, in place.
@function core.draw_label
@tparam Tensor picture uint8 [h,w,3], contiguous
@tparam Tensor mask uint8 [h,w], contiguous: the number stands in its middle
@int number 0 to 999999
@tparam {int,int,int} color of the plate behind it
@int scale digits are 7 * scale pixels high, 1 to 64
*/
static int draw_label(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *image = pxr_lua_check_tensor(L, 1), *mask = pxr_lua_check_tensor(L, 2);
    const int number = (int)pxr_lua_check_integer(L, 3, 0, 999999);
    uint8_t color[3];
    check_color(L, 4, color);
    const int scale = (int)pxr_lua_check_integer(L, 5, 1, 64);
    const pxr_status status = pxr_overlay_label(image, mask, number, color, scale, &error);
    pxr_lua_check(L, status, &error);
    return 0;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static const luaL_Reg functions[] = {
    {"read_image", read_image},
    {"read_mask", read_mask},
    {"decode_image", decode_image},
    {"picture_format", picture_format},
    {"write_png", write_png},
    {"encode_png", encode_png},
    {"begin_image", begin_image},
    {"end_image", end_image},
    {"draw_region", draw_region},
    {"draw_label", draw_label},
    {NULL, NULL},
};

void pxr_lua_open_picture_file(lua_State *L)
{
    luaL_newmetatable(L, KEEPER);
    lua_pushcfunction(L, free_keeper);
    lua_setfield(L, -2, "__gc");
    luaL_newmetatable(L, COMING);
    lua_pushcfunction(L, free_coming);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 2);
    luaL_setfuncs(L, functions, 0);
}
