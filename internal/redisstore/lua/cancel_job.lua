-- Moves a live job to CANCELED with its tasks, and aborts its open upload.
-- KEYS  common; 14 job. Derived: its indexes, its upload, its project's queue.
-- ARGV  prefix, job id, message
-- Returns  {''} | {'JOB_NOT_FOUND' | 'JOB_TERMINAL'}
-- Replay   a CANCELED job is left as it is.
-- $include(upload.lua)
-- $include(task.lua)
local job = load_job(ARGV[2])
if not job then return { 'JOB_NOT_FOUND' } end
if job.state == 'CANCELED' then return { '' } end

local uploading = job.state == 'UPLOADING'
if not move_job(job, 'cancel') then return { 'JOB_TERMINAL' } end
if uploading then move_upload(redis.call('HGET', more_key(job.id), 'up'), 'OPEN', 'abort') end
cancel_tasks(job)
end_job(job, 'CANCELED', 'CANCELED', ARGV[3])
clean_later(job.id, job.lease_ms)
flush()
return { '' }
