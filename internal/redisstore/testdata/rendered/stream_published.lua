-- Notes what was published of a job's stream and ends the duty to do so, which comes again if there is more by now.
-- KEYS  common; 14 stream. Derived: the job.
-- ARGV  prefix, job id, run, how many commits were published, 1 if a player can start else 0, what is shown JSON
-- Returns  {'', 1 if the job is RUNNING in that run else 0}
-- Replay   the same; the job is playable once.
-- Streams: what is committed of a run before its tasks are done. A hash: n how
-- many commits there are, 1 to n these, JSON; k<i> of task i how many segments
-- of each rendition; at when it was published, shown what was, JSON.
-- Tasks, each one packed string (TASK): the first of a job within its job,
-- the others in t:<job>-<index>. Of tasks x:<job> has f<i>, the indexes of
-- those that wait for it, if any; and a<i>, its attempts that ended without a
-- result, JSON. In queues and keys a task is named by member(): its index is
-- padded, so that equal scores sort by it.
-- Jobs. j:<job> is what changes of a job, one packed string (JOB): its own
-- fields, its first task as in task.lua, and behind them its newest events
-- (EVENT), those after base. Older ones are in e:<job>, each a chunk of what
-- was behind once: the sequence before its first event, and the events; the
-- newest 1,000 are there. x:<job> has what few jobs have: f failure JSON, up
-- its upload, sr size and etag of its source; and of tasks: see task.lua.
--
-- A job is loaded once per script, changed in memory and written back by
-- flush: however many changes, one string and one notice.
-- Strings are read together where a script knows beforehand which it needs.
-- Every script gets these keys first, and the deployment's prefix (its hash
-- tag and a colon) as ARGV[1]. The keys of jobs, workers and indexes that are
-- only known once a queue was read are derived from the prefix, below the
-- same hash tag.
local CLOCK, SWEEP, LEASES, DELAYED, DUTIES, UPLOADS, WORKERS = unpack(KEYS, 1, 7)
local RING, PARKED, PAST, TURNS, ENDED, HELD = unpack(KEYS, 8, 13)
local PREFIX = ARGV[1]

local function job_key(id) return PREFIX .. 'j:' .. id end -- what changes of a job, packed: see job.lua
local function task_key(m) return PREFIX .. 't:' .. m end -- a task but the first, packed: see task.lua
local function more_key(id) return PREFIX .. 'x:' .. id end -- hash: what few jobs have and few scripts need
local function events_key(id) return PREFIX .. 'e:' .. id end -- list: older events, packed
local function spec_key(id) return PREFIX .. 'd:' .. id end -- JSON: what never changes
local function probe_key(id) return PREFIX .. 'b:' .. id end -- JSON
local function plan_key(id) return PREFIX .. 'g:' .. id end -- JSON
local function result_key(m) return PREFIX .. 'r:' .. m end -- JSON, of a task
local function outputs_key(id) return PREFIX .. 'o:' .. id end -- JSON
local function summary_key(id) return PREFIX .. 's:' .. id end -- JSON: outputs without their objects
local function stream_key(id) return PREFIX .. 'c:' .. id end -- hash: see stream.lua
local function upload_key(id) return PREFIX .. 'u:' .. id end
local function worker_key(id) return PREFIX .. 'w:' .. id end
local function machine_workers_key(id) return PREFIX .. 'mw:' .. id end
local function queue_key(project) return PREFIX .. 'q:' .. project end -- zset: its ready tasks
local function index_key(project, state) return PREFIX .. 'i:' .. project .. ':' .. state end
local function job_channel(id) return PREFIX .. 'n:' .. id end
local WAKE_CHANNEL = PREFIX .. 'wake'
local READ = {} -- by key: its value, false if there is none

-- read_all reads the strings of keys by one command, however many there are.
local function read_all(keys)
  for from = 1, #keys, 2000 do
    local to = math.min(from + 1999, #keys)
    local values = redis.call('MGET', unpack(keys, from, to))
    for i = from, to do READ[keys[i]] = values[i - from + 1] end
  end
end

-- read returns a string; false if there is none.
local function read(key)
  local value = READ[key]
  if value == nil then
    value = redis.call('GET', key)
    READ[key] = value
  end
  return value
end
-- A script reads and decides first and writes last, each sorted set in one
-- command, however many requests the call has; and a script that fails in
-- between changed nothing.
-- NOW is the time of this script in milliseconds: Redis's clock. Tests move it
-- (CLOCK is by how many ms) or stop it (CLOCK is = and a moment). STAMP is NOW as text.
local function read_clock()
  local test = redis.call('GET', CLOCK)
  local stopped = test and string.match(test, '^=(%d+)$')
  if stopped then return tonumber(stopped) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000) + (tonumber(test) or 0)
end
local NOW = read_clock()
local STAMP = string.format('%.0f', NOW)
local DEADLINES = {} -- by ms from now

-- deadline_text is a time from now as a score.
local function deadline_text(ms)
  local text = DEADLINES[ms]
  if not text then
    text = string.format('%.0f', NOW + ms)
    DEADLINES[ms] = text
  end
  return text
end
local SETS, DELS, ZREMS, ZADDS = {}, {}, {}, {}

local function append(list, a, b)
  local n = #list
  list[n + 1], list[n + 2] = a, b
end

local function list_of(lists, key)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  return list
end

local function set(key, value) append(SETS, key, value) end
local function del(key) append(DELS, key) end
local function zadd(key, score, member) append(list_of(ZADDS, key), score, member) end
local function zrem(key, member) append(list_of(ZREMS, key), member) end

-- in_chunks calls a command with a long list of arguments, few enough at a time for unpack.
local function in_chunks(list, ...)
  local a, b, c = ...
  for from = 1, #list, 2000 do
    local to = math.min(from + 1999, #list)
    if c then
      redis.call(a, b, c, unpack(list, from, to))
    elseif b then
      redis.call(a, b, unpack(list, from, to))
    else
      redis.call(a, unpack(list, from, to))
    end
  end
end

-- write_all writes what was noted. What is removed from a sorted set and added to it stays.
local function write_all()
  in_chunks(DELS, 'DEL')
  in_chunks(SETS, 'MSET')
  for key, list in pairs(ZREMS) do in_chunks(list, 'ZREM', key) end
  for key, list in pairs(ZADDS) do in_chunks(list, 'ZADD', key) end
  SETS, DELS, ZREMS, ZADDS = {}, {}, {}, {}
end
-- Wake-ups are collected and published once, at the end of a script.
local WAKES = {}
local EARLIEST -- the earliest deadline that this script set

local function due(at)
  if not EARLIEST or at < EARLIEST then EARLIEST = at end
end

local function publish_wakes()
  if EARLIEST then
    local next_sweep = tonumber(redis.call('HGET', SWEEP, 'next'))
    if not next_sweep or EARLIEST < next_sweep then
      redis.call('HSET', SWEEP, 'next', EARLIEST)
      WAKES.DUE = true
    end
  end
  for wake in pairs(WAKES) do redis.call('PUBLISH', WAKE_CHANNEL, wake) end
  WAKES, EARLIEST = {}, nil
end
-- Whose turn it is. Each project has a queue of its ready tasks, best first.
-- RING has the projects with ready tasks by the priority of their best task,
-- then by tag; the first is served, one task, and its tag rises by one. That
-- is start-time fair queueing: within a priority projects take turns, however
-- much one has and however it comes. A project that comes to the ring starts
-- at the tag that was served last, or behind its own last task if that is
-- later (PAST keeps it until then), so it gains nothing by leaving.
--
-- A project that has as many leases as it may isn't in RING but in PARKED,
-- until one of them ends. TURNS has the limit that the last claim told, the
-- number of leases of each project (r<project>), and the tag that was served
-- last at each priority (v<band>).
local TAG = 17592186044416   -- 2^44: a score in RING is band * TAG + tag, 52 bits
local BAND = 2199023255552   -- 2^41: a score in a queue is band * BAND + ms, 49 bits
local EPOCH = 1577836800000  -- 2020-01-01
local PROJECTS, PROJECT_ORDER = {}, {}
local LIMIT
local SERVED = {} -- by band

local function score_text(score) return string.format('%.0f', score) end

-- band_of is the place of a priority: the best is 0.
local function band_of(priority) return 100 - priority end

local function project_of(name)
  local p = PROJECTS[name]
  if not p then
    p = { name = name, add = {}, drop = {}, leased = 0 }
    PROJECTS[name] = p
    PROJECT_ORDER[#PROJECT_ORDER + 1] = p
  end
  return p
end

local function queue_add(name, priority, queued, m)
  local p, band = project_of(name), band_of(priority)
  append(p.add, score_text(band * BAND + (queued - EPOCH)), m)
  if not p.band or band < p.band then p.band = band end
end

local function queue_drop(name, m) append(project_of(name).drop, m) end

-- count_leases notes that leases of a project began or ended.
local function count_leases(name, n)
  local p = project_of(name)
  p.leased = p.leased + n
end

local function running_limit()
  LIMIT = LIMIT or tonumber(redis.call('HGET', TURNS, 'limit')) or 0
  return LIMIT
end

local function running_of(name) return tonumber(redis.call('HGET', TURNS, 'r' .. name)) or 0 end

local function served_at(band)
  SERVED[band] = SERVED[band] or tonumber(redis.call('HGET', TURNS, 'v' .. band)) or 0
  return SERVED[band]
end

-- leave_band keeps the tag of a project that leaves a band, while it is ahead of what was served.
local function leave_band(name, band, tag)
  if tag > served_at(band) then redis.call('ZADD', PAST, score_text(band * TAG + tag), band .. '|' .. name) end
end

-- join_band is the tag with which a project comes to a band.
local function join_band(name, band)
  local past = tonumber(redis.call('ZSCORE', PAST, band .. '|' .. name))
  return math.max(served_at(band), past and past - band * TAG or 0)
end

-- place puts a project where it belongs after its queue or its leases changed.
local function place(p, running)
  local name, queue, limit = p.name, queue_key(p.name), running_limit()
  local queued = #p.add > 0 or #p.drop > 0
  local at, parked = queued and tonumber(redis.call('ZSCORE', RING, name)) or nil, false
  if not at and limit > 0 then
    at = tonumber(redis.call('ZSCORE', PARKED, name))
    parked = at and true
  end
  if not at and not queued then return end
  local old = at and math.floor(at / TAG)
  local band = old
  if #p.drop > 0 then
    local head = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
    band = head[2] and math.floor(tonumber(head[2]) / BAND)
  elseif p.band and (not band or p.band < band) then
    band = p.band
  end

  local full = band and limit > 0 and (running or running_of(name)) >= limit
  local tag
  if band and band == old then
    tag = at - band * TAG
    if parked and not full then tag = math.max(tag, served_at(band)) end
  else
    if old then leave_band(name, old, at - old * TAG) end
    if band then tag = join_band(name, band) end
  end
  if at and (not band or parked ~= (full or false)) then redis.call('ZREM', parked and PARKED or RING, name) end
  if not band then return end
  local score = band * TAG + tag
  if full then
    redis.call('ZADD', PARKED, score_text(score), name)
  else
    if score ~= at or parked then redis.call('ZADD', RING, score_text(score), name) end
    if #p.add > 0 or parked then WAKES.READY = true end
  end
end

-- settle_projects writes what changed of queues and leases.
local function settle_projects()
  for _, p in ipairs(PROJECT_ORDER) do
    local running
    if p.leased ~= 0 then
      running = redis.call('HINCRBY', TURNS, 'r' .. p.name, p.leased)
      if running <= 0 then redis.call('HDEL', TURNS, 'r' .. p.name) end
    end
    if #p.add > 0 then in_chunks(p.add, 'ZADD', queue_key(p.name)) end
    if #p.drop > 0 then in_chunks(p.drop, 'ZREM', queue_key(p.name)) end
    if #p.add > 0 or #p.drop > 0 or p.leased < 0 and running_limit() > 0 then place(p, running) end
  end
  PROJECTS, PROJECT_ORDER = {}, {}
end
-- Code generated by genstate from internal/pipeline/state.go. DO NOT EDIT.
-- NEXT[machine][from][by] is the state that follows, nil if none does.
local NEXT = {
  job = {
    UPLOADING = { ['uploaded'] = 'PENDING', ['upload_failed'] = 'FAILED', ['cancel'] = 'CANCELED' },
    PENDING = { ['start'] = 'RUNNING', ['cancel'] = 'CANCELED' },
    RUNNING = { ['complete'] = 'COMPLETED', ['fail'] = 'FAILED', ['cancel'] = 'CANCELED' },
    FAILED = { ['retry'] = 'PENDING' },
    CANCELED = { ['retry'] = 'PENDING' },
  },
  task = {
    BLOCKED = { ['unblock'] = 'READY', ['cancel'] = 'CANCELED' },
    READY = { ['lease'] = 'LEASED', ['cancel'] = 'CANCELED' },
    LEASED = { ['finish'] = 'DONE', ['release'] = 'READY', ['lose'] = 'READY', ['retry'] = 'DELAYED', ['kill'] = 'DEAD', ['cancel'] = 'CANCELED' },
    DELAYED = { ['wake'] = 'READY', ['cancel'] = 'CANCELED' },
  },
  upload = {
    OPEN = { ['complete'] = 'COMPLETED', ['abort'] = 'ABORTED', ['expire'] = 'EXPIRED', ['fail'] = 'FAILED' },
  },
  machine = {
    CREATING = { ['created'] = 'STARTING', ['break'] = 'FAILED' },
    STARTING = { ['attach'] = 'RUNNING', ['break'] = 'FAILED' },
    RUNNING = { ['drain'] = 'DRAINING', ['stop'] = 'STOPPING', ['exit'] = 'STOPPED', ['break'] = 'FAILED' },
    DRAINING = { ['stop'] = 'STOPPING', ['exit'] = 'STOPPED', ['break'] = 'FAILED' },
    STOPPING = { ['exit'] = 'STOPPED', ['break'] = 'FAILED' },
    STOPPED = { ['start'] = 'STARTING', ['destroy'] = 'DESTROYED' },
    FAILED = { ['destroy'] = 'DESTROYED' },
  },
}

local function next_state(machine, from, by)
  local row = NEXT[machine][from]
  return row and row[by]
end
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
-- HELD: what each worker holds, as "<worker> <member>", in the order of these.

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
local MAX_ATTEMPTS_KEPT = 16
-- A task that spoils every machine, or finds none that works, would go round for ever.
local MAX_MACHINE_FAULTS = 10
local TASK = '>Bc0BI6I2I3I6I2I2I2I3ddI6BBc0I2c0'

local function member(id, index) return string.format('%s-%05d', id, index) end

local function parse_member(m)
  local n = #m
  if string.sub(m, n - 5, n - 5) == '-' then return string.sub(m, 1, n - 6), string.sub(m, n - 4) + 0 end
  local id, index = string.match(m, '^(.*)%-(%d+)$') -- 100,000 or more
  return id, tonumber(index)
end

local function read_task(raw, m)
  local state, last, ended, run, n, at, charged, losses, spoilt, waits, weight, told, kept, follow, by, definition =
    unpack_struct(TASK, raw)
  return {
    s = state, m = m,
    last = last,               -- 1: it was the last of its run
    ended = ended,             -- when it was done
    run = run,
    n = n,                     -- newest attempt
    at = at,                   -- when that began; of a DELAYED task, when it wakes
    charged = charged, losses = losses,
    spoilt = spoilt,           -- attempts in a row that a machine spoilt
    waits = waits,             -- for tasks
    weight = weight,           -- its share of the job's progress
    told = told, kept = kept,  -- fraction of the attempt, and when that was stored
    follow = follow,           -- 1: f<i> is there
    by = by,                   -- worker of the attempt
    definition = definition,   -- JSON: what it is
  }
end

-- load_task returns a task by its index, or nil; its member where the caller has it.
local function load_task(job, index, m)
  local t = job.tasks[index]
  if t then return t end
  m = m or member(job.id, index)
  local raw
  if index == 0 then
    raw = job.first_task ~= '' and job.first_task
  else
    raw = read(task_key(m))
  end
  if not raw then return nil end
  t = read_task(raw, m)
  job.tasks[index] = t
  return t
end

local function save_task(job, index, t)
  local raw = pack(TASK, #t.s, t.s, t.last, t.ended, t.run, t.n, t.at, t.charged, t.losses, t.spoilt, t.waits, t.weight,
    t.told, t.kept, t.follow, #t.by, t.by, #t.definition, t.definition)
  job.tasks[index] = t
  if index == 0 then
    job.first_task, job.changed = raw, true
  else
    set(task_key(t.m), raw)
    READ[task_key(t.m)] = raw
  end
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
      s = waits == 0 and 'READY' or 'BLOCKED', m = member(job.id, index), last = 0, ended = 0, run = job.run, n = 0,
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

local function attempts_of(job, index)
  local raw = redis.call('HGET', more_key(job.id), 'a' .. index)
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
    n = t.n, by = t.by, at = t.at, to = NOW, oc = outcome, rs = reason, ms = message, ch = charged or nil,
  }
  while #list > MAX_ATTEMPTS_KEPT do table.remove(list, 1) end
  put(job, 'a' .. index, cjson.encode(list))
  drop_lease(job, t.m, t.by)
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

-- cancel_tasks ends every task of the run that hasn't ended.
local function cancel_tasks(job)
  read_tasks(job, job.first)
  for index = job.first, job.count - 1 do
    local t = load_task(job, index)
    local to = next_state('task', t.s, 'cancel')
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
  local t = job and load_task(job, index, m)
  if t and t.s == 'LEASED' then return job, index, t end
end

-- lease_rows returns leases as a reader needs them, of a list of member and
-- deadline: {member, deadline, job, its task if it isn't the first, spec JSON,
-- attempts JSON, sr, probe JSON, plan JSON}, jobs and tasks as they are stored.
-- Call it after flush.
local function lease_rows(list)
  local keys = {}
  -- Of a job that starts there is no more to read, unless its source was uploaded.
  local function starts(job, index, t) return index == 0 and t.n == 1 and job.uploaded == 0 end
  for i = 1, #list, 2 do
    local job, index, t = leased_task(list[i])
    keys[#keys + 1] = spec_key(job.id)
    if not starts(job, index, t) then append(keys, probe_key(job.id), plan_key(job.id)) end
  end
  read_all(keys)
  local rows = {}
  for i = 1, #list, 2 do
    local m = list[i]
    local job, index, t = leased_task(m)
    local row = { m, list[i + 1], job.raw, index > 0 and read(task_key(m)) or '', read(spec_key(job.id)), '', '', '', '' }
    if not starts(job, index, t) then
      local v = redis.call('HMGET', more_key(job.id), 'a' .. index, 'sr')
      row[6], row[7], row[8], row[9] = v[1] or '', v[2] or '', read(probe_key(job.id)) or '', read(plan_key(job.id)) or ''
    end
    rows[#rows + 1] = row
  end
  return rows
end
local STREAM_EVERY = 1000

local function stream_duty(id) return 'STREAM|' .. id end
local job = load_job(ARGV[2])
local duty = stream_duty(ARGV[2])
if job and job.run ~= tonumber(ARGV[3]) then return { '', 0 } end
if not job or job.state ~= 'RUNNING' then
  redis.call('ZREM', DUTIES, duty)
  return { '', 0 }
end
redis.call('HSET', KEYS[14], 'at', STAMP, 'shown', ARGV[6])
if ARGV[5] == '1' then make_playable(job) end
if (redis.call('HGET', KEYS[14], 'n') or 0) + 0 > ARGV[4] + 0 then
  zadd(DUTIES, score_text(NOW + STREAM_EVERY), duty)
  due(NOW + STREAM_EVERY)
else
  zrem(DUTIES, duty)
end
flush()
return { '', 1 }
