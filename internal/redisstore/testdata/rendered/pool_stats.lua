-- Counts tasks; those of projects at their limit aren't counted as ready. Changes nothing.
-- KEYS  common. Derived: the queues of the projects.
-- ARGV  prefix
-- Returns  {'', ready, leased, delayed, age in ms of the oldest job with such a ready task, ready tasks of projects at
--          their limit}
-- What waits for a slot.
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

local function queue_key(project) return PREFIX .. 'q:' .. project end -- zset: its ready tasks
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

local function digits(n)
  local text = DIGITS[n]
  if not text then
    text = string.format('%.0f', n)
    DIGITS[n] = text
  end
  return text
end




-- Wake-ups are collected and published once, at the end of a script.
local WAKES = {}
local EARLIEST -- the earliest deadline that this script set


local TAG = 17592186044416   -- 2^44: a score in RING is band * TAG + tag, 52 bits
local BAND = 2199023255552   -- 2^41: a score in a queue is band * BAND + ms, 49 bits
local EPOCH = 1577836800000  -- 2020-01-01
local PROJECTS, PROJECT_ORDER = {}, {}
local LIMIT
local SERVED = {} -- by band













-- waiting counts the tasks that a claim could get, and says when the oldest
-- job with one was queued. Its cost is the number of projects with ready tasks
-- and of the different priorities that wait there, not of the tasks.
local function waiting(projects)
  local ready, oldest = 0
  for _, name in ipairs(projects) do
    local queue = queue_key(name)
    ready = ready + redis.call('ZCARD', queue)
    local from = '-inf'
    while true do
      local head = redis.call('ZRANGEBYSCORE', queue, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      if #head == 0 then break end
      local score = tonumber(head[2])
      local band = math.floor(score / BAND)
      local queued = score - band * BAND + EPOCH
      if not oldest or queued < oldest then oldest = queued end
      from = digits((band + 1) * BAND)
    end
  end
  return ready, oldest and math.max(0, NOW - oldest) or 0
end

-- limited counts the ready tasks of projects that run as many as they may.
local function limited()
  local tasks = 0
  for _, name in ipairs(redis.call('ZRANGE', PARKED, 0, -1)) do tasks = tasks + redis.call('ZCARD', queue_key(name)) end
  return tasks
end
local ready, oldest = waiting(redis.call('ZRANGE', RING, 0, -1))
return { '', ready, redis.call('ZCARD', LEASES), redis.call('ZCARD', DELAYED), oldest, limited() }
