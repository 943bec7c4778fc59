-- Writes jobs in PENDING with their first task ready.
-- KEYS  common; of each request: job, spec, its idempotency key, the upload of its source (the job again for either
--       that it doesn't have)
-- ARGV  prefix; requests (see request.lua) of: job id, project, priority, spec JSON, waiting limit, upload id (or
--       nothing), fingerprint (or nothing) and ttl ms of its idempotency key (0: none), first task JSON, its weight
-- Returns  {answer, ...}: {'', job id, when it was created; left out if the job was there}
--          | {'IDEMPOTENCY_KEY_REUSED' | 'OBJECT_NOT_FOUND' | 'QUEUE_FULL'}
-- Replay   the same id, or the same idempotency key, gives the first job.
--          A key whose job was deleted makes a new one.
-- $include(task.lua)
-- $include(request.lua)
-- $include(idempotency.lua)
-- $include(admit.lua)
local requests = read_requests(4)
local keys, uploads = {}, {}
for _, r in ipairs(requests) do append(keys, KEYS[r.k], KEYS[r.k + 2]) end
read_all(keys)

-- create returns the answer to a request.
local function create(r)
  local k, id, project, upload, ttl = r.k, r[1], r[2], r[6], r[8]
  local key = ttl > 0 and KEYS[k + 2]
  if key then
    local first, other = known_id(read(key), r[7])
    if other then return { 'IDEMPOTENCY_KEY_REUSED' } end
    if first and job_exists(first) then return { '', first } end
  end
  if job_exists(id) then return { '', id } end
  if upload ~= '' then
    key = KEYS[k + 3]
    uploads[key] = uploads[key] or redis.call('HGET', key, 's') or ''
    if uploads[key] ~= 'COMPLETED' then return { 'OBJECT_NOT_FOUND' } end
  end
  if not admit(project, r[5]) then return { 'QUEUE_FULL' } end

  local job = new_job(id, project, r[3], 'PENDING', upload == '' and 0 or 1)
  start_run(job, r[9], r[10])
  job.told = job.sequence -- nobody can watch it yet
  set(KEYS[k + 1], r[4])
  if ttl > 0 then READ[KEYS[k + 2]] = keep_key(KEYS[k + 2], r[7], id, ttl) end
  if upload ~= '' then
    put(job, 'up', upload)
    append(uploads, KEYS[k + 3])
  end
  return { '', id, STAMP }
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = create(r) end
keep_keys()
for _, upload in ipairs(uploads) do redis.call('HINCRBY', upload, 'n', 1) end
flush()
return answers
