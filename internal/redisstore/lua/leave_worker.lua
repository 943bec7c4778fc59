-- Marks a worker as draining if it holds no lease.
-- KEYS  common; 14 worker
-- ARGV  prefix, worker id, session
-- Returns  {'', 1 if it may exit, else 0 (it holds a lease, or is attached in a newer session)}
-- Replay   the same. A worker that nobody knows may exit.
-- $include(task.lua)
-- $include(worker.lua)
local w = load_worker(ARGV[2])
if not w then return { '', 1 } end
if w.session ~= ARGV[3] or #held_by(w.id) > 0 then return { '', 0 } end
w.draining = 1
save_worker(w)
flush()
return { '', 1 }
