-- Ends an attempt with its result, adds what it leads to and unblocks what waited for it.
-- KEYS  common; 9 job, 10 results, 11 leases of the worker
-- ARGV  prefix, job id, index, attempt, worker id, result JSON, probe JSON, plan JSON (each may be empty), new task JSON ...
-- Returns  {'', 'ACCEPTED' | 'STALE', 1 if it was the last of the run else 0}
-- Replay   the first answer. A lease that ran out but wasn't taken back is still good.
-- $include(task.lua)
local PUBLISH_GRACE = 5000
local index, attempt, worker = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local job = load_job(ARGV[2])
local t = job and load_task(job, index)
if not t or t.n ~= attempt or t.by ~= worker then return { '', 'STALE', 0 } end
if t.s == 'DONE' then return { '', 'ACCEPTED', t.z or 0 } end
local to = next_state('task', t.s, 'finish')
if not to then return { '', 'STALE', 0 } end

end_attempt(job, index, t, 'DONE')
t.s = to
job.open = job.open - 1
put(job, 'o', job.open)
local results = {}
if ARGV[6] ~= '' then
  results[#results + 1] = 'r' .. index
  results[#results + 1] = ARGV[6]
end
add_event(job, 'TASK_DONE', index, attempt)
if ARGV[7] ~= '' then
  results[#results + 1] = 'probe'
  results[#results + 1] = ARGV[7]
end
if ARGV[8] ~= '' then
  results[#results + 1] = 'plan'
  results[#results + 1] = ARGV[8]
  put(job, 'tp', NOW)
  add_event(job, 'PLANNED')
end
if #results > 0 then redis.call('HSET', KEYS[10], unpack(results)) end

local raws = {}
for i = 9, #ARGV do raws[#raws + 1] = ARGV[i] end
if #raws > 0 then add_tasks(job, raws) end
for _, follower in ipairs(t.nx or {}) do
  local f = load_task(job, follower)
  f.wt = f.wt - 1
  if f.wt == 0 then
    f.wt = nil
    make_ready(job, follower, f, 'unblock')
  else
    save_task(job, follower, f)
  end
end

if job.open == 0 then
  t.z = 1
  -- The replica that got this answer publishes; the sweeper does if it can't.
  redis.call('ZADD', DUTIES, NOW + PUBLISH_GRACE, 'PUBLISH|' .. job.id)
  due(NOW + PUBLISH_GRACE)
end
save_task(job, index, t)
flush()
return { '', 'ACCEPTED', t.z or 0 }
