-- Starts the next run of a FAILED or CANCELED job with its first task ready.
-- KEYS  common; 14 job. Derived: its indexes, its project's queue, its results.
-- ARGV  prefix, job id, the run that ended, first task JSON, its weight, waiting limit
-- Returns  {''} | {'JOB_NOT_FOUND' | 'JOB_NOT_TERMINAL' | 'JOB_TERMINAL' (it completed) | 'INPUT_MISSING' | 'QUEUE_FULL'}
-- Replay   a job that is one run further is left as it is.
-- $include(task.lua)
-- $include(admit.lua)
local job = load_job(ARGV[2])
if not job then return { 'JOB_NOT_FOUND' } end
local run, now = tonumber(ARGV[3]), job.run
if now == run + 1 then return { '' } end
if now ~= run then return { 'JOB_NOT_TERMINAL' } end
if job.state == 'COMPLETED' then return { 'JOB_TERMINAL' } end
if not next_state('job', job.state, 'retry') then return { 'JOB_NOT_TERMINAL' } end
if job.queued == 0 then return { 'INPUT_MISSING' } end
if not admit(job.project, tonumber(ARGV[6])) then return { 'QUEUE_FULL' } end

move_job(job, 'retry')
drop_duties(job)
zrem(ENDED, job.id)
del(probe_key(job.id))
del(plan_key(job.id))
for index = 0, job.count - 1 do del(result_key(member(job.id, index))) end
redis.call('HDEL', more_key(job.id), 'f')
job.started, job.planned, job.playable, job.finished, job.progress = 0, 0, 0, 0, ''
set_gauge(job, 0, 0, 0)
job.run, job.first, job.open = run + 1, job.count, 0
job.left = 1 -- what the ended run wrote is cleaned up after this one
add_event(job, 'RETRIED')
start_run(job, ARGV[4], tonumber(ARGV[5]))
flush()
return { '' }
