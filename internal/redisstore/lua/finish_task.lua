-- Ends attempts with their results, adds what they lead to and unblocks what waited for them.
-- KEYS  common; of each request: job
-- ARGV  prefix; requests (see request.lua) of: job id, index, attempt, worker id, result JSON, probe JSON, plan JSON
--       (each may be empty), then of each new task: JSON, how many it waits for
-- Returns  {answer, ...}: {'', 'ACCEPTED' | 'STALE', 1 if it was the last of the run else 0}
-- Replay   the first answer. A lease that ran out but wasn't taken back is still good.
-- $include(task.lua)
-- $include(request.lua)
local PUBLISH_GRACE = 5000
local requests = read_requests()
local ids = {}
for i, r in ipairs(requests) do ids[i] = r[1] end
load_jobs(ids)

local function finish(r)
  local id, index = r[1], tonumber(r[2])
  local job = load_job(id)
  local t = job and load_task(job, index)
  if not t or t.n ~= tonumber(r[3]) or t.by ~= r[4] then return { '', 'STALE', 0 } end
  if t.s == 'DONE' then return { '', 'ACCEPTED', tonumber(t.last) } end
  local to = next_state('task', t.s, 'finish')
  if not to then return { '', 'STALE', 0 } end

  end_lease(job, index, t, 1)
  t.s, t.took = to, score_text(NOW - t.at)
  job.open = job.open - 1
  add_event(job, 'TASK_DONE', index, t.n)
  if r[5] ~= '' then set(result_key(id, index), r[5]) end
  if r[6] ~= '' then set(probe_key(id), r[6]) end
  if r[7] ~= '' then
    set(plan_key(id), r[7])
    job.planned = STAMP
    add_event(job, 'PLANNED')
  end
  if #r > 7 then add_tasks(job, { unpack(r, 8) }) end
  for _, follower in ipairs(followers_of(t)) do
    local f = load_task(job, follower)
    f.waits = f.waits - 1
    if f.waits == 0 then
      make_ready(job, follower, f, 'unblock')
    else
      save_task(job, follower, f)
    end
  end

  if job.open == 0 then
    t.last = 1
    -- The replica that got this answer publishes; the sweeper does if it can't.
    zadd(DUTIES, NOW + PUBLISH_GRACE, 'PUBLISH|' .. id)
    due(NOW + PUBLISH_GRACE)
  end
  save_task(job, index, t)
  return { '', 'ACCEPTED', tonumber(t.last) }
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = finish(r) end
flush()
return answers
