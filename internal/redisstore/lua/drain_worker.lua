-- Marks a worker: it is given nothing more.
-- KEYS  common; 14 worker
-- ARGV  prefix, worker id
-- Returns  {''} | {'WORKER_NOT_FOUND'}
-- Replay   the same, without a wake-up.
-- $include(wake.lua)
-- $include(worker.lua)
local session, draining, attached = parse_worker(redis.call('HGET', KEYS[14], 'v') or '')
if not session then return { 'WORKER_NOT_FOUND' } end
if draining ~= '1' then
  redis.call('HSET', KEYS[14], 'v', worker_state(session, 1, attached))
  WAKES.WORKER = true
  publish_wakes()
end
return { '' }
