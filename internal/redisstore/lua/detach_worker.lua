-- Notes that a worker's stream is cut. One that is gone and holds nothing is forgotten.
-- KEYS  common; 14 worker. Derived: the workers of its machine.
-- ARGV  prefix, worker id, session, gone (0, 1)
-- Returns  {''}; another session than the worker's changes nothing
-- Replay   the same.
-- $include(held.lua)
-- $include(worker.lua)
local session, draining, _, answers = standing_of(ARGV[2])
if session ~= ARGV[3] then return { '' } end
if ARGV[4] == '1' and #held_by(ARGV[2]) == 0 then
  forget_worker(ARGV[2], redis.call('HGET', KEYS[14], 'mid'))
  write_all()
else
  set_standing(ARGV[2], session, draining, 0, answers)
end
return { '' }
