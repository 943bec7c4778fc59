-- Leases ready tasks to a worker, best first. The first lease of a job moves it to RUNNING.
-- KEYS  common; 9 worker, 10 leases it holds, 11 answer of this request.
--       Derived: the jobs of the tasks that were popped, and their indexes.
-- ARGV  prefix, worker id, session, max, lease ms
-- Returns  {'', 1 if tasks are still ready else 0, 1 if the worker is refused else 0, lease row, ...}: {member, attempt, deadline, task JSON, attempts JSON, job row};
--          none for a worker that is unknown, detached, draining or in a newer session
-- Replay   the leases of the first answer that are still held, for a minute.
--          An empty answer isn't kept.
-- $include(task.lua)
local KEPT = 60000
local worker = ARGV[2]
local out = { '', redis.call('EXISTS', READY), 0 }

local answer = redis.call('GET', KEYS[11])
if answer then
  for m, attempt in string.gmatch(answer, '(%S+) (%d+)') do
    if lease_of(worker, m) == tonumber(attempt) then
      out[#out + 1] = lease_row(m, tonumber(attempt), tonumber(redis.call('ZSCORE', LEASES, m)))
    end
  end
  return out
end

local session, draining, attached = unpack(redis.call('HMGET', KEYS[9], 'se', 'dr', 'at'))
if session ~= ARGV[3] or draining == '1' or attached ~= '1' then
  out[3] = 1
  return out
end

local lease_ms, max = tonumber(ARGV[5]), tonumber(ARGV[4])
local deadline = NOW + lease_ms
local taken, leases, held = {}, {}, {}
while #taken < max do
  local popped = redis.call('ZPOPMIN', READY, max - #taken)
  if #popped == 0 then break end
  for i = 1, #popped, 2 do
    local m = popped[i]
    local id, index = parse_member(m)
    local job = load_job(id)
    local t = job and load_task(job, index)
    local to = t and next_state('task', t.s, 'lease')
    if to then
      t.s, t.n, t.by, t.at = to, (t.n or 0) + 1, worker, NOW
      save_task(job, index, t)
      if job.state == 'PENDING' then
        move_job(job, 'start')
        put(job, 'ts', NOW)
        add_event(job, 'STARTED')
      end
      if lease_ms > job.lease_ms then
        job.lease_ms = lease_ms
        put(job, 'lm', lease_ms)
      end
      add_event(job, 'TASK_LEASED', index, t.n)
      taken[#taken + 1] = m .. ' ' .. t.n
      leases[#leases + 1] = deadline
      leases[#leases + 1] = m
      held[#held + 1] = m
      held[#held + 1] = t.n .. ' ' .. string.format('%.17g', t.w or 0) .. ' 0 0'
    end
  end
end
out[2] = redis.call('EXISTS', READY)
if #taken == 0 then return out end

in_chunks('ZADD', LEASES, leases)
in_chunks('HSET', KEYS[10], held)
redis.call('SET', KEYS[11], table.concat(taken, ' '), 'PX', KEPT)
-- While there are leases, the sweeper comes at least that often.
due(NOW + math.floor(lease_ms / 3))
flush()
for i, m in ipairs(taken) do
  local name, attempt = string.match(m, '(%S+) (%d+)')
  out[i + 3] = lease_row(name, tonumber(attempt), deadline)
end
return out
