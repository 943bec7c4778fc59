-- Renews the leases of workers, marks them as seen and takes their progress.
-- A task's fraction is stored at most every 2 s unless somebody watches its
-- job, and told to watchers at each call. A job's percent never falls within
-- a run, and reaches 100 only when it is COMPLETED.
-- KEYS  common. Derived: the jobs of the leases.
-- ARGV  prefix; requests (see request.lua) of: worker id, lease ms, then for each lease: member, attempt, fraction, progress
-- Returns  {answer, ...}: {'', 1 if somebody watches one of the jobs else 0, position of a lost lease (from 0), ...}
-- Replay   the same; renewed again.
-- $include(task.lua)
-- $include(request.lua)
local STORE_EVERY = 2000
local requests = read_requests()
local ids, seen, told = {}, {}, {}
for _, r in ipairs(requests) do
  append(seen, STAMP, r[1])
  for i = 3, #r, 4 do ids[#ids + 1] = parse_member(r[i]) end
end
load_jobs(ids)

local channels, listed = {}, {}
for _, id in ipairs(ids) do
  if load_job(id) and not listed[id] then
    listed[id] = true
    channels[#channels + 1] = job_channel(id)
  end
end
local watched = #channels <= 2000 and subscribed(channels) or {}

-- tell takes in how far a task is, and notes it for those who listen. An
-- attempt that says less than before was wrong before: its word counts, the
-- job's percent doesn't fall.
local function tell(job, index, t, weight, fraction, progress, is_watched)
  local store = is_watched or NOW - t.kept >= STORE_EVERY
  if not store then return end
  local done = job.done + weight * (fraction - t.told)
  local percent = math.max(tonumber(job.percent), math.min(99.9, 100 * done / job.weight))
  job.done, job.percent, job.progress = string.format('%.17g', done), string.format('%.4f', percent), progress
  t.told, t.kept = fraction, STAMP
  save_task(job, index, t)
  -- Where nobody seems to listen somebody may, by another server.
  told[#told + 1] = { job_channel(job.id), 'p ' .. job.percent .. ' ' .. progress }
end

local function renew(r)
  local answer = { '', 0 }
  local deadline = score_text(NOW + tonumber(r[2]))
  for i = 3, #r, 4 do
    local m = r[i]
    local job, index, t = leased_task(m)
    if not t or t.by ~= r[1] or t.n ~= tonumber(r[i + 1]) then
      answer[#answer + 1] = (i - 3) / 4
    else
      zadd(LEASES, deadline, m)
      local is_watched = watched and watched[job_channel(job.id)]
      if is_watched then answer[2] = 1 end
      local weight = weight_of(t)
      if weight > 0 then tell(job, index, t, weight, r[i + 2], r[i + 3], is_watched) end
    end
  end
  return answer
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = renew(r) end
in_chunks(seen, 'ZADD', WORKERS, 'XX')
flush()
for _, t in ipairs(told) do redis.call('PUBLISH', t[1], t[2]) end
return answers
