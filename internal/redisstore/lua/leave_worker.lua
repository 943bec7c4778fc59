-- Marks a worker as draining if it holds no lease.
-- KEYS  common; 14 worker. Derived: the other workers, if some are kept.
-- ARGV  prefix, worker id, session, workers of machines that are kept
-- Returns  {'', 1 if it may exit, else 0 (it holds a lease, is attached in a newer session, or is one of those kept)}
-- Replay   the same. A worker that nobody knows may exit.
-- $include(held.lua)
-- $include(worker.lua)
local session, draining, attached = parse_worker(redis.call('HGET', KEYS[14], 'v') or '')
if not session then return { '', 1 } end
if session ~= ARGV[3] or #held_by(ARGV[2]) > 0 then return { '', 0 } end
local keep = tonumber(ARGV[4])
if draining ~= '1' and keep > 0 then
  local taking = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, NOW - SEEN_WITHIN, '+inf')) do
    local w = redis.call('HMGET', worker_key(id), 'v', 'mid')
    local _, drains = parse_worker(w[1] or '')
    if drains == '0' and w[2] and w[2] ~= '' then taking = taking + 1 end
  end
  if taking <= keep then return { '', 0 } end
end
redis.call('HSET', KEYS[14], 'v', worker_state(session, 1, attached))
return { '', 1 }
