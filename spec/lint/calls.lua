-- Calls that a library does not make: nothing outside the binding prints, ends the process or jumps; host memory comes
-- from core/memory.c; the environment is read under the project's own prefix.
local source = require "lint.source"

--- The words of a text as the keys of a table.
local function set(words)
    local members = {}
    for word in words:gmatch("%S+") do members[word] = true end
    return members
end

local FORBIDDEN = set [[printf fprintf vprintf vfprintf puts fputs putchar putc fputc perror exit _exit _Exit
    quick_exit abort assert longjmp siglongjmp setjmp sigsetjmp raise sprintf vsprintf strcpy strcat gets atoi atof
    system popen]]

-- Where a rule has its one exception, and the file says why.
local EXCEPTIONS = { ["csrc/core/json.c"] = set "setjmp longjmp" }

local ALLOCATION = set "malloc calloc realloc free strdup strndup aligned_alloc posix_memalign asprintf"

-- Other people's variables that we honour.
local ENVIRONMENT = set [[HOME XDG_CACHE_HOME XDG_STATE_HOME HF_HOME HF_HUB_CACHE HUGGINGFACE_HUB_CACHE
    HF_ENDPOINT HF_TOKEN TERM TERM_PROGRAM KITTY_WINDOW_ID TMUX NO_COLOR COLUMNS TMPDIR]]

local function check_environment(report, path, pattern)
    local text = source.read(path)
    for at, name in text:gmatch("()" .. pattern) do
        if not ENVIRONMENT[name] and not name:match("^PIXELREFER_") then
            report(path, source.line_at(text, at), "the environment variable %s does not start with PIXELREFER_", name)
        end
    end
end

return function(report)
    for _, path in ipairs(source.files("csrc kernels", "-name '*.[ch]' -o -name '*.cu' -o -name '*.cuh'")) do
        local bare = source.bare_c(source.read(path))
        for at, name in bare:gmatch("()%f[%w_]([%a_][%w_]*)%s*%(") do
            local member = bare:sub(1, at - 1):match("[%.>]%s*$")
            local excepted = EXCEPTIONS[path] and EXCEPTIONS[path][name]
            if FORBIDDEN[name] and not member and not excepted and not path:match("^csrc/lua/") then
                report(path, source.line_at(bare, at), "%s() is not for a library", name)
            elseif ALLOCATION[name] and not member and path ~= "csrc/core/memory.c" then
                report(path, source.line_at(bare, at), "%s(): host memory comes from core/memory.h", name)
            end
        end
        check_environment(report, path, 'getenv%(%s*"([%w_]+)"')
    end
    for _, path in ipairs(source.files("lua bin examples", "-name '*.lua' -o -path 'bin/*'")) do
        check_environment(report, path, "getenv%s*%(?%s*[\"']([%w_]+)")
    end
end
