-- Renews the leases of workers, marks them as seen and takes their progress.
-- A task's fraction is stored at most every 2 s unless somebody watches its
-- job, and told to watchers at each call. A job's percent never falls within
-- a run, and reaches 100 only when it is COMPLETED.
-- KEYS  common. Derived: the jobs of the leases.
-- ARGV  prefix; requests (see request.lua) of: worker id, lease ms, then for each lease: job id, index, member, attempt,
--       fraction, progress
-- Returns  {answer, ...}: {'', 1 if somebody watches one of the jobs else 0, position of a lost lease (from 0), ...}
-- Replay   the same; renewed again.
-- $include(task.lua)
-- $include(request.lua)
local STORE_EVERY = 2000
local requests = read_requests(0)
local channels, n = {}, 0
for _, r in ipairs(requests) do
  for i = 3, #r, 6 do
    n = n + 1
    channels[n] = job_channel(r[i])
  end
end

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
local function tell(job, r, i, s, channel)
  local fraction = r[i + 4]
  local weight, done, percent = gauge_of(job)
  done = done + s.weight * (fraction - s.told)
  percent = math.max(percent, math.min(99.9, 100 * done / weight))
  set_gauge(job, weight, done, percent)
  put(job, 'pg', r[i + 5])
  put(job, 's' .. r[i + 1], s.before .. ' ' .. fraction .. ' ' .. STAMP .. ' ' .. s.follow .. ' ' .. s.by)
  s.told, s.kept = fraction, NOW
  append(told, channel, 'p ' .. percent .. ' ' .. r[i + 5])
end

local seen, answers, channel, leases = {}, {}, 0, {}
for at, r in ipairs(requests) do
  local answer = { '', 0 }
  answers[at] = answer
  append(seen, STAMP, r[1])
  local deadline = score_text(NOW + r[2])
  for i = 3, #r, 6 do
    channel = channel + 1
    local m = r[i + 2]
    -- One call may say twice what it has to say of a lease.
    local s = leases[m]
    if not s then
      s = {}
      local raw = redis.call('HGET', job_key(r[i]), 's' .. r[i + 1])
      s.before, s.n, s.weight, s.told, s.kept, s.follow, s.by = string.match(raw or '', LEASED)
      leases[m] = s
    end
    if s.n ~= r[i + 3] or s.by ~= r[1] then
      answer[#answer + 1] = (i - 3) / 6
    else
      zadd(LEASES, deadline, m)
      local is_watched = watched[channels[channel]]
      if is_watched then answer[2] = 1 end
      -- Where nobody seems to listen somebody may, by another server: it is told as often as it is stored.
      if s.weight ~= '0' and (is_watched or NOW - s.kept >= STORE_EVERY) then
        tell(load_job(r[i]), r, i, s, channels[channel])
      end
    end
  end
end
in_chunks(seen, 'ZADD', WORKERS, 'XX')
flush()
for i = 1, #told, 2 do redis.call('PUBLISH', told[i], told[i + 1]) end
return answers
