-- Writes jobs in PENDING with their first task ready.
-- KEYS  common; of each request: job, spec, its idempotency key, the upload of its source (the job again for either
--       that it doesn't have)
-- ARGV  prefix; requests (see request.lua) of: job id, project, priority, spec JSON, waiting limit, upload id (or
--       nothing), fingerprint (or nothing) and ttl ms of its idempotency key (0: none), first task JSON, its weight
-- Returns  {answer, ...}: {'', job id, when it was created; left out if the job was there}
--          | {'IDEMPOTENCY_KEY_REUSED' | 'OBJECT_NOT_FOUND' | 'QUEUE_FULL'}
-- Replay   the same id, or the same idempotency key, gives the first job.
--          A key whose job was deleted makes a new one.
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
-- A script of a verb that is called often takes many requests at a time. Each
-- is the number of its arguments, then these; its keys, as many for each, come
-- after the common ones, one request's after the other's. Each gets its own
-- answer, as if they had come one by one: a refusal is an answer and harms no
-- other request.

-- read_requests returns the requests: lists of arguments. k is where the keys begin.
local function read_requests(keys)
  local requests, n, at = {}, 0, 2
  while ARGV[at] do
    local args = ARGV[at] + 0
    local r = { unpack(ARGV, at + 1, at + args) }
    r.k = 14 + n * keys
    n = n + 1
    requests[n] = r
    at = at + 1 + args
  end
  return requests
end
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
local requests = read_requests(4)
local known, uploads, made = {}, {}, {}

local function exists(key) return made[key] or redis.call('EXISTS', key) == 1 end

-- decide returns the answer to a request, and whether its job is to be written.
local function decide(r)
  local k, id = r.k, r[1]
  if r[8] ~= '0' then
    local key = KEYS[k + 2]
    local first, other = known_id(known[key] or redis.call('GET', key), r[7])
    if other then return { 'IDEMPOTENCY_KEY_REUSED' } end
    if first and exists(job_key(first)) then return { '', first } end
  end
  if exists(KEYS[k]) then return { '', id } end
  if r[6] ~= '' then
    local key = KEYS[k + 3]
    uploads[key] = uploads[key] or redis.call('HGET', key, 's') or ''
    if uploads[key] ~= 'COMPLETED' then return { 'OBJECT_NOT_FOUND' } end
  end
  if not admit(r[2], r[5] + 0) then return { 'QUEUE_FULL' } end
  made[KEYS[k]] = true
  if r[8] ~= '0' then known[KEYS[k + 2]] = key_value(r[7], id, r[8]) end
  return { '', id, STAMP }, true
end

local CREATED, QUEUED, TIMES = 'CREATED ' .. STAMP, 'QUEUED ' .. STAMP, 'c' .. STAMP .. ' q' .. STAMP

local function write(r)
  local k, id, project = r.k, r[1], r[2]
  redis.call('HSET', KEYS[k], 'h', 'PENDING 1 2 1 0 0 1 0 ' .. r[3] .. (r[6] == '' and ' 0' or ' 1'), 'p', project,
    's0', 'READY 0 0 1 0 0 0 0 0 0 ' .. r[10] .. ' 0 0 0 ', 'ti', TIMES, 'g', r[10] .. ' 0 0', 'd0', r[9],
    'e1', CREATED, 'e2', QUEUED)
  if r[6] ~= '' then
    redis.call('HSET', KEYS[k], 'up', r[6])
    redis.call('HINCRBY', KEYS[k + 3], 'n', 1)
  end
  append(SETS, KEYS[k + 1], r[4])
  if r[8] ~= '0' then redis.call('SET', KEYS[k + 2], known[KEYS[k + 2]], 'PX', r[8]) end
  zadd(index_key(project, 'PENDING'), 0, id)
  queue_add(project, r[3] + 0, NOW, id .. '-00000')
end

local answers, writes = {}, {}
for i, r in ipairs(requests) do
  local answer, new = decide(r)
  answers[i] = answer
  if new then writes[#writes + 1] = r end
end
for _, r in ipairs(writes) do write(r) end
settle_projects()
write_all()
publish_wakes()
return answers
