-- Writes an upload and its job in UPLOADING.
-- KEYS  common; 14 upload, 15 job, 16 spec, 17 idempotency key (left out if there is none). Derived: the project's indexes.
-- ARGV  prefix, upload id, job id, project, priority, upload JSON, spec, ttl ms, waiting limit, fingerprint, key's ttl ms
-- Returns  {'', upload id, upload row} | {'IDEMPOTENCY_KEY_REUSED' | 'QUEUE_FULL'}
-- Replay   the same id, or the same idempotency key, gives the first upload.
--          A key whose upload was deleted makes a new one.
-- $include(upload.lua)
-- $include(idempotency.lua)
-- $include(admit.lua)
local id, job_id, project = ARGV[2], ARGV[3], ARGV[4]

if KEYS[17] then
  local first, other = known_id(redis.call('GET', KEYS[17]), ARGV[10])
  if other then return { 'IDEMPOTENCY_KEY_REUSED' } end
  if first and redis.call('EXISTS', upload_key(first)) == 1 then return { '', first, upload_row(first) } end
end
if redis.call('EXISTS', KEYS[14]) == 1 then return { '', id, upload_row(id) } end
if not admit(project, tonumber(ARGV[9])) then return { 'QUEUE_FULL' } end

local expires = NOW + tonumber(ARGV[8])
redis.call('HSET', KEYS[14], 's', 'OPEN', 'j', job_id, 'p', project, 'd', ARGV[6], 'c', STAMP, 'x', expires, 'n', 1)
zadd(UPLOADS, expires, id)
due(expires)
local job = new_job(job_id, project, tonumber(ARGV[5]), 'UPLOADING', 1)
job.told = job.sequence -- nobody can watch it yet
put(job, 'up', id)
set(KEYS[16], ARGV[7])
if KEYS[17] then
  keep_key(KEYS[17], ARGV[10], id, tonumber(ARGV[11]))
  keep_keys()
end
flush()
return { '', id, upload_row(id) }
