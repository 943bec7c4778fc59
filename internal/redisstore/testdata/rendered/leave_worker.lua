-- Marks a worker as draining if it holds no lease.
-- KEYS  common; 9 worker, 10 leases it holds
-- ARGV  prefix, worker id, session
-- Returns  {'', 1 if it may exit, else 0 (it holds a lease, or is attached in a newer session)}
-- Replay   the same. A worker that nobody knows may exit.
local session = redis.call('HGET', KEYS[9], 'se')
if not session then return { '', 1 } end
if session ~= ARGV[3] or redis.call('HLEN', KEYS[10]) > 0 then return { '', 0 } end
redis.call('HSET', KEYS[9], 'dr', '1')
return { '', 1 }
