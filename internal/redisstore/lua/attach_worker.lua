-- Records a worker's new stream, renews those of its leases that it holds,
-- gives back those that it doesn't, takes back that it was lost with those that
-- ran out, and moves its machine to RUNNING.
-- KEYS  common; 14 worker, 15 sessions, 16 machines, 17 workers of its machine (left out without one).
--       Derived: the jobs of its leases.
-- ARGV  prefix, worker id, machine id, version, slots, CPUs, encoders JSON, draining (0, 1), lease ms,
--       reason and message for what is given back, then for each lease it holds: member, attempt
-- Returns  {'', session, lease row (see lease.lua), ...} | {'PERMISSION_DENIED'}, if a worker of another machine has the id
-- Replay   the next session; the same leases.
-- $include(task.lua)
-- $include(worker.lua)
-- $include(machine.lua)
local worker, machine = ARGV[2], ARGV[3]
local first_seen, is_on = unpack(redis.call('HMGET', KEYS[14], 'fs', 'mid'))
-- A process stays where it is: who comes with its id from elsewhere is another one.
if first_seen and is_on ~= machine then return { 'PERMISSION_DENIED' } end

-- absolve takes it back that a task took the worker down: it lost an attempt of it and is here. Its machine was at fault,
-- or the way to it, which a task survives more often.
local function absolve(m, n)
  local job, index, t = find_task(m)
  if not t or job.finished > 0 or t.losses == 0 or t.spoilt + 1 >= MAX_MACHINE_FAULTS then return end
  local list = attempts_of(job, index)
  for _, a in ipairs(list) do
    if a.n == n and a.by == worker and a.oc == 'LOST' then
      a.oc, a.ms = 'RELEASED', 'The worker was silent until its lease ran out, and came back.'
      put(job, 'a' .. index, cjson.encode(list))
      t.losses, t.spoilt = t.losses - 1, t.spoilt + 1
      save_task(job, index, t)
    end
  end
end

local holds = {}
for i = 12, #ARGV, 2 do
  holds[ARGV[i] .. ' ' .. ARGV[i + 1]] = true
  absolve(ARGV[i], tonumber(ARGV[i + 1]))
end
local lease_ms = tonumber(ARGV[9])
-- What the worker says next of its leases is to be taken in, though it attaches for every word.
local deadline = deadline_text(lease_ms - math.ceil(fresh_within(lease_ms)))
local kept = {}
for _, name in ipairs(held_by(worker)) do
  local job, index, t, broken = leased_task(name)
  if broken then
    -- The sweeper ends it.
  elseif not job then
    zrem(HELD, name)
  elseif holds[t.m .. ' ' .. digits(t.n)] then
    zadd(LEASES, deadline, name)
    append(kept, name, deadline)
  else
    return_task(job, index, t, 'release', 'RELEASED', ARGV[10], ARGV[11])
  end
end

local session = redis.call('INCR', KEYS[15])
local known, drains, _, answers = standing_of(worker)
set_standing(worker, session, (ARGV[8] == '1' or drains == '1') and 1 or 0, 1, known and answers or '\n')
redis.call('HSET', KEYS[14], 'mid', machine, 'ver', ARGV[4], 'sl', ARGV[5], 'cpu', ARGV[6], 'enc', ARGV[7],
  'fs', first_seen or STAMP)
zadd(WORKERS, STAMP, worker)
if KEYS[17] then
  redis.call('SADD', KEYS[17], worker)
  local m = load_machine(KEYS[16], machine)
  if m then
    -- The worker may be here before the provider's answer to the create.
    if m.state == 'CREATING' then move_machine(m, 'created') end
    if move_machine(m, 'attach') then save_machine(KEYS[16], m) end
  end
end
flush()

local out = { '', session }
for _, row in ipairs(lease_rows(kept)) do out[#out + 1] = row end
return out
