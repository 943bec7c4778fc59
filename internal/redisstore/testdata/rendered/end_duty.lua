-- Ends a duty. That of an open upload stays until the upload ends, that of a
-- job to publish until the job is published. A duty that a later state change
-- left under the same name stays: it isn't the one that was handed out.
-- KEYS  common; 9 purges, 10 upload (of EXPIRE_UPLOAD), 11 job (of PUBLISH)
-- ARGV  prefix, kind, id
-- Returns  {''}
-- Replay   the same.
-- Wake-ups are collected and published once, at the end of a script.
-- NOW is the time of this script in milliseconds: Redis's clock, and what
-- tests moved it by.
-- Every script gets these keys first, and the deployment's prefix (its hash
-- tag and a colon) as ARGV[1]. The keys of jobs, workers and indexes that are
-- only known once a queue was read are derived from the prefix, below the
-- same hash tag.
local CLOCK, SWEEP, READY, LEASES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local DELAYED, DUTIES, UPLOADS, WORKERS = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local PREFIX = ARGV[1]

local function job_key(id) return PREFIX .. 'j:' .. id end -- hash: what changes
local function spec_key(id) return PREFIX .. 'd:' .. id end -- JSON: what never changes
local function result_key(id) return PREFIX .. 'x:' .. id end -- hash of JSON: probe, plan, results, outputs
local function upload_key(id) return PREFIX .. 'u:' .. id end
local function worker_key(id) return PREFIX .. 'w:' .. id end
local function held_key(id) return PREFIX .. 'h:' .. id end -- hash: the leases of a worker
local function machine_workers_key(id) return PREFIX .. 'mw:' .. id end
local function index_key(project, state) return PREFIX .. 'i:' .. project .. ':' .. state end
local function job_channel(id) return PREFIX .. 'n:' .. id end
local WAKE_CHANNEL = PREFIX .. 'wake'
local function read_clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000) + (tonumber(redis.call('GET', CLOCK)) or 0)
end
local NOW = read_clock()
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
end
-- Duties: work outside the store, in DUTIES as kind|id by when to hand it out.
local VISIBILITY = 60000 -- a duty that was handed out comes again after that

-- purge_again_field is where the purges keep when a duty to purge comes once more.
local function purge_again_field(id) return 'again|' .. id end
local kind, id = ARGV[2], ARGV[3]
local duty = kind .. '|' .. id
if kind == 'EXPIRE_UPLOAD' then
  if redis.call('HGET', KEYS[10], 's') ~= 'OPEN' then redis.call('ZREM', UPLOADS, id) end
elseif kind == 'PUBLISH' then
  local state, open = unpack(redis.call('HMGET', KEYS[11], 's', 'o'))
  if state ~= 'RUNNING' or open ~= '0' then redis.call('ZREM', DUTIES, duty) end
elseif kind == 'PURGE' then
  local again = redis.call('HGET', KEYS[9], purge_again_field(id))
  if again and tonumber(again) > NOW then
    redis.call('ZADD', DUTIES, again, duty)
    due(tonumber(again))
    publish_wakes()
  else
    redis.call('ZREM', DUTIES, duty)
    redis.call('HDEL', KEYS[9], id, purge_again_field(id))
  end
else
  local at = redis.call('ZSCORE', DUTIES, duty)
  if at and tonumber(at) <= NOW + VISIBILITY then redis.call('ZREM', DUTIES, duty) end
end
return { '' }
