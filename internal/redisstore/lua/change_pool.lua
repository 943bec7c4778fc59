-- Replaces the changed settings of the pool if they are of a version still, and wakes everybody.
-- KEYS  common; 14 pool
-- ARGV  prefix, settings JSON, version
-- Returns  {'', 1 if they are these, else 0}
-- Replay   1
-- $include(wake.lua)
local change, version = unpack(redis.call('HMGET', KEYS[14], 'change', 'version'))
if change == ARGV[2] then return { '', 1 } end
if (tonumber(version) or 0) ~= tonumber(ARGV[3]) then return { '', 0 } end
redis.call('HSET', KEYS[14], 'change', ARGV[2], 'version', ARGV[3] + 1)
WAKES.POOL = true
publish_wakes()
return { '', 1 }
