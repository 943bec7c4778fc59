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

local function job_key(id) return PREFIX .. 'j:' .. id end -- what changes of a job, packed: see job.lua
local function task_key(m) return PREFIX .. 't:' .. m end -- a task but the first, packed: see task.lua
local function more_key(id) return PREFIX .. 'x:' .. id end -- hash: what few jobs have and few scripts need
local function events_key(id) return PREFIX .. 'e:' .. id end -- list: older events, packed
local function spec_key(id) return PREFIX .. 'd:' .. id end -- JSON: what never changes
local function probe_key(id) return PREFIX .. 'b:' .. id end -- JSON
local function plan_key(id) return PREFIX .. 'g:' .. id end -- JSON
local function result_key(m) return PREFIX .. 'r:' .. m end -- JSON, of a task
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
local every, burst, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
-- When the turns that were taken would be over if none came at once.
local busy = math.max(NOW, tonumber(redis.call('GET', KEYS[14])) or 0)
local wait = math.max(0, busy - NOW - (burst - 1) * every)
if wait > most then return { '' } end
redis.call('SET', KEYS[14], string.format('%.0f', busy + every), 'PX', string.format('%.0f', busy + every - NOW))
return { '', wait }
