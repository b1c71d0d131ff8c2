-- The dialect of kernels/ (gpu.h says why): which headers, no inline assembly but in gpu.h, no CUDA that the emulated
-- device could not follow.
local source = require "lint.source"

-- Folders of csrc whose headers the kernels may include, and headers of CUDA's.
local ROOMS = { core = true, ops = true }
local CUDA_HEADERS = { ["cublasLt.h"] = true }

-- Words that stand in gpu.h alone, and what stands for them elsewhere.
local RAW = {
    { "%f[%w_]asm%f[^%w_]", "inline assembly", "a wrapper in gpu.h" },
    { "__shared__", "__shared__", "GPU_SHARED or GPU_DYN_SMEM" },
    { "<<<", "a raw launch", "GPU_LAUNCH" },
    { "__activemask", "__activemask", "a mask that says who takes part" },
    { "cooperative_groups", "cooperative groups", "__syncthreads and masks" },
    { "%f[%w_]__shfl%f[^%w_]", "__shfl", "__shfl_sync" },
    { "%f[%w_]__nanosleep%f[^%w_]", "__nanosleep", "ld_acquire" },
}

local function is_of_cuda(header)
    if CUDA_HEADERS[header] then return false end
    return header:match("^cu") or header:match("^mma") or header:match("^device_") or header:match("^vector_")
end

local function check_includes(report, path, is_emulator)
    for number, line in ipairs(source.lines(path)) do
        local quoted, system = line:match('^%s*#%s*include%s+"([^"]+)"'), line:match("^%s*#%s*include%s+<([^>]+)>")
        local folder = quoted and quoted:match("^([^/]+)/")
        if quoted and folder and folder ~= "emu" and not ROOMS[folder] then
            report(path, number, "kernels may not include \"%s\"", quoted)
        elseif folder == "emu" and not is_emulator and path ~= "kernels/gpu.h" then
            report(path, number, "only gpu.h includes \"%s\"", quoted)
        elseif system and not is_emulator and path ~= "kernels/gpu.h" and is_of_cuda(system) then
            report(path, number, "CUDA's headers come by gpu.h, not <%s>", system)
        end
    end
end

return function(report)
    for _, path in ipairs(source.files("kernels", "-name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh'")) do
        local is_emulator = path:match("^kernels/emu/") ~= nil
        check_includes(report, path, is_emulator)
        if not is_emulator and path ~= "kernels/gpu.h" then
            local bare = source.bare_c(source.read(path))
            for _, word in ipairs(RAW) do
                for at in bare:gmatch("()" .. word[1]) do
                    report(path, source.line_at(bare, at), "%s: %s instead", word[2], word[3])
                end
            end
        end
    end
end
