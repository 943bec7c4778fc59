-- Jobs: one string each, which changes as a whole: a line of numbers, a line
-- each of project, upload, source, failure and progress, two of the first
-- task, then the newest events. Jobs are loaded once per script, changed in
-- memory and written back by flush: however many changes, one value and one notice.
--
-- What isn't changed stays the text that it was read as: numbers that are
-- reckoned with are passed through tonumber where they are.
-- $include(write.lua)
-- $include(wake.lua)
-- $include(turn.lua)
-- $include(transitions.lua)
local MAX_EVENTS = 1000
local INLINE_EVENTS = 24 -- that a job keeps itself; more than these move to its list
-- Later than any URL that was signed for a lease: they live 5 minutes longer than it.
local CLEAN_AFTER = 6 * 60 * 1000
local LINES = '^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$'
local HEAD = '^' .. string.rep('(%S+) ', 18) .. '(%S+)$'
local JOBS, JOB_ORDER, NOTICES = {}, {}, {}

local function remember(job)
  JOBS[job.id] = job
  JOB_ORDER[#JOB_ORDER + 1] = job
  return job
end

local function parse_job(id, raw)
  local j = { id = id, tasks = {}, fields = {} }
  local head
  head, j.project, j.upload, j.source, j.failure, j.progress, j.status, j.definition, j.events = string.match(raw, LINES)
  j.state, j.run, j.sequence,
    j.count, j.first, j.open,          -- tasks over all runs; the run's first; those of it that aren't done
    j.priority, j.queued,              -- when; 0 if its source never came
    j.lease_ms, j.left,                -- the longest lease; 1 if an attempt that wasn't accepted may have left objects
    j.base,                            -- events that the list has, or had
    j.created, j.started, j.planned, j.playable, j.finished,
    j.weight, j.done, j.percent = string.match(head, HEAD) -- of the run: of all tasks, what of that is done
  j.sequence, j.open = tonumber(j.sequence), tonumber(j.open)
  j.was, j.told = j.state, j.sequence
  return remember(j)
end

local function new_job(id, state, project, priority, upload)
  return remember({
    id = id, state = state, run = 1, sequence = 0, count = 0, first = 0, open = 0, priority = priority, queued = 0,
    lease_ms = 0, left = 0, base = 0, created = STAMP, started = 0, planned = 0, playable = 0, finished = 0,
    weight = 0, done = 0, percent = 0, project = project, upload = upload, source = '', failure = '', progress = '',
    status = '', definition = '', events = '', tasks = {}, fields = {}, told = 0,
  })
end

-- load_jobs reads jobs at once, so that load_job finds them.
local function load_jobs(ids)
  local missing, keys = {}, {}
  for _, id in ipairs(ids) do
    if JOBS[id] == nil then
      JOBS[id] = false
      missing[#missing + 1] = id
      keys[#keys + 1] = job_key(id)
    end
  end
  for i, raw in ipairs(read(keys)) do
    if raw then parse_job(missing[i], raw) end
  end
end

local function load_job(id)
  if JOBS[id] == nil then load_jobs({ id }) end
  return JOBS[id] or nil
end

local function job_text(j)
  return j.state .. ' ' .. j.run .. ' ' .. j.sequence .. ' ' .. j.count .. ' ' .. j.first .. ' ' .. j.open .. ' '
    .. j.priority .. ' ' .. j.queued .. ' ' .. j.lease_ms .. ' ' .. j.left .. ' ' .. j.base .. ' '
    .. j.created .. ' ' .. j.started .. ' ' .. j.planned .. ' ' .. j.playable .. ' ' .. j.finished .. ' '
    .. j.weight .. ' ' .. j.done .. ' ' .. j.percent .. '\n'
    .. j.project .. '\n' .. j.upload .. '\n' .. j.source .. '\n' .. j.failure .. '\n' .. j.progress .. '\n'
    .. j.status .. '\n' .. j.definition .. '\n' .. j.events
end

-- add_event adds an event: type, ms, task index, attempt, reason, message, as far as there are.
local function add_event(job, kind, index, attempt, reason, message)
  job.sequence, job.changed = job.sequence + 1, true
  local e = kind .. ' ' .. STAMP
  if index or reason then
    e = e .. ' ' .. (index or '-') .. ' ' .. (attempt or '-')
    if reason then e = e .. ' ' .. reason .. ' ' .. string.gsub(string.gsub(message, '\\', '\\\\'), '\n', '\\n') end
  end
  job.events = job.events == '' and e or job.events .. '\n' .. e
end

-- move_events moves a job's events to its list.
local function move_events(job)
  local list = {}
  for e in string.gmatch(job.events, '[^\n]+') do list[#list + 1] = e end
  in_chunks(list, 'RPUSH', events_key(job.id))
  redis.call('LTRIM', events_key(job.id), -MAX_EVENTS, -1)
  job.base, job.events = job.sequence, ''
end

local function flush_job(job)
  if job.state ~= job.was then
    if job.was then zrem(index_key(job.project, job.was), job.id) end
    zadd(index_key(job.project, job.state), 0, job.id)
    job.was = job.state
  end
  if #job.fields > 0 then
    in_chunks(job.fields, 'HSET', tasks_key(job.id))
    job.fields = {}
  end
  if job.sequence - job.base > INLINE_EVENTS then move_events(job) end
  job.text, job.changed = job_text(job), false
  set(job_key(job.id), job.text)
  if job.sequence ~= job.told then
    -- Nobody can watch a job that is new.
    if job.told > 0 then NOTICES[#NOTICES + 1] = job end
    job.told = job.sequence
  end
end

-- subscribed reports of each channel whether somebody listens, as far as this
-- server knows; nil where it doesn't tell.
local function subscribed(channels)
  local watched = {}
  if #channels == 0 then return watched end
  local counts = redis.pcall('PUBSUB', 'NUMSUB', unpack(channels))
  if counts.err then return nil end
  for i = 1, #counts, 2 do watched[counts[i]] = tonumber(counts[i + 1]) > 0 end
  return watched
end

-- publish_notices tells of the jobs that changed: of an end always, of other
-- changes where somebody listens.
local function publish_notices()
  for from = 1, #NOTICES, 1000 do
    local channels = {}
    for i = from, math.min(from + 999, #NOTICES) do channels[#channels + 1] = job_channel(NOTICES[i].id) end
    local watched = subscribed(channels)
    for i, channel in ipairs(channels) do
      local job = NOTICES[from + i - 1]
      if not watched or watched[channel] or job.finished ~= '0' and job.finished ~= 0 then
        redis.call('PUBLISH', channel, 'q ' .. job.sequence)
      end
    end
  end
  NOTICES = {}
end

local function flush()
  for _, job in ipairs(JOB_ORDER) do
    if job.changed then flush_job(job) end
  end
  settle_projects()
  write_all()
  publish_notices()
  publish_wakes()
end

-- move_job moves a job; false if the table forbids it.
local function move_job(job, by)
  local to = next_state('job', job.state, by)
  if not to then return false end
  job.state, job.changed = to, true
  return true
end

-- drop_duties ends the duties that only hold for the state a job leaves.
local function drop_duties(job)
  zrem(DUTIES, 'PUBLISH|' .. job.id)
  zrem(DUTIES, 'CLEAN|' .. job.id)
end

-- clean_later leaves the duty to remove what no output names.
local function clean_later(job)
  local at = NOW + tonumber(job.lease_ms) + CLEAN_AFTER
  zadd(DUTIES, at, 'CLEAN|' .. job.id)
  due(at)
end

-- end_job notes how a job ended, once it has moved there.
local function end_job(job, event, reason, message)
  job.finished = STAMP
  zadd(ENDED, STAMP, job.id)
  if reason then job.failure = cjson.encode({ reason = reason, message = message }) end
  add_event(job, event, nil, nil, reason, message)
  drop_duties(job)
end
