-- Reads what is committed of a job before its tasks are done, beyond what the reader knows. Changes nothing.
-- KEYS  common; 14 job, 15 stream, 16 plan
-- ARGV  prefix, job id, run and how many commits the reader knows
-- Returns  {'', state, run, project, 1 if it is playable else 0, how many commits, plan JSON (nothing if the run is
--          known), commit JSON, ...} | {'JOB_NOT_FOUND'}
-- Streams: what is committed of a run before its tasks are done. A hash: n how
-- many commits there are, 1 to n these, JSON; k<i> of task i how many segments
-- of each rendition; at when it was published, shown what was, JSON.
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


local DIGITS = {} -- whole numbers as text: most scores, sequences and attempts of a call are the same





-- Wake-ups are collected and published once, at the end of a script.
local WAKES = {}
local EARLIEST -- the earliest deadline that this script set


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












local EVENT_CHUNKS = 20 -- of a job
local CHANGED = {} -- job id, sequence of its newest event, ...
local APART = {} -- keys of lists, and chunks of older events for them

local INDEXES = {} -- keys by state, by project



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








-- Leases are in LEASES by their deadlines, and in HELD, all scores 0, by the
-- workers that hold them: each as "<worker> <member> <attempt>", which names no other lease ever.








local MAX_ATTEMPTS_KEPT = 16
-- A task that spoils every machine, or finds none that works, would go round for ever.
local MAX_MACHINE_FAULTS = 10
local TASK = HOT .. COLD



















local STREAM_EVERY = 1000

local job = load_job(ARGV[2])
if not job then return { 'JOB_NOT_FOUND' } end
local known = job.run == tonumber(ARGV[3])
local n = (redis.call('HGET', KEYS[15], 'n') or 0) + 0
local out = {
  '', job.state, job.run, job.project, job.playable > 0 and 1 or 0, n, not known and redis.call('GET', KEYS[16]) or '',
}
for from = (known and ARGV[4] or 0) + 1, n, 1000 do
  local fields = {}
  for i = from, math.min(from + 999, n) do fields[#fields + 1] = i end
  for _, v in ipairs(redis.call('HMGET', KEYS[15], unpack(fields))) do out[#out + 1] = v end
end
return out
