-- Marks a worker: it is given nothing more.
-- KEYS  common. Derived: the worker
-- ARGV  prefix, worker id
-- Returns  {''} | {'WORKER_NOT_FOUND'}
-- Replay   the same, without a wake-up.
-- $include(wake.lua)
-- $include(worker.lua)
local session, draining, attached, answers = standing_of(ARGV[2])
if not session then return { 'WORKER_NOT_FOUND' } end
if draining ~= '1' then
  set_standing(ARGV[2], session, 1, attached, answers)
  WAKES.WORKER = true
  publish_wakes()
end
return { '' }
