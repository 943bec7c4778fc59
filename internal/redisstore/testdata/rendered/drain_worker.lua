-- Marks a worker: it is given nothing more.
-- KEYS  common. Derived: the worker
-- ARGV  prefix, worker id
-- Returns  {''} | {'WORKER_NOT_FOUND'}
-- Replay   the same, without a wake-up.
-- Wake-ups are collected and published once, at the end of a script.
-- NOW is the time of this script in milliseconds: Redis's clock. Tests move it
-- (CLOCK is by how many ms) or stop it (CLOCK is = and a moment). STAMP is NOW as text.
-- Every script gets these keys first, and the deployment's prefix (its hash
-- tag and a colon) as ARGV[1]. The keys of jobs, workers and indexes that are
-- only known once a queue was read are derived from the prefix, below the
-- same hash tag.
local CLOCK, SWEEP, LEASES, DELAYED, DUTIES, UPLOADS, WORKERS = unpack(KEYS, 1, 7)
local RING, PARKED, PAST, TURNS, ENDED, HELD = unpack(KEYS, 8, 13)
local PREFIX = ARGV[1]

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

local WAKES = {}
local EARLIEST -- the earliest deadline that this script set


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
-- Workers: one hash each, and their place in WORKERS by when they were last
-- seen. v:<worker> is what claims ask for: a line of session, draining and attached,
-- and the answers to the two newest claims that gave it tasks, a line each.
-- A script reads and decides first and writes last, each sorted set in one
-- command, however many requests the call has; and a script that fails in
-- between changed nothing.
local SETS, DELS, ZREMS, ZADDS = {}, {}, {}, {}


local DIGITS = {} -- whole numbers as text: most scores, sequences and attempts of a call are the same





local SEEN_WITHIN = 60000 -- a worker that is silent for longer isn't listed

-- standing_of returns session, draining, attached and the answers; nothing of a worker that nobody knows.
local function standing_of(id)
  return string.match(redis.call('GET', standing_key(id)) or '', '^(%S+) (%S+) (%S+)\n(.*)$')
end

local function set_standing(id, session, draining, attached, answers)
  redis.call('SET', standing_key(id), session .. ' ' .. draining .. ' ' .. attached .. '\n' .. answers)
end

local session, draining, attached, answers = standing_of(ARGV[2])
if not session then return { 'WORKER_NOT_FOUND' } end
if draining ~= '1' then
  set_standing(ARGV[2], session, 1, attached, answers)
  WAKES.WORKER = true
  publish_wakes()
end
return { '' }
