-- Notes that a worker's stream is cut. One that is gone and holds nothing is forgotten.
-- KEYS  common; 14 worker. Derived: the workers of its machine.
-- ARGV  prefix, worker id, session, gone (0, 1)
-- Returns  {''}; another session than the worker's changes nothing
-- Replay   the same.
-- $include(task.lua)
-- $include(worker.lua)
local w = load_worker(ARGV[2])
if not w or w.session ~= ARGV[3] then return { '' } end
if ARGV[4] == '1' and #held_by(w.id) == 0 then
  forget_worker(w.id, w.machine)
else
  w.attached = 0
  save_worker(w)
end
flush()
return { '' }
