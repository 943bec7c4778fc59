-- Ends an attempt with a fault: DELAYED, READY (the first in a row that is the machine's) or DEAD, which fails the job.
-- KEYS  common; 14 job. Derived: its indexes and its project's queue.
-- ARGV  prefix, job id, index, attempt, worker id, class, reason, message,
--       max failures, backoff ms, max backoff ms, factor of jitter
-- Returns  {'', 'ACCEPTED' | 'STALE'}
-- Replay   'ACCEPTED', as long as the attempt is among the newest 16.
-- $include(task.lua)
local index, attempt, worker, class = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local reason, message = ARGV[7], ARGV[8]
local job = load_job(ARGV[2])
local t = job and load_task(job, index)
if not t then return { '', 'STALE' } end
if t.s ~= 'LEASED' or t.n ~= attempt or t.by ~= worker then
  return { '', ended_as(job, index, worker, attempt, 'FAILED') and 'ACCEPTED' or 'STALE' }
end

-- delay_task rests the task; the pause doubles with each failure before this one.
local function delay_task(failures_before, charged)
  end_attempt(job, index, t, 'FAILED', reason, message, charged)
  local backoff = math.min(tonumber(ARGV[10]) * 2 ^ failures_before, tonumber(ARGV[11])) * tonumber(ARGV[12])
  local wakes = NOW + math.floor(backoff)
  t.s, t.at = next_state('task', t.s, 'retry'), wakes
  save_task(job, index, t)
  zadd(DELAYED, digits(wakes), t.m)
  due(wakes)
  add_event(job, 'TASK_DELAYED', index, attempt, reason, message)
end

if class == 'MACHINE' and reason == 'ENCODER_MISSING' and t.spoilt > 0 then
  -- Another worker has the encoder, however long it is busy.
  delay_task(2)
elseif class == 'MACHINE' then
  local before = t.spoilt
  if before == 0 or before + 1 >= MAX_MACHINE_FAULTS then
    blame_machine(job, index, t, 'FAILED', reason, message)
  else
    -- A worker that fails at once is free at once: without a rest it would get
    -- the task again and again, and kill it before another comes.
    t.spoilt = before + 1
    delay_task(before - 1)
  end
else
  t.charged, t.spoilt = t.charged + 1, 0
  if class == 'INPUT' or t.charged >= tonumber(ARGV[9]) then
    kill_task(job, index, t, 'FAILED', reason, message, true)
  else
    delay_task(t.charged - 1, true)
  end
end
flush()
return { '', 'ACCEPTED' }
