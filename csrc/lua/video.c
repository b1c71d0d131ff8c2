/*** Video clips and FFmpeg's pictures for Lua: class VideoReader, read_picture and read_indexed_png.
 *
 * What is sampled from a clip, and how, is told in lua/pixelrefer/video.lua.
 * @module pixelrefer.core
 */
#include "lua/binding.h"

#include "media/ffmpeg_picture.h"
#include "media/video.h"
#include "media/video_ahead.h"

#define VIDEO "pixelrefer.VideoReader"

enum { AHEAD_BYTES = 1 << 29 /* of pictures that are read before somebody asks */ };

typedef struct reader {
    pxr_video *video;
    pxr_video_ahead *ahead; /* NULL unless begin was called */
} reader;

/*** An opened clip. Frame numbers count from 0, in presentation order.
 * @type VideoReader */

static reader *check_reader(lua_State *L, int index)
{
    reader *opened = pxr_lua_check_object(L, index, VIDEO);
    if (!opened->video) luaL_argerror(L, index, "this video was closed");
    return opened;
}

/* Nobody else uses it when this returns. */
static pxr_video *check_video(lua_State *L, int index)
{
    const reader *opened = check_reader(L, index);
    pxr_error error = {0};
    if (opened->ahead) {
        pxr_lua_interruptible_begin();
        const pxr_status status = pxr_video_ahead_wait(opened->ahead, &error);
        pxr_lua_interruptible_end();
        pxr_lua_check(L, status, &error);
    }
    return opened->video;
}

/* fps, start and end at index .. index + 2; each may be nil. */
static pxr_video_clock check_clock(lua_State *L, int index)
{
    const pxr_video_clock clock = {
        .fps = luaL_optnumber(L, index, 0),
        .start = luaL_optnumber(L, index + 1, -1),
        .end = luaL_optnumber(L, index + 2, -1),
    };
    return clock;
}

/*** Opens a clip and reads its index; nothing is decoded yet.
 * @function open_video
 * @tparam string path a file
 * @treturn VideoReader
 * @raise a file that is missing, no video, damaged or truncated */
static int open_video(lua_State *L)
{
    const char *path = pxr_lua_check_path(L, 1);
    reader *opened = lua_newuserdata(L, sizeof *opened);
    *opened = (reader){0};
    luaL_getmetatable(L, VIDEO);
    lua_setmetatable(L, -2);
    pxr_error error = {0};
    pxr_lua_interruptible_begin();
    const pxr_status status = pxr_video_open(&opened->video, path, &error);
    pxr_lua_interruptible_end();
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** What is known of the clip.
 * @function VideoReader:info
 * @treturn table width, height (pixels, upright), rotation (degrees clockwise that make it so), frames (counted), fps
 * (the average), duration and start (seconds), codec, container, is_picture */
static int video_info(lua_State *L)
{
    const pxr_video_info *info = pxr_video_get_info(check_video(L, 1));
    const struct {
        const char *name;
        double value;
    } numbers[] = {
        {"width", info->width},       {"height", info->height}, {"rotation", info->rotation},     {"fps", info->fps},
        {"duration", info->duration}, {"start", info->start},   {"frames", (double)info->frames},
    };
    lua_newtable(L);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        lua_pushnumber(L, numbers[i].value);
        lua_setfield(L, -2, numbers[i].name);
    }
    lua_pushstring(L, info->codec);
    lua_setfield(L, -2, "codec");
    lua_pushstring(L, info->container);
    lua_setfield(L, -2, "container");
    lua_pushboolean(L, info->is_picture);
    lua_setfield(L, -2, "is_picture");
    return 1;
}

/*** The number of ticks of a clock over the clip: how many pictures FFmpeg's filter `fps=fps:round=down` makes of it.
 * @function VideoReader:ticks
 * @tparam ?number fps ticks a second; nil makes every frame one
 * @tparam ?number start seconds from the file's start
 * @tparam ?number end_ seconds; the clip's end when nil
 * @treturn integer at least 1 */
static int video_ticks(lua_State *L)
{
    const pxr_video *video = check_video(L, 1);
    const pxr_video_clock clock = check_clock(L, 2);
    pxr_error error = {0};
    int64_t ticks = 0;
    pxr_lua_check(L, pxr_video_ticks(video, &clock, &ticks, &error), &error);
    lua_pushnumber(L, (double)ticks);
    return 1;
}

/*** The frame that is shown at a tick.
 * @function VideoReader:frameAt
 * @tparam integer tick from 0
 * @tparam ?number fps as for @{VideoReader:ticks}
 * @tparam ?number start
 * @tparam ?number end_
 * @treturn integer a frame's number */
static int video_frame_at(lua_State *L)
{
    const pxr_video *video = check_video(L, 1);
    const int64_t tick = pxr_lua_check_integer(L, 2, 0, INT64_C(1) << 53);
    const pxr_video_clock clock = check_clock(L, 3);
    pxr_error error = {0};
    int64_t frame = 0;
    pxr_lua_check(L, pxr_video_frame_at(video, &clock, tick, &frame, &error), &error);
    lua_pushnumber(L, (double)frame);
    return 1;
}

/*** The time at which a frame is shown.
 * @function VideoReader:time
 * @tparam integer frame from 0
 * @treturn number seconds from the file's start */
static int video_time(lua_State *L)
{
    const pxr_video *video = check_video(L, 1);
    const int64_t frame = pxr_lua_check_integer(L, 2, 0, pxr_video_get_info(video)->frames - 1);
    lua_pushnumber(L, pxr_video_time(video, frame));
    return 1;
}

/*** Begins to decode frames beside whatever else is done, in their order; @{VideoReader:read} gives them. At most
 * 512 MiB of pictures are read so.
 * @function VideoReader:begin
 * @tparam {integer,...} frames from 0; what is wrong with one read says */
static int video_begin(lua_State *L)
{
    pxr_video *video = check_video(L, 1);
    reader *opened = check_reader(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    const size_t count = lua_objlen(L, 2);
    int64_t *frames = pxr_lua_scratch(L, count * sizeof *frames + 1);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, 2, (int)i + 1);
        frames[i] = pxr_lua_check_integer(L, -1, -(INT64_C(1) << 53), INT64_C(1) << 53);
        lua_pop(L, 1);
    }
    pxr_error error = {0};
    pxr_video_ahead_free(opened->ahead);
    opened->ahead = NULL;
    pxr_lua_check(L, pxr_video_ahead_start(&opened->ahead, video, frames, count, AHEAD_BYTES, &error), &error);
    return 0;
}

/*** Decodes a frame. Ascending frames are fast; an earlier one starts the file over.
 * @function VideoReader:read
 * @tparam integer frame from 0
 * @treturn Tensor uint8 [height,width,3], RGB
 * @raise a frame out of range, or one that cannot be decoded */
static int video_read(lua_State *L)
{
    pxr_video *video = check_video(L, 1);
    const int64_t frame = pxr_lua_check_integer(L, 2, -(INT64_C(1) << 53), INT64_C(1) << 53);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *picture = pxr_lua_new_tensor(L);
    pxr_video_ahead *ahead = check_reader(L, 1)->ahead;
    pxr_error error = {0};
    if (ahead && pxr_video_ahead_take(ahead, frame, picture)) return 1;
    pxr_lua_interruptible_begin();
    const pxr_status status = pxr_video_read(video, frame, picture, &error);
    pxr_lua_interruptible_end();
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Closes the clip; further calls on it raise.
 * @function VideoReader:free */
static int video_free(lua_State *L)
{
    reader *opened = luaL_checkudata(L, 1, VIDEO);
    pxr_video_ahead_free(opened->ahead);
    pxr_video_close(opened->video);
    *opened = (reader){0};
    return 0;
}

/*** Reads a picture of any format but JPEG and PNG (those: @{read_image}): BMP, WebP, TIFF, the first frame of a GIF ...
 * @function read_picture
 * @tparam string path a file
 * @treturn Tensor uint8 [height,width,3], RGB, upright */
static int read_picture(lua_State *L)
{
    const char *path = pxr_lua_check_path(L, 1);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *picture = pxr_lua_new_tensor(L);
    pxr_error error = {0};
    pxr_lua_interruptible_begin();
    const pxr_status status = pxr_ffmpeg_read_picture(path, picture, &error);
    pxr_lua_interruptible_end();
    pxr_lua_check(L, status, &error);
    return 1;
}

/*** Reads an indexed PNG's palette indices.
 * @function read_indexed_png
 * @tparam string path a file
 * @treturn Tensor uint8 [height,width], the indices
 * @treturn Tensor uint8 [256,3], the palette, zero behind the file's own entries
 * @raise also for a PNG without a palette */
static int read_indexed_png(lua_State *L)
{
    const char *path = pxr_lua_check_path(L, 1);
    pxr_lua_collect_if_needed(L);
    pxr_tensor *indices = pxr_lua_new_tensor(L), *palette = pxr_lua_new_tensor(L);
    pxr_error error = {0};
    pxr_lua_interruptible_begin();
    const pxr_status status = pxr_read_indexed_png(path, indices, palette, &error);
    pxr_lua_interruptible_end();
    pxr_lua_check(L, status, &error);
    return 2;
}

void pxr_lua_open_video(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"info", video_info}, {"ticks", video_ticks}, {"frameAt", video_frame_at},
        {"time", video_time}, {"read", video_read},   {"begin", video_begin},
        {NULL, NULL},
    };
    static const luaL_Reg functions[] = {
        {"open_video", open_video},
        {"read_picture", read_picture},
        {"read_indexed_png", read_indexed_png},
        {NULL, NULL},
    };
    pxr_lua_class(L, VIDEO, methods, video_free);
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
