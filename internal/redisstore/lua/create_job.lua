-- Writes jobs in PENDING with their first task ready.
-- KEYS  common; of each request: job, spec, its idempotency key, the upload of its source (the job again for either
--       that it doesn't have)
-- ARGV  prefix; requests (see request.lua) of: job id, project, priority, spec JSON, waiting limit, upload id (or
--       nothing), fingerprint (or nothing) and ttl ms of its idempotency key (0: none), first task JSON, its weight
-- Returns  {answer, ...}: {'', job id, when it was created; left out if the job was there}
--          | {'IDEMPOTENCY_KEY_REUSED' | 'OBJECT_NOT_FOUND' | 'QUEUE_FULL'}
-- Replay   the same id, or the same idempotency key, gives the first job.
--          A key whose job was deleted makes a new one.
-- $include(turn.lua)
-- $include(request.lua)
-- $include(idempotency.lua)
-- $include(admit.lua)
local requests = read_requests(4)
local known, uploads, made = {}, {}, {}

local function exists(key) return made[key] or redis.call('EXISTS', key) == 1 end

-- decide returns the answer to a request, and whether its job is to be written.
local function decide(r)
  local k, id = r.k, r[1]
  if r[8] ~= '0' then
    local key = KEYS[k + 2]
    local first, other = known_id(known[key] or redis.call('GET', key), r[7])
    if other then return { 'IDEMPOTENCY_KEY_REUSED' } end
    if first and exists(job_key(first)) then return { '', first } end
  end
  if exists(KEYS[k]) then return { '', id } end
  if r[6] ~= '' then
    local key = KEYS[k + 3]
    uploads[key] = uploads[key] or redis.call('HGET', key, 's') or ''
    if uploads[key] ~= 'COMPLETED' then return { 'OBJECT_NOT_FOUND' } end
  end
  if not admit(r[2], r[5] + 0) then return { 'QUEUE_FULL' } end
  made[KEYS[k]] = true
  if r[8] ~= '0' then known[KEYS[k + 2]] = key_value(r[7], id, r[8]) end
  return { '', id, STAMP }, true
end

local CREATED, QUEUED, TIMES = 'CREATED ' .. STAMP, 'QUEUED ' .. STAMP, 'c' .. STAMP .. ' q' .. STAMP

local function write(r)
  local k, id, project = r.k, r[1], r[2]
  redis.call('HSET', KEYS[k], 'h', 'PENDING 1 2 1 0 0 1 0 ' .. r[3] .. (r[6] == '' and ' 0' or ' 1'), 'p', project,
    's0', 'READY 0 0 1 0 0 0 0 0 0 ' .. r[10] .. ' 0 0 0 ', 'ti', TIMES, 'g', r[10] .. ' 0 0', 'd0', r[9],
    'e1', CREATED, 'e2', QUEUED)
  if r[6] ~= '' then
    redis.call('HSET', KEYS[k], 'up', r[6])
    redis.call('HINCRBY', KEYS[k + 3], 'n', 1)
  end
  append(SETS, KEYS[k + 1], r[4])
  if r[8] ~= '0' then redis.call('SET', KEYS[k + 2], known[KEYS[k + 2]], 'PX', r[8]) end
  zadd(index_key(project, 'PENDING'), 0, id)
  queue_add(project, r[3] + 0, NOW, id .. '-00000')
end

local answers, writes = {}, {}
for i, r in ipairs(requests) do
  local answer, new = decide(r)
  answers[i] = answer
  if new then writes[#writes + 1] = r end
end
for _, r in ipairs(writes) do write(r) end
settle_projects()
write_all()
publish_wakes()
return answers
