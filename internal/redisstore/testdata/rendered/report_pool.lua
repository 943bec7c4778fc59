-- Keeps what the leader tells of the pool.
-- KEYS  common; 14 pool
-- ARGV  prefix, report JSON, leader's term or 0
-- Returns  {''} | {'LEASE_LOST'}
-- Replay   the same.
-- The lead: SWEEP has who leads, until when, and its term, which rises
-- whenever another process comes to lead.
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

-- may_act reports whether a term is the newest one; 0 is of who needs no lead.
local function may_act(term) return term == '0' or redis.call('HGET', SWEEP, 'term') == term end
if not may_act(ARGV[3]) then return { 'LEASE_LOST' } end
redis.call('HSET', KEYS[14], 'report', ARGV[2])
return { '' }
