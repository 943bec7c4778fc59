-- Moves a job whose tasks of the run are all done to COMPLETED with its outputs.
-- KEYS  common; 9 job, 10 results. Derived: its indexes.
-- ARGV  prefix, job id, run, outputs JSON, outputs JSON without objects
-- Returns  {'', 1 if it is COMPLETED in that run, else 0}
-- Replay   1
-- $include(task.lua)
local job = load_job(ARGV[2])
if not job or job.run ~= tonumber(ARGV[3]) then return { '', 0 } end
if job.state == 'COMPLETED' then return { '', 1 } end
if job.open > 0 or not move_job(job, 'complete') then return { '', 0 } end

redis.call('HSET', KEYS[10], 'out', ARGV[4], 'outs', ARGV[5])
put(job, 'pc', 100)
put(job, 'ty', NOW)
end_job(job, 'COMPLETED')
if job.left_objects then clean_later(job) end
flush()
return { '', 1 }
