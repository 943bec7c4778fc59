-- Renews the leases of workers, marks them as seen and takes their progress.
-- A lease that would gain less than a second, or a sixteenth of its length if that is less, stays as it is unless somebody
-- watches its job, and what the worker says of it isn't stored. Watchers are told at each call.
-- KEYS  common. Derived: the jobs of the leases.
-- ARGV  prefix; requests (see request.lua) of: worker id, lease ms, and a list with for each lease: its name (see held.lua),
--       fraction, progress
-- Returns  {answer, ...}: 1 if somebody watches one of the jobs else 0, position of a lost lease (from 0), ...
-- Replay   the same; renewed again once that adds enough.
-- $include(attempt.lua)
-- $include(request.lua)
local requests = read_requests()
local names = {}
for _, r in ipairs(requests) do
  for i = 1, #r[3], 3 do names[#names + 1] = r[3][i] end
end

-- deadlines_of returns the deadlines of leases, false for one that is lost.
local function deadlines_of(list)
  local deadlines = {}
  for from = 1, #list, 2000 do
    local to = math.min(from + 1999, #list)
    local scores = redis.call('ZMSCORE', LEASES, unpack(list, from, to))
    for i = from, to do deadlines[i] = scores[i - from + 1] end
  end
  return deadlines
end
local deadlines = deadlines_of(names)

-- watched_jobs reports of each channel how many listen, as far as this server
-- knows; nothing where it doesn't tell. Most often nobody listens to anything.
local function watched_jobs()
  local watched = {}
  local all = redis.pcall('PUBSUB', 'NUMSUB', NOTICE_CHANNEL)
  if not all[2] or all[2] == 0 or all[2] == '0' then return watched end
  local list = {}
  for i, name in ipairs(names) do
    if deadlines[i] then list[#list + 1] = job_channel((parse_member((parse_lease(name))))) end
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

-- renew renews a lease and takes in what is said of it; false if it is lost.
-- An attempt that says less than before was wrong before: its word counts, the
-- job's percent doesn't fall.
local function renew(l, worker, fraction, saying)
  local raw, id, index, m = READ[l.key], l.id, l.index, l.m
  if not raw then return false end
  local whole, project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished,
    weight, done, percent, behind = pcall(unpack_struct, HEAD, raw)
  local task, at
  if whole then task, at = task_in(raw, behind, index, m) end
  if whole and not task then return false end
  local s, last, n, began, share, fraction_told, kept, follow, by, task_behind
  if task then
    whole, s, last, n, began, share, fraction_told, kept, follow, by, task_behind = pcall(unpack_struct, HOT, task, at)
  end
  if not whole then
    found_broken(id, '')
    return false
  end
  if s ~= LEASED or n ~= l.n or by ~= worker then return false end
  zadd(LEASES, l.deadline, l.name)
  if share > 0 then
    done = done + share * (fraction - fraction_told)
    percent = risen(percent, done, weight)
    keep_attempt(l.key, raw, behind, index, m, task, task_behind, '', project, saying, state, run, sequence, base, open, lease_ms, left,
      stream, uploaded, started, playable, finished, weight, done, percent, s, last, n, began, share, fraction, NOW, follow, by)
    told[#told + 1] = id .. ' ' .. run .. ' ' .. percent .. ' ' .. share_of(done, weight) .. ' ' .. saying
  end
  return true
end

local renewed, keys = {}, {} -- the leases that are to be renewed, by position, and their records
local ends = {} -- their deadlines then, by name

-- look finds out whether a lease is to be renewed, and returns whether somebody watches its job.
local function look(at, lease_ms)
  local name = names[at]
  local was = ends[name] or tonumber(deadlines[at])
  local adds = NOW + lease_ms - was
  local is_fresh = adds >= 0 and adds < fresh_within(lease_ms)
  if is_fresh and not anybody then return false end
  local m, n = parse_lease(name)
  local id, index = parse_member(m)
  local is_watched = watched[job_channel(id)] or false
  if not is_fresh or is_watched then
    renewed[at] = { name = name, m = m, n = n, id = id, index = index, key = attempt_keys(keys, id, index, m),
      deadline = deadline_text(lease_ms) }
    ends[name] = NOW + lease_ms
  end
  return is_watched
end

local answers, at = {}, 0
for position, r in ipairs(requests) do
  local is_any_watched = ' 0'
  for _ = 1, #r[3], 3 do
    at = at + 1
    if deadlines[at] and look(at, r[2]) then is_any_watched = ' 1' end
  end
  answers[position] = is_any_watched
end
read_all(keys)

local seen = {}
at = 0
for position, r in ipairs(requests) do
  local worker, leases = r[1], r[3]
  local is_seen = #leases == 0
  for i = 1, #leases, 3 do
    at = at + 1
    local l = renewed[at]
    is_seen = is_seen or l ~= nil
    if not deadlines[at] or l and not renew(l, worker, leases[i + 1], leases[i + 2]) then
      answers[position] = answers[position] .. ' ' .. (i - 1) / 3
    end
  end
  if is_seen then append(seen, STAMP, worker) end
end
in_chunks(seen, 'ZADD', WORKERS, 'XX')
write_out()
if told[1] then redis.call('PUBLISH', NOTICE_CHANNEL, 'p ' .. table.concat(told, '\n')) end
return answers
