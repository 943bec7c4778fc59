-- Moves a live job to CANCELED with its tasks, and aborts its open upload.
-- KEYS  common; 14 job. Derived: its indexes, its upload, its project's queue.
-- ARGV  prefix, job id, message
-- Returns  {''} | {'JOB_NOT_FOUND' | 'JOB_TERMINAL'}
-- Replay   a CANCELED job is left as it is.
-- Uploads: one hash each.
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
local function stream_key(id) return PREFIX .. 'c:' .. id end -- hash: see stream.lua
local function upload_key(id) return PREFIX .. 'u:' .. id end
local function queue_key(project) return PREFIX .. 'q:' .. project end -- zset: its ready tasks
local function index_key(project, state) return PREFIX .. 'i:' .. project .. ':' .. state end
local EXPIRING = PREFIX .. 'expiring' -- see idempotency.lua
local BROKEN = PREFIX .. 'broken' -- see aside.lua
local WAKE_CHANNEL, NOTICE_CHANNEL = PREFIX .. 'wake', PREFIX .. 'notices'
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


local function project_of(name)
  local p = PROJECTS[name]
  if not p then
    p = { name = name, add = {}, drop = {}, leased = 0 }
    PROJECTS[name] = p
    PROJECT_ORDER[#PROJECT_ORDER + 1] = p
  end
  return p
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



-- clean_later leaves the duty to remove what no output of a job names.
local function clean_later(id, lease_ms)
  local at = NOW + lease_ms + CLEAN_AFTER
  zadd(DUTIES, string.format('%.0f', at), 'CLEAN|' .. id)
  due(at)
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


-- move_upload moves an upload; false if the table forbids it. One that is complete has no deadline any more. Of any other
-- what was stored is to be removed: the duty comes in a while, in case whoever ended it doesn't get to that.
local function move_upload(id, state, by)
  local to = next_state('upload', state, by)
  if not to then return false end
  redis.call('HSET', upload_key(id), 's', to)
  if to == 'COMPLETED' then
    redis.call('ZREM', UPLOADS, id)
  else
    redis.call('ZADD', UPLOADS, NOW + VISIBILITY, id)
    due(NOW + VISIBILITY)
  end
  return true
end

-- ended_upload is the refusal for a state that is final.
local ENDED_UPLOAD = {
  COMPLETED = 'UPLOAD_COMPLETED', ABORTED = 'UPLOAD_ABORTED',
  EXPIRED = 'UPLOAD_EXPIRED', FAILED = 'UPLOAD_SIZE_MISMATCH',
}
-- Tasks, whole: see record.lua for how they are packed. Of tasks x:<job> has
-- f<i>, the indexes of those that wait for it, if any; and a<i>, its attempts
-- that ended without a result, JSON.
-- Leases are in LEASES by their deadlines, and in HELD, all scores 0, by the
-- workers that hold them: each as "<worker> <member> <attempt>", which names no other lease ever.


local function lease_name(worker, m, n) return worker .. ' ' .. m .. ' ' .. digits(n) end

-- parse_lease returns the member and the attempt that a lease is of.
local function parse_lease(name)
  local m, n = string.match(name, '(%S+) (%d+)$')
  return m, tonumber(n)
end

-- Leases as a reader needs them: {member, deadline, job, spec}, and of
-- one that doesn't start its job, or whose source was uploaded, its task if it isn't the
-- first, attempts JSON, sr, probe JSON, plan JSON. Jobs and tasks are as they are stored.
-- In queues and keys a task is named by its job's id and its index, padded, so that equal scores sort by it.
local function member(id, index) return string.format('%s-%05d', id, index) end


-- drop_lease takes a lease off all lists.
local function drop_lease(project, m, worker, n)
  local name = lease_name(worker, m, n)
  zrem(LEASES, name)
  zrem(HELD, name)
  count_leases(project, -1)
end


local MAX_ATTEMPTS_KEPT = 16
-- A task that spoils every machine, or finds none that works, would go round for ever.
local MAX_MACHINE_FAULTS = 10
local TASK = HOT .. COLD

-- load_task returns a task by its index, or nil; its member where the caller has it.
local function load_task(job, index, m)
  local t = job.tasks[index]
  if t then return t end
  if index == 0 then return nil end
  m = m or member(job.id, index)
  local raw = read(task_key(m))
  if not raw then return nil end
  t = task_record(unpack_struct(TASK, raw))
  t.m = m
  job.tasks[index] = t
  return t
end

local function save_task(job, index, t)
  job.tasks[index] = t
  if index == 0 then
    job.changed = true
    return
  end
  local raw = pack(TASK, TASK_CODES[t.s], t.last, t.n, t.at, t.weight, t.told, t.kept, t.follow, #t.by, t.by,
    t.run, t.charged, t.losses, t.spoilt, t.waits, #t.definition, t.definition)
  set(task_key(t.m), raw)
  READ[task_key(t.m)] = raw
end





-- attempts_of lists the attempts that ended, as this script left them.
local function attempts_of(job, index)
  job.attempts = job.attempts or {}
  local list = job.attempts[index]
  if not list then
    local raw = redis.call('HGET', more_key(job.id), 'a' .. index)
    local whole, kept = pcall(cjson.decode, raw or '[]')
    list = whole and kept or {} -- a damaged list ends with its task going on
    job.attempts[index] = list
  end
  return list
end

-- end_attempt takes the lease away and writes down how an attempt without a result ended.
local function end_attempt(job, index, t, outcome, reason, message, charged)
  local list = attempts_of(job, index)
  list[#list + 1] = {
    n = t.n, by = t.by, at = t.at, to = NOW, oc = outcome, rs = reason, ms = message, ch = charged or nil,
  }
  while #list > MAX_ATTEMPTS_KEPT do table.remove(list, 1) end
  put(job, 'a' .. index, cjson.encode(list))
  drop_lease(job.project, t.m, t.by, t.n)
  if t.told ~= 0 then set_gauge(job, job.weight, job.done - t.weight * t.told, job.percent) end
  t.by, t.told, t.kept = '', 0, 0
  job.left, job.changed = 1, true
end


-- read_tasks reads all tasks from an index on together.
local function read_tasks(job, from)
  local keys = {}
  for index = math.max(from, 1), job.count - 1 do
    if not job.tasks[index] then keys[#keys + 1] = task_key(member(job.id, index)) end
  end
  read_all(keys)
end

-- drop_leases takes the leases of tasks off all lists whose records don't tell who holds them, and what is left of the
-- records: no word of their workers counts any more. It looks at all leases that there are.
local function drop_leases(project, is_of)
  for _, name in ipairs(redis.call('ZRANGE', HELD, 0, -1)) do
    local m = parse_lease(name)
    if is_of(m) then
      zrem(HELD, name)
      zrem(LEASES, name)
      del(task_key(m))
      count_leases(project, -1)
      WAKES.WORKER = true
    end
  end
end

-- cancel_tasks ends every task of the run that hasn't ended.
local function cancel_tasks(job)
  read_tasks(job, job.first)
  local unknown
  for index = job.first, job.count - 1 do
    local whole, t = pcall(load_task, job, index)
    if not whole or not t and index > 0 then
      -- One whose record is gone, or can't be read, has ended: its job, and who sweeps, go on.
      local m = member(job.id, index)
      del(task_key(m))
      unknown = unknown or {}
      unknown[m] = true
    end
    local to = whole and t and next_state('task', t.s, 'cancel')
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
  if unknown then drop_leases(job.project, function(m) return unknown[m] end) end
end







local job = load_job(ARGV[2])
if not job then return { 'JOB_NOT_FOUND' } end
if job.state == 'CANCELED' then return { '' } end

local uploading = job.state == 'UPLOADING'
if not move_job(job, 'cancel') then return { 'JOB_TERMINAL' } end
if uploading then move_upload(redis.call('HGET', more_key(job.id), 'up'), 'OPEN', 'abort') end
cancel_tasks(job)
end_job(job, 'CANCELED', 'CANCELED', ARGV[3])
clean_later(job.id, job.lease_ms)
flush()
return { '' }
