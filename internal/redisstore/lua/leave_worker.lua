-- Marks a worker as draining if it holds no lease.
-- KEYS  common; 14 worker
-- ARGV  prefix, worker id, session
-- Returns  {'', 1 if it may exit, else 0 (it holds a lease, or is attached in a newer session)}
-- Replay   the same. A worker that nobody knows may exit.
-- $include(held.lua)
-- $include(worker.lua)
local session, _, attached = parse_worker(redis.call('HGET', KEYS[14], 'v') or '')
if not session then return { '', 1 } end
if session ~= ARGV[3] or #held_by(ARGV[2]) > 0 then return { '', 0 } end
redis.call('HSET', KEYS[14], 'v', worker_state(session, 1, attached))
return { '', 1 }
