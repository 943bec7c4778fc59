-- Marks a worker: it is given nothing more.
-- KEYS  common; 14 worker
-- ARGV  prefix, worker id
-- Returns  {''} | {'WORKER_NOT_FOUND'}
-- Replay   the same, without a wake-up.
-- $include(worker.lua)
-- $include(wake.lua)
local w = load_worker(ARGV[2])
if not w then return { 'WORKER_NOT_FOUND' } end
if w.draining ~= '1' then
  w.draining = 1
  save_worker(w)
  write_all()
  WAKES.WORKER = true
  publish_wakes()
end
return { '' }
