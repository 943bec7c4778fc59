-- Tasks live in their job's hash: t<index> is the task, a<index> its ended
-- attempts, both JSON. In the queues a task is named by member(): its index
-- is padded, so that equal scores sort by it.
--
-- A task's fields: k kind, s state, r run, o output, w weight, n newest
-- attempt, by its worker, at when it began, nb not before, c charged failures,
-- l losses, u attempts in a row that a machine spoilt, wt tasks it waits for, nx
-- tasks that wait for it, z it was the last of its run.
-- $include(job.lua)
local MAX_ATTEMPTS_KEPT = 16
-- A task that spoils every machine, or finds none that works, would go round for ever.
local MAX_MACHINE_FAULTS = 10
local EPOCH = 1577836800000 -- 2020-01-01

local function member(id, index) return string.format('%s-%05d', id, index) end

local function parse_member(m)
  local id, index = string.match(m, '^(.*)%-(%d+)$')
  return id, tonumber(index)
end

local function load_task(job, index)
  local t = job.tasks[index]
  if not t then
    local raw = redis.call('HGET', job_key(job.id), 't' .. index)
    if not raw then return nil end
    t = cjson.decode(raw)
    job.tasks[index] = t
  end
  return t
end

local function save_task(job, index, t)
  job.tasks[index] = t
  put(job, 't' .. index, cjson.encode(t))
end

-- queue_score sorts by priority, then by when the job was queued: 49 bits.
local function queue_score(job)
  return string.format('%.0f', (100 - job.priority) * 2199023255552 + (job.queued - EPOCH))
end

-- make_ready moves a task to READY by a transition; false if the table forbids it.
local function make_ready(job, index, t, by)
  local to = next_state('task', t.s, by)
  if not to then return false end
  t.s, t.by, t.at, t.nb = to, nil, nil, nil
  save_task(job, index, t)
  redis.call('ZADD', READY, queue_score(job), member(job.id, index))
  WAKES.READY = true
  return true
end

-- add_tasks appends tasks, given as JSON in which wt and nx are relative.
local function add_tasks(job, raws)
  local base = job.tasks_count
  for i, raw in ipairs(raws) do
    local t = cjson.decode(raw)
    local index = base + i - 1
    t.r = job.run
    for j, follower in ipairs(t.nx or {}) do t.nx[j] = base + follower end
    if t.wt then
      t.s = 'BLOCKED'
    else
      t.s = 'READY'
      redis.call('ZADD', READY, queue_score(job), member(job.id, index))
      WAKES.READY = true
    end
    job.weight = job.weight + (t.w or 0)
    save_task(job, index, t)
  end
  job.tasks_count, job.open = base + #raws, job.open + #raws
  put(job, 'n', job.tasks_count)
  put(job, 'o', job.open)
  if job.weight > 0 then put(job, 'W', job.weight) end
end

-- start_run puts a job's first task into the queue, in the state PENDING.
local function start_run(job, raw)
  job.queued = NOW
  put(job, 'tq', NOW)
  add_event(job, 'QUEUED')
  add_tasks(job, { raw })
end

-- lease_of returns attempt, weight and fraction of a lease, nil if the worker doesn't hold it.
local function lease_of(worker, m)
  local raw = redis.call('HGET', held_key(worker), m)
  if not raw then return nil end
  local n, weight, fraction = string.match(raw, '^(%S+) (%S+) (%S+)')
  return tonumber(n), tonumber(weight), tonumber(fraction)
end

local function attempts_of(job, index)
  local raw = redis.call('HGET', job_key(job.id), 'a' .. index)
  return raw and cjson.decode(raw) or {}
end

-- end_attempt takes the lease away and writes down how the attempt ended.
local function end_attempt(job, index, t, outcome, reason, message, charged)
  local m = member(job.id, index)
  local _, weight, fraction = lease_of(t.by, m)
  redis.call('HDEL', held_key(t.by), m)
  redis.call('ZREM', LEASES, m)
  if weight and weight > 0 then
    job.done = job.done + weight * ((outcome == 'DONE' and 1 or 0) - fraction)
    put(job, 'A', string.format('%.17g', job.done))
  end
  if outcome ~= 'DONE' and not job.left_objects then
    job.left_objects = true
    put(job, 'lo', '1')
  end
  local list = attempts_of(job, index)
  list[#list + 1] = {
    n = t.n, by = t.by, at = t.at, to = NOW, oc = outcome, rs = reason, ms = message, ch = charged or nil,
  }
  while #list > MAX_ATTEMPTS_KEPT do table.remove(list, 1) end
  put(job, 'a' .. index, cjson.encode(list))
end

-- ended_as reports whether a worker's attempt ended that way before: the call is a replay.
local function ended_as(job, index, worker, attempt, outcome)
  for _, a in ipairs(attempts_of(job, index)) do
    if a.n == attempt then return a.by == worker and a.oc == outcome end
  end
  return false
end

-- cancel_tasks ends every task of the run that hasn't ended.
local function cancel_tasks(job)
  for index = job.first, job.tasks_count - 1 do
    local t = load_task(job, index)
    local to = next_state('task', t.s, 'cancel')
    if to then
      if t.s == 'READY' then
        redis.call('ZREM', READY, member(job.id, index))
      elseif t.s == 'DELAYED' then
        redis.call('ZREM', DELAYED, member(job.id, index))
      elseif t.s == 'LEASED' then
        end_attempt(job, index, t, 'CANCELED')
        WAKES.WORKER = true
      end
      t.s, t.nb = to, nil
      save_task(job, index, t)
    end
  end
end

-- kill_task ends a leased task for good, and its job with it.
local function kill_task(job, index, t, outcome, reason, message, charged)
  end_attempt(job, index, t, outcome, reason, message, charged)
  t.s = next_state('task', t.s, 'kill')
  save_task(job, index, t)
  add_event(job, 'TASK_DEAD', index, t.n, reason, message)
  move_job(job, 'fail')
  cancel_tasks(job)
  end_job(job, 'FAILED', reason, message)
  clean_later(job)
end

-- return_task gives an attempt back without a charge, however often: the task is READY.
local function return_task(job, index, t, by, outcome, reason, message)
  end_attempt(job, index, t, outcome, reason, message)
  make_ready(job, index, t, by)
  add_event(job, 'TASK_DELAYED', index, t.n, reason, message)
end

-- blame_machine gives back an attempt that its machine spoilt: READY, or dead
-- when that happened too often in a row.
local function blame_machine(job, index, t, outcome, reason, message)
  t.u = (t.u or 0) + 1
  if t.u >= MAX_MACHINE_FAULTS then
    kill_task(job, index, t, outcome, reason, message)
  else
    return_task(job, index, t, 'release', outcome, reason, message)
  end
end

-- leased_task returns what a worker holds, by the member it is held as; nil if
-- the script ended that lease.
local function leased_task(m)
  local id, index = parse_member(m)
  local job = load_job(id)
  local t = job and load_task(job, index)
  if t and t.s == 'LEASED' then return job, index, t end
end

-- lease_row is a lease as a reader needs it; call it after flush.
local function lease_row(m, attempt, deadline)
  local id, index = parse_member(m)
  local v = redis.call('HMGET', job_key(id), 't' .. index, 'a' .. index)
  return { m, attempt, deadline, v[1], v[2], job_row(id) }
end
