-- Records a worker's new stream, renews those of its leases that it holds,
-- gives back those that it doesn't, and moves its machine to RUNNING.
-- KEYS  common; 9 worker, 10 leases it holds, 11 sessions, 12 machines, 13 workers of its machine (left out
--       without one). Derived: the jobs of its leases.
-- ARGV  prefix, worker id, machine id, version, slots, CPUs, encoders JSON, draining (0, 1), lease ms,
--       reason and message for what is given back, then for each lease it holds: member, attempt
-- Returns  {'', session, lease row, ...}
-- Replay   the next session; the same leases.
-- $include(task.lua)
-- $include(machine.lua)
local worker, machine = ARGV[2], ARGV[3]
local session = redis.call('INCR', KEYS[11])
local draining, first_seen = unpack(redis.call('HMGET', KEYS[9], 'dr', 'fs'))
redis.call('HSET', KEYS[9], 'mid', machine, 'ver', ARGV[4], 'sl', ARGV[5], 'cpu', ARGV[6], 'enc', ARGV[7],
  'dr', (draining == '1' or ARGV[8] == '1') and '1' or '0', 'se', session, 'at', '1', 'fs', first_seen or NOW)
redis.call('ZADD', WORKERS, NOW, worker)
if KEYS[13] then
  redis.call('SADD', KEYS[13], worker)
  local m = load_machine(KEYS[12], machine)
  if m then
    -- The worker may be here before the provider's answer to the create.
    if m.state == 'CREATING' then move_machine(m, 'created') end
    if move_machine(m, 'attach') then save_machine(KEYS[12], m) end
  end
end

local holds = {}
for i = 12, #ARGV, 2 do holds[ARGV[i]] = ARGV[i + 1] end
local deadline = NOW + tonumber(ARGV[9])
local leases, kept = {}, {}
local stored = redis.call('HGETALL', KEYS[10])
for i = 1, #stored, 2 do
  local m, attempt = stored[i], string.match(stored[i + 1], '^%d+')
  if holds[m] == attempt then
    leases[#leases + 1] = deadline
    leases[#leases + 1] = m
    kept[#kept + 1] = { m, tonumber(attempt) }
  else
    local job, index, t = leased_task(m)
    if job then return_task(job, index, t, 'release', 'RELEASED', ARGV[10], ARGV[11]) end
  end
end
if #leases > 0 then in_chunks('ZADD', LEASES, leases) end
flush()

local out = { '', session }
for _, k in ipairs(kept) do out[#out + 1] = lease_row(k[1], k[2], deadline) end
return out
