-- Leases ready tasks to workers, whose turn it is (see turn.lua). The first lease of a job moves it to RUNNING.
-- KEYS  common; of each request: worker. Derived: the queues of the projects in turn, and the jobs of the tasks
--       that were taken, with what a lease needs of them.
-- ARGV  prefix; requests (see request.lua) of: worker id, session, max, lease ms, request id, running limit.
--       Of different limits in one call the last holds.
-- Returns  {answer, ...}: {'', 1 if tasks that a claim could get are still ready else 0, 1 if the worker is refused
--          else 0, lease row (see task.lua), ...}; refused is one that is unknown, detached, draining or in a newer session
-- Replay   the leases of the first answer that are still held, as long as the request is among the newest 4 that
--          gave the worker any. An empty answer isn't kept.
-- $include(task.lua)
-- $include(serve.lua)
-- $include(worker.lua)
-- $include(request.lua)
local requests = read_requests()
local keys, workers, answers, rows, replays = {}, {}, {}, {}, {}
for i, r in ipairs(requests) do keys[i] = r.k[1] end
for i, raw in ipairs(read(keys)) do
  local id = requests[i][1]
  if raw and not workers[id] then workers[id] = parse_worker(id, raw) end
end

local wanted, limit = 0
for _, r in ipairs(requests) do
  local w = workers[r[1]]
  r.answer = w and answer_of(w, r[5])
  if not r.answer and w and w.session == r[2] and w.draining ~= '1' and w.attached == '1' then
    r.max, limit = tonumber(r[3]), tonumber(r[6])
    wanted = wanted + r.max
  end
end
if limit then set_limit(limit) end

local chosen, touched = serve(wanted)
local ids, tasks = {}, {}
for i, m in ipairs(chosen) do
  local id, index = parse_member(m)
  ids[i], tasks[i] = id, { m, id, index }
end
load_jobs(ids)

local next_task = 0
-- take returns the next task that was chosen and is ready as it should be.
local function take()
  while chosen[next_task + 1] do
    next_task = next_task + 1
    local m, id, index = unpack(tasks[next_task])
    local job = load_job(id)
    local t = job and load_task(job, index)
    local to = t and next_state('task', t.s, 'lease')
    if to then return m, job, index, t, to end
    for _, e in ipairs(touched) do e.full = false end -- it doesn't run after all
  end
end

local function claim(r)
  local answer, given = { '', 0, 0 }, {}
  if r.answer then
    for m, attempt in string.gmatch(r.answer, '(%S+) (%d+)') do
      local _, _, t = leased_task(m)
      if t and t.by == r[1] and t.n == tonumber(attempt) then
        rows[#rows + 1] = { m, redis.call('ZSCORE', LEASES, m), answer }
      end
    end
    return answer
  end
  if not r.max then
    answer[3] = 1
    return answer
  end

  local lease_ms = tonumber(r[4])
  local deadline = score_text(NOW + lease_ms)
  for _ = 1, r.max do
    local m, job, index, t, to = take()
    if not m then break end
    t.s, t.n, t.by, t.at = to, t.n + 1, r[1], STAMP
    save_task(job, index, t)
    if move_job(job, 'start') then
      job.started = STAMP
      add_event(job, 'STARTED')
    end
    if lease_ms > tonumber(job.lease_ms) then job.lease_ms = lease_ms end
    add_event(job, 'TASK_LEASED', index, t.n)
    count_leases(job.project, 1)
    zadd(LEASES, deadline, m)
    zadd(HELD, 0, held_member(r[1], m))
    append(given, m, t.n)
    rows[#rows + 1] = { m, deadline, answer }
  end
  if #given > 0 then
    keep_answer(workers[r[1]], r[5], given)
    workers[r[1]].changed = true
    -- While there are leases, the sweeper comes at least that often.
    due(NOW + math.floor(lease_ms / 3))
  end
  return answer
end

for i, r in ipairs(requests) do answers[i] = claim(r) end
for _, w in pairs(workers) do
  if w.changed then save_worker(w) end
end
settle_served(touched)
flush()
local more = redis.call('EXISTS', RING)
for _, answer in ipairs(answers) do answer[2] = more end
for i, row in ipairs(lease_rows(rows)) do
  local answer = rows[i][3]
  answer[#answer + 1] = row
end
return answers
