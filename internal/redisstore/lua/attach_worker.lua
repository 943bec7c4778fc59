-- Records a worker's new stream, renews those of its leases that it holds,
-- gives back those that it doesn't, and moves its machine to RUNNING.
-- KEYS  common; 14 worker, 15 sessions, 16 machines, 17 workers of its machine (left out without one).
--       Derived: the jobs of its leases.
-- ARGV  prefix, worker id, machine id, version, slots, CPUs, encoders JSON, draining (0, 1), lease ms,
--       reason and message for what is given back, then for each lease it holds: member, attempt
-- Returns  {'', session, lease row (see task.lua), ...}
-- Replay   the next session; the same leases.
-- $include(task.lua)
-- $include(worker.lua)
-- $include(machine.lua)
local id, machine = ARGV[2], ARGV[3]
local before = load_worker(id)
local session = redis.call('INCR', KEYS[15])
save_worker({
  id = id, session = session, draining = (before and before.draining == '1' or ARGV[8] == '1') and 1 or 0, attached = 1,
  seen = before and before.seen or STAMP, slots = ARGV[5], cpus = ARGV[6], machine = machine, version = ARGV[4],
  encoders = ARGV[7], answers = before and before.answers or '',
})
zadd(WORKERS, STAMP, id)
if KEYS[17] then
  redis.call('SADD', KEYS[17], id)
  local m = load_machine(KEYS[16], machine)
  if m then
    -- The worker may be here before the provider's answer to the create.
    if m.state == 'CREATING' then move_machine(m, 'created') end
    if move_machine(m, 'attach') then save_machine(KEYS[16], m) end
  end
end

local holds = {}
for i = 12, #ARGV, 2 do holds[ARGV[i]] = tonumber(ARGV[i + 1]) end
local deadline = score_text(NOW + tonumber(ARGV[9]))
local kept = {}
for _, m in ipairs(held_by(id)) do
  local job, index, t = leased_task(m)
  if not job then
    zrem(HELD, held_member(id, m))
  elseif holds[m] == t.n then
    zadd(LEASES, deadline, m)
    kept[#kept + 1] = { m, deadline }
  else
    return_task(job, index, t, 'release', 'RELEASED', ARGV[10], ARGV[11])
  end
end
flush()

local out = lease_rows(kept)
table.insert(out, 1, session)
table.insert(out, 1, '')
return out
