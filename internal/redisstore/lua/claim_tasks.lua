-- Leases ready tasks to workers, whose turn it is (see turn.lua). The first lease of a job moves it to RUNNING.
-- KEYS  common. Derived: the workers, the queues of the projects in turn, and the jobs of the tasks that were taken,
--       with what a lease needs of them.
-- ARGV  prefix; requests (see request.lua) of: worker id, session, max, lease ms, request id, running limit.
--       Of different limits in one call the last holds.
-- Returns  {answer, ...}: {'', 1 if tasks that a claim could get are still ready else 0, 1 if the worker is refused
--          else 0, lease row (see lease.lua), ...}; refused is one that is unknown, detached, draining or in a newer session
-- Replay   the leases of the first answer that are still held, as long as the request is one of the newest two that
--          gave the worker any. An empty answer isn't kept.
-- $include(attempt.lua)
-- $include(serve.lua)
-- $include(request.lua)
local requests = read_requests(0)
local STARTS = pack(EVENT, EVENT_TYPES.STARTED, NOW)
local workers, answers, first = {}, {}, {}

local standings = {}
for i, r in ipairs(requests) do
  r.key = standing_key(r[1])
  standings[i] = r.key
end
read_all(standings)

-- worker_of returns a worker's state, and its answers to the newest two claims that gave it tasks.
local function worker_of(key)
  local raw = READ[key]
  if not raw then return { key = key, newest = '', older = '' } end
  local first = string.find(raw, '\n', 1, true)
  local second = string.find(raw, '\n', first + 1, true)
  return { key = key, state = sub(raw, 1, first - 1), newest = sub(raw, first + 1, second - 1), older = sub(raw, second + 1) }
end

local wanted, limit = 0
for _, r in ipairs(requests) do
  local id = r[1]
  local w = workers[id] or worker_of(r.key)
  workers[id] = w
  r.worker = w
  local start = r[5] .. ' '
  if string.find(w.newest, start, 1, true) == 1 then r.replay = w.newest end
  if string.find(w.older, start, 1, true) == 1 then r.replay = w.older end
  local of_worker = list_of(first, id)
  r.first = of_worker[start]
  of_worker[start] = r.first or r
  if not r.first and not r.replay and w.state == r[2] .. ' 0 1' then
    r.max, limit = r[3], r[6]
    wanted = wanted + r.max
  end
end
if limit then set_limit(limit) end

local chosen, touched = serve(wanted)
local next_task = 0
local rows = {} -- and the jobs in them
local ids, indexes, keys, specs, read_first = {}, {}, {}, {}, {}
for i, m in ipairs(chosen) do
  local id, index = parse_member(m)
  local spec = spec_key(id)
  ids[i], indexes[i], specs[i] = id, index, spec
  keys[i] = attempt_keys(read_first, id, index, m)
  read_first[#read_first + 1] = spec
end
read_all(read_first)

-- take leases the next task that was chosen, and returns it, the attempt and the lease's row; nil if there is none.
local function take(worker, lease, deadline)
  while chosen[next_task + 1] do
    next_task = next_task + 1
    local m, id, index, key = chosen[next_task], ids[next_task], indexes[next_task], keys[next_task]
    local raw = READ[key]
    if raw then
      local project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished, weight, done,
        percent, behind = unpack_struct(HEAD, raw)
      local task, at = task_in(raw, behind, index, m)
      if task then
        local s, last, n, _, share, told, kept, follow, _, task_behind = unpack_struct(HOT, task, at)
        if s == READY then
          if sequence - base >= EVENTS_BEHIND then
            raw = put_by(id, raw, behind, base)
            base = sequence
            if index == 0 then task = raw end
          end
          n, sequence = n + 1, sequence + 1
          local events = task_event('TASK_LEASED', index, n)
          if state == PENDING then
            state, started, sequence, events = RUNNING, NOW, sequence + 1, STARTS .. events
            zrem(index_of(project, 'PENDING'), id)
            zadd(index_of(project, 'RUNNING'), '0', id)
          end
          keep_attempt(key,
            pack(HEAD, #project, project, #progress, progress, state, run, sequence, base, open, math.max(lease_ms, lease), left,
              stream, uploaded, started, playable, finished, weight, done, percent), raw, behind, index, m,
            pack(HOT, LEASED, last, n, NOW, share, told, kept, follow, #worker, worker), task, task_behind, events)
          note(id, sequence)
          zadd(LEASES, deadline, m)
          zadd(HELD, '0', worker .. ' ' .. m)
          count_leases(project, 1)
          local row = starts(uploaded, index, n) and { m, deadline, raw, READ[specs[next_task]] }
            or lease_row(m, deadline, id, index, false)
          append(rows, row, key)
          return m, n, row
        end
      end
    end
    for _, e in ipairs(touched) do e.full = false end -- it doesn't run after all
  end
end

-- still_held returns the rows of a request that comes again: of the leases of its first answer that are still held.
local function still_held(r, answer)
  for m, attempt in string.gmatch(string.sub(r.replay, #r[5] + 1), '(%S+) (%d+)') do
    local id, index = parse_member(m)
    local raw = read(job_key(id))
    local behind = raw and select(18, unpack_struct(HEAD, raw))
    if index > 0 then read(task_key(m)) end
    local task, at
    if raw then task, at = task_in(raw, behind, index, m) end
    if task then
      local s, _, n, _, _, _, _, _, by = unpack_struct(HOT, task, at)
      if s == LEASED and by == r[1] and n == attempt + 0 then
        answer[#answer + 1] = lease_row(m, redis.call('ZSCORE', LEASES, m), id, index, false)
      end
    end
  end
end

local function claim(r)
  local answer = { '', 0, 0 }
  if r.replay then
    still_held(r, answer)
    return answer
  end
  if not r.max then -- it wasn't trusted above
    answer[3] = 1
    return answer
  end

  local lease_ms = r[4]
  local deadline = deadline_text(lease_ms)
  local given
  for _ = 1, r.max do
    local m, n, row = take(r[1], lease_ms, deadline)
    if not m then break end
    given = (given or r[5]) .. ' ' .. m .. ' ' .. n
    answer[#answer + 1] = row
  end
  if given then
    local w = r.worker
    w.newest, w.older, w.changed = given, w.newest, true
    -- While there are leases, the sweeper comes at least that often.
    due(NOW + math.floor(lease_ms / 3))
  end
  return answer
end

for i, r in ipairs(requests) do
  -- A request that comes twice in one call has one answer.
  r.answer = r.first and r.first.answer or claim(r)
  answers[i] = r.answer
end
for _, w in pairs(workers) do
  if w.changed then set(w.key, w.state .. '\n' .. w.newest .. '\n' .. w.older) end
end
settle_served(touched)
write_out()
-- A job may have given more than one.
for i = 1, #rows, 2 do rows[i][3] = READ[rows[i + 1]] end
local more = redis.call('EXISTS', RING)
for _, answer in ipairs(answers) do answer[2] = more end
return answers
