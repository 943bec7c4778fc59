-- Attempts, as most calls change them: the front of the job and of the task,
-- see record.lua. These calls are most of what a store does, so they make no
-- tables of what they only pass on.
-- $include(lease.lua)
local READY, LEASED, DONE = 2, 3, 5 -- of TASK_STATES
local PENDING, RUNNING, COMPLETED = 2, 3, 4 -- of JOB_STATES

-- attempt_keys adds the keys that an attempt is in to a list, and returns the job's.
local function attempt_keys(keys, id, index, m)
  local key = job_key(id)
  keys[#keys + 1] = key
  if index > 0 then keys[#keys + 1] = task_key(m) end
  return key
end

-- task_in returns the string that has a task, and where it begins: behind the job's front, or a string of its own.
local function task_in(raw, behind, index, m)
  if index == 0 then return raw, behind end
  return READ[task_key(m)], 1
end

-- share_of is the share of a job's work, in percent, that is done now.
local function share_of(done, weight) return math.max(0, 100 * done / weight) end

-- risen is a job's percent with what is done: it never falls within a run, and reaches 100 only when that is COMPLETED.
local function risen(percent, done, weight) return math.max(percent, math.min(99.9, share_of(done, weight))) end

local function keep(key, value)
  set(key, value)
  READ[key] = value
end

local BACK, FIRST = 'c0', HEAD .. sub(HOT, 2)

-- keep_attempt writes the fronts of a job and a task before what is behind them, and events behind the job's others.
local function keep_attempt(key, raw, behind, index, m, task, task_behind, events, project, progress, state, run, sequence, base, open,
  lease_ms, left, stream, uploaded, started, playable, finished, weight, done, percent, s, last, n, at, share, told, kept, follow, by)
  if index == 0 then
    -- In one step, because each string that Lua makes costs as much as it is long.
    keep(key, pack(FIRST .. BACK .. BACK, #project, project, #progress, progress, state, run, sequence, base, open, lease_ms, left,
      stream, uploaded, started, playable, finished, weight, done, percent, s, last, n, at, share, told, kept, follow, #by, by,
      sub(task, task_behind), events))
  else
    keep(key, pack(HEAD .. BACK .. BACK, #project, project, #progress, progress, state, run, sequence, base, open, lease_ms, left, stream,
      uploaded, started, playable, finished, weight, done, percent, sub(raw, behind), events))
    keep(task_key(m), pack(HOT .. BACK, s, last, n, at, share, told, kept, follow, #by, by, sub(task, task_behind)))
  end
end

-- put_by takes the events out of a job that has many behind, and returns it without them.
local function put_by(id, raw, behind, base)
  local at = select(22, unpack_struct('>' .. sub(HOT, 2) .. COLD .. REST, raw, behind))
  append(APART, events_key(id), pack('>I6', base) .. sub(raw, at))
  return sub(raw, 1, at - 1)
end

local function task_event(kind, index, n) return pack(TASK_EVENT, EVENT_TYPES[kind] + 64, NOW, index + 1, n) end
