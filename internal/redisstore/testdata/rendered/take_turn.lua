-- Takes the next turn at something that is done at a pace, and says when it comes.
-- KEYS  common; 14 turn
-- ARGV  prefix, ms between two turns, turns at once, most ms to wait
-- Returns  {'', ms until the turn} | {''}: it would be longer, none is taken
-- Replay   takes another turn.
-- NOW is the time of this script in milliseconds: Redis's clock. Tests move it
-- (CLOCK is by how many ms) or stop it (CLOCK is = and a moment). STAMP is NOW as text.
-- Every script gets these keys first, and the deployment's prefix (its hash
-- tag and a colon) as ARGV[1]. The keys of jobs, workers and indexes that are
-- only known once a queue was read are derived from the prefix, below the
-- same hash tag.
local CLOCK, SWEEP, LEASES, DELAYED, DUTIES, UPLOADS, WORKERS = unpack(KEYS, 1, 7)
local RING, PARKED, PAST, TURNS, ENDED, HELD = unpack(KEYS, 8, 13)
local PREFIX = ARGV[1]

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

local every, burst, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
-- When the turns that were taken would be over if none came at once.
local busy = math.max(NOW, tonumber(redis.call('GET', KEYS[14])) or 0)
local wait = math.max(0, busy - NOW - (burst - 1) * every)
if wait > most then return { '' } end
redis.call('SET', KEYS[14], string.format('%.0f', busy + every), 'PX', string.format('%.0f', busy + every - NOW))
return { '', wait }
