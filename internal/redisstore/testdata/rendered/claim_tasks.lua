-- Leases ready tasks to workers.
-- KEYS  common. Derived: the workers, the queues of the projects in turn, and the jobs of the tasks that were taken,
--       with what a lease needs of them.
-- ARGV  prefix; claims (see claim.lua) as requests (see request.lua)
-- Returns  {answer, ...}: {'', 1 if tasks that a claim could get are still ready else 0, 1 if the worker is refused
--          else 0, lease row (see lease.lua), ...}; refused is one that is unknown, detached, draining or in a newer session
-- Replay   the leases of the first answer that are still held, as long as the request is one of the newest two that
--          gave the worker any. An empty answer isn't kept.
-- Claims: they lease ready tasks to workers, whose turn it is (see turn.lua). The first lease of a job moves it to
-- RUNNING. A claim is a list: worker id, session, max, lease ms, request id, running limit. Of different limits the last holds.
-- Attempts, as most calls change them: the front of the job and of the task,
-- see record.lua. These calls are most of what a store does, so they make no
-- tables of what they only pass on.
-- Leases as a reader needs them: {member, deadline, job, spec}, and of
-- one that doesn't start its job, or whose source was uploaded, its task if it isn't the
-- first, attempts JSON, sr, probe JSON, plan JSON. Jobs and tasks are as they are stored.
-- In queues and keys a task is named by its job's id and its index, padded, so that equal scores sort by it.
local function member(id, index) return string.format('%s-%05d', id, index) end

local function parse_member(m)
  local n = #m
  if string.byte(m, n - 5) == 45 then return string.sub(m, 1, n - 6), string.sub(m, n - 4) + 0 end
  local id, index = string.match(m, '^(.*)%-(%d+)$') -- 100,000 or more
  return id, tonumber(index)
end
-- Leases are in LEASES by their deadlines, and in HELD, all scores 0, by the
-- workers that hold them: each as "<worker> <member> <attempt>", which names no other lease ever.
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

local function job_key(id) return PREFIX .. 'j:' .. id end -- what changes of a job, packed: see job.lua
local function task_key(m) return PREFIX .. 't:' .. m end -- a task but the first, packed: see task.lua
local function more_key(id) return PREFIX .. 'x:' .. id end -- hash: what few jobs have and few scripts need
local function events_key(id) return PREFIX .. 'e:' .. id end -- list: older events, packed
local function spec_key(id) return PREFIX .. 'd:' .. id end -- what never changes, packed by spec.go
local function probe_key(id) return PREFIX .. 'b:' .. id end -- JSON
local function plan_key(id) return PREFIX .. 'g:' .. id end -- JSON
local function standing_key(id) return PREFIX .. 'v:' .. id end -- see worker.lua
local function queue_key(project) return PREFIX .. 'q:' .. project end -- zset: its ready tasks
local function index_key(project, state) return PREFIX .. 'i:' .. project .. ':' .. state end
local EXPIRING = PREFIX .. 'expiring' -- see idempotency.lua
local BROKEN = PREFIX .. 'broken' -- see aside.lua
local WAKE_CHANNEL, NOTICE_CHANNEL = PREFIX .. 'wake', PREFIX .. 'notices'
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


local function lease_name(worker, m, n) return worker .. ' ' .. m .. ' ' .. digits(n) end


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

-- found_broken notes a job of which a record can't be read: the sweeper sets it aside, see aside.lua.
local function found_broken(id, project)
  zadd(BROKEN, STAMP, id .. ' ' .. project)
  due(NOW)
end


-- starts reports that of an attempt there is no more to read.
local function starts(uploaded, index, n) return index == 0 and n == 1 and uploaded == 0 end

-- lease_row returns a row, of strings that were read, as they are now.
local function lease_row(m, deadline, id, index, brief)
  local raw, spec = READ[job_key(id)], read(spec_key(id))
  if brief then return { m, deadline, raw, spec } end
  local v = redis.call('HMGET', more_key(id), 'a' .. index, 'sr')
  return {
    m, deadline, raw, spec, index > 0 and read(task_key(m)) or '', v[1] or '', v[2] or '', read(probe_key(id)) or '',
    read(plan_key(id)) or '',
  }
end
local READY, LEASED, DONE = 2, 3, 5 -- of TASK_STATES
local PENDING, RUNNING, COMPLETED = 2, 3, 4 -- of JOB_STATES

-- attempt_keys adds the keys that an attempt is in to a list, and returns the job's.
local function attempt_keys(keys, id, index, m)
  local key = job_key(id)
  keys[#keys + 1] = key
  if index > 0 then keys[#keys + 1] = task_key(m) end
  return key
end

-- task_in returns the string that has a task, and where it begins: behind the job's front, or a string of its own.
local function task_in(raw, behind, index, m)
  if index == 0 then return raw, behind end
  return READ[task_key(m)], 1
end



local function keep(key, value)
  set(key, value)
  READ[key] = value
end

local BACK, FIRST = 'c0', HEAD .. sub(HOT, 2)

-- keep_attempt writes the fronts of a job and a task before what is behind them, and events behind the job's others.
local function keep_attempt(key, raw, behind, index, m, task, task_behind, events, project, progress, state, run, sequence, base, open,
  lease_ms, left, stream, uploaded, started, playable, finished, weight, done, percent, s, last, n, at, share, told, kept, follow, by)
  if index == 0 then
    -- In one step, because each string that Lua makes costs as much as it is long.
    keep(key, pack(FIRST .. BACK .. BACK, #project, project, #progress, progress, state, run, sequence, base, open, lease_ms, left,
      stream, uploaded, started, playable, finished, weight, done, percent, s, last, n, at, share, told, kept, follow, #by, by,
      sub(task, task_behind), events))
  else
    keep(key, pack(HEAD .. BACK .. BACK, #project, project, #progress, progress, state, run, sequence, base, open, lease_ms, left, stream,
      uploaded, started, playable, finished, weight, done, percent, sub(raw, behind), events))
    keep(task_key(m), pack(HOT .. BACK, s, last, n, at, share, told, kept, follow, #by, by, sub(task, task_behind)))
  end
end

-- put_by takes the events out of a job that has many behind, and returns it without them.
local function put_by(id, raw, behind, base)
  local at = select(22, unpack_struct('>' .. sub(HOT, 2) .. COLD .. REST, raw, behind))
  append(APART, events_key(id), pack('>I6', base) .. sub(raw, at))
  return sub(raw, 1, at - 1)
end

local function task_event(kind, index, n) return pack(TASK_EVENT, EVENT_TYPES[kind] + 64, NOW, index + 1, n) end
-- Takes tasks from the queues, whose turn it is.

-- set_limit takes another limit of running tasks in: projects are parked and come back by it.
local function set_limit(limit)
  local before = running_limit()
  if limit == before then return end
  LIMIT = limit
  redis.call('HSET', TURNS, 'limit', limit)
  if before > 0 then
    local parked = redis.call('ZRANGE', PARKED, 0, -1, 'WITHSCORES')
    for i = 1, #parked, 2 do
      if limit == 0 or running_of(parked[i]) < limit then
        local at = tonumber(parked[i + 1])
        local band = math.floor(at / TAG)
        redis.call('ZREM', PARKED, parked[i])
        redis.call('ZADD', RING, digits(math.max(at, band * TAG + served_at(band))), parked[i])
        WAKES.READY = true
      end
    end
  end
  if limit > 0 then
    local ring = redis.call('ZRANGE', RING, 0, -1, 'WITHSCORES')
    for i = 1, #ring, 2 do
      if running_of(ring[i]) >= limit then
        redis.call('ZREM', RING, ring[i])
        redis.call('ZADD', PARKED, ring[i + 1], ring[i])
      end
    end
  end
end

-- head_of is the next task of an entry that wasn't taken, and its band; nil at the queue's end.
local function head_of(e, most)
  if not e.window[e.next] then
    e.window = redis.call('ZRANGE', queue_key(e.name), e.taken, e.taken + most, 'WITHSCORES')
    e.next = 1
  end
  local score = e.window[e.next + 1]
  if score then return e.window[e.next], math.floor(tonumber(score) / BAND) end
end

local function before(a, b)
  return a.score < b.score or a.score == b.score and a.name < b.name
end

-- serve chooses up to most tasks, best first, and returns them, whose turn it was, and the project of each. What was chosen is
-- taken out by settle_served.
local function serve(most)
  local chosen, touched, entries, owners = {}, {}, {}, {}
  if most < 1 then return chosen, touched, owners end
  -- The next tasks are of as many projects at most, and those are the first now.
  local ring = redis.call('ZRANGE', RING, 0, most - 1, 'WITHSCORES')
  local limit = running_limit()
  for i = 1, #ring, 2 do
    local score = tonumber(ring[i + 1])
    entries[#entries + 1] = { name = ring[i], score = score, was = score, taken = 0, window = {}, next = 1, running = 0, bands = {} }
    if limit > 0 then entries[#entries].running = running_of(ring[i]) end
  end

  while #chosen < most and entries[1] do
    local e = table.remove(entries, 1)
    if e.taken == 0 then touched[#touched + 1] = e end
    local band = math.floor(e.score / TAG)
    local chunk = #entries == 0 and most - #chosen or math.ceil(2 * (most - #chosen) / (#entries + 1))
    local m = head_of(e, chunk)
    if m then
      chosen[#chosen + 1], owners[#chosen + 1] = m, e.name
      e.taken, e.next, e.running = e.taken + 1, e.next + 2, e.running + 1
      local tag = e.score - band * TAG
      SERVED[band] = math.max(served_at(band), tag)
      e.bands[band] = true
      e.score = e.score + 1
      local _, next_band = head_of(e, chunk)
      if next_band and next_band ~= band then
        leave_band(e.name, band, tag + 1)
        e.score = next_band * TAG + join_band(e.name, next_band)
      end
      e.ended = not next_band
      e.full = limit > 0 and e.running >= limit
      if not e.ended and not e.full then
        local i = #entries
        while i > 0 and before(e, entries[i]) do i = i - 1 end
        table.insert(entries, i + 1, e)
      end
    else
      e.ended = true -- it was in the ring without a task
    end
  end
  return chosen, touched, owners
end

-- settle_served takes what serve chose out of the queues, and writes down whose turn is next.
local function settle_served(touched)
  local bands, ring, gone, parked = {}, {}, {}, {}
  for _, e in ipairs(touched) do
    if e.taken > 0 then redis.call('ZREMRANGEBYRANK', queue_key(e.name), 0, e.taken - 1) end
    local band = math.floor(e.score / TAG)
    bands[band], bands[math.floor(e.was / TAG)] = true, true
    for passed in pairs(e.bands) do bands[passed] = true end
    if e.ended or e.full then
      gone[#gone + 1] = e.name
      if e.ended then
        leave_band(e.name, band, e.score - band * TAG)
      else
        append(parked, digits(e.score), e.name)
      end
    elseif e.score ~= e.was then
      append(ring, digits(e.score), e.name)
    end
  end
  in_chunks(gone, 'ZREM', RING)
  in_chunks(parked, 'ZADD', PARKED)
  in_chunks(ring, 'ZADD', RING)
  for band in pairs(bands) do
    local served = served_at(band)
    redis.call('HSET', TURNS, 'v' .. band, digits(served))
    -- Whoever left with such a tag would come back with this one anyway.
    redis.call('ZREMRANGEBYSCORE', PAST, digits(band * TAG), digits(band * TAG + served))
  end
end
local find = string.find
local STARTS = pack(EVENT, EVENT_TYPES.STARTED, NOW)
local CHOSEN, TOUCHED, OWNERS, NEXT_TASK -- what claims are given of
local IDS, INDEXES, JOB_KEYS, SPECS = {}, {}, {}, {} -- of what was chosen
local ROWS = {} -- and the keys of the jobs in them
local STANDINGS, WANTS, REPLAYS, FIRSTS = {}, {}, {}, {} -- of requests: key, how many it may have, answer that comes again, same request before

-- standing_text is how the standing begins of a worker that may have tasks: attached in a session, and not draining.
local function standing_text(session) return session .. ' 0 1\n' end

-- judge_claims finds out who may have tasks, and whose answer comes again. It returns how many tasks are wanted.
local function judge_claims(requests)
  for i, r in ipairs(requests) do STANDINGS[i] = standing_key(r[1]) end
  read_all(STANDINGS)

  local wanted, limit, seen = 0, nil, {}
  for i, r in ipairs(requests) do
    local standing, start = READ[STANDINGS[i]], '\n' .. r[5] .. ' '
    local before = seen[start]
    if before and requests[before][1] ~= r[1] then -- another worker's
      start = r[1] .. start
      before = seen[start]
    end
    seen[start] = before or i
    if before then
      FIRSTS[i] = before
    elseif standing then
      local _, at = find(standing, '\n' .. r[5] .. ' ', 1, true)
      if at then
        REPLAYS[i] = sub(standing, at, (find(standing, '\n', at, true) or 0) - 1)
      elseif find(standing, standing_text(r[2]), 1, true) == 1 then
        wanted, limit = wanted + r[3], r[6]
        WANTS[i] = r[3]
      end
    end
  end
  if limit then set_limit(limit) end
  return wanted
end

-- choose chooses up to most tasks, and reads what a lease needs of them and wasn't read.
local function choose(most)
  CHOSEN, TOUCHED, OWNERS = serve(most)
  NEXT_TASK = 0
  local missing = {}
  for i, m in ipairs(CHOSEN) do
    local id, index = parse_member(m)
    local spec = spec_key(id)
    IDS[i], INDEXES[i], SPECS[i] = id, index, spec
    JOB_KEYS[i] = attempt_keys(missing, id, index, m)
    if READ[JOB_KEYS[i]] and index == 0 then missing[#missing] = nil end
    if not READ[spec] then missing[#missing + 1] = spec end
  end
  read_all(missing)
end

-- take leases the next task that was chosen, and returns it, the attempt and the lease's row; nil if there is none. One that
-- can't be read is passed by.
local function take(worker, lease, deadline)
  while CHOSEN[NEXT_TASK + 1] do
    NEXT_TASK = NEXT_TASK + 1
    local m, id, index, key = CHOSEN[NEXT_TASK], IDS[NEXT_TASK], INDEXES[NEXT_TASK], JOB_KEYS[NEXT_TASK]
    local raw = READ[key]
    if raw then
      local read, project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished, weight,
        done, percent, behind = pcall(unpack_struct, HEAD, raw)
      local task, at
      if read then task, at = task_in(raw, behind, index, m) end
      if task then
        local s, last, n, _, share, told, kept, follow, task_behind
        read, s, last, n, _, share, told, kept, follow, _, task_behind = pcall(unpack_struct, HOT, task, at)
        if read and s == READY and (state == PENDING or state == RUNNING) then
          if sequence - base >= EVENTS_BEHIND then
            raw = put_by(id, raw, behind, base)
            base = sequence
            if index == 0 then task = raw end
          end
          n, sequence = n + 1, sequence + 1
          local events = task_event('TASK_LEASED', index, n)
          if state == PENDING then
            state, started, sequence, events = RUNNING, NOW, sequence + 1, STARTS .. events
            zrem(index_of(project, 'PENDING'), id)
            zadd(index_of(project, 'RUNNING'), '0', id)
          end
          keep_attempt(key, raw, behind, index, m, task, task_behind, events, project, progress, state, run, sequence, base, open,
            math.max(lease_ms, lease), left, stream, uploaded, started, playable, finished, weight, done, percent,
            LEASED, last, n, NOW, share, told, kept, follow, worker)
          note(id, sequence)
          local name = lease_name(worker, m, n)
          zadd(LEASES, deadline, name)
          zadd(HELD, '0', name)
          count_leases(project, 1)
          local row = starts(uploaded, index, n) and { m, deadline, raw, READ[SPECS[NEXT_TASK]] }
            or lease_row(m, deadline, id, index, false)
          append(ROWS, row, key)
          return m, n, row
        end
      end
      if not read then found_broken(id, OWNERS[NEXT_TASK]) end
    end
    for _, e in ipairs(TOUCHED) do
      if e.name == OWNERS[NEXT_TASK] then e.full = false end -- it doesn't run after all
    end
  end
end

-- still_held adds the rows of a request that comes again: of the leases of its first answer that are still held.
local function still_held(worker, leases, answer)
  for m, attempt in string.gmatch(leases, '(%S+) (%d+)') do
    local id, index = parse_member(m)
    local raw = read(job_key(id))
    local whole, behind = pcall(function() return raw and select(18, unpack_struct(HEAD, raw)) end)
    if index > 0 then read(task_key(m)) end
    local task, at
    if whole and raw then task, at = task_in(raw, behind, index, m) end
    if task then
      local read_, s, _, n, _, _, _, _, _, by = pcall(unpack_struct, HOT, task, at)
      if read_ and s == LEASED and by == worker and n == attempt + 0 then
        answer[#answer + 1] = lease_row(m, redis.call('ZSCORE', LEASES, lease_name(by, m, n)), id, index, false)
      end
    end
  end
end

-- claim gives a worker up to most tasks, and keeps which in its standing, in place of the older of two answers.
local function claim(r, most, standing, answer)
  local worker, lease_ms = r[1], r[4]
  local deadline = deadline_text(lease_ms)
  local given = r[5]
  for _ = 1, most do
    local m, n, row = take(worker, lease_ms, deadline)
    if not m then break end
    given = given .. ' ' .. m .. ' ' .. digits(n)
    answer[#answer + 1] = row
  end
  if not answer[4] then return end
  local raw, state = READ[standing], standing_text(r[2])
  local newest = sub(raw, #state + 1, find(raw, '\n', #state + 1, true) - 1)
  keep(standing, state .. given .. '\n' .. newest)
  -- While there are leases, the sweeper comes at least that often.
  due(NOW + math.floor(lease_ms / 3))
end

-- claim_all returns answers to claims. Nothing is written yet but whose turn is next: write_out does that.
local function claim_all(requests)
  choose(judge_claims(requests))
  local answers = {}
  for i, r in ipairs(requests) do
    -- A request that comes twice in one call has one answer.
    local answer = FIRSTS[i] and answers[FIRSTS[i]] or { '', 0, 0 }
    answers[i] = answer
    if REPLAYS[i] then
      still_held(r[1], REPLAYS[i], answer)
    elseif WANTS[i] then
      claim(r, WANTS[i], STANDINGS[i], answer)
    elseif not FIRSTS[i] then
      answer[3] = 1
    end
  end
  settle_served(TOUCHED)
  return answers
end

-- finish_rows gives the rows of leases their jobs as they are in the end: a job may have given more than one.
local function finish_rows()
  for i = 1, #ROWS, 2 do ROWS[i][3] = READ[ROWS[i + 1]] end
end
-- A script of a verb that is called often takes many requests at a time. Each
-- is one packed argument; its keys, as many for each, come after the common
-- ones, one request's after the other's. Each gets its own answer, as if they
-- had come one by one: a refusal is an answer and harms no other request. An
-- answer is a list, or a line of values with spaces between, which costs less:
-- the code is empty or the reason of a refusal, so most lines begin with a space.

-- read_requests returns the requests: lists of arguments.
local function read_requests()
  local requests = {}
  for i = 2, #ARGV do requests[i - 1] = { cmsgpack.unpack(ARGV[i]) } end
  return requests
end
local requests = read_requests()
local answers = claim_all(requests)
write_out()
finish_rows()
local more = redis.call('EXISTS', RING)
for _, answer in ipairs(answers) do answer[2] = more end
return answers
