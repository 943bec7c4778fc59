-- Gives back every lease of the workers of a machine that is gone, and forgets
-- them. A task that was on too many such machines in a row is DEAD, which fails its job.
-- KEYS  common; 14 workers of the machine. Derived: the workers, and the jobs of their leases.
-- ARGV  prefix, machine id, reason, message, leader's term or 0
-- Returns  {''} | {'LEASE_LOST'}
-- Replay   the same.
-- $include(task.lua)
-- $include(worker.lua)
-- $include(lead.lua)
if not may_act(ARGV[5]) then return { 'LEASE_LOST' } end
local workers = redis.call('SMEMBERS', KEYS[14])
table.sort(workers)
for _, worker in ipairs(workers) do
  for _, name in ipairs(held_by(worker)) do
    local job, index, t = leased_task(name)
    if job then blame_machine(job, index, t, 'RELEASED', ARGV[3], ARGV[4]) end
    WAKES.WORKER = true
  end
  forget_worker(worker, ARGV[2])
end
flush()
return { '' }
