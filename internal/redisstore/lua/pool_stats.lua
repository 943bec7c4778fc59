-- Counts tasks; those of projects at their limit aren't counted as ready. Changes nothing.
-- KEYS  common. Derived: the queues of the projects.
-- ARGV  prefix
-- Returns  {'', ready, leased, delayed, age in ms of the oldest job with such a ready task, ready tasks of projects at
--          their limit}
-- $include(waiting.lua)
local ready, oldest = waiting(redis.call('ZRANGE', RING, 0, -1))
return { '', ready, redis.call('ZCARD', LEASES), redis.call('ZCARD', DELAYED), oldest, limited() }
