-- Gives back every lease of the workers of a machine that is gone, and forgets them.
-- KEYS  common; 9 workers of the machine. Derived: the workers, and the jobs of their leases.
-- ARGV  prefix, machine id, reason, message
-- Returns  {''}
-- Replay   the same.
-- $include(task.lua)
-- $include(worker.lua)
for _, worker in ipairs(redis.call('SMEMBERS', KEYS[9])) do
  for _, m in ipairs(redis.call('HKEYS', held_key(worker))) do
    release_held(m, ARGV[3], ARGV[4])
    WAKES.WORKER = true
  end
  forget_worker(worker, ARGV[2])
end
flush()
return { '' }
