rockspec_format = "3.0"
package = "pixelrefer"
version = "scm-1"
source = { url = "git+https://github.com/pixelrefer/pixelrefer" }
description = {
   summary = "Region-level questions about images and videos: PixelRefer and PixelRefer-Lite for LuaJIT",
   detailed = [[
Loads PixelRefer and PixelRefer-Lite checkpoints as they come from the hub and describes or reasons about any masked
region of an image or a video. A C11 core does the arithmetic and reads the file formats; the pipelines are Lua.]],
   license = "Apache-2.0",
}
supported_platforms = { "linux" }
dependencies = { "lua == 5.1", "lua-cjson" }
-- The command keeps its own first line: it runs under LuaJIT, whatever Lua LuaRocks itself runs under.
deploy = { wrap_bin_scripts = false }
-- The headers of LuaJIT and of the other libraries come from pkg-config, not from LuaRocks' own variables.
build = {
   type = "make",
   build_target = "all",
   install_target = "install",
   build_variables = { CFLAGS = "$(CFLAGS)" },
   install_variables = { PREFIX = "$(PREFIX)", LUADIR = "$(LUADIR)", LIBDIR = "$(LIBDIR)", BINDIR = "$(BINDIR)" },
   copy_directories = { "docs" },
}
