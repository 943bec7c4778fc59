-- Removes a terminal job with its tasks, events, results and, if no other job
-- has it as its source, its upload, and leaves the duty to purge its objects.
-- KEYS  common; 14 job, 15 purges. Derived: its index, its upload, its results.
-- ARGV  prefix, job id
-- Returns  {''} | {'JOB_NOT_FOUND' | 'JOB_NOT_TERMINAL'}
-- Replay   {''} until the duty is ended, 'JOB_NOT_FOUND' after.
-- $include(delete.lua)
local job = load_job(ARGV[2])
if not job then
  if redis.call('HEXISTS', KEYS[15], ARGV[2]) == 1 then return { '' } end
  return { 'JOB_NOT_FOUND' }
end
if job.state ~= 'COMPLETED' and job.state ~= 'FAILED' and job.state ~= 'CANCELED' then return { 'JOB_NOT_TERMINAL' } end
delete_job(job, KEYS[15])
flush()
return { '' }
