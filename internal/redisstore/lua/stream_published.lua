-- Notes what was published of a job's stream and ends the duty to do so, which comes again if there is more by now, unless all
-- tasks are done: then all is published.
-- KEYS  common; 14 stream. Derived: the job.
-- ARGV  prefix, job id, run, how many commits were published, 1 if a player can start else 0, what is shown JSON
-- Returns  {'', 1 if the job is RUNNING in that run else 0}
-- Replay   the same; the job is playable once.
-- $include(stream.lua)
local job = load_job(ARGV[2])
local duty = stream_duty(ARGV[2])
if job and job.run ~= tonumber(ARGV[3]) then return { '', 0 } end
if not job or job.state ~= 'RUNNING' then
  redis.call('ZREM', DUTIES, duty)
  return { '', 0 }
end
-- Before a player can start nothing is written, so nothing has to wait.
local again = NOW
if ARGV[5] == '1' then
  redis.call('HSET', KEYS[14], 'at', STAMP, 'shown', ARGV[6])
  job.stream, job.changed = 1, true
  make_playable(job)
  again = NOW + STREAM_EVERY
end
if job.open > 0 and (redis.call('HGET', KEYS[14], 'n') or 0) + 0 > ARGV[4] + 0 then
  zadd(DUTIES, digits(again), duty)
  due(again)
else
  zrem(DUTIES, duty)
end
flush()
return { '', 1 }
