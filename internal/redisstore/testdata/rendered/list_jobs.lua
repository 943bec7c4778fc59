-- Reads the ids of jobs, newest first. Changes nothing. One step over all
-- indexes, so that a job that moves between two of them is seen once.
-- KEYS  common; from 14 on, the indexes to read
-- ARGV  prefix, the id that all must be below (or nothing), limit
-- Returns  {'', id, ...}
local max = ARGV[2] == '' and '+' or '(' .. ARGV[2]
local limit = tonumber(ARGV[3])
local ids = {}
for i = 14, #KEYS do
  for _, id in ipairs(redis.call('ZREVRANGEBYLEX', KEYS[i], max, '-', 'LIMIT', 0, limit)) do ids[#ids + 1] = id end
end
table.sort(ids, function(a, b) return a > b end)

local out = { '' }
for i = 1, math.min(limit, #ids) do out[#out + 1] = ids[i] end
return out
