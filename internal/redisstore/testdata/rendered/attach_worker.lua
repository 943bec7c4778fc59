-- Records a worker's new stream, renews those of its leases that it holds,
-- gives back those that it doesn't, and moves its machine to RUNNING.
-- KEYS  common; 14 worker, 15 sessions, 16 machines, 17 workers of its machine (left out without one).
--       Derived: the jobs of its leases, and the workers of the machine that it was on before.
-- ARGV  prefix, worker id, machine id, version, slots, CPUs, encoders JSON, draining (0, 1), lease ms,
--       reason and message for what is given back, then for each lease it holds: member, attempt
-- Returns  {'', session, lease row (see task.lua), ...}
-- Replay   the next session; the same leases.
-- Tasks live in their job's hash: s<i> is a task's state, a line; d<i> what it
-- is, JSON; f<i> the indexes of the tasks that wait for it, if any; a<i> its
-- attempts that ended without a result, JSON. In the queues a task is named by
-- member(): its index is padded, so that equal scores sort by it.
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
-- A script reads and decides first and writes last, each sorted set in one
-- command, however many requests the call has; and a script that fails in
-- between changed nothing.
-- NOW is the time of this script in milliseconds: Redis's clock. Tests move it
-- (CLOCK is by how many ms) or stop it (CLOCK is = and a moment). STAMP is NOW as text.
-- Every script gets these keys first, and the deployment's prefix (its hash
-- tag and a colon) as ARGV[1]. The keys of jobs, workers and indexes that are
-- only known once a queue was read are derived from the prefix, below the
-- same hash tag.
local CLOCK, SWEEP, LEASES, DELAYED, DUTIES, UPLOADS, WORKERS = unpack(KEYS, 1, 7)
local RING, PARKED, PAST, TURNS, ENDED, HELD = unpack(KEYS, 8, 13)
local PREFIX = ARGV[1]

local function job_key(id) return PREFIX .. 'j:' .. id end -- hash: what changes of a job, its tasks and events
local function spec_key(id) return PREFIX .. 'd:' .. id end -- JSON: what never changes
local function probe_key(id) return PREFIX .. 'b:' .. id end -- JSON
local function plan_key(id) return PREFIX .. 'g:' .. id end -- JSON
local function result_key(id, index) return PREFIX .. 'r:' .. id .. '-' .. index end -- JSON, of a task
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
local function read_clock()
  local test = redis.call('GET', CLOCK)
  local stopped = test and string.match(test, '^=(%d+)$')
  if stopped then return tonumber(stopped) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000) + (tonumber(test) or 0)
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
local STATUS = '^' .. string.rep('(%S+) ', 14) .. '(.*)$'
-- LEASED matches the state of a leased task: all before the progress, attempt, weight; fraction, when that was stored,
-- whether others wait for it, worker.
local LEASED = '^(LEASED 0 0 %S+ (%S+) %S+ %S+ %S+ %S+ %S+ (%S+)) (%S+) (%S+) (%S+) (.*)$'

local function member(id, index) return string.format('%s-%05d', id, index) end

local function parse_member(m)
  local n = #m
  if string.sub(m, n - 5, n - 5) == '-' then return string.sub(m, 1, n - 6), string.sub(m, n - 4) + 0 end
  local id, index = string.match(m, '^(.*)%-(%d+)$') -- 100,000 or more
  return id, tonumber(index)
end

local function parse_task(raw)
  local t = {}
  t.s,
    t.last,         -- 1: it was the last of its run
    t.ended,        -- when it was done
    t.run,
    t.n,            -- newest attempt
    t.at,           -- when that began; of a DELAYED task, when it wakes
    t.charged, t.losses,
    t.spoilt,       -- attempts in a row that a machine spoilt
    t.waits,        -- for tasks
    t.weight,       -- its share of the job's progress
    t.told, t.kept, -- fraction of the attempt, and when that was stored
    t.follow,       -- 1: f<i> is there
    t.by = string.match(raw, STATUS)
  t.n = t.n + 0
  return t
end

local function load_task(job, index)
  local t = job.tasks[index]
  if not t then
    local raw = redis.call('HGET', job.key, 's' .. index)
    if not raw then return nil end
    t = parse_task(raw)
    job.tasks[index] = t
  end
  return t
end

local function save_task(job, index, t)
  job.tasks[index] = t
  put(job, 's' .. index, t.s .. ' ' .. t.last .. ' ' .. t.ended .. ' ' .. t.run .. ' ' .. t.n .. ' ' .. t.at .. ' '
    .. t.charged .. ' ' .. t.losses .. ' ' .. t.spoilt .. ' ' .. t.waits .. ' ' .. t.weight .. ' '
    .. t.told .. ' ' .. t.kept .. ' ' .. t.follow .. ' ' .. t.by)
end

local function enqueue(job, index)
  queue_add(job.project, job.priority + 0, queued_at(job) + 0, member(job.id, index))
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

-- add_tasks appends tasks, each four values from one on: JSON, weight, how
-- many it waits for, and which wait for it, all relative to the first.
local function add_tasks(job, list, from)
  local base = job.count + 0
  local index = base
  local added = 0
  for i = from, #list, 4 do
    local weight, waits, followers = list[i + 1], list[i + 2], list[i + 3]
    added = added + weight
    put(job, 's' .. index, (waits == '0' and 'READY' or 'BLOCKED') .. ' 0 0 ' .. job.run .. ' 0 0 0 0 0 ' .. waits .. ' '
      .. weight .. ' 0 0 ' .. (followers == '' and '0 ' or '1 '))
    put(job, 'd' .. index, list[i])
    if followers ~= '' then
      put(job, 'f' .. index, (string.gsub(followers, '%d+', function(n) return string.format('%d', base + n) end)))
    end
    if waits == '0' then enqueue(job, index) end
    index = index + 1
  end
  job.count, job.open = index, job.open + index - base
  if added > 0 then
    local weight, done, percent = gauge_of(job)
    set_gauge(job, weight + added, done, percent)
  end
end

-- start_run puts a job's first task, as for add_tasks, into the queue.
local function start_run(job, list, from)
  add_time(job, 'q')
  add_event(job, 'QUEUED')
  add_tasks(job, list, from)
end

local function attempts_of(job, index)
  local raw = redis.call('HGET', job.key, 'a' .. index)
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
    n = t.n, by = t.by, at = tonumber(t.at), to = NOW, oc = outcome, rs = reason, ms = message, ch = charged or nil,
  }
  while #list > MAX_ATTEMPTS_KEPT do table.remove(list, 1) end
  put(job, 'a' .. index, cjson.encode(list))
  drop_lease(job, member(job.id, index), t.by)
  if t.told + 0 ~= 0 then
    local weight, done, percent = gauge_of(job)
    set_gauge(job, weight, done - t.weight * t.told, percent)
  end
  t.by, t.told, t.kept = '', 0, 0
  job.left = 1
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
  for index = job.first + 0, job.count - 1 do
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
  local t = job and load_task(job, index)
  if t and t.s == 'LEASED' then return job, index, t end
end

-- lease_row is a lease as a reader needs it: {member, attempt, deadline,
-- definition, state, attempts JSON, job row, spec JSON, probe JSON, plan JSON};
-- call it after flush. State and definition are read if they aren't given.
local function lease_row(m, attempt, deadline, status, definition)
  local id, index = parse_member(m)
  local job = load_job(id)
  if not definition then status, definition = unpack(redis.call('HMGET', job.key, 's' .. index, 'd' .. index)) end
  local row = {
    m, attempt, deadline, definition, status, '',
    { head_text(job), job.project, job.times_text, job.gauge_text, '', '', '' }, redis.call('GET', spec_key(id)), '', '',
  }
  -- Of a job that starts there is no more to read, unless its source was uploaded.
  if index > 0 or attempt > 1 or job.uploaded ~= '0' then
    local v = redis.call('HMGET', job.key, 'a' .. index, 'pg', 'sr')
    row[6], row[7][5], row[7][7] = v[1] or '', v[2] or '', v[3] or ''
    v = redis.call('MGET', probe_key(id), plan_key(id))
    row[9], row[10] = v[1] or '', v[2] or ''
  end
  return row
end
-- Workers: one hash each, and their place in WORKERS by when they were last
-- seen. v is what claims ask for: session, draining, attached; rq the answers
-- to the two newest claims that gave it tasks, a line each.
local SEEN_WITHIN = 60000 -- a worker that is silent for longer isn't listed

-- parse_worker returns session, draining and attached.
local function parse_worker(state) return string.match(state, '^(%S+) (%S+) (%S+)$') end

local function worker_state(session, draining, attached) return session .. ' ' .. draining .. ' ' .. attached end

-- forget_worker removes a worker that holds nothing.
local function forget_worker(id, machine)
  del(worker_key(id))
  zrem(WORKERS, id)
  if machine and machine ~= '' then redis.call('SREM', machine_workers_key(machine), id) end
end
-- Machines: JSON by id in one hash; there are few, and their limit is over all.

local function load_machine(key, id)
  local raw = redis.call('HGET', key, id)
  return raw and cjson.decode(raw) or nil
end

-- move_machine changes the record in memory; false if the table forbids it.
local function move_machine(m, by)
  local to = next_state('machine', m.state, by)
  if not to then return false end
  m.state, m.changed = to, NOW
  return true
end

local function save_machine(key, m)
  redis.call('HSET', key, m.id, cjson.encode(m))
end
local worker, machine = ARGV[2], ARGV[3]
local session = redis.call('INCR', KEYS[15])
local state, first_seen, was_on = unpack(redis.call('HMGET', KEYS[14], 'v', 'fs', 'mid'))
local draining = ARGV[8] == '1' or state and select(2, parse_worker(state)) == '1'
redis.call('HSET', KEYS[14], 'v', worker_state(session, draining and 1 or 0, 1), 'mid', machine, 'ver', ARGV[4], 'sl', ARGV[5], 'cpu', ARGV[6], 'enc', ARGV[7],
  'fs', first_seen or STAMP)
zadd(WORKERS, STAMP, worker)
-- What becomes of the machine that it was on before doesn't concern it.
if was_on and was_on ~= '' and was_on ~= machine then redis.call('SREM', machine_workers_key(was_on), worker) end
if KEYS[17] then
  redis.call('SADD', KEYS[17], worker)
  local m = load_machine(KEYS[16], machine)
  if m then
    -- The worker may be here before the provider's answer to the create.
    if m.state == 'CREATING' then move_machine(m, 'created') end
    if move_machine(m, 'attach') then save_machine(KEYS[16], m) end
  end
end

local holds = {}
for i = 12, #ARGV, 2 do holds[ARGV[i]] = tonumber(ARGV[i + 1]) end
local deadline = score_text(NOW + tonumber(ARGV[9]))
local kept = {}
for _, m in ipairs(held_by(worker)) do
  local job, index, t = leased_task(m)
  if not job then
    zrem(HELD, worker .. ' ' .. m)
  elseif holds[m] == t.n then
    zadd(LEASES, deadline, m)
    append(kept, m, t.n)
  else
    return_task(job, index, t, 'release', 'RELEASED', ARGV[10], ARGV[11])
  end
end
flush()

local out = { '', session }
for i = 1, #kept, 2 do out[#out + 1] = lease_row(kept[i], kept[i + 1], deadline) end
return out
