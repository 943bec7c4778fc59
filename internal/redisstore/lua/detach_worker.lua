-- Notes that a worker's stream is cut. One that is gone and holds nothing is forgotten.
-- KEYS  common; 14 worker. Derived: the workers of its machine.
-- ARGV  prefix, worker id, session, gone (0, 1)
-- Returns  {''}; another session than the worker's changes nothing
-- Replay   the same.
-- $include(held.lua)
-- $include(worker.lua)
local state, machine = unpack(redis.call('HMGET', KEYS[14], 'v', 'mid'))
local session, draining = parse_worker(state or '')
if session ~= ARGV[3] then return { '' } end
if ARGV[4] == '1' and #held_by(ARGV[2]) == 0 then
  forget_worker(ARGV[2], machine)
  write_all()
else
  redis.call('HSET', KEYS[14], 'v', worker_state(session, draining, 0))
end
return { '' }
