-- Removes a terminal job with its tasks, events, results and upload, and
-- leaves the duty to purge its objects.
-- KEYS  common; 9 job, 10 spec, 11 results, 12 purges. Derived: its index, its upload.
-- ARGV  prefix, job id
-- Returns  {''} | {'JOB_NOT_FOUND' | 'JOB_NOT_TERMINAL'}
-- Replay   {''} until the duty is ended, 'JOB_NOT_FOUND' after.
-- $include(job.lua)
-- $include(duty.lua)
local id = ARGV[2]
local job = load_job(id)
if not job then
  if redis.call('HEXISTS', KEYS[12], id) == 1 then return { '' } end
  return { 'JOB_NOT_FOUND' }
end
if job.state ~= 'COMPLETED' and job.state ~= 'FAILED' and job.state ~= 'CANCELED' then return { 'JOB_NOT_TERMINAL' } end

redis.call('HSET', KEYS[12], id, redis.call('GET', KEYS[10]))
redis.call('ZADD', DUTIES, NOW, 'PURGE|' .. id)
due(NOW)
-- A URL to write may outlive the job: what comes late is purged when the duty to clean would have seen it.
local clean = redis.call('ZSCORE', DUTIES, 'CLEAN|' .. id)
if clean and tonumber(clean) > NOW then redis.call('HSET', KEYS[12], purge_again_field(id), clean) end
drop_duties(job)
redis.call('ZREM', index_key(job.project, job.state), id)
redis.call('DEL', KEYS[9], KEYS[10], KEYS[11])
if job.upload then redis.call('DEL', upload_key(job.upload)) end
-- Whoever watches it reads again, and finds it gone.
redis.call('PUBLISH', job_channel(id), '{"q":' .. job.sequence .. '}')
publish_wakes()
return { '' }
