-- Notes that a worker's stream is cut. One that is gone and holds nothing is forgotten.
-- KEYS  common; 14 worker. Derived: the workers of its machine.
-- ARGV  prefix, worker id, session, gone (0, 1)
-- Returns  {''}; another session than the worker's changes nothing
-- Replay   the same.
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

local function worker_key(id) return PREFIX .. 'w:' .. id end -- hash: what it said of itself
local function standing_key(id) return PREFIX .. 'v:' .. id end -- see worker.lua
local function machine_workers_key(id) return PREFIX .. 'mw:' .. id end
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

local SETS, DELS, ZREMS, ZADDS = {}, {}, {}, {}


local DIGITS = {} -- whole numbers as text: most scores, sequences and attempts of a call are the same


local function list_of(lists, key)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  return list
end

local function del(key) DELS[#DELS + 1] = key end
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




-- held_by lists the leases that a worker holds.
local function held_by(worker)
  local list = {}
  local from = worker .. ' '
  for _, name in ipairs(redis.call('ZRANGEBYLEX', HELD, '[' .. from, '(' .. from .. '\255')) do
    -- Another worker's id may begin like this one's.
    if string.find(name, '^%S+ %d+$', #from + 1) then list[#list + 1] = name end
  end
  return list
end
-- Workers: one hash each, and their place in WORKERS by when they were last
-- seen. v:<worker> is what claims ask for: a line of session, draining and attached,
-- and the answers to the two newest claims that gave it tasks, a line each.
local SEEN_WITHIN = 60000 -- a worker that is silent for longer isn't listed

-- standing_of returns session, draining, attached and the answers; nothing of a worker that nobody knows.
local function standing_of(id)
  return string.match(redis.call('GET', standing_key(id)) or '', '^(%S+) (%S+) (%S+)\n(.*)$')
end

local function set_standing(id, session, draining, attached, answers)
  redis.call('SET', standing_key(id), session .. ' ' .. draining .. ' ' .. attached .. '\n' .. answers)
end

-- forget_worker removes a worker that holds nothing.
local function forget_worker(id, machine)
  del(worker_key(id))
  del(standing_key(id))
  zrem(WORKERS, id)
  if machine and machine ~= '' then redis.call('SREM', machine_workers_key(machine), id) end
end
local session, draining, _, answers = standing_of(ARGV[2])
if session ~= ARGV[3] then return { '' } end
if ARGV[4] == '1' and #held_by(ARGV[2]) == 0 then
  forget_worker(ARGV[2], redis.call('HGET', KEYS[14], 'mid'))
  write_all()
else
  set_standing(ARGV[2], session, draining, 0, answers)
end
return { '' }
