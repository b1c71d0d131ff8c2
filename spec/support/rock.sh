#!/bin/bash
# Builds and installs the rock into a tree of its own, without the network, and asks the installed command and module
# whether they are whole. The same for `make install`.
set -eu
cd "$(dirname "$0")/../.."
tree=$PWD/build/rock
command -v luarocks >/dev/null || { echo "skipped: luarocks is not installed"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }

try() { # a tree below which share/, lib/ and bin/ lie
    cd /
    env -u PIXELREFER_BUILD LUA_PATH="$1/share/lua/5.1/?.lua;$1/share/lua/5.1/?/init.lua;;" \
        LUA_CPATH="$1/lib/lua/5.1/?.so;;" luajit -e 'assert(require("pixelrefer").load)'
    (unset LUA_PATH LUA_CPATH && "$1/bin/pixelrefer" --help >/dev/null)
    cd - >/dev/null
}

rm -rf "$tree" "$tree-make"
luarocks make --lua-version=5.1 --deps-mode=none --tree="$tree" pixelrefer-scm-1.rockspec
try "$tree"
make --no-print-directory install PREFIX=/usr/local DESTDIR="$tree-make"
try "$tree-make/usr/local"
echo "2 passed, 0 failed, 0 skipped"
