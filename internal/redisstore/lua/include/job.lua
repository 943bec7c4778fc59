-- Jobs. j:<job> is what changes of a job, one packed string (JOB): its own
-- fields, its first task as in task.lua, and behind them its newest events
-- (EVENT), those after base. Older ones are in e:<job>, each a chunk of what
-- was behind once: the sequence before its first event, and the events; the
-- newest 1,000 are there. x:<job> has what few jobs have: f failure JSON, up
-- its upload, sr size and etag of its source; and of tasks: see task.lua.
--
-- A job is loaded once per script, changed in memory and written back by
-- flush: however many changes, one string and one notice.
-- $include(read.lua)
-- $include(write.lua)
-- $include(wake.lua)
-- $include(turn.lua)
-- $include(transitions.lua)
local JOB = '>Bc0I2I4I4I4I6BI4I4i2BI2c0dddI6I6I6I6I6I6Bc0I2c0'
local EVENT = '>BI6I3I3I3c0' -- type, ms, index of the task + 1 (0: none), attempt, reason and message
local EVENT_TYPES = {
  CREATED = 1, QUEUED = 2, STARTED = 3, PLANNED = 4, PLAYABLE = 5, COMPLETED = 6, FAILED = 7, CANCELED = 8,
  RETRIED = 9, TASK_LEASED = 10, TASK_DONE = 11, TASK_DELAYED = 12, TASK_DEAD = 13,
}
local EVENTS_BEHIND = 50 -- a job at most, and in each chunk at least
local EVENT_CHUNKS = 20
-- Later than any URL that was signed for a lease: they live 5 minutes longer than it.
local CLEAN_AFTER = 6 * 60 * 1000
local JOBS, JOB_ORDER = {}, {}
local pack, unpack_struct = struct.pack, struct.unpack

-- put changes a field of x:<job>.
local function put(job, field, value)
  job.put = job.put or {}
  append(job.put, field, value)
end

local function read_job(raw)
  local state, run, sequence, base, open, lease_ms, left, count, first, priority, uploaded, project, weight, done, percent,
    created, queued, started, planned, playable, finished, progress, first_task, at = unpack_struct(JOB, raw)
  return {
    state = state, run = run, sequence = sequence, base = base,
    open = open,         -- tasks of the run that aren't done
    lease_ms = lease_ms, -- the longest that was given
    left = left,         -- 1: an attempt that wasn't accepted may have left objects
    count = count,       -- of tasks over all runs
    first = first,       -- index of the run's first task
    priority = priority,
    uploaded = uploaded, -- 1: up names its upload
    project = project,
    weight = weight,     -- of all tasks of the run
    done = done,         -- what of that is done, in part or whole
    percent = percent,
    created = created, queued = queued, started = started, planned = planned, playable = playable, -- ms, 0: not yet
    finished = finished,
    progress = progress, -- media time, speed, fps, time left
    first_task = first_task, events = string.sub(raw, at), raw = raw, was = state, told = sequence, tasks = {},
  }
end

local function pack_job(j)
  return pack(JOB, #j.state, j.state, j.run, j.sequence, j.base, j.open, j.lease_ms, j.left, j.count, j.first, j.priority,
    j.uploaded, #j.project, j.project, j.weight, j.done, j.percent, j.created, j.queued, j.started, j.planned, j.playable,
    j.finished, #j.progress, j.progress, #j.first_task, j.first_task) .. j.events
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
  return raw and keep_job(read_job(raw), id, key) or nil
end

local function job_exists(id) return JOBS[id] or read(job_key(id)) and true end

local function set_gauge(job, weight, done, percent)
  job.weight, job.done, job.percent, job.changed = weight, done, percent, true
end

local function add_event(job, kind, index, attempt, reason, message)
  job.sequence = job.sequence + 1
  local text = reason and reason .. ' ' .. message or ''
  job.events = job.events .. pack(EVENT, EVENT_TYPES[kind], NOW, index and index + 1 or 0, attempt or 0, #text, text)
end

-- new_job returns a job that isn't written yet, in a state that no other leads to.
local function new_job(id, project, priority, state, uploaded)
  local job = keep_job({
    state = state, run = 1, sequence = 0, base = 0, open = 0, lease_ms = 0, left = 0, count = 0, first = 0,
    priority = priority, uploaded = uploaded, project = project, weight = 0, done = 0, percent = 0, created = NOW,
    queued = 0, started = 0, planned = 0, playable = 0, finished = 0, progress = '', first_task = '', events = '', told = 0, tasks = {},
    changed = true,
  }, id, job_key(id))
  add_event(job, 'CREATED')
  return job
end

local INDEXES = {} -- keys by state, by project

local function index_of(project, state)
  local keys = list_of(INDEXES, project)
  local key = keys[state] or index_key(project, state)
  keys[state] = key
  return key
end

-- put_by keeps the oldest events of a job apart.
local function put_by(job)
  local key = events_key(job.id)
  redis.call('RPUSH', key, pack('>I6', job.base) .. job.events)
  redis.call('LTRIM', key, -EVENT_CHUNKS, -1)
  job.base, job.events = job.sequence, ''
end

local function flush()
  local notices
  for _, job in ipairs(JOB_ORDER) do
    local changed = job.sequence ~= job.told
    if job.state ~= job.was then
      if job.was then zrem(index_of(job.project, job.was), job.id) end
      zadd(index_of(job.project, job.state), '0', job.id)
      job.was = job.state
    end
    if changed or job.changed then
      if job.sequence - job.base > EVENTS_BEHIND then put_by(job) end
      job.raw, job.changed = pack_job(job), nil
      set(job.key, job.raw)
    end
    if job.put then
      in_chunks(job.put, 'HSET', more_key(job.id))
      job.put = nil
    end
    if changed then
      notices = notices or {}
      append(notices, job, job.sequence)
      job.told = job.sequence
    end
  end
  settle_projects()
  write_all()
  for i = 1, notices and #notices or 0, 2 do
    redis.call('PUBLISH', job_channel(notices[i].id), 'q ' .. notices[i + 1])
  end
  publish_wakes()
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

-- clean_later leaves the duty to remove what no output names.
local function clean_later(job)
  local at = NOW + job.lease_ms + CLEAN_AFTER
  zadd(DUTIES, score_text(at), 'CLEAN|' .. job.id)
  due(at)
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
