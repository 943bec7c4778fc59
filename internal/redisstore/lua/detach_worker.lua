-- Notes that a worker's stream is cut. One that is gone and holds nothing is forgotten.
-- KEYS  common; 9 worker, 10 leases it holds. Derived: the workers of its machine.
-- ARGV  prefix, worker id, session, gone (0, 1)
-- Returns  {''}; another session than the worker's changes nothing
-- Replay   the same.
-- $include(worker.lua)
local session, machine = unpack(redis.call('HMGET', KEYS[9], 'se', 'mid'))
if session ~= ARGV[3] then return { '' } end
if ARGV[4] == '1' and redis.call('HLEN', KEYS[10]) == 0 then
  forget_worker(ARGV[2], machine)
else
  redis.call('HSET', KEYS[9], 'at', '0')
end
return { '' }
