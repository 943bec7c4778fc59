-- Moves an open upload to COMPLETED and its job to PENDING with its first task ready.
-- KEYS  common; 14 upload. Derived: the upload's job, its index and its project's queue.
-- ARGV  prefix, upload id, size and etag, first task JSON
-- Returns  {'', upload id, upload row} | {'UPLOAD_NOT_FOUND' | 'UPLOAD_EXPIRED' | 'UPLOAD_ABORTED' | 'UPLOAD_SIZE_MISMATCH'}
-- Replay   a COMPLETED upload is returned as it is.
-- Uploads: one hash each.
-- Jobs: one string each, which changes as a whole: a line of numbers, a line
-- each of project, upload, source, failure and progress, two of the first
-- task, then the newest events. Jobs are loaded once per script, changed in
-- memory and written back by flush: however many changes, one value and one notice.
--
-- What isn't changed stays the text that it was read as: numbers that are
-- reckoned with are passed through tonumber where they are.
-- A script reads and decides first and writes last, all records in one MSET
-- and each sorted set in one ZADD: however many requests one call has, it
-- costs few commands; and a script that fails in between changed nothing.
-- NOW is the time of this script in milliseconds: Redis's clock, and what
-- tests moved it by. STAMP is NOW as text.
-- Every script gets these keys first, and the deployment's prefix (its hash
-- tag and a colon) as ARGV[1]. The keys of jobs, workers and indexes that are
-- only known once a queue was read are derived from the prefix, below the
-- same hash tag.
local CLOCK, SWEEP, LEASES, DELAYED, DUTIES, UPLOADS, WORKERS = unpack(KEYS, 1, 7)
local RING, PARKED, PAST, TURNS, ENDED, HELD = unpack(KEYS, 8, 13)
local PREFIX = ARGV[1]

local function job_key(id) return PREFIX .. 'j:' .. id end -- what changes of a job
local function spec_key(id) return PREFIX .. 'd:' .. id end -- JSON: what never changes
local function tasks_key(id) return PREFIX .. 't:' .. id end -- hash: its tasks but the first, attempts that failed
local function events_key(id) return PREFIX .. 'e:' .. id end -- list: its older events
local function probe_key(id) return PREFIX .. 'b:' .. id end -- JSON
local function plan_key(id) return PREFIX .. 'g:' .. id end -- JSON
local function result_key(id, index) return PREFIX .. 'r:' .. id .. '-' .. index end -- JSON, of a task
local function outputs_key(id) return PREFIX .. 'o:' .. id end -- JSON
local function summary_key(id) return PREFIX .. 's:' .. id end -- JSON: outputs without their objects
local function upload_key(id) return PREFIX .. 'u:' .. id end
local function worker_key(id) return PREFIX .. 'w:' .. id end
local function machine_workers_key(id) return PREFIX .. 'mw:' .. id end
local function queue_key(project) return PREFIX .. 'q:' .. project end -- zset: its ready tasks
local function index_key(project, state) return PREFIX .. 'i:' .. project .. ':' .. state end
local function job_channel(id) return PREFIX .. 'n:' .. id end
local WAKE_CHANNEL = PREFIX .. 'wake'
local function read_clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000) + (tonumber(redis.call('GET', CLOCK)) or 0)
end
local NOW = read_clock()
local STAMP = string.format('%.0f', NOW)
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
  local command = { ... }
  local n = #command
  for from = 1, #list, 2000 do
    for i = n + 1, #command do command[i] = nil end
    for i = from, math.min(from + 1999, #list) do command[#command + 1] = list[i] end
    redis.call(unpack(command))
  end
end

-- read is MGET of any number of keys.
local function read(keys)
  local values = {}
  for from = 1, #keys, 2000 do
    local some = redis.call('MGET', unpack(keys, from, math.min(from + 1999, #keys)))
    for i = 1, #some do values[from + i - 1] = some[i] end
  end
  return values
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

-- upload_row is what a reader needs: state, job, project, JSON, created, expires.
local function upload_row(id)
  return redis.call('HMGET', upload_key(id), 's', 'j', 'p', 'd', 'c', 'x')
end

-- move_upload moves an upload and takes its deadline away; false if the table forbids it.
local function move_upload(id, state, by)
  local to = next_state('upload', state, by)
  if not to then return false end
  redis.call('HSET', upload_key(id), 's', to)
  redis.call('ZREM', UPLOADS, id)
  return true
end

-- ended_upload is the refusal for a state that is final.
local ENDED_UPLOAD = {
  COMPLETED = 'UPLOAD_COMPLETED', ABORTED = 'UPLOAD_ABORTED',
  EXPIRED = 'UPLOAD_EXPIRED', FAILED = 'UPLOAD_SIZE_MISMATCH',
}
-- Tasks. The first of a job is in the job itself, the others in a hash of the
-- job: d<index> is what a task is, JSON and never changed, s<index> its state,
-- a line, a<index> its attempts that ended without a result, JSON. In the
-- queues a task is named by member(): its index is padded, so that equal
-- scores sort by it.
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
local id = ARGV[2]
local state, job_id = unpack(redis.call('HMGET', KEYS[14], 's', 'j'))
if not state then return { 'UPLOAD_NOT_FOUND' } end
if state == 'COMPLETED' then return { '', id, upload_row(id) } end
if not move_upload(id, state, 'complete') then return { ENDED_UPLOAD[state] } end

local job = load_job(job_id)
move_job(job, 'uploaded')
job.source = ARGV[3]
start_run(job, ARGV[4])
flush()
return { '', id, upload_row(id) }
