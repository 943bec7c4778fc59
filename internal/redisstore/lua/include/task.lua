-- Tasks live in their job's hash: s<i> is a task's state, a line; d<i> what it
-- is, JSON; f<i> the indexes of the tasks that wait for it, if any; a<i> its
-- attempts that ended without a result, JSON. In the queues a task is named by
-- member(): its index is padded, so that equal scores sort by it.
-- $include(job.lua)
-- $include(held.lua)
local MAX_ATTEMPTS_KEPT = 16
-- A task that spoils every machine, or finds none that works, would go round for ever.
local MAX_MACHINE_FAULTS = 10
local STATUS = '^' .. string.rep('(%S+) ', 14) .. '(.*)$'
-- LEASED matches the state of a leased task: all before the progress, attempt, weight; fraction, when that was stored,
-- whether others wait for it, worker.
local LEASED = '^(LEASED 0 0 %S+ (%S+) %S+ %S+ %S+ %S+ %S+ (%S+)) (%S+) (%S+) (%S+) (.*)$'

local function member(id, index) return string.format('%s-%05d', id, index) end

local function parse_member(m)
  local n = #m
  if string.sub(m, n - 5, n - 5) == '-' then return string.sub(m, 1, n - 6), string.sub(m, n - 4) + 0 end
  local id, index = string.match(m, '^(.*)%-(%d+)$') -- 100,000 or more
  return id, tonumber(index)
end

local function parse_task(raw)
  local t = {}
  t.s,
    t.last,         -- 1: it was the last of its run
    t.ended,        -- when it was done
    t.run,
    t.n,            -- newest attempt
    t.at,           -- when that began; of a DELAYED task, when it wakes
    t.charged, t.losses,
    t.spoilt,       -- attempts in a row that a machine spoilt
    t.waits,        -- for tasks
    t.weight,       -- its share of the job's progress
    t.told, t.kept, -- fraction of the attempt, and when that was stored
    t.follow,       -- 1: f<i> is there
    t.by = string.match(raw, STATUS)
  t.n = t.n + 0
  return t
end

local function load_task(job, index)
  local t = job.tasks[index]
  if not t then
    local raw = redis.call('HGET', job.key, 's' .. index)
    if not raw then return nil end
    t = parse_task(raw)
    job.tasks[index] = t
  end
  return t
end

local function save_task(job, index, t)
  job.tasks[index] = t
  put(job, 's' .. index, t.s .. ' ' .. t.last .. ' ' .. t.ended .. ' ' .. t.run .. ' ' .. t.n .. ' ' .. t.at .. ' '
    .. t.charged .. ' ' .. t.losses .. ' ' .. t.spoilt .. ' ' .. t.waits .. ' ' .. t.weight .. ' '
    .. t.told .. ' ' .. t.kept .. ' ' .. t.follow .. ' ' .. t.by)
end

local function enqueue(job, index)
  queue_add(job.project, job.priority + 0, queued_at(job) + 0, member(job.id, index))
end

-- make_ready moves a task to READY by a transition; false if the table forbids it.
local function make_ready(job, index, t, by)
  local to = next_state('task', t.s, by)
  if not to then return false end
  t.s, t.by, t.at = to, '', 0
  save_task(job, index, t)
  enqueue(job, index)
  return true
end

-- add_tasks appends tasks, each four values from one on: JSON, weight, how
-- many it waits for, and which wait for it, all relative to the first.
local function add_tasks(job, list, from)
  local base = job.count + 0
  local index = base
  local added = 0
  for i = from, #list, 4 do
    local weight, waits, followers = list[i + 1], list[i + 2], list[i + 3]
    added = added + weight
    put(job, 's' .. index, (waits == '0' and 'READY' or 'BLOCKED') .. ' 0 0 ' .. job.run .. ' 0 0 0 0 0 ' .. waits .. ' '
      .. weight .. ' 0 0 ' .. (followers == '' and '0 ' or '1 '))
    put(job, 'd' .. index, list[i])
    if followers ~= '' then
      put(job, 'f' .. index, (string.gsub(followers, '%d+', function(n) return string.format('%d', base + n) end)))
    end
    if waits == '0' then enqueue(job, index) end
    index = index + 1
  end
  job.count, job.open = index, job.open + index - base
  if added > 0 then
    local weight, done, percent = gauge_of(job)
    set_gauge(job, weight + added, done, percent)
  end
end

-- start_run puts a job's first task, as for add_tasks, into the queue.
local function start_run(job, list, from)
  add_time(job, 'q')
  add_event(job, 'QUEUED')
  add_tasks(job, list, from)
end

local function attempts_of(job, index)
  local raw = redis.call('HGET', job.key, 'a' .. index)
  return raw and cjson.decode(raw) or {}
end

-- drop_lease takes a lease off all lists.
local function drop_lease(job, m, worker)
  zrem(LEASES, m)
  zrem(HELD, worker .. ' ' .. m)
  count_leases(job.project, -1)
end

-- end_attempt takes the lease away and writes down how an attempt without a result ended.
local function end_attempt(job, index, t, outcome, reason, message, charged)
  local list = attempts_of(job, index)
  list[#list + 1] = {
    n = t.n, by = t.by, at = tonumber(t.at), to = NOW, oc = outcome, rs = reason, ms = message, ch = charged or nil,
  }
  while #list > MAX_ATTEMPTS_KEPT do table.remove(list, 1) end
  put(job, 'a' .. index, cjson.encode(list))
  drop_lease(job, member(job.id, index), t.by)
  if t.told + 0 ~= 0 then
    local weight, done, percent = gauge_of(job)
    set_gauge(job, weight, done - t.weight * t.told, percent)
  end
  t.by, t.told, t.kept = '', 0, 0
  job.left = 1
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
  for index = job.first + 0, job.count - 1 do
    local t = load_task(job, index)
    local to = next_state('task', t.s, 'cancel')
    if to then
      if t.s == 'READY' then
        queue_drop(job.project, member(job.id, index))
      elseif t.s == 'DELAYED' then
        zrem(DELAYED, member(job.id, index))
      elseif t.s == 'LEASED' then
        end_attempt(job, index, t, 'CANCELED')
        WAKES.WORKER = true
      end
      t.s, t.at = to, 0
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
  t.spoilt = t.spoilt + 1
  if t.spoilt >= MAX_MACHINE_FAULTS then
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

-- lease_row is a lease as a reader needs it: {member, attempt, deadline,
-- definition, state, attempts JSON, job row, spec JSON, probe JSON, plan JSON};
-- call it after flush. State and definition are read if they aren't given.
local function lease_row(m, attempt, deadline, status, definition)
  local id, index = parse_member(m)
  local job = load_job(id)
  if not definition then status, definition = unpack(redis.call('HMGET', job.key, 's' .. index, 'd' .. index)) end
  local row = {
    m, attempt, deadline, definition, status, '',
    { head_text(job), job.project, job.times_text, job.gauge_text, '', '', '' }, redis.call('GET', spec_key(id)), '', '',
  }
  -- Of a job that starts there is no more to read, unless its source was uploaded.
  if index > 0 or attempt > 1 or job.uploaded ~= '0' then
    local v = redis.call('HMGET', job.key, 'a' .. index, 'pg', 'sr')
    row[6], row[7][5], row[7][7] = v[1] or '', v[2] or '', v[3] or ''
    v = redis.call('MGET', probe_key(id), plan_key(id))
    row[9], row[10] = v[1] or '', v[2] or ''
  end
  return row
end
