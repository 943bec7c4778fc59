-- Ends attempts with their results, adds what they lead to and unblocks what waited for them.
-- KEYS  common. Derived: the jobs and their results.
-- ARGV  prefix; requests (see request.lua) of: job id, index, member, attempt, worker id, result JSON, probe JSON, plan
--       JSON (each may be empty), then new tasks (see add_tasks)
-- Returns  {answer, ...}: {'', 'ACCEPTED' | 'STALE', 1 if it was the last of the run else 0}
-- Replay   the first answer. A lease that ran out but wasn't taken back is still good.
-- $include(task.lua)
-- $include(request.lua)
local PUBLISH_GRACE = 5000
local requests = read_requests(0)
local TO = next_state('task', 'LEASED', 'finish')
local ended = {}

local function finish(r)
  local id, index, m, n, worker = r[1], r[2], r[3], r[4], r[5]
  local job, status = load_job(id, 's' .. index)
  if not job or not status then return { '', 'STALE', 0 } end
  status = ended[m] or status
  local before, attempt, weight, told, _, follow, by = string.match(status, LEASED)
  if not before then
    local t = parse_task(status)
    if t.s ~= 'DONE' or t.n ~= n + 0 or t.by ~= worker then return { '', 'STALE', 0 } end
    return { '', 'ACCEPTED', t.last + 0 }
  end
  if attempt ~= n or by ~= worker then return { '', 'STALE', 0 } end

  drop_lease(job, m, worker)
  job.open = job.open - 1
  if weight ~= '0' and job.open > 0 then
    local all, done, percent = gauge_of(job)
    set_gauge(job, all, done + weight * (1 - told), percent)
  end
  add_event(job, 'TASK_DONE', index, n)
  if r[6] ~= '' then set(result_key(id, index), r[6]) end
  if r[7] ~= '' then set(probe_key(id), r[7]) end
  if r[8] ~= '' then
    set(plan_key(id), r[8])
    add_time(job, 'p')
    add_event(job, 'PLANNED')
  end
  if r[9] then add_tasks(job, r, 9) end
  if follow == '1' then
    for follower in string.gmatch(redis.call('HGET', job.key, 'f' .. index), '%d+') do
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
    zadd(DUTIES, NOW + PUBLISH_GRACE, 'PUBLISH|' .. id)
    due(NOW + PUBLISH_GRACE)
  end
  -- Behind "LEASED 0 0".
  ended[m] = TO .. ' ' .. last .. ' ' .. STAMP .. string.sub(before, 11) .. ' 0 0 ' .. follow .. ' ' .. worker
  put(job, 's' .. index, ended[m])
  return { '', 'ACCEPTED', last }
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = finish(r) end
flush()
return answers
