-- Tasks. The first of a job is in the job itself, the others in a hash of the
-- job: d<index> is what a task is, JSON and never changed, s<index> its state,
-- a line, a<index> its attempts that ended without a result, JSON. In the
-- queues a task is named by member(): its index is padded, so that equal
-- scores sort by it.
-- $include(job.lua)
local MAX_ATTEMPTS_KEPT = 16
-- A task that spoils every machine, or finds none that works, would go round for ever.
local MAX_MACHINE_FAULTS = 10
local STATUS = '^' .. string.rep('(%S+) ', 12) .. '(.*)$'

local function member(id, index) return string.format('%s-%05d', id, index) end

local function parse_member(m)
  local id, index = string.match(m, '^(.*)%-(%d+)$')
  return id, tonumber(index)
end

local function parse_status(raw, definition)
  local t = { def = definition }
  t.s, t.run,
    t.n,            -- newest attempt
    t.at,           -- when it began; of a DELAYED task, when it wakes
    t.took,         -- ms until it was done
    t.last,         -- 1: it was the last of its run
    t.charged, t.losses,
    t.spoilt,       -- attempts in a row that a machine spoilt
    t.waits,        -- tasks that it waits for
    t.told, t.kept, -- fraction of the attempt, and when that was stored
    t.by = string.match(raw, STATUS)
  t.n = tonumber(t.n)
  return t
end

local function status_text(t)
  return t.s .. ' ' .. t.run .. ' ' .. t.n .. ' ' .. t.at .. ' ' .. t.took .. ' ' .. t.last .. ' '
    .. t.charged .. ' ' .. t.losses .. ' ' .. t.spoilt .. ' ' .. t.waits .. ' ' .. t.told .. ' ' .. t.kept .. ' ' .. t.by
end

local function new_task(run, definition, waits)
  return {
    s = waits and 'BLOCKED' or 'READY', run = run, n = 0, at = 0, took = 0, last = 0, charged = 0, losses = 0, spoilt = 0,
    waits = waits or 0, told = 0, kept = 0, by = '', def = definition,
  }
end

local function load_task(job, index)
  local t = job.tasks[index]
  if t then return t end
  local status, definition = job.status, job.definition
  if index ~= 0 then status, definition = unpack(redis.call('HMGET', tasks_key(job.id), 's' .. index, 'd' .. index)) end
  if not status or status == '' then return nil end
  t = parse_status(status, definition)
  job.tasks[index] = t
  return t
end

local function save_task(job, index, t)
  job.tasks[index], job.changed = t, true
  if index == 0 then
    job.status, job.definition = status_text(t), t.def
  else
    append(job.fields, 's' .. index, status_text(t))
  end
end

-- weight_of is a task's share of its job's progress.
local function weight_of(t) return tonumber(string.match(t.def, '"w":([%d.eE+-]+)')) or 0 end

-- followers_of are the indexes of the tasks that wait for this one.
local function followers_of(t)
  if not string.find(t.def, '"nx":', 1, true) then return {} end
  return cjson.decode(t.def).nx
end

local function enqueue(job, index)
  queue_add(job.project, tonumber(job.priority), tonumber(job.queued), member(job.id, index))
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

-- add_tasks appends tasks, given as JSON, in which the tasks that wait are
-- told relative to the first, each followed by how many it waits for.
local function add_tasks(job, list)
  local base = tonumber(job.count)
  local weight = tonumber(job.weight)
  for i = 1, #list, 2 do
    local definition, waits = list[i], tonumber(list[i + 1])
    local index = base + (i - 1) / 2
    if base > 0 and string.find(definition, '"nx":', 1, true) then
      local d = cjson.decode(definition)
      for j, follower in ipairs(d.nx) do d.nx[j] = base + follower end
      definition = cjson.encode(d)
    end
    local t = new_task(job.run, definition, waits > 0 and waits or nil)
    if index > 0 then append(job.fields, 'd' .. index, definition) end
    save_task(job, index, t)
    if t.s == 'READY' then enqueue(job, index) end
    weight = weight + weight_of(t)
  end
  local added = #list / 2
  job.count, job.open = base + added, job.open + added
  if weight > 0 then job.weight = string.format('%.17g', weight) end
end

-- start_run puts a job's first task into the queue, in the state PENDING.
local function start_run(job, definition)
  job.queued = STAMP
  add_event(job, 'QUEUED')
  add_tasks(job, { definition, 0 })
end

local function held_member(worker, m) return worker .. ' ' .. m end

-- held_by lists what a worker holds.
local function held_by(worker)
  local list = {}
  local from = worker .. ' '
  for _, held in ipairs(redis.call('ZRANGEBYLEX', HELD, '[' .. from, '(' .. from .. '\255')) do
    local m = string.sub(held, #from + 1)
    -- Another worker's id may begin like this one's.
    if not string.find(m, ' ', 1, true) then list[#list + 1] = m end
  end
  return list
end

local function attempts_of(job, index)
  local raw = redis.call('HGET', tasks_key(job.id), 'a' .. index)
  return raw and cjson.decode(raw) or {}
end

-- end_lease takes the lease of a task away, and what of its progress isn't done.
local function end_lease(job, index, t, share)
  local m = member(job.id, index)
  zrem(LEASES, m)
  zrem(HELD, held_member(t.by, m))
  count_leases(job.project, -1)
  local weight = weight_of(t)
  if weight > 0 then job.done = string.format('%.17g', job.done + weight * (share - t.told)) end
  t.told, t.kept = 0, 0
end

-- end_attempt takes the lease away and writes down how an attempt without a result ended.
local function end_attempt(job, index, t, outcome, reason, message, charged)
  local list = attempts_of(job, index)
  list[#list + 1] = {
    n = t.n, by = t.by, at = tonumber(t.at), to = NOW, oc = outcome, rs = reason, ms = message, ch = charged or nil,
  }
  while #list > MAX_ATTEMPTS_KEPT do table.remove(list, 1) end
  append(job.fields, 'a' .. index, cjson.encode(list))
  end_lease(job, index, t, 0)
  job.left, job.changed = 1, true
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
  for index = tonumber(job.first), job.count - 1 do
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
      t.s, t.by, t.at = to, '', 0
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

-- lease_rows are leases as a reader needs them, from a list of {member,
-- deadline}; call it after flush: {member, attempt, deadline, definition,
-- status, attempts JSON, job, spec JSON, probe JSON, plan JSON}.
local function lease_rows(leases)
  local keys, rows = {}, {}
  for i, l in ipairs(leases) do
    local id, index = parse_member(l[1])
    local job = load_job(id)
    local t = load_task(job, index)
    local attempts = t.n > 1 and redis.call('HGET', tasks_key(id), 'a' .. index) or ''
    rows[i] = { l[1], t.n, l[2], t.def, status_text(t), attempts, job.text or job_text(job), '', '', '' }
    keys[3 * i - 2], keys[3 * i - 1], keys[3 * i] = spec_key(id), probe_key(id), plan_key(id)
  end
  local values = read(keys)
  for i, row in ipairs(rows) do
    row[8], row[9], row[10] = values[3 * i - 2] or '', values[3 * i - 1] or '', values[3 * i] or ''
  end
  return rows
end
