-- Jobs: a hash each. Redis searches a small hash from its beginning, so the
-- fields that most scripts need come first and hold many values each:
-- h state, run, sequence, open, lease ms, left, count, first, priority,
-- uploaded; p project; s0 its first task; ti its times, each a letter and ms:
-- created, queued, started, planned, playable (y), finished; g weight, done, percent. Then what
-- fewer need: tasks (see task.lua), e<n> its newest 1,000 events, pg progress,
-- f failure JSON, up its upload, sr size and etag of its source.
--
-- A job is loaded once per script, changed in memory and written back by
-- flush: however many changes, one HSET and one notice.
-- $include(write.lua)
-- $include(wake.lua)
-- $include(turn.lua)
-- $include(transitions.lua)
local MAX_EVENTS = 1000
-- Later than any URL that was signed for a lease: they live 5 minutes longer than it.
local CLEAN_AFTER = 6 * 60 * 1000
local JOBS, JOB_ORDER = {}, {}

local function put(job, field, value)
  local list = job.put
  local n = #list
  list[n + 1], list[n + 2] = field, value
end

local HEAD = '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$'

-- load_job returns a job, nil if there is none; and up to two other fields of
-- it, if it wasn't loaded before.
local function load_job(id, field, other)
  local job = JOBS[id]
  if job then
    if not field then return job end
    local v = redis.call('HMGET', job.key, field, other or field)
    return job, v[1], v[2]
  end
  local key = job_key(id)
  local v
  if field then
    v = redis.call('HMGET', key, 'h', 'p', 'ti', 'g', field, other or field)
  else
    v = redis.call('HMGET', key, 'h', 'p', 'ti', 'g')
  end
  if not v[1] then return nil end
  local state, run, sequence, open, lease_ms, left, count, first, priority, uploaded = string.match(v[1], HEAD)
  sequence = sequence + 0
  job = {
    id = id, key = key, project = v[2], state = state, was = state, run = run, sequence = sequence, told = sequence,
    open = open + 0,         -- tasks of the run that aren't done
    lease_ms = lease_ms + 0, -- the longest that was given
    left = left,             -- 1: an attempt that wasn't accepted may have left objects
    count = count,           -- of tasks over all runs
    first = first,           -- index of the run's first task
    priority = priority,
    uploaded = uploaded,     -- 1: up names its upload
    times_text = v[3], gauge_text = v[4], put = {}, tasks = {},
  }
  JOBS[id] = job
  JOB_ORDER[#JOB_ORDER + 1] = job
  return job, v[5], v[6]
end

local function head_text(j)
  return j.state .. ' ' .. j.run .. ' ' .. j.sequence .. ' ' .. j.open .. ' ' .. j.lease_ms .. ' ' .. j.left .. ' '
    .. j.count .. ' ' .. j.first .. ' ' .. j.priority .. ' ' .. j.uploaded
end

-- add_time notes when a job came to a stage, by the stage's first letter.
local function add_time(job, letter)
  job.times_text = job.times_text .. ' ' .. letter .. STAMP
  put(job, 'ti', job.times_text)
end

local function time_of(job, letter) return string.match(job.times_text, letter .. '(%d+)') end

local function queued_at(job) return time_of(job, 'q') end

-- gauge_of returns the weight of all tasks of a run, what of that is done, in part or whole, and the percent.
local function gauge_of(job)
  local weight, done, percent = string.match(job.gauge_text, '^(%S+) (%S+) (%S+)$')
  return weight + 0, done + 0, percent + 0
end

local function set_gauge(job, weight, done, percent)
  job.gauge_text = weight .. ' ' .. done .. ' ' .. percent
  put(job, 'g', job.gauge_text)
end

-- add_event adds an event: type, ms, task index, attempt, reason, message, as far as there are.
local function add_event(job, kind, index, attempt, reason, message)
  job.sequence = job.sequence + 1
  local e = kind .. ' ' .. STAMP
  if index then
    e = e .. ' ' .. index .. ' ' .. attempt
  elseif reason then
    e = e .. ' - -'
  end
  if reason then e = e .. ' ' .. reason .. ' ' .. message end
  put(job, 'e' .. job.sequence, e)
  if job.sequence > MAX_EVENTS then
    job.drop = job.drop or {}
    job.drop[#job.drop + 1] = 'e' .. job.sequence - MAX_EVENTS
  end
end

local INDEXES = {} -- keys by state, by project

local function index_of(project, state)
  local keys = list_of(INDEXES, project)
  local key = keys[state] or index_key(project, state)
  keys[state] = key
  return key
end

local function flush_job(job)
  local changed = job.sequence ~= job.told
  if job.state ~= job.was then
    zrem(index_of(job.project, job.was), job.id)
    zadd(index_of(job.project, job.state), 0, job.id)
    job.was = job.state
  end
  if changed then put(job, 'h', head_text(job)) end
  if #job.put > 0 then
    in_chunks(job.put, 'HSET', job.key)
    job.put = {}
  end
  if job.drop then
    in_chunks(job.drop, 'HDEL', job.key)
    job.drop = nil
  end
  if changed then
    redis.call('PUBLISH', job_channel(job.id), 'q ' .. job.sequence)
    job.told = job.sequence
  end
end

local function flush()
  for _, job in ipairs(JOB_ORDER) do flush_job(job) end
  settle_projects()
  write_all()
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
  zadd(DUTIES, at, 'CLEAN|' .. job.id)
  due(at)
end

-- make_playable notes, the first time, that a player can start.
local function make_playable(job)
  if time_of(job, 'y') then return end
  add_time(job, 'y')
  add_event(job, 'PLAYABLE')
end

-- end_job notes how a job ended, once it has moved there.
local function end_job(job, event, reason, message)
  add_time(job, 'f')
  zadd(ENDED, STAMP, job.id)
  if reason then put(job, 'f', cjson.encode({ reason = reason, message = message })) end
  add_event(job, event, nil, nil, reason, message)
  drop_duties(job)
  del(stream_key(job.id))
  -- What was published before its time is to go at once.
  if reason and time_of(job, 'y') then
    zadd(DUTIES, STAMP, 'STREAM|' .. job.id)
    due(NOW)
  end
end

-- job_row is what a reader needs of a job's changing half.
local function job_row(key)
  return redis.call('HMGET', key, 'h', 'p', 'ti', 'g', 'pg', 'f', 'sr')
end
