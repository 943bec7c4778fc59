-- Leases ready tasks to workers, whose turn it is (see turn.lua). The first lease of a job moves it to RUNNING.
-- KEYS  common; of each request: worker. Derived: the queues of the projects in turn, and the jobs of the tasks
--       that were taken, with what a lease needs of them.
-- ARGV  prefix; requests (see request.lua) of: worker id, session, max, lease ms, request id, running limit.
--       Of different limits in one call the last holds.
-- Returns  {answer, ...}: {'', 1 if tasks that a claim could get are still ready else 0, 1 if the worker is refused
--          else 0, lease row (see task.lua), ...}; refused is one that is unknown, detached, draining or in a newer session
-- Replay   the leases of the first answer that are still held, as long as the request is one of the newest two that
--          gave the worker any. An empty answer isn't kept.
-- $include(task.lua)
-- $include(serve.lua)
-- $include(request.lua)
local requests = read_requests(1)
local TO = next_state('task', 'READY', 'lease')
local workers, answers, first = {}, {}, {}
local rows, owners = {}, {} -- leases, and the answers that they belong to

-- worker_of returns a worker's state, and its answers to the newest two claims that gave it tasks.
local function worker_of(key)
  local v = redis.call('HMGET', key, 'v', 'rq')
  local newest, older = string.match(v[2] or '', '^([^\n]*)\n(.*)$')
  return { key = key, state = v[1], newest = newest or '', older = older or '' }
end

local wanted, limit = 0
for _, r in ipairs(requests) do
  local id = r[1]
  local w = workers[id] or worker_of(KEYS[r.k])
  workers[id] = w
  r.worker = w
  local start = r[5] .. ' '
  if string.sub(w.newest, 1, #start) == start then r.replay = w.newest end
  if string.sub(w.older, 1, #start) == start then r.replay = w.older end
  local name = id .. ' ' .. r[5]
  r.first = first[name]
  first[name] = first[name] or r
  if not r.first and not r.replay and w.state == r[2] .. ' 0 1' then
    r.max, limit = r[3], r[6]
    wanted = wanted + r.max
  end
end
if limit then set_limit(limit) end

local chosen, touched = serve(wanted)
local next_task = 0
local keys = {}
for _, m in ipairs(chosen) do
  local id, index = parse_member(m)
  append(keys, job_key(id), spec_key(id))
  if index > 0 then keys[#keys + 1] = task_key(m) end
end
read_all(keys)

-- take leases the next task that was chosen, and returns its member; nil if there is none.
local function take(worker, lease_ms)
  while chosen[next_task + 1] do
    next_task = next_task + 1
    local m = chosen[next_task]
    local id, index = parse_member(m)
    local job = load_job(id)
    local t = job and load_task(job, index, m)
    if t and t.s == 'READY' then
      t.s, t.n, t.at, t.by = TO, t.n + 1, NOW, worker
      save_task(job, index, t)
      if job.state == 'PENDING' then
        move_job(job, 'start')
        job.started = NOW
        add_event(job, 'STARTED')
      end
      if lease_ms > job.lease_ms then job.lease_ms = lease_ms end
      add_event(job, 'TASK_LEASED', index, t.n)
      count_leases(job.project, 1)
      return m, t.n
    end
    for _, e in ipairs(touched) do e.full = false end -- it doesn't run after all
  end
end

local function claim(r)
  local answer = { '', 0, 0 }
  if r.replay then
    for m, attempt in string.gmatch(string.sub(r.replay, #r[5] + 1), '(%S+) (%d+)') do
      local job, _, t = leased_task(m)
      if job and t.by == r[1] and t.n == attempt + 0 then
        append(rows, m, redis.call('ZSCORE', LEASES, m))
        owners[#owners + 1] = answer
      end
    end
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
    local m, n = take(r[1], lease_ms)
    if not m then break end
    zadd(LEASES, deadline, m)
    zadd(HELD, '0', r[1] .. ' ' .. m)
    given = (given or r[5]) .. ' ' .. m .. ' ' .. n
    append(rows, m, deadline)
    owners[#owners + 1] = answer
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
  if w.changed then redis.call('HSET', w.key, 'rq', w.newest .. '\n' .. w.older) end
end
settle_served(touched)
flush()
local more = redis.call('EXISTS', RING)
for _, answer in ipairs(answers) do answer[2] = more end
for i, row in ipairs(lease_rows(rows)) do
  local answer = owners[i]
  answer[#answer + 1] = row
end
return answers
