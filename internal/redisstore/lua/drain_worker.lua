-- Marks a worker: it is given nothing more.
-- KEYS  common; 14 worker
-- ARGV  prefix, worker id
-- Returns  {''} | {'WORKER_NOT_FOUND'}
-- Replay   the same, without a wake-up.
-- $include(wake.lua)
local draining = redis.call('HGET', KEYS[14], 'dr')
if not draining then return { 'WORKER_NOT_FOUND' } end
if draining ~= '1' then
  redis.call('HSET', KEYS[14], 'dr', '1')
  WAKES.WORKER = true
  publish_wakes()
end
return { '' }
