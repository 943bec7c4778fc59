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
local function spec_key(id) return PREFIX .. 'd:' .. id end -- what never changes, packed by spec.go
local function probe_key(id) return PREFIX .. 'b:' .. id end -- JSON
local function plan_key(id) return PREFIX .. 'g:' .. id end -- JSON
local function result_key(m) return PREFIX .. 'r:' .. m end -- JSON, of a task
local function outputs_key(id) return PREFIX .. 'o:' .. id end -- JSON
local function summary_key(id) return PREFIX .. 's:' .. id end -- JSON: outputs without their objects, if they are many
local function stream_key(id) return PREFIX .. 'c:' .. id end -- hash: see stream.lua
local function upload_key(id) return PREFIX .. 'u:' .. id end
local function worker_key(id) return PREFIX .. 'w:' .. id end -- hash: what it said of itself
local function standing_key(id) return PREFIX .. 'v:' .. id end -- see worker.lua
local function machine_workers_key(id) return PREFIX .. 'mw:' .. id end
local function queue_key(project) return PREFIX .. 'q:' .. project end -- zset: its ready tasks
local function index_key(project, state) return PREFIX .. 'i:' .. project .. ':' .. state end
local function job_channel(id) return PREFIX .. 'n:' .. id end -- nothing is published there: who subscribes is counted
local EXPIRING = PREFIX .. 'expiring' -- see idempotency.lua
local BROKEN = PREFIX .. 'broken' -- see aside.lua
local WAKE_CHANNEL, NOTICE_CHANNEL = PREFIX .. 'wake', PREFIX .. 'notices'
