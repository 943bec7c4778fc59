-- Jobs are loaded once per script, changed in memory and written back by
-- flush: one HSET and one notice per job, however many changes.
-- $include(wake.lua)
-- $include(transitions.lua)
local MAX_EVENTS = 1000
-- Later than any URL that was signed for a lease: they live 5 minutes longer than it.
local CLEAN_AFTER = 6 * 60 * 1000
local ROW = { 's', 'p', 'pr', 'r', 'q', 'tc', 'tq', 'ts', 'tp', 'ty', 'tf', 'pc', 'pg', 'f', 'sz', 'et' }
local JOBS, JOB_ORDER = {}, {}

local function remember(job)
  JOBS[job.id] = job
  JOB_ORDER[#JOB_ORDER + 1] = job
  return job
end

local function load_job(id)
  if JOBS[id] then return JOBS[id] end
  local v = redis.call('HMGET', job_key(id), 's', 'p', 'pr', 'r', 'q', 'n', 'b', 'o', 'W', 'A', 'pc', 'tq', 'lm', 'lo', 'up')
  if not v[1] then return nil end
  return remember({
    id = id, state = v[1], project = v[2], priority = tonumber(v[3]) or 0,
    run = tonumber(v[4]), sequence = tonumber(v[5]),
    tasks_count = tonumber(v[6]) or 0, -- over all runs
    first = tonumber(v[7]) or 0,       -- index of the run's first task
    open = tonumber(v[8]) or 0,        -- tasks of the run that aren't done
    weight = tonumber(v[9]) or 0,      -- of all tasks of the run
    done = tonumber(v[10]) or 0,       -- weight that is done, in part or whole
    percent = tonumber(v[11]) or 0,
    queued = tonumber(v[12]),          -- nil: its source never came
    lease_ms = tonumber(v[13]) or 0,   -- the longest that was given
    left_objects = v[14] == '1',       -- an attempt that wasn't accepted may have written
    upload = v[15],                    -- false: it didn't come by upload
    put = {}, drop = {}, tasks = {}, old_sequence = tonumber(v[5]),
  })
end

local function put(job, field, value)
  local n = #job.put
  job.put[n + 1], job.put[n + 2] = field, value
end

local function add_event(job, kind, index, attempt, reason, message)
  job.sequence = job.sequence + 1
  local e = kind .. ' ' .. NOW
  if index or reason then
    e = e .. ' ' .. (index or '-') .. ' ' .. (attempt or '-')
    if reason then e = e .. ' ' .. reason .. ' ' .. message end
  end
  put(job, 'e' .. job.sequence, e)
  if job.sequence > MAX_EVENTS then job.drop[#job.drop + 1] = 'e' .. (job.sequence - MAX_EVENTS) end
end

-- in_chunks calls a command with a long list of arguments, few enough at a time for unpack.
local function in_chunks(command, key, list)
  for i = 1, #list, 2000 do
    redis.call(command, key, unpack(list, i, math.min(i + 1999, #list)))
  end
end

local function flush_job(job)
  if job.sequence ~= job.old_sequence then
    put(job, 'q', job.sequence)
  end
  in_chunks('HSET', job_key(job.id), job.put)
  in_chunks('HDEL', job_key(job.id), job.drop)
  if job.sequence ~= job.old_sequence then
    redis.call('PUBLISH', job_channel(job.id), '{"q":' .. job.sequence .. '}')
  end
  job.put, job.drop, job.old_sequence = {}, {}, job.sequence
end

local function flush()
  for _, job in ipairs(JOB_ORDER) do flush_job(job) end
  publish_wakes()
end

-- move_job moves a job and its entry in the index; false if the table forbids it.
local function move_job(job, by)
  local to = next_state('job', job.state, by)
  if not to then return false end
  redis.call('ZREM', index_key(job.project, job.state), job.id)
  redis.call('ZADD', index_key(job.project, to), 0, job.id)
  job.state = to
  put(job, 's', to)
  return true
end

-- drop_duties ends the duties that only hold for the state a job leaves.
local function drop_duties(job)
  redis.call('ZREM', DUTIES, 'PUBLISH|' .. job.id, 'CLEAN|' .. job.id)
end

-- clean_later leaves the duty to remove what no output names.
local function clean_later(job)
  local at = NOW + job.lease_ms + CLEAN_AFTER
  redis.call('ZADD', DUTIES, at, 'CLEAN|' .. job.id)
  due(at)
end

-- end_job notes how a job ended, once it has moved there.
local function end_job(job, event, reason, message)
  put(job, 'tf', NOW)
  if reason then put(job, 'f', cjson.encode({ reason = reason, message = message })) end
  add_event(job, event, nil, nil, reason, message)
  drop_duties(job)
end

-- job_row is what a reader needs of a job's changing half, in the order of ROW.
local function job_row(id)
  return redis.call('HMGET', job_key(id), unpack(ROW))
end
