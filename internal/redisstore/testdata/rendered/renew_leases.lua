-- Renews the leases of workers, marks them as seen and takes their progress.
-- A lease that would gain less than a second, or a sixteenth of its length if that is less, stays as it is unless somebody
-- watches its job, and what the worker says of it isn't stored. Watchers are told at each call.
-- KEYS  common. Derived: the jobs of the leases.
-- ARGV  prefix; requests (see request.lua) of: worker id, lease ms, and a list with for each lease: its name (see held.lua),
--       fraction, progress
-- Returns  {answer, ...}: 1 if somebody watches one of the jobs else 0, position of a lost lease (from 0), ...
-- Replay   the same; renewed again once that adds enough.
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
local function queue_key(project) return PREFIX .. 'q:' .. project end -- zset: its ready tasks
local function job_channel(id) return PREFIX .. 'n:' .. id end -- nothing is published there: who subscribes is counted
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

-- fresh_within is what a renewal has to add, in ms, to be worth a write.
local function fresh_within(lease_ms) return math.min(1000, lease_ms / 16) end


-- parse_lease returns the member and the attempt that a lease is of.
local function parse_lease(name)
  local m, n = string.match(name, '(%S+) (%d+)$')
  return m, tonumber(n)
end

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

-- share_of is the share of a job's work, in percent, that is done now.
local function share_of(done, weight) return math.max(0, 100 * done / weight) end

-- risen is a job's percent with what is done: it never falls within a run, and reaches 100 only when that is COMPLETED.
local function risen(percent, done, weight) return math.max(percent, math.min(99.9, share_of(done, weight))) end

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
local names = {}
for _, r in ipairs(requests) do
  for i = 1, #r[3], 3 do names[#names + 1] = r[3][i] end
end

-- deadlines_of returns the deadlines of leases, false for one that is lost.
local function deadlines_of(list)
  local deadlines = {}
  for from = 1, #list, 2000 do
    local to = math.min(from + 1999, #list)
    local scores = redis.call('ZMSCORE', LEASES, unpack(list, from, to))
    for i = from, to do deadlines[i] = scores[i - from + 1] end
  end
  return deadlines
end
local deadlines = deadlines_of(names)

-- watched_jobs reports of each channel how many listen, as far as this server
-- knows; nothing where it doesn't tell. Most often nobody listens to anything.
local function watched_jobs()
  local watched = {}
  local all = redis.pcall('PUBSUB', 'NUMSUB', NOTICE_CHANNEL)
  if not all[2] or all[2] == 0 or all[2] == '0' then return watched end
  local list = {}
  for i, name in ipairs(names) do
    if deadlines[i] then list[#list + 1] = job_channel((parse_member((parse_lease(name))))) end
  end
  for from = 1, #list, 2000 do
    local counts = redis.pcall('PUBSUB', 'NUMSUB', unpack(list, from, math.min(from + 1999, #list)))
    for i = 1, #counts, 2 do
      if counts[i + 1] ~= 0 and counts[i + 1] ~= '0' then watched[counts[i]] = true end
    end
  end
  return watched
end
local watched = watched_jobs()
local anybody = next(watched) ~= nil
local told = {}

-- renew renews a lease and takes in what is said of it; false if it is lost.
-- An attempt that says less than before was wrong before: its word counts, the
-- job's percent doesn't fall.
local function renew(l, worker, fraction, saying)
  local raw, id, index, m = READ[l.key], l.id, l.index, l.m
  if not raw then return false end
  local whole, project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished,
    weight, done, percent, behind = pcall(unpack_struct, HEAD, raw)
  local task, at
  if whole then task, at = task_in(raw, behind, index, m) end
  if whole and not task then return false end
  local s, last, n, began, share, fraction_told, kept, follow, by, task_behind
  if task then
    whole, s, last, n, began, share, fraction_told, kept, follow, by, task_behind = pcall(unpack_struct, HOT, task, at)
  end
  if not whole then
    found_broken(id, '')
    return false
  end
  if s ~= LEASED or n ~= l.n or by ~= worker then return false end
  zadd(LEASES, l.deadline, l.name)
  if share > 0 then
    done = done + share * (fraction - fraction_told)
    percent = risen(percent, done, weight)
    keep_attempt(l.key, raw, behind, index, m, task, task_behind, '', project, saying, state, run, sequence, base, open, lease_ms, left,
      stream, uploaded, started, playable, finished, weight, done, percent, s, last, n, began, share, fraction, NOW, follow, by)
    told[#told + 1] = id .. ' ' .. run .. ' ' .. percent .. ' ' .. share_of(done, weight) .. ' ' .. saying
  end
  return true
end

local renewed, keys = {}, {} -- the leases that are to be renewed, by position, and their records
local ends = {} -- their deadlines then, by name

-- look finds out whether a lease is to be renewed, and returns whether somebody watches its job.
local function look(at, lease_ms)
  local name = names[at]
  local was = ends[name] or tonumber(deadlines[at])
  local adds = NOW + lease_ms - was
  local is_fresh = adds >= 0 and adds < fresh_within(lease_ms)
  if is_fresh and not anybody then return false end
  local m, n = parse_lease(name)
  local id, index = parse_member(m)
  local is_watched = watched[job_channel(id)] or false
  if not is_fresh or is_watched then
    renewed[at] = { name = name, m = m, n = n, id = id, index = index, key = attempt_keys(keys, id, index, m),
      deadline = deadline_text(lease_ms) }
    ends[name] = NOW + lease_ms
  end
  return is_watched
end

local answers, at = {}, 0
for position, r in ipairs(requests) do
  local is_any_watched = ' 0'
  for _ = 1, #r[3], 3 do
    at = at + 1
    if deadlines[at] and look(at, r[2]) then is_any_watched = ' 1' end
  end
  answers[position] = is_any_watched
end
read_all(keys)

local seen = {}
at = 0
for position, r in ipairs(requests) do
  local worker, leases = r[1], r[3]
  local is_seen = #leases == 0
  for i = 1, #leases, 3 do
    at = at + 1
    local l = renewed[at]
    is_seen = is_seen or l ~= nil
    if not deadlines[at] or l and not renew(l, worker, leases[i + 1], leases[i + 2]) then
      answers[position] = answers[position] .. ' ' .. (i - 1) / 3
    end
  end
  if is_seen then append(seen, STAMP, worker) end
end
in_chunks(seen, 'ZADD', WORKERS, 'XX')
write_out()
if told[1] then redis.call('PUBLISH', NOTICE_CHANNEL, 'p ' .. table.concat(told, '\n')) end
return answers
