-- Ends attempts with their results, adds what they lead to and unblocks what waited for them. The last of a run may bring
-- the outputs of its job: then that is COMPLETED.
-- KEYS  common. Derived: the jobs and their results.
-- ARGV  prefix; requests (see request.lua) of: job id, index, member, attempt, worker id, result JSON, probe JSON, plan
--       JSON (each may be empty), a list of new tasks (see add_tasks), 1 if the plan makes what no output
--       names in the end else 0, outputs JSON (nothing: somebody is to publish), and the same without objects (nothing if these are few)
-- Returns  {answer, ...}: 'ACCEPTED' | 'STALE', 1 if it was the last of the run else 0
-- Replay   the first answer. A lease that ran out but wasn't taken back is still good.
-- $include(complete.lua)
-- $include(request.lua)
local PUBLISH_GRACE = 5000
local requests = read_requests()
local ACCEPTED, LAST, STALE = ' ACCEPTED 0', ' ACCEPTED 1', ' STALE 0'
local keys, jobs = {}, {}
for i, r in ipairs(requests) do jobs[i] = attempt_keys(keys, r[1], r[2], r[3]) end
read_all(keys)

-- publish_soon leaves the duty to publish, in place of what grew. The replica that has the answer does it; the sweeper's
-- does if that can't.
local function publish_soon(id, stream)
  if stream ~= 0 then zrem(DUTIES, 'STREAM|' .. id) end
  zadd(DUTIES, deadline_text(PUBLISH_GRACE), 'PUBLISH|' .. id)
  due(NOW + PUBLISH_GRACE)
end

-- finish is for results that lead to nothing new; nil of others.
local function finish(r, key)
  local id, index, m, worker = r[1], r[2], r[3], r[5]
  local raw = READ[key]
  if not raw then return STALE end
  local project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished, weight, done,
    percent, behind = unpack_struct(HEAD, raw)
  local task, at = task_in(raw, behind, index, m)
  if not task then return STALE end
  local s, last, n, began, share, told, _, follow, by, task_behind = unpack_struct(HOT, task, at)
  if n ~= r[4] or by ~= worker then return STALE end
  if s == DONE then return last == 1 and LAST or ACCEPTED end
  if s ~= LEASED then return STALE end
  if follow == 1 or r[7] ~= '' or r[8] ~= '' or #r[9] > 0 or sequence - base >= EVENTS_BEHIND then return nil end

  drop_lease(project, m, worker, n)
  local events = task_event('TASK_DONE', index, n)
  open, sequence = open - 1, sequence + 1
  if open > 0 then
    if share > 0 then
      done = done + share * (1 - told)
      percent = risen(percent, done, weight)
    end
  else
    last = 1
    if r[11] == '' then
      publish_soon(id, stream)
    else
      local ends
      state, finished = COMPLETED, NOW
      playable, sequence, ends = completion(playable, sequence)
      events = events .. ends
      complete(id, project, stream, left, lease_ms, r[11], r[12])
    end
  end
  if r[6] ~= '' then set(result_key(m), r[6]) end
  keep_attempt(key, raw, behind, index, m, task, task_behind, events, project, progress, state, run, sequence,
    base, open, lease_ms, left, stream, uploaded, started, playable, finished, weight, done, percent,
    DONE, last, n, began, share, 0, NOW, follow, by)
  note(id, sequence)
  return last == 1 and LAST or ACCEPTED
end

local answers, others = {}, {} -- jobs of which a request goes the general way: those after it do, too
for i, r in ipairs(requests) do
  answers[i] = not others[jobs[i]] and finish(r, jobs[i])
  if not answers[i] then others[jobs[i]] = true end
end
if not next(others) then
  write_out()
  return answers
end

-- $include(task.lua)
local function finish_any(r)
  local id, index, m, n, worker = r[1], r[2], r[3], r[4], r[5]
  local job = load_job(id)
  local t = job and load_task(job, index, m)
  if not t or t.n ~= n or t.by ~= worker then return STALE end
  if t.s == 'DONE' then return t.last == 1 and LAST or ACCEPTED end
  local to = next_state('task', t.s, 'finish')
  if not to then return STALE end

  drop_lease(job.project, m, worker, n)
  job.open = job.open - 1
  if t.weight > 0 and job.open > 0 then
    local done = job.done + t.weight * (1 - t.told)
    set_gauge(job, job.weight, done, risen(job.percent, done, job.weight))
  end
  add_event(job, 'TASK_DONE', index, n)
  if r[6] ~= '' then set(result_key(m), r[6]) end
  if r[7] ~= '' then set(probe_key(id), r[7]) end
  if r[8] ~= '' then
    set(plan_key(id), r[8])
    job.planned = NOW
    if r[10] == 1 then job.left = 1 end
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

  local last = job.open == 0 and 1 or 0
  if last == 1 and r[11] == '' then
    publish_soon(id, job.stream)
  elseif last == 1 then
    move_job(job, 'complete')
    make_playable(job)
    end_job(job, 'COMPLETED')
    set(outputs_key(id), r[11])
    if r[12] ~= '' then set(summary_key(id), r[12]) end
    if job.left ~= 0 then clean_later(id, job.lease_ms) end
  end
  t.s, t.last, t.told, t.kept = to, last, 0, NOW
  save_task(job, index, t)
  return last == 1 and LAST or ACCEPTED
end

for i, r in ipairs(requests) do answers[i] = answers[i] or finish_any(r) end
flush()
return answers
