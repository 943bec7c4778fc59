-- Removes a terminal job with its tasks, events, results and, if no other job
-- has it as its source, its upload, and leaves the duty to purge its objects.
-- KEYS  common; 14 job, 15 purges. Derived: its index, its upload, its results.
-- ARGV  prefix, job id
-- Returns  {''} | {'JOB_NOT_FOUND' | 'JOB_NOT_TERMINAL'}
-- Replay   {''} until the duty is ended, 'JOB_NOT_FOUND' after.
-- Deleting jobs that ended.
-- Tasks, whole: see record.lua for how they are packed. Of tasks x:<job> has
-- f<i>, the indexes of those that wait for it, if any; and a<i>, its attempts
-- that ended without a result, JSON.
-- Jobs, whole: see record.lua for how they are packed. Older events are in e:<job>,
-- each a chunk of what was behind once: the sequence before its first event, and
-- the events; the newest 1,000 are there. x:<job> has what few jobs have: f failure
-- JSON, up its upload, sr size and etag of its source; and of tasks: see task.lua.
--
-- A job is loaded once per script, changed in memory and written back by
-- flush: however many changes, one string and one notice.
-- How jobs and tasks are packed: j:<job> is HEAD, the job's first task (HOT
-- and COLD), REST, and the newest events of the job, those after base; t:<job>-<i>
-- is every other task. What most calls change is in front: they take that apart,
-- and leave what is behind as it is. Whoever changes a format raises the version in
-- layout.go.
-- struct and cmsgpack, which Redis's Lua has. Where a server's Lua has none,
-- what is needed of them is made here: slower, and the same bytes.
local function make_libraries()
  -- number_bytes packs a whole number, the highest byte first.
  local function number_bytes(n, size)
    local bytes = {}
    n = n < 0 and math.ceil(n) or math.floor(n)
    for i = size, 1, -1 do
      bytes[i] = string.char(n % 256)
      n = math.floor(n / 256)
    end
    return table.concat(bytes)
  end

  -- number_at unpacks one. One below zero is turned round, so that it is exact.
  local function number_at(raw, at, size, signed)
    if at + size - 1 > #raw then error('data string too short') end
    local n, below = 0, signed and string.byte(raw, at) > 127
    for i = at, at + size - 1 do
      local byte = string.byte(raw, i)
      n = n * 256 + (below and 255 - byte or byte)
    end
    return below and -n - 1 or n
  end

  -- double_bytes packs a number as IEEE 754 has it.
  local function double_bytes(v)
    local sign = (v < 0 or 1 / v < 0) and 128 or 0
    local mantissa, exponent = math.frexp(math.abs(v))
    if v ~= v then
      mantissa, exponent = 2 ^ 51, 2047
    elseif math.abs(v) == math.huge then
      mantissa, exponent = 0, 2047
    elseif v == 0 then
      mantissa, exponent = 0, 0
    elseif exponent < -1021 then
      mantissa, exponent = math.ldexp(mantissa, exponent + 1074), 0
    else
      mantissa, exponent = (mantissa * 2 - 1) * 2 ^ 52, exponent + 1022
    end
    return string.char(sign + math.floor(exponent / 16), exponent % 16 * 16 + math.floor(mantissa / 2 ^ 48)) ..
      number_bytes(mantissa % 2 ^ 48, 6)
  end

  local function double_at(raw, at)
    local first, second, rest = number_at(raw, at, 1), number_at(raw, at + 1, 1), number_at(raw, at + 2, 6)
    local exponent, mantissa = first % 128 * 16 + math.floor(second / 16), second % 16 * 2 ^ 48 + rest
    local v
    if exponent == 2047 then
      v = mantissa == 0 and math.huge or 0 / 0
    elseif exponent == 0 then
      v = math.ldexp(mantissa, -1074)
    else
      v = math.ldexp(mantissa + 2 ^ 52, exponent - 1075)
    end
    return first > 127 and -v or v
  end

  -- Of struct: B, I<n>, i<n>, d and c0, the highest byte first.
  local fields = '([BIidc])(%d*)'
  local numbers = {}

  function numbers.pack(format, ...)
    local out, values = {}, { ... }
    for kind, size in string.gmatch(format, fields) do
      local v = values[#out + 1]
      if kind == 'd' then
        v = double_bytes(tonumber(v))
      elseif kind ~= 'c' then
        v = number_bytes(tonumber(v), tonumber(size) or 1)
      end
      out[#out + 1] = v
    end
    return table.concat(out)
  end

  function numbers.unpack(format, raw, at)
    local out, n = {}, 0
    at = at or 1
    for kind, size in string.gmatch(format, fields) do
      if kind == 'c' then -- as long as the number ahead of it says, which it replaces
        local length = out[n]
        if at + length - 1 > #raw then error('data string too short') end
        out[n], at = string.sub(raw, at, at + length - 1), at + length
      else
        size, n = kind == 'd' and 8 or tonumber(size) or 1, n + 1
        out[n] = kind == 'd' and double_at(raw, at) or number_at(raw, at, size, kind == 'i')
        at = at + size
      end
    end
    out[n + 1] = at
    return unpack(out, 1, n + 1)
  end

  -- Of MessagePack: whole numbers, texts, and in what is unpacked doubles and lists.
  local sizes = { [0xd9] = 1, [0xda] = 2, [0xdb] = 4, [0xdd] = 4 }
  local messages = {}

  local function value_at(raw, at)
    local code = number_at(raw, at, 1)
    if code < 0x80 then return code, at + 1 end
    if code == 0xcb then return double_at(raw, at + 1), at + 9 end
    if code == 0xd3 then return number_at(raw, at + 1, 8, true), at + 9 end
    local size, length = 0, code - 0xa0
    if code >= 0xc0 then
      size = sizes[code] or error('unknown type of MessagePack: ' .. code)
      length = number_at(raw, at + 1, size)
    end
    at = at + 1 + size
    if code ~= 0xdd then return string.sub(raw, at, at + length - 1), at + length end
    local list = {}
    for i = 1, length do list[i], at = value_at(raw, at) end
    return list, at
  end

  function messages.pack(...)
    local out = {}
    for i, v in ipairs({ ... }) do
      out[i] = type(v) == 'number' and '\211' .. number_bytes(v, 8) or '\219' .. number_bytes(#v, 4) .. v
    end
    return table.concat(out)
  end

  function messages.unpack(raw)
    local out, at = {}, 1
    while at <= #raw do out[#out + 1], at = value_at(raw, at) end
    return unpack(out)
  end

  return numbers, messages
end

local struct, cmsgpack = rawget(_G, 'struct'), rawget(_G, 'cmsgpack')
if not struct or not cmsgpack then struct, cmsgpack = make_libraries() end
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
local function spec_key(id) return PREFIX .. 'd:' .. id end -- what never changes, packed by spec.go
local function probe_key(id) return PREFIX .. 'b:' .. id end -- JSON
local function plan_key(id) return PREFIX .. 'g:' .. id end -- JSON
local function result_key(m) return PREFIX .. 'r:' .. m end -- JSON, of a task
local function outputs_key(id) return PREFIX .. 'o:' .. id end -- JSON
local function summary_key(id) return PREFIX .. 's:' .. id end -- JSON: outputs without their objects, if they are many
local function upload_key(id) return PREFIX .. 'u:' .. id end
local function queue_key(project) return PREFIX .. 'q:' .. project end -- zset: its ready tasks
local function index_key(project, state) return PREFIX .. 'i:' .. project .. ':' .. state end
local EXPIRING = PREFIX .. 'expiring' -- see idempotency.lua
local BROKEN = PREFIX .. 'broken' -- see aside.lua
local WAKE_CHANNEL, NOTICE_CHANNEL = PREFIX .. 'wake', PREFIX .. 'notices'
local READ = {} -- by key: its value, false if there is none


-- read returns a string; false if there is none.
local function read(key)
  local value = READ[key]
  if value == nil then
    value = redis.call('GET', key)
    READ[key] = value
  end
  return value
end
-- What a script leaves to do at its end: strings and sorted sets, whose turn
-- it is, wake-ups, and one notice of all jobs that changed.
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

local SETS, DELS, ZREMS, ZADDS = {}, {}, {}, {}

local function append(list, a, b)
  local n = #list
  list[n + 1], list[n + 2] = a, b
end

local DIGITS = {} -- whole numbers as text: most scores, sequences and attempts of a call are the same

local function digits(n)
  local text = DIGITS[n]
  if not text then
    text = string.format('%.0f', n)
    DIGITS[n] = text
  end
  return text
end

local function list_of(lists, key)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  return list
end

local function set(key, value)
  local n = #SETS
  SETS[n + 1] = key
  SETS[n + 2] = value
end
local function del(key) DELS[#DELS + 1] = key end
local function zadd(key, score, member)
  local list = ZADDS[key] or list_of(ZADDS, key)
  local n = #list
  list[n + 1] = score
  list[n + 2] = member
end
local function zrem(key, member)
  local list = ZREMS[key] or list_of(ZREMS, key)
  list[#list + 1] = member
end

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
  if tag > served_at(band) then redis.call('ZADD', PAST, digits(band * TAG + tag), band .. '|' .. name) end
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
    redis.call('ZADD', PARKED, digits(score), name)
  else
    if score ~= at or parked then redis.call('ZADD', RING, digits(score), name) end
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
local EVENT_CHUNKS = 20 -- of a job
local CHANGED = {} -- job id, sequence of its newest event, ...
local APART = {} -- keys of lists, and chunks of older events for them

local INDEXES = {} -- keys by state, by project

local function index_of(project, state)
  local keys = list_of(INDEXES, project)
  local key = keys[state] or index_key(project, state)
  keys[state] = key
  return key
end

local function note(id, sequence) append(CHANGED, id, digits(sequence)) end

local function write_out()
  settle_projects()
  write_all()
  for i = 1, #APART, 2 do
    redis.call('RPUSH', APART[i], APART[i + 1])
    redis.call('LTRIM', APART[i], -EVENT_CHUNKS, -1)
  end
  APART = {}
  if CHANGED[1] then
    redis.call('PUBLISH', NOTICE_CHANNEL, 'q ' .. table.concat(CHANGED, ' '))
    CHANGED = {}
  end
  publish_wakes()
end
-- Of a job: project, progress (media time, speed, fps, time left), state, run, sequence, base, open (tasks of the run that
-- aren't done), longest lease that was given, left (1: there may be objects that no output names), stream (1:
-- segments were committed), uploaded (1: up names its upload), started, playable, finished (ms, 0: not yet), weight of all tasks of the run, what of that is
-- done, percent.
local HEAD = '>Bc0Bc0BI2I4I4I3I5BBBI6I6I6ddd'
-- Of a task: state, last (1: it was the last of its run), newest attempt, when that began (of a DELAYED
-- task, when it wakes), its share of the job's progress, fraction of the attempt, when that was stored (of a DONE task, when it was done), follow (1: f<i> is
-- there), worker of the attempt. A state of 0 is a first task that isn't there yet.
local HOT = '>BBI3I6ddI6BBc0'
-- Of a task: run, charged, losses, attempts in a row that a machine spoilt, tasks that it waits for, JSON: what it is.
local COLD = 'I2I2I2BI3I2c0'
-- Of a job: tasks over all runs, index of the run's first task, priority, created, queued, planned.
local REST = 'I3I3i2I6I6I6'
-- Events: type, plus 64 with index + 1 and attempt of a task, plus 192 with these (0: none), reason and message.
local EVENT, TASK_EVENT, TEXT_EVENT = '>BI6', '>BI6I3I3', '>BI6I3I3I3c0'
local EVENT_TYPES = {
  CREATED = 1, QUEUED = 2, STARTED = 3, PLANNED = 4, PLAYABLE = 5, COMPLETED = 6, FAILED = 7, CANCELED = 8,
  RETRIED = 9, TASK_LEASED = 10, TASK_DONE = 11, TASK_DELAYED = 12, TASK_DEAD = 13,
}
local JOB_STATES = { 'UPLOADING', 'PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELED' }
local TASK_STATES = { 'BLOCKED', 'READY', 'LEASED', 'DELAYED', 'DONE', 'DEAD', 'CANCELED' }
local EVENTS_BEHIND = 50 -- a job at most, and in each chunk at least
local pack, unpack_struct, sub = struct.pack, struct.unpack, string.sub

-- Duties: work outside the store, in DUTIES as kind|id by when to hand it out.
-- Later than any URL that was signed for a lease: they live 5 minutes longer than it.
local CLEAN_AFTER = 6 * 60 * 1000
local VISIBILITY = 60000 -- a duty that was handed out comes again after that


-- purge_again_field is where the purges keep when a duty to purge comes once more.
local function purge_again_field(id) return 'again|' .. id end

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


-- drop_duties ends the duties that only hold for the state a job leaves.
local function drop_duties(job)
  append(list_of(ZREMS, DUTIES), 'PUBLISH|' .. job.id, 'CLEAN|' .. job.id)
  zrem(DUTIES, 'STREAM|' .. job.id)
end


-- Leases are in LEASES by their deadlines, and in HELD, all scores 0, by the
-- workers that hold them: each as "<worker> <member> <attempt>", which names no other lease ever.




-- Leases as a reader needs them: {member, deadline, job, spec}, and of
-- one that doesn't start its job, or whose source was uploaded, its task if it isn't the
-- first, attempts JSON, sr, probe JSON, plan JSON. Jobs and tasks are as they are stored.
-- In queues and keys a task is named by its job's id and its index, padded, so that equal scores sort by it.
local function member(id, index) return string.format('%s-%05d', id, index) end




local MAX_ATTEMPTS_KEPT = 16
-- A task that spoils every machine, or finds none that works, would go round for ever.
local MAX_MACHINE_FAULTS = 10
local TASK = HOT .. COLD




















local UPLOAD_URL_LIFE = 60 * 60 * 1000 -- pipeline.UploadURLLife

-- delete_job removes a terminal job with its tasks, events and results, and
-- leaves the duty to purge its objects. Its upload goes with the last job that
-- has it as its source; until then the source isn't among what is purged.
local function delete_job(job, purges)
  local id = job.id
  local purge = redis.call('GET', spec_key(id))
  -- One that was set aside doesn't say that it has an upload. Of one that doesn't say which, the source stays.
  local uploaded = redis.call('HGET', more_key(id), 'up')
  local stays = not purge or job.uploaded ~= 0 and not uploaded
  if uploaded then
    local upload = upload_key(uploaded)
    stays = redis.call('HINCRBY', upload, 'n', -1) > 0
    if not stays then
      del(upload)
      zrem(UPLOADS, uploaded)
    end
  end
  if stays or not purge then purge = pack('>I3c0I3I3I3I3i8I3', #job.project, job.project, 0, 0, 0, 0, 0, 0) end
  redis.call('HSET', purges, id, purge)
  -- A URL to write may outlive the job: what comes late is purged when none works any more, and what began with it is over.
  local last = job.lease_ms > 0 and job.lease_ms + CLEAN_AFTER or 0
  if uploaded or job.uploaded ~= 0 then last = math.max(last, UPLOAD_URL_LIFE + CLEAN_AFTER) end
  if last > 0 and job.finished + last > NOW then
    redis.call('HSET', purges, purge_again_field(id), string.format('%.0f', job.finished + last))
  end
  drop_duties(job)
  zadd(DUTIES, STAMP, 'PURGE|' .. id)
  due(NOW)
  zrem(index_key(job.project, job.state), id)
  zrem(ENDED, id)
  for _, key in ipairs({
    job.key, spec_key(id), more_key(id), events_key(id), probe_key(id), plan_key(id), outputs_key(id), summary_key(id),
  }) do del(key) end
  for index = 0, job.count - 1 do
    local m = member(id, index)
    del(task_key(m))
    del(result_key(m))
  end
  -- Whoever watches it reads again, and finds it gone.
  note(id, job.sequence)
end
local job = load_job(ARGV[2])
if not job then
  if redis.call('HEXISTS', KEYS[15], ARGV[2]) == 1 then return { '' } end
  return { 'JOB_NOT_FOUND' }
end
if job.state ~= 'COMPLETED' and job.state ~= 'FAILED' and job.state ~= 'CANCELED' then return { 'JOB_NOT_TERMINAL' } end
delete_job(job, KEYS[15])
flush()
return { '' }
