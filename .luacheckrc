-- luacheck's settings: LuaJIT's globals everywhere, busted's in the specs.
std = "luajit"
max_line_length = 120
files["spec/**/*_spec.lua"] = { std = "+busted" }
exclude_files = { "build/**" }
