-- What a script leaves to do at its end: strings and sorted sets, whose turn
-- it is, wake-ups, and one notice of all jobs that changed.
-- $include(write.lua)
-- $include(wake.lua)
-- $include(turn.lua)
local EVENT_CHUNKS = 20 -- of a job
local CHANGED = {} -- job id, sequence of its newest event, ...
local APART = {} -- keys of lists, and chunks of older events for them

local INDEXES = {} -- keys by state, by project

local function index_of(project, state)
  local keys = list_of(INDEXES, project)
  local key = keys[state] or index_key(project, state)
  keys[state] = key
  return key
end

local function note(id, sequence) append(CHANGED, id, digits(sequence)) end

local function write_out()
  settle_projects()
  write_all()
  for i = 1, #APART, 2 do
    redis.call('RPUSH', APART[i], APART[i + 1])
    redis.call('LTRIM', APART[i], -EVENT_CHUNKS, -1)
  end
  APART = {}
  if CHANGED[1] then
    redis.call('PUBLISH', NOTICE_CHANNEL, 'q ' .. table.concat(CHANGED, ' '))
    CHANGED = {}
  end
  publish_wakes()
end
