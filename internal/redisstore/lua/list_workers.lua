-- Reads the workers that were seen within a time. Changes nothing.
-- KEYS  common
-- ARGV  prefix, ms
-- Returns  {'', id, last seen, ...}
-- $include(clock.lua)
local out = redis.call('ZRANGEBYSCORE', WORKERS, NOW - tonumber(ARGV[2]), '+inf', 'WITHSCORES')
table.insert(out, 1, '')
return out
