-- How much memory this process has had at once.
local memory = {}

--- The peak of resident memory in bytes, mapped pages among it.
function memory.peak()
    for line in io.lines("/proc/self/status") do
        local kilobytes = line:match("^VmHWM:%s+(%d+) kB")
        if kilobytes then return tonumber(kilobytes) * 1024 end
    end
end

return memory
