-- Renews the leases of workers, marks them as seen and takes their progress.
-- A task's fraction is stored at most every 2 s unless somebody watches its
-- job, and told to watchers at each call.
-- KEYS  common. Derived: the jobs of the leases.
-- ARGV  prefix; requests (see request.lua) of: worker id, lease ms, and a list with for each lease: job id, index, member,
--       attempt, fraction, progress
-- Returns  {answer, ...}: 1 if somebody watches one of the jobs else 0, position of a lost lease (from 0), ...
-- Replay   the same; renewed again.
-- $include(attempt.lua)
-- $include(request.lua)
local STORE_EVERY = 2000
local requests = read_requests()
local keys, jobs = {}, {}
for _, r in ipairs(requests) do
  local leases = r[3]
  for i = 1, #leases, 6 do jobs[#jobs + 1] = attempt_keys(keys, leases[i], leases[i + 1], leases[i + 2]) end
end
read_all(keys)

-- watched_jobs reports of each channel how many listen, as far as this server
-- knows; nothing where it doesn't tell. Most often nobody listens to anything.
local function watched_jobs()
  local watched = {}
  local all = redis.pcall('PUBSUB', 'NUMSUB', NOTICE_CHANNEL)
  if not all[2] or all[2] == 0 or all[2] == '0' then return watched end
  local list = {}
  for _, r in ipairs(requests) do
    for i = 1, #r[3], 6 do list[#list + 1] = job_channel(r[3][i]) end
  end
  for from = 1, #list, 2000 do
    local counts = redis.pcall('PUBSUB', 'NUMSUB', unpack(list, from, math.min(from + 1999, #list)))
    for i = 1, #counts, 2 do
      if counts[i + 1] ~= 0 and counts[i + 1] ~= '0' then watched[counts[i]] = true end
    end
  end
  return watched
end
local watched = watched_jobs()
local anybody = next(watched) ~= nil
local told = {}

-- renew renews a lease; nil if it is lost. True if somebody watches its job.
-- An attempt that says less than before was wrong before: its word counts, the
-- job's percent doesn't fall.
local function renew(key, worker, deadline, id, index, m, attempt, fraction, saying)
  local raw = READ[key]
  if not raw then return nil end
  local project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished, weight, done,
    percent, behind = unpack_struct(HEAD, raw)
  local task, at = task_in(raw, behind, index, m)
  if not task then return nil end
  local s, last, n, began, share, fraction_told, kept, follow, by, task_behind = unpack_struct(HOT, task, at)
  if s ~= LEASED or n ~= attempt or by ~= worker then return nil end
  zadd(LEASES, deadline, m)
  local is_watched = anybody and watched[job_channel(id)] or false
  -- Where nobody seems to listen somebody may, by another server: it is told as often as it is stored.
  if share > 0 and (is_watched or NOW - kept >= STORE_EVERY) then
    done = done + share * (fraction - fraction_told)
    percent = risen(percent, done, weight)
    keep_attempt(key, raw, behind, index, m, task, task_behind, '', project, saying, state, run, sequence, base, open, lease_ms, left,
      stream, uploaded, started, playable, finished, weight, done, percent, s, last, n, began, share, fraction, NOW, follow, by)
    told[#told + 1] = id .. ' ' .. run .. ' ' .. percent .. ' ' .. share_of(done, weight) .. ' ' .. saying
  end
  return is_watched
end

local seen, answers, at = {}, {}, 0
for position, r in ipairs(requests) do
  local is_any_watched, lost = ' 0', ''
  local worker, deadline, leases = r[1], deadline_text(r[2]), r[3]
  append(seen, STAMP, worker)
  for i = 1, #leases, 6 do
    at = at + 1
    local is_watched = renew(jobs[at], worker, deadline, leases[i], leases[i + 1], leases[i + 2], leases[i + 3], leases[i + 4],
      leases[i + 5])
    if is_watched then
      is_any_watched = ' 1'
    elseif is_watched == nil then
      lost = lost .. ' ' .. (i - 1) / 6
    end
  end
  answers[position] = is_any_watched .. lost
end
in_chunks(seen, 'ZADD', WORKERS, 'XX')
write_out()
if told[1] then redis.call('PUBLISH', NOTICE_CHANNEL, 'p ' .. table.concat(told, '\n')) end
return answers
