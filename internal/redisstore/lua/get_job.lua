-- Reads a job with its tasks, and for what it waits. Changes nothing.
-- KEYS  common; 14 job, 15 spec, 16 probe, 17 plan, 18 outputs, 19 stream. Derived: results, the queues in turn.
-- ARGV  prefix, job id
-- Returns  {'', job, failure JSON, sr, spec, probe JSON, plan JSON, outputs JSON, {task (nothing: in the job),
--          attempts JSON, result JSON of each task}, wait reason, position, what is shown of the stream JSON, since when} | {'JOB_NOT_FOUND'}; job and tasks packed
-- $include(task.lua)
local WORKER_SEEN = 60000
local MOST_PROJECTS = 200

local job = load_job(ARGV[2])
if not job then return { 'JOB_NOT_FOUND' } end

local members, ready, leased, delayed = {}, nil, nil, nil
for index = 0, job.count - 1 do members[index + 1] = member(job.id, index) end
local keys = { KEYS[15], KEYS[16], KEYS[17], KEYS[18] }
for _, m in ipairs(members) do append(keys, task_key(m), result_key(m)) end
read_all(keys)
local attempts = {}
for from = 0, job.count - 1, 2000 do
  local fields = {}
  for index = from, math.min(from + 1999, job.count - 1) do fields[#fields + 1] = 'a' .. index end
  for i, v in ipairs(redis.call('HMGET', more_key(job.id), unpack(fields))) do attempts[from + i] = v end
end
local list = {}
for i, m in ipairs(members) do
  append(list, i > 1 and read(task_key(m)) or '', attempts[i] or '')
  list[#list + 1] = read(result_key(m)) or ''
  if i > job.first then
    local t = load_task(job, i - 1, m)
    local state = t and t.s -- one whose record is gone is left out
    if state == 'LEASED' then leased = true end
    if state == 'DELAYED' then delayed = true end
    if state == 'READY' and not ready then ready = m end
  end
end

local function tasks_in(queue, from, to)
  return redis.call('ZCOUNT', queue, digits(from), to and '(' .. digits(to) or '+inf')
end

-- position_of is how many ready tasks are likely to be leased before one, if
-- nothing more comes: those before it in its own queue, and of each other
-- project in turn all of better priorities, and of the same one as many as its
-- tags say it is served before this one. Beyond MOST_PROJECTS it is reckoned
-- by the mean of those. A project that is parked isn't in the others' way.
local function position_of(m, parked)
  local queue = queue_key(job.project)
  local before = redis.call('ZRANK', queue, m) or 0
  if parked then return before end
  local band = band_of(job.priority)
  local same = before - tasks_in(queue, 0, band * BAND)
  local at = tonumber(redis.call('ZSCORE', RING, job.project) or 0)
  local tag = math.floor(at / TAG) == band and at - band * TAG or join_band(job.project, band)
  tag = tag + same -- with which it will be served
  local others, looked = 0, 0
  local ring = redis.call('ZRANGEBYSCORE', RING, '-inf', digits(band * TAG + tag), 'WITHSCORES', 'LIMIT', 0, MOST_PROJECTS)
  for i = 1, #ring, 2 do
    local name, other = ring[i], queue_key(ring[i])
    if name ~= job.project then
      looked = looked + 1
      others = others + tasks_in(other, 0, band * BAND)
      local score = tonumber(ring[i + 1])
      local theirs = math.floor(score / TAG) == band and score - band * TAG or join_band(name, band)
      local turns = tag - theirs + (name < job.project and 1 or 0)
      if turns > 0 then others = others + math.min(turns, tasks_in(other, band * BAND, (band + 1) * BAND)) end
    end
  end
  if #ring == 2 * MOST_PROJECTS then
    local all = redis.call('ZCOUNT', RING, '-inf', digits(band * TAG + tag)) - 1
    others = math.floor(others * all / looked)
  end
  return before + others
end

local reason, position = '', 0
if job.state == 'UPLOADING' then
  reason = 'UPLOAD'
elseif job.state == 'PENDING' or job.state == 'RUNNING' then
  if not leased and ready then
    local parked = redis.call('ZSCORE', PARKED, job.project)
    if parked then
      reason = 'PROJECT_LIMIT'
    elseif redis.call('ZCOUNT', WORKERS, NOW - WORKER_SEEN, '+inf') == 0 then
      reason = 'NO_WORKER'
    else
      reason = 'QUEUE'
    end
    position = position_of(ready, parked)
  elseif not leased and delayed then
    reason = 'BACKOFF'
  end
end

local values = redis.call('HMGET', more_key(job.id), 'f', 'sr')
local stream = redis.call('HMGET', KEYS[19], 'shown', 'at')
return {
  '', job.raw, values[1] or '', values[2] or '', read(KEYS[15]) or '', read(KEYS[16]) or '', read(KEYS[17]) or '',
  read(KEYS[18]) or '', list, reason, position, stream[1] or '', (stream[2] or 0) + 0,
}
