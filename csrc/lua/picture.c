/*** Pictures and masks for Lua: resizes, patches, run lengths, polygons. Reading and writing files is in picture_file.c.
 * @module pixelrefer.core
 */
#include "lua/picture.h"

#include "core/memory.h"
#include "media/limits.h"
#include "media/mask.h"
#include "media/patches.h"
#include "media/resize.h"
#include "ops/device.h"

#include <math.h>
#include <string.h>

#define RUNS "pixelrefer.core.runs"

pxr_tensor *pxr_lua_new_picture(lua_State *L, pxr_dtype dtype, int rank, const int64_t *size)
{
    pxr_error error = {0};
    pxr_lua_collect_if_needed(L);
    pxr_tensor *made = pxr_lua_new_tensor(L);
    const pxr_status status = pxr_tensor_new(made, pxr_cpu_device(), dtype, rank, size, &error);
    pxr_lua_check(L, status, &error);
    return made;
}

static int64_t check_side(lua_State *L, int index)
{
    return pxr_lua_check_integer(L, index, 1, PXR_MAX_SIDE);
}

/* The mask at `index`: a contiguous uint8 [h,w] tensor. */
static pxr_tensor *check_mask(lua_State *L, int index)
{
    pxr_error error = {0};
    pxr_tensor *mask = pxr_lua_check_tensor(L, index);
    if (pxr_mask_check(mask, "a mask", &error) != PXR_OK)
        luaL_argerror(L, index, lua_pushfstring(L, "%s", error.message));
    return mask;
}

/* ---- resizing -------------------------------------------------------------------------------------------------- */

typedef pxr_status (*resizer)(const pxr_tensor *out, const pxr_tensor *x, pxr_error *error);

static resizer check_resizer(lua_State *L, int index, pxr_dtype dtype)
{
    static const char *const kinds[] = {"pillow_bicubic", "opencv_linear", "opencv_area", "torch_bilinear", NULL};
    static const resizer by_kind[] = {pxr_resize_bicubic_u8, pxr_resize_linear_u8, pxr_resize_area_u8,
                                      pxr_resize_torch_u8};
    const int kind = luaL_checkoption(L, index, "pillow_bicubic", kinds);
    if (dtype == PXR_F32 && by_kind[kind] == pxr_resize_linear_u8) return pxr_resize_linear_f32;
    return by_kind[kind];
}

/***
Resizes a picture bit for bit as one of the libraries that the reference uses.
@function core.resize
@tparam Tensor picture uint8 [h,w] or [h,w,channels], contiguous; for "opencv_linear" also float32
@int height of the result
@int width of the result
@string[opt="pillow_bicubic"] kind "pillow_bicubic", "opencv_linear", "opencv_area" or "torch_bilinear"
@treturn Tensor a new tensor of the same type
*/
static int resize(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *x = pxr_lua_check_tensor(L, 1);
    const int64_t size[3] = {check_side(L, 2), check_side(L, 3), x->rank == 3 ? x->size[2] : 1};
    const resizer run = check_resizer(L, 4, x->dtype);
    if (x->rank != 2 && x->rank != 3) luaL_argerror(L, 1, "a picture [h,w] or [h,w,channels] expected");
    if (pxr_check_picture_size(size[0], size[1], "the target of a resize", &error) != PXR_OK)
        pxr_lua_check(L, error.status, &error);
    const pxr_tensor *out = pxr_lua_new_picture(L, x->dtype, x->rank, size);
    const pxr_status status = run(out, x, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/***
The size at which a picture goes to the encoder: both sides multiples of `factor`, the area within the budget.
@function core.smart_resize
@int height
@int width
@int factor
@int min_pixels
@int max_pixels
@treturn int height (0 when the budget is below one block)
@treturn int width
*/
static int smart_resize(lua_State *L)
{
    pxr_error error = {0};
    int64_t argument[5], height, width;
    for (int i = 0; i < 5; i++) argument[i] = pxr_lua_check_integer(L, i + 1, 0, (int64_t)1 << 52);
    const pxr_status status = pxr_smart_resize(argument[0], argument[1], argument[2], argument[3], argument[4], &height,
                                               &width, &error);
    pxr_lua_check(L, status, &error);
    lua_pushnumber(L, (double)height);
    lua_pushnumber(L, (double)width);
    return 2;
}

/***
The pixels that each of `num_images` pictures may have when they are encoded together.
@function core.budget_max_pixels
@int mm_max_length the model's
@int merge its spatial_merge_size
@int downsampling 1 for pictures and crops, `merge` for video frames
@int num_images
@treturn int
*/
static int budget_max_pixels(lua_State *L)
{
    int64_t argument[4];
    for (int i = 0; i < 4; i++) argument[i] = pxr_lua_check_integer(L, i + 1, 1, (int64_t)1 << 30);
    lua_pushnumber(L, (double)pxr_budget_max_pixels(argument[0], argument[1], argument[2], argument[3]));
    return 1;
}

/* Three numbers in a table, or one for all three. */
static void check_channels(lua_State *L, int index, float value[3])
{
    for (int channel = 0; channel < 3; channel++) {
        if (lua_type(L, index) == LUA_TNUMBER) {
            value[channel] = (float)lua_tonumber(L, index);
            continue;
        }
        luaL_checktype(L, index, LUA_TTABLE);
        lua_rawgeti(L, index, channel + 1);
        if (lua_type(L, -1) != LUA_TNUMBER || lua_objlen(L, index) != 3)
            luaL_argerror(L, index, "three numbers expected, one a channel");
        value[channel] = (float)lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
}

/***
Normalises a picture and cuts it into patches, the encoder's input.
@function core.patches
@tparam Tensor picture uint8 [H,W,3], contiguous, sides multiples of patch * block
@int patch pixels a side
@int block cells a side of the blocks that order the rows: 1, or the video's spatial_merge_size
@tparam number|table mean of each channel
@tparam number|table std of each channel
@treturn Tensor float32 [cells, 3*patch*patch], channel-major rows in block order
*/
static int patches(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *image = pxr_lua_check_tensor_of(L, 1, PXR_U8);
    const int64_t patch = check_side(L, 2), block = check_side(L, 3);
    float mean[3], std[3];
    check_channels(L, 4, mean);
    check_channels(L, 5, std);
    if (image->rank != 3) luaL_argerror(L, 1, "a picture [H,W,3] expected");
    const int64_t size[2] = {(image->size[0] / patch) * (image->size[1] / patch), 3 * patch * patch};
    const pxr_tensor *out = pxr_lua_new_picture(L, PXR_F32, 2, size);
    const pxr_status status = pxr_patches(out, image, patch, block, mean, std, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/* ---- run lengths ----------------------------------------------------------------------------------------------- */

typedef struct runs {
    pxr_rle rle;
    char *text;
} runs;

static int free_runs(lua_State *L)
{
    runs *held = luaL_checkudata(L, 1, RUNS);
    pxr_rle_free(&held->rle);
    pxr_free(held->text);
    held->text = NULL;
    return 0;
}

static runs *push_runs(lua_State *L)
{
    runs *held = lua_newuserdata(L, sizeof *held);
    *held = (runs){0};
    luaL_getmetatable(L, RUNS);
    lua_setmetatable(L, -2);
    return held;
}

/* Lets go at once of what push_runs holds at `index`. */
static void release_runs(lua_State *L, int index)
{
    runs *held = lua_touserdata(L, index);
    pxr_rle_free(&held->rle);
    pxr_free(held->text);
    held->text = NULL;
}

/* Reads the table of counts at `index` (uncompressed runs). */
static void read_counts(lua_State *L, int index, runs *held, int64_t height, int64_t width)
{
    pxr_error error = {0};
    const size_t count = lua_objlen(L, index);
    int64_t *counts = pxr_lua_scratch(L, count * sizeof *counts);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, index, (int)i + 1);
        const double value = lua_tonumber(L, -1);
        if (lua_type(L, -1) != LUA_TNUMBER || value != floor(value) || fabs(value) > PXR_MAX_PIXELS)
            luaL_argerror(L, index, lua_pushfstring(L, "count %d of an RLE is no number of pixels", (int)i + 1));
        counts[i] = (int64_t)value;
        lua_pop(L, 1);
    }
    const pxr_status status = pxr_rle_from_counts(&held->rle, counts, count, height, width, &error);
    pxr_lua_check(L, status, &error);
    lua_pop(L, 1);
}

/***
The mask that a COCO RLE describes.
@function core.rle_decode
@tparam string|table counts compressed text, or a list of run lengths (outside, inside, outside, ... down the columns)
@int height
@int width
@treturn Tensor uint8 [height,width] of 0 and 1
*/
static int rle_decode(lua_State *L)
{
    pxr_error error = {0};
    const int64_t size[2] = {check_side(L, 2), check_side(L, 3)};
    const bool compressed = lua_type(L, 1) == LUA_TSTRING;
    if (!compressed) luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 3);
    runs *held = push_runs(L);
    if (compressed) {
        size_t length;
        const char *text = lua_tolstring(L, 1, &length);
        const pxr_status status = pxr_rle_parse(&held->rle, text, length, size[0], size[1], &error);
        pxr_lua_check(L, status, &error);
    } else {
        read_counts(L, 1, held, size[0], size[1]);
    }
    const pxr_tensor *mask = pxr_lua_new_picture(L, PXR_U8, 2, size);
    const pxr_status status = pxr_rle_draw(&held->rle, mask, false, &error);
    release_runs(L, 4);
    pxr_lua_check(L, status, &error);
    return 1;
}

/***
A mask as COCO's compressed RLE text.
@function core.rle_encode
@tparam Tensor mask uint8 [h,w], contiguous; anything but 0 is inside
@treturn string
*/
static int rle_encode(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *mask = check_mask(L, 1);
    lua_settop(L, 1);
    runs *held = push_runs(L);
    size_t length = 0;
    pxr_status status = pxr_rle_from_mask(&held->rle, mask, &error);
    if (status == PXR_OK) status = pxr_rle_text(&held->rle, &held->text, &length, &error);
    pxr_lua_check(L, status, &error);
    lua_pushlstring(L, held->text, length);
    release_runs(L, 2);
    return 1;
}

/***
A mask as COCO's uncompressed run lengths.
@function core.rle_counts
@tparam Tensor mask uint8 [h,w], contiguous; anything but 0 is inside
@treturn {int,...} outside, inside, outside, ... down the columns
*/
static int rle_counts(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *mask = check_mask(L, 1);
    lua_settop(L, 1);
    runs *held = push_runs(L);
    const pxr_status status = pxr_rle_from_mask(&held->rle, mask, &error);
    pxr_lua_check(L, status, &error);
    lua_createtable(L, (int)held->rle.count, 0);
    for (size_t i = 0; i < held->rle.count; i++) {
        lua_pushnumber(L, held->rle.counts[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    release_runs(L, 2);
    return 1;
}

/* ---- polygons, boxes ------------------------------------------------------------------------------------------- */

/* Reads polygon `number` (a list of coordinates on top of the stack) into scratch memory, which is pushed. */
static const double *read_polygon(lua_State *L, int number, size_t *points)
{
    const int index = lua_gettop(L);
    if (lua_type(L, index) != LUA_TTABLE)
        luaL_argerror(L, 1, "a list of polygons expected, each a list {x0, y0, x1, y1, ...}");
    const size_t count = lua_objlen(L, index);
    if (count == 4)
        luaL_argerror(L, 1,
                      lua_pushfstring(L,
                                      "polygon %d has four numbers: a polygon needs three points, and a box "
                                      "is made by mask.box",
                                      number));
    if (count % 2 != 0)
        luaL_argerror(L, 1, lua_pushfstring(L, "polygon %d has %d numbers, expected pairs x, y", number, (int)count));
    double *xy = pxr_lua_scratch(L, count * sizeof *xy);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, index, (int)i + 1);
        if (lua_type(L, -1) != LUA_TNUMBER)
            luaL_argerror(L, 1, lua_pushfstring(L, "element %d of polygon %d is no number", (int)i + 1, number));
        xy[i] = lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
    *points = count / 2;
    return xy;
}

/***
The union of polygons, rasterised as pycocotools does it.
@function core.polygon_mask
@tparam {table,...} polygons lists {x0, y0, x1, y1, ...} of at least three points, in pixels
@int height
@int width
@treturn Tensor uint8 [height,width] of 0 and 1
*/
static int polygon_mask(lua_State *L)
{
    pxr_error error = {0};
    luaL_checktype(L, 1, LUA_TTABLE);
    const int64_t size[2] = {check_side(L, 2), check_side(L, 3)};
    const int polygons = (int)lua_objlen(L, 1);
    if (polygons == 0) luaL_argerror(L, 1, "a list of at least one polygon expected");
    lua_settop(L, 3);
    runs *held = push_runs(L);
    const pxr_tensor *mask = pxr_lua_new_picture(L, PXR_U8, 2, size);
    for (int number = 1; number <= polygons; number++) {
        size_t points = 0;
        lua_rawgeti(L, 1, number);
        const double *xy = read_polygon(L, number, &points);
        pxr_status status = pxr_rle_from_polygon(&held->rle, xy, points, size[0], size[1], &error);
        if (status == PXR_OK) status = pxr_rle_draw(&held->rle, mask, number > 1, &error);
        release_runs(L, 4);
        if (status != PXR_OK && polygons > 1) pxr_error_prefix(&error, "polygon %d", number);
        pxr_lua_check(L, status, &error);
        lua_pop(L, 2);
    }
    return 1;
}

/***
A filled box.
@function core.box_mask
@int height
@int width
@int x0 first column inside
@int y0 first row inside
@int x1 first column behind the box
@int y1 first row behind the box
@treturn Tensor uint8 [height,width] of 0 and 1
*/
static int box_mask(lua_State *L)
{
    const int64_t size[2] = {check_side(L, 1), check_side(L, 2)};
    const int64_t x0 = pxr_lua_check_integer(L, 3, 0, size[1] - 1), y0 = pxr_lua_check_integer(L, 4, 0, size[0] - 1);
    const int64_t x1 = pxr_lua_check_integer(L, 5, x0 + 1, size[1]), y1 = pxr_lua_check_integer(L, 6, y0 + 1, size[0]);
    pxr_error error = {0};
    if (pxr_check_picture_size(size[0], size[1], "a mask", &error) != PXR_OK) pxr_lua_check(L, error.status, &error);
    const pxr_tensor *mask = pxr_lua_new_picture(L, PXR_U8, 2, size);
    uint8_t *pixels = mask->data;
    memset(pixels, 0, (size_t)(size[0] * size[1]));
    for (int64_t y = y0; y < y1; y++) memset(pixels + y * size[1] + x0, 1, (size_t)(x1 - x0));
    return 1;
}

/* ---- measures -------------------------------------------------------------------------------------------------- */

/***
Number of pixels inside a mask.
@function core.mask_area
@tparam Tensor mask uint8 [h,w], contiguous
@treturn int
*/
static int mask_area(lua_State *L)
{
    lua_pushnumber(L, (double)pxr_mask_area(check_mask(L, 1)));
    return 1;
}

/***
The tight box around a mask, half-open.
@function core.mask_bounds
@tparam Tensor mask uint8 [h,w], contiguous
@treturn ?int x0; nothing at all for an empty mask
@treturn int y0
@treturn int x1
@treturn int y1
*/
static int mask_bounds(lua_State *L)
{
    int64_t box[4];
    if (!pxr_mask_bounds(check_mask(L, 1), box)) return 0;
    for (int i = 0; i < 4; i++) lua_pushnumber(L, (double)box[i]);
    return 4;
}

/***
A mask from any uint8 picture: 1 where a channel is not 0.
@function core.mask_binarize
@tparam Tensor picture uint8 [h,w] or [h,w,channels], contiguous
@treturn Tensor uint8 [h,w] of 0 and 1
*/
static int mask_binarize(lua_State *L)
{
    pxr_error error = {0};
    const pxr_tensor *from = pxr_lua_check_tensor_of(L, 1, PXR_U8);
    if (from->rank != 2 && from->rank != 3) luaL_argerror(L, 1, "a picture [h,w] or [h,w,channels] expected");
    const pxr_tensor *mask = pxr_lua_new_picture(L, PXR_U8, 2, from->size);
    const pxr_status status = pxr_mask_binarize(mask, from, &error);
    pxr_lua_check(L, status, &error);
    return 1;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static const luaL_Reg functions[] = {
    {"resize", resize},
    {"smart_resize", smart_resize},
    {"budget_max_pixels", budget_max_pixels},
    {"patches", patches},
    {"rle_decode", rle_decode},
    {"rle_encode", rle_encode},
    {"rle_counts", rle_counts},
    {"polygon_mask", polygon_mask},
    {"box_mask", box_mask},
    {"mask_area", mask_area},
    {"mask_bounds", mask_bounds},
    {"mask_binarize", mask_binarize},
    {NULL, NULL},
};

void pxr_lua_open_picture(lua_State *L)
{
    luaL_newmetatable(L, RUNS);
    lua_pushcfunction(L, free_runs);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
    pxr_lua_open_picture_file(L);
}
