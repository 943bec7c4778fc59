-- Marks a worker as draining if it holds no lease.
-- KEYS  common; 14 worker
-- ARGV  prefix, worker id, session
-- Returns  {'', 1 if it may exit, else 0 (it holds a lease, or is attached in a newer session)}
-- Replay   the same. A worker that nobody knows may exit.
-- $include(held.lua)
local session = redis.call('HGET', KEYS[14], 'se')
if not session then return { '', 1 } end
if session ~= ARGV[3] or #held_by(ARGV[2]) > 0 then return { '', 0 } end
redis.call('HSET', KEYS[14], 'dr', '1')
return { '', 1 }
