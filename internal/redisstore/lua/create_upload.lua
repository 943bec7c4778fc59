-- Writes an upload and its job in UPLOADING.
-- KEYS  common; 9 upload, 10 job, 11 spec, 12 index of UPLOADING, 13 idempotency key (left out if there is none)
-- ARGV  prefix, upload id, job id, project, priority, upload JSON, spec JSON, ttl ms, fingerprint, key's ttl ms
-- Returns  {'', upload id, upload row} | {'IDEMPOTENCY_KEY_REUSED'}
-- Replay   the same id, or the same idempotency key, gives the first upload.
--          A key whose upload was deleted makes a new one.
-- $include(upload.lua)
-- $include(idempotency.lua)
local id, job_id, project = ARGV[2], ARGV[3], ARGV[4]

if KEYS[13] then
  local first, other = known_id(KEYS[13], ARGV[9])
  if other then return { 'IDEMPOTENCY_KEY_REUSED' } end
  if first and redis.call('EXISTS', upload_key(first)) == 1 then return { '', first, upload_row(first) } end
end
if redis.call('EXISTS', KEYS[9]) == 1 then return { '', id, upload_row(id) } end

local expires = NOW + tonumber(ARGV[8])
redis.call('HSET', KEYS[9], 's', 'OPEN', 'j', job_id, 'p', project, 'd', ARGV[6], 'c', NOW, 'x', expires)
redis.call('ZADD', UPLOADS, expires, id)
due(expires)
redis.call('HSET', KEYS[10], 's', 'UPLOADING', 'p', project, 'r', 1, 'q', 1, 'tc', NOW, 'up', id, 'e1', 'CREATED ' .. NOW)
if ARGV[5] ~= '0' then redis.call('HSET', KEYS[10], 'pr', ARGV[5]) end
redis.call('SET', KEYS[11], ARGV[7])
redis.call('ZADD', KEYS[12], 0, job_id)
if KEYS[13] then remember_id(KEYS[13], ARGV[9], id, ARGV[10]) end
publish_wakes()
return { '', id, upload_row(id) }
