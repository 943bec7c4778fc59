-- Tasks, whole: see record.lua for how they are packed. Of tasks x:<job> has
-- f<i>, the indexes of those that wait for it, if any; and a<i>, its attempts
-- that ended without a result, JSON.
-- $include(job.lua)
-- $include(held.lua)
-- $include(lease.lua)
local MAX_ATTEMPTS_KEPT = 16
-- A task that spoils every machine, or finds none that works, would go round for ever.
local MAX_MACHINE_FAULTS = 10
local TASK = HOT .. COLD

-- load_task returns a task by its index, or nil; its member where the caller has it.
local function load_task(job, index, m)
  local t = job.tasks[index]
  if t then return t end
  if index == 0 then return nil end
  m = m or member(job.id, index)
  local raw = read(task_key(m))
  if not raw then return nil end
  t = task_record(unpack_struct(TASK, raw))
  t.m = m
  job.tasks[index] = t
  return t
end

local function save_task(job, index, t)
  job.tasks[index] = t
  if index == 0 then
    job.changed = true
    return
  end
  local raw = pack(TASK, TASK_CODES[t.s], t.last, t.n, t.at, t.weight, t.told, t.kept, t.follow, #t.by, t.by,
    t.run, t.charged, t.losses, t.spoilt, t.waits, #t.definition, t.definition)
  set(task_key(t.m), raw)
  READ[task_key(t.m)] = raw
end

local function enqueue(job, t) queue_add(job.project, job.priority, job.queued, t.m) end

-- make_ready moves a task to READY by a transition; false if the table forbids it.
local function make_ready(job, index, t, by)
  local to = next_state('task', t.s, by)
  if not to then return false end
  t.s, t.by, t.at = to, '', 0
  save_task(job, index, t)
  enqueue(job, t)
  return true
end

-- add_tasks appends tasks, each four values: JSON, weight, how many it waits
-- for, and which wait for it, all relative to the first.
local function add_tasks(job, list)
  local base = job.count
  local index = base
  local added = 0
  for i = 1, #list, 4 do
    local weight, waits, followers = list[i + 1], list[i + 2], list[i + 3]
    added = added + weight
    local t = {
      s = waits == 0 and 'READY' or 'BLOCKED', m = member(job.id, index), last = 0, run = job.run, n = 0,
      at = 0, charged = 0, losses = 0, spoilt = 0, waits = waits, weight = weight, told = 0, kept = 0,
      follow = followers == '' and 0 or 1, by = '', definition = list[i],
    }
    save_task(job, index, t)
    if followers ~= '' then
      put(job, 'f' .. index, (string.gsub(followers, '%d+', function(n) return string.format('%d', base + n) end)))
    end
    if waits == 0 then enqueue(job, t) end
    index = index + 1
  end
  job.count, job.open, job.changed = index, job.open + index - base, true
  if added > 0 then set_gauge(job, job.weight + added, job.done, job.percent) end
end

-- start_run puts a job's first task into the queue.
local function start_run(job, definition, weight)
  job.queued = NOW
  add_event(job, 'QUEUED')
  add_tasks(job, { definition, weight, 0, '' })
end

-- attempts_of lists the attempts that ended, as this script left them.
local function attempts_of(job, index)
  job.attempts = job.attempts or {}
  local list = job.attempts[index]
  if not list then
    local raw = redis.call('HGET', more_key(job.id), 'a' .. index)
    local whole, kept = pcall(cjson.decode, raw or '[]')
    list = whole and kept or {} -- a damaged list ends with its task going on
    job.attempts[index] = list
  end
  return list
end

-- end_attempt takes the lease away and writes down how an attempt without a result ended.
local function end_attempt(job, index, t, outcome, reason, message, charged)
  local list = attempts_of(job, index)
  list[#list + 1] = {
    n = t.n, by = t.by, at = t.at, to = NOW, oc = outcome, rs = reason, ms = message, ch = charged or nil,
  }
  while #list > MAX_ATTEMPTS_KEPT do table.remove(list, 1) end
  put(job, 'a' .. index, cjson.encode(list))
  drop_lease(job.project, t.m, t.by, t.n)
  if t.told ~= 0 then set_gauge(job, job.weight, job.done - t.weight * t.told, job.percent) end
  t.by, t.told, t.kept = '', 0, 0
  job.left, job.changed = 1, true
end

-- ended_as reports whether a worker's attempt ended that way before: the call is a replay.
local function ended_as(job, index, worker, attempt, outcome)
  for _, a in ipairs(attempts_of(job, index)) do
    if a.n == attempt then return a.by == worker and a.oc == outcome end
  end
  return false
end

-- read_tasks reads all tasks from an index on together.
local function read_tasks(job, from)
  local keys = {}
  for index = math.max(from, 1), job.count - 1 do
    if not job.tasks[index] then keys[#keys + 1] = task_key(member(job.id, index)) end
  end
  read_all(keys)
end

-- drop_leases takes the leases of tasks off all lists whose records don't tell who holds them, and what is left of the
-- records: no word of their workers counts any more. It looks at all leases that there are.
local function drop_leases(project, is_of)
  for _, name in ipairs(redis.call('ZRANGE', HELD, 0, -1)) do
    local m = parse_lease(name)
    if is_of(m) then
      zrem(HELD, name)
      zrem(LEASES, name)
      del(task_key(m))
      count_leases(project, -1)
      WAKES.WORKER = true
    end
  end
end

-- cancel_tasks ends every task of the run that hasn't ended.
local function cancel_tasks(job)
  read_tasks(job, job.first)
  local unknown
  for index = job.first, job.count - 1 do
    local whole, t = pcall(load_task, job, index)
    if not whole or not t and index > 0 then
      -- One whose record is gone, or can't be read, has ended: its job, and who sweeps, go on.
      local m = member(job.id, index)
      del(task_key(m))
      unknown = unknown or {}
      unknown[m] = true
    end
    local to = whole and t and next_state('task', t.s, 'cancel')
    if to then
      if t.s == 'READY' then
        queue_drop(job.project, t.m)
      elseif t.s == 'DELAYED' then
        zrem(DELAYED, t.m)
      elseif t.s == 'LEASED' then
        end_attempt(job, index, t, 'CANCELED')
        WAKES.WORKER = true
      end
      t.s, t.at = to, 0
      save_task(job, index, t)
    end
  end
  if unknown then drop_leases(job.project, function(m) return unknown[m] end) end
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
  clean_later(job.id, job.lease_ms)
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

local function load_both(id, index, m)
  local job = load_job(id)
  return job, job and load_task(job, index, m)
end

-- find_task returns the job, the index and the task of a member, nil for what isn't there. Of what can't be read it returns
-- nothing but that.
local function find_task(m)
  local id, index = parse_member(m)
  if not id then return end
  local whole, job, t = pcall(load_both, id, index, m)
  if whole then return job, index, t end
  found_broken(id, '')
  return nil, nil, nil, true
end

-- leased_task returns what a lease is of, by its name; nil if the script ended
-- it, or it can't be read.
local function leased_task(name)
  local m, n = parse_lease(name)
  local job, index, t, broken = find_task(m)
  if t and t.s == 'LEASED' and t.n == n then return job, index, t end
  return nil, nil, nil, broken
end

-- lease_rows returns the rows of leases, of a list of name and deadline. Call it after flush.
local function lease_rows(list)
  local keys = {}
  for i = 1, #list, 2 do
    local job, index, t = leased_task(list[i])
    keys[#keys + 1] = spec_key(job.id)
    if not starts(job.uploaded, index, t.n) then append(keys, probe_key(job.id), plan_key(job.id)) end
  end
  read_all(keys)
  local rows = {}
  for i = 1, #list, 2 do
    local job, index, t = leased_task(list[i])
    rows[#rows + 1] = lease_row(t.m, list[i + 1], job.id, index, starts(job.uploaded, index, t.n))
  end
  return rows
end
