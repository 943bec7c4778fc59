-- Renews the leases of workers, marks them as seen and takes their progress.
-- A task's fraction is stored at most every 2 s unless somebody watches its
-- job, and told to watchers at each call. A job's percent never falls within
-- a run, and reaches 100 only when it is COMPLETED.
-- KEYS  common. Derived: the jobs of the leases.
-- ARGV  prefix; requests (see request.lua) of: worker id, lease ms, and a list with for each lease: job id, index, member,
--       attempt, fraction, progress
-- Returns  {answer, ...}: {'', 1 if somebody watches one of the jobs else 0, position of a lost lease (from 0), ...}
-- Replay   the same; renewed again.
-- $include(task.lua)
-- $include(request.lua)
local STORE_EVERY = 2000
local requests = read_requests(0)
local channels, keys = {}, {}
for _, r in ipairs(requests) do
  local leases = r[3]
  for i = 1, #leases, 6 do
    channels[#channels + 1] = job_channel(leases[i])
    keys[#keys + 1] = job_key(leases[i])
    if leases[i + 1] > 0 then keys[#keys + 1] = task_key(leases[i + 2]) end
  end
end
read_all(keys)

-- watched_of reports of each channel how many listen, as far as this server
-- knows; nothing where it doesn't tell.
local function watched_of(list)
  local watched = {}
  for from = 1, #list, 2000 do
    local counts = redis.pcall('PUBSUB', 'NUMSUB', unpack(list, from, math.min(from + 1999, #list)))
    for i = 1, #counts, 2 do watched[counts[i]] = counts[i + 1] ~= 0 and counts[i + 1] ~= '0' end
  end
  return watched
end
local watched = watched_of(channels)

-- tell takes in how far a task is, and tells it. An attempt that says less
-- than before was wrong before: its word counts, the job's percent doesn't fall.
local told = {}
local function tell(job, index, t, fraction, progress, channel)
  local done = job.done + t.weight * (fraction - t.told)
  set_gauge(job, job.weight, done, math.max(job.percent, math.min(99.9, 100 * done / job.weight)))
  job.progress = progress
  t.told, t.kept = fraction, NOW
  save_task(job, index, t)
  append(told, channel, 'p ' .. job.percent .. ' ' .. progress)
end

local seen, answers, channel = {}, {}, 0
for at, r in ipairs(requests) do
  local answer = { '', 0 }
  answers[at] = answer
  local worker, deadline, leases = r[1], deadline_text(r[2]), r[3]
  append(seen, STAMP, worker)
  for i = 1, #leases, 6 do
    channel = channel + 1
    local index, m = leases[i + 1], leases[i + 2]
    local job = load_job(leases[i])
    local t = job and load_task(job, index, m)
    if not t or t.s ~= 'LEASED' or t.n ~= leases[i + 3] or t.by ~= worker then
      answer[#answer + 1] = (i - 1) / 6
    else
      zadd(LEASES, deadline, m)
      local is_watched = watched[channels[channel]]
      if is_watched then answer[2] = 1 end
      -- Where nobody seems to listen somebody may, by another server: it is told as often as it is stored.
      if t.weight > 0 and (is_watched or NOW - t.kept >= STORE_EVERY) then
        tell(job, index, t, leases[i + 4], leases[i + 5], channels[channel])
      end
    end
  end
end
in_chunks(seen, 'ZADD', WORKERS, 'XX')
flush()
for i = 1, #told, 2 do redis.call('PUBLISH', told[i], told[i + 1]) end
return answers
