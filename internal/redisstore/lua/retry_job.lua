-- Starts the next run of a FAILED or CANCELED job with its first task ready.
-- KEYS  common; 9 job, 10 results. Derived: its indexes.
-- ARGV  prefix, job id, the run that ended, first task JSON
-- Returns  {''} | {'JOB_NOT_FOUND' | 'JOB_NOT_TERMINAL' | 'JOB_TERMINAL' (it completed) | 'INPUT_MISSING'}
-- Replay   a job that is one run further is left as it is.
-- $include(task.lua)
local job = load_job(ARGV[2])
if not job then return { 'JOB_NOT_FOUND' } end
local run = tonumber(ARGV[3])
if job.run == run + 1 then return { '' } end
if job.run ~= run then return { 'JOB_NOT_TERMINAL' } end
if job.state == 'COMPLETED' then return { 'JOB_TERMINAL' } end
if not next_state('job', job.state, 'retry') then return { 'JOB_NOT_TERMINAL' } end
if not job.queued then return { 'INPUT_MISSING' } end

move_job(job, 'retry')
drop_duties(job)
redis.call('DEL', KEYS[10])
-- What the ended run wrote is cleaned up after this one.
redis.call('HDEL', KEYS[9], 'ts', 'tp', 'ty', 'tf', 'pc', 'pg', 'f', 'W', 'A')
job.run, job.first, job.open, job.weight, job.done = run + 1, job.tasks_count, 0, 0, 0
put(job, 'r', job.run)
put(job, 'b', job.first)
put(job, 'lo', '1')
add_event(job, 'RETRIED')
start_run(job, ARGV[4])
flush()
return { '' }
