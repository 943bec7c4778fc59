-- Jobs, whole: see record.lua for how they are packed. Older events are in e:<job>,
-- each a chunk of what was behind once: the sequence before its first event, and
-- the events; the newest 1,000 are there. x:<job> has what few jobs have: f failure
-- JSON, up its upload, sr size and etag of its source; and of tasks: see task.lua.
--
-- A job is loaded once per script, changed in memory and written back by
-- flush: however many changes, one string and one notice.
-- $include(record.lua)
-- $include(duty.lua)
-- $include(transitions.lua)
local JOB = HEAD .. sub(HOT, 2) .. COLD .. REST
local JOBS, JOB_ORDER = {}, {}
local JOB_CODES, TASK_CODES = {}, {}
for code, state in ipairs(JOB_STATES) do JOB_CODES[state] = code end
for code, state in ipairs(TASK_STATES) do TASK_CODES[state] = code end

-- put changes a field of x:<job>.
local function put(job, field, value)
  job.put = job.put or {}
  append(job.put, field, value)
end

local function task_record(s, last, n, at, weight, told, kept, follow, by, run, charged, losses, spoilt, waits, definition)
  return {
    s = TASK_STATES[s], last = last, n = n, at = at, weight = weight, told = told, kept = kept, follow = follow,
    by = by, run = run, charged = charged, losses = losses, spoilt = spoilt, waits = waits, definition = definition,
  }
end

local function read_job(raw, id)
  local project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished, weight,
    done, percent, s, last, n, t_at, t_weight, told, kept, follow, by, t_run, charged, losses, spoilt, waits, definition,
    count, first, priority, created, queued, planned, at = unpack_struct(JOB, raw)
  state = JOB_STATES[state]
  local tasks = {}
  if s > 0 then
    tasks[0] = task_record(s, last, n, t_at, t_weight, told, kept, follow, by, t_run, charged, losses, spoilt, waits,
      definition)
    tasks[0].m = id .. '-00000'
  end
  return {
    project = project, progress = progress, state = state, run = run, sequence = sequence, base = base, open = open,
    lease_ms = lease_ms, left = left, stream = stream, uploaded = uploaded, started = started, playable = playable, finished = finished,
    weight = weight, done = done, percent = percent, count = count, first = first, priority = priority,
    created = created, queued = queued, planned = planned,
    tasks = tasks, events = sub(raw, at), raw = raw, was = state, told = sequence,
  }
end

local NO_TASK = {
  last = 0, n = 0, at = 0, weight = 0, told = 0, kept = 0, follow = 0, by = '', run = 0, charged = 0, losses = 0,
  spoilt = 0, waits = 0, definition = '',
}

local function pack_job(j)
  local t = j.tasks[0] or NO_TASK
  return pack(JOB, #j.project, j.project, #j.progress, j.progress, JOB_CODES[j.state], j.run, j.sequence, j.base, j.open,
    j.lease_ms, j.left, j.stream, j.uploaded, j.started, j.playable, j.finished, j.weight, j.done, j.percent,
    TASK_CODES[t.s] or 0, t.last, t.n, t.at, t.weight, t.told, t.kept, t.follow, #t.by, t.by,
    t.run, t.charged, t.losses, t.spoilt, t.waits, #t.definition, t.definition,
    j.count, j.first, j.priority, j.created, j.queued, j.planned) .. j.events
end

local function keep_job(job, id, key)
  job.id, job.key = id, key
  JOBS[id] = job
  JOB_ORDER[#JOB_ORDER + 1] = job
  return job
end

-- load_job returns a job, nil if there is none.
local function load_job(id)
  local job = JOBS[id]
  if job then return job end
  local key = job_key(id)
  local raw = read(key)
  return raw and keep_job(read_job(raw, id), id, key) or nil
end

local function set_gauge(job, weight, done, percent)
  job.weight, job.done, job.percent, job.changed = weight, done, percent, true
end

local function add_event(job, kind, index, attempt, reason, message)
  job.sequence = job.sequence + 1
  local event, code = nil, EVENT_TYPES[kind]
  if reason then
    local text = reason .. ' ' .. message
    event = pack(TEXT_EVENT, code + 192, NOW, index and index + 1 or 0, attempt or 0, #text, text)
  elseif index then
    event = pack(TASK_EVENT, code + 64, NOW, index + 1, attempt)
  else
    event = pack(EVENT, code, NOW)
  end
  job.events = job.events .. event
end

-- new_job returns a job that isn't written yet, in a state that no other leads to.
local function new_job(id, project, priority, state, uploaded)
  local job = keep_job({
    state = state, run = 1, sequence = 0, base = 0, open = 0, lease_ms = 0, left = 0, stream = 0, count = 0, first = 0,
    priority = priority, uploaded = uploaded, project = project, weight = 0, done = 0, percent = 0, created = NOW,
    queued = 0, started = 0, planned = 0, playable = 0, finished = 0, progress = '', events = '', told = 0, tasks = {},
    changed = true,
  }, id, job_key(id))
  add_event(job, 'CREATED')
  return job
end

-- flush writes what was changed of jobs, and all that write_out writes.
local function flush()
  for _, job in ipairs(JOB_ORDER) do
    local changed = job.sequence ~= job.told
    if job.state ~= job.was then
      if job.was then zrem(index_of(job.project, job.was), job.id) end
      zadd(index_of(job.project, job.state), '0', job.id)
      job.was = job.state
    end
    if changed or job.changed then
      if job.sequence - job.base > EVENTS_BEHIND then
        append(APART, events_key(job.id), pack('>I6', job.base) .. job.events)
        job.base, job.events = job.sequence, ''
      end
      job.raw, job.changed = pack_job(job), nil
      set(job.key, job.raw)
      READ[job.key] = job.raw
    end
    if job.put then
      in_chunks(job.put, 'HSET', more_key(job.id))
      job.put = nil
    end
    if changed then
      note(job.id, job.sequence)
      job.told = job.sequence
    end
  end
  write_out()
end

-- move_job moves a job; false if the table forbids it.
local function move_job(job, by)
  local to = next_state('job', job.state, by)
  if not to then return false end
  job.state = to
  return true
end

-- drop_duties ends the duties that only hold for the state a job leaves.
local function drop_duties(job)
  append(list_of(ZREMS, DUTIES), 'PUBLISH|' .. job.id, 'CLEAN|' .. job.id)
  zrem(DUTIES, 'STREAM|' .. job.id)
end

-- make_playable notes, the first time, that a player can start.
local function make_playable(job)
  if job.playable > 0 then return end
  job.playable = NOW
  add_event(job, 'PLAYABLE')
end

-- end_job notes how a job ended, once it has moved there.
local function end_job(job, event, reason, message)
  job.finished = NOW
  zadd(ENDED, STAMP, job.id)
  if reason then put(job, 'f', cjson.encode({ reason = reason, message = message })) end
  add_event(job, event, nil, nil, reason, message)
  drop_duties(job)
  del(stream_key(job.id))
  -- What was published before its time is to go at once.
  if reason and job.playable > 0 then
    zadd(DUTIES, STAMP, 'STREAM|' .. job.id)
    due(NOW)
  end
end
