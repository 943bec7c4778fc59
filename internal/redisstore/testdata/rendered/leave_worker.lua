-- Marks a worker as draining if it holds no lease.
-- KEYS  common. Derived: the worker, and the others if some are kept.
-- ARGV  prefix, worker id, session, workers of machines that are kept
-- Returns  {'', 1 if it may exit, else 0 (it holds a lease, is attached in a newer session, or is one of those kept)}
-- Replay   the same. A worker that nobody knows may exit.
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

local session, draining, attached, answers = standing_of(ARGV[2])
if not session then return { '', 1 } end
if session ~= ARGV[3] or #held_by(ARGV[2]) > 0 then return { '', 0 } end
local keep = tonumber(ARGV[4])
if draining ~= '1' and keep > 0 then
  local taking = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, NOW - SEEN_WITHIN, '+inf')) do
    local _, drains = standing_of(id)
    local machine = redis.call('HGET', worker_key(id), 'mid')
    if drains == '0' and machine and machine ~= '' then taking = taking + 1 end
  end
  if taking <= keep then return { '', 0 } end
end
set_standing(ARGV[2], session, 1, attached, answers)
return { '', 1 }
