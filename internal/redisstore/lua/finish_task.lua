-- Ends attempts with their results, adds what they lead to and unblocks what waited for them.
-- KEYS  common. Derived: the jobs and their results.
-- ARGV  prefix; requests (see request.lua) of: job id, index, member, attempt, worker id, result JSON, probe JSON, plan
--       JSON (each may be empty), a list of new tasks (see add_tasks)
-- Returns  {answer, ...}: {'', 'ACCEPTED' | 'STALE', 1 if it was the last of the run else 0}
-- Replay   the first answer. A lease that ran out but wasn't taken back is still good.
-- $include(task.lua)
-- $include(request.lua)
local PUBLISH_GRACE = 5000
local requests = read_requests(0)
local TO = next_state('task', 'LEASED', 'finish')
local keys = {}
for _, r in ipairs(requests) do
  keys[#keys + 1] = job_key(r[1])
  if r[2] > 0 then keys[#keys + 1] = task_key(r[3]) end
end
read_all(keys)

local function finish(r)
  local id, index, m, n, worker = r[1], r[2], r[3], r[4], r[5]
  local job = load_job(id)
  local t = job and load_task(job, index, m)
  if not t or t.n ~= n or t.by ~= worker then return { '', 'STALE', 0 } end
  if t.s == 'DONE' then return { '', 'ACCEPTED', t.last } end
  if t.s ~= 'LEASED' then return { '', 'STALE', 0 } end

  drop_lease(job, m, worker)
  job.open = job.open - 1
  if t.weight > 0 and job.open > 0 then
    set_gauge(job, job.weight, job.done + t.weight * (1 - t.told), job.percent)
  end
  add_event(job, 'TASK_DONE', index, n)
  if r[6] ~= '' then set(result_key(m), r[6]) end
  if r[7] ~= '' then set(probe_key(id), r[7]) end
  if r[8] ~= '' then
    set(plan_key(id), r[8])
    job.planned = NOW
    add_event(job, 'PLANNED')
  end
  if #r[9] > 0 then add_tasks(job, r[9]) end
  if t.follow == 1 then
    for follower in string.gmatch(redis.call('HGET', more_key(id), 'f' .. index), '%d+') do
      local f = load_task(job, follower + 0)
      f.waits = f.waits - 1
      if f.waits == 0 then
        make_ready(job, follower + 0, f, 'unblock')
      else
        save_task(job, follower + 0, f)
      end
    end
  end

  local last = 0
  if job.open == 0 then
    last = 1
    -- The replica that got this answer publishes; the sweeper does if it can't.
    zadd(DUTIES, deadline_text(PUBLISH_GRACE), 'PUBLISH|' .. id)
    due(NOW + PUBLISH_GRACE)
  end
  t.s, t.last, t.ended, t.told, t.kept = TO, last, NOW, 0, 0
  save_task(job, index, t)
  return { '', 'ACCEPTED', last }
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = finish(r) end
flush()
return answers
