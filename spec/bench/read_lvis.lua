-- Seconds and MiB of reading a COCO or LVIS file: until the first sample, and through all of them with every annotation
-- decoded (masks are not).
--
--     pixelrefer run spec/bench/read_lvis.lua FILE
package.path = "spec/?.lua;" .. package.path
local core = require "pixelrefer.core"
local dataset = require "pixelrefer.dataset"
local memory = require "bench.memory"

local function peak_mib()
    return memory.peak() / 2 ^ 20
end

local began = core.tick()
local next_sample = dataset.samples(arg[1])
local first, regions = next_sample(), 0
print(("index        %6.1f s (%5.1f s of processor)  %4.0f MiB"):format(core.tick() - began, os.clock(), peak_mib()))
local sample, samples = first, 0
while sample do
    samples, regions = samples + 1, regions + #sample.regions
    sample = next_sample()
end
print(("all decoded  %6.1f s (%5.1f s of processor)  %4.0f MiB  %d samples, %d regions"):format(core.tick() - began,
    os.clock(), peak_mib(), samples, regions))
