-- Marks a worker: it is given nothing more.
-- KEYS  common; 14 worker
-- ARGV  prefix, worker id
-- Returns  {''} | {'WORKER_NOT_FOUND'}
-- Replay   the same, without a wake-up.
-- Workers: one string each, and their place in WORKERS by when they were last
-- seen. Lines: numbers; machine, version and encoders; then the answers to its
-- newest claims that gave it tasks, each the request and the leases.
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
local ANSWERS_KEPT = 4

local function parse_worker(id, raw)
  local w = { id = id, answers = '' }
  local head
  head, w.machine, w.version, w.encoders, w.answers = string.match(raw, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
  w.session, w.draining, w.attached, w.seen, w.slots, w.cpus =
    string.match(head, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  return w
end

local function load_worker(id)
  local raw = redis.call('GET', worker_key(id))
  return raw and parse_worker(id, raw) or nil
end

local function save_worker(w)
  set(worker_key(w.id), w.session .. ' ' .. w.draining .. ' ' .. w.attached .. ' ' .. w.seen .. ' ' .. w.slots .. ' '
    .. w.cpus .. '\n' .. w.machine .. '\n' .. w.version .. '\n' .. w.encoders .. '\n' .. w.answers)
end

-- keep_answer keeps what a claim gave, as {member, attempt, ...}, in place of the oldest that is kept.
local function keep_answer(w, request, leases)
  local kept, n = request .. ' ' .. table.concat(leases, ' ') .. '\n', 1
  for line in string.gmatch(w.answers, '[^\n]+\n') do
    if n == ANSWERS_KEPT then break end
    kept, n = kept .. line, n + 1
  end
  w.answers = kept
end

-- answer_of returns what a claim gave, nil if that isn't kept.
local function answer_of(w, request)
  local from, to = string.find('\n' .. w.answers, '\n' .. request .. ' ', 1, true)
  return from and string.match(w.answers, '^[^\n]*', to)
end

-- forget_worker removes a worker that holds nothing.
local function forget_worker(id, machine)
  del(worker_key(id))
  zrem(WORKERS, id)
  if machine and machine ~= '' then redis.call('SREM', machine_workers_key(machine), id) end
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
local w = load_worker(ARGV[2])
if not w then return { 'WORKER_NOT_FOUND' } end
if w.draining ~= '1' then
  w.draining = 1
  save_worker(w)
  write_all()
  WAKES.WORKER = true
  publish_wakes()
end
return { '' }
