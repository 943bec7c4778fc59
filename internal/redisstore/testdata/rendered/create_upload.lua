-- Writes an upload and its job in UPLOADING.
-- KEYS  common; 14 upload, 15 job, 16 spec, 17 idempotency key (left out if there is none). Derived: the project's indexes.
-- ARGV  prefix, upload id, job id, project, priority, upload JSON, spec JSON, ttl ms, waiting limit, fingerprint, key's ttl ms
-- Returns  {'', upload id, upload row} | {'IDEMPOTENCY_KEY_REUSED' | 'QUEUE_FULL'}
-- Replay   the same id, or the same idempotency key, gives the first upload.
--          A key whose upload was deleted makes a new one.
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
-- Idempotency keys: expiry, the id that was made, the request's fingerprint.

-- known_id returns the id that a key's value names, and whether it was made by another request.
local function known_id(raw, fingerprint)
  if not raw then return nil end
  local expires, id, first = string.match(raw, '^(%d+) (%S+) (.*)$')
  if tonumber(expires) <= NOW then return nil end
  return id, first ~= fingerprint
end

local function key_value(fingerprint, id, ttl) return score_text(NOW + ttl) .. ' ' .. id .. ' ' .. fingerprint end
-- How many jobs of a project wait, and whether one more may.
local WAITING, ADMITTED = {}, {} -- by project: before this script, and by it

-- admit counts one more waiting job of a project; false if that is above a limit (0: none).
local function admit(project, limit)
  local n = (ADMITTED[project] or 0) + 1
  if limit > 0 then
    WAITING[project] = WAITING[project] or redis.call('ZCARD', index_key(project, 'UPLOADING'))
      + redis.call('ZCARD', index_key(project, 'PENDING'))
    if WAITING[project] + n > limit then return false end
  end
  ADMITTED[project] = n
  return true
end
local id, job_id, project = ARGV[2], ARGV[3], ARGV[4]

if KEYS[17] then
  local first, other = known_id(redis.call('GET', KEYS[17]), ARGV[10])
  if other then return { 'IDEMPOTENCY_KEY_REUSED' } end
  if first and redis.call('EXISTS', upload_key(first)) == 1 then return { '', first, upload_row(first) } end
end
if redis.call('EXISTS', KEYS[14]) == 1 then return { '', id, upload_row(id) } end
if not admit(project, tonumber(ARGV[9])) then return { 'QUEUE_FULL' } end

local expires = NOW + tonumber(ARGV[8])
redis.call('HSET', KEYS[14], 's', 'OPEN', 'j', job_id, 'p', project, 'd', ARGV[6], 'c', STAMP, 'x', expires, 'n', 1)
zadd(UPLOADS, expires, id)
due(expires)
add_event(new_job(job_id, 'UPLOADING', project, ARGV[5], id), 'CREATED')
set(KEYS[16], ARGV[7])
if KEYS[17] then redis.call('SET', KEYS[17], key_value(ARGV[10], id, tonumber(ARGV[11])), 'PX', ARGV[11]) end
flush()
return { '', id, upload_row(id) }
