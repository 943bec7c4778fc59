-- Reads a job and its older events, if there are any after a sequence. Changes nothing.
-- KEYS  common; 14 job. Derived: its older events.
-- ARGV  prefix, job id, sequence
-- Returns  {'', job, chunk of older events, ...} | {'JOB_NOT_FOUND'}; see include/job.lua
-- $include(job.lua)
local job = load_job(ARGV[2])
if not job then return { 'JOB_NOT_FOUND' } end
local out = { '', job.raw }
if tonumber(ARGV[3]) < job.base then
  for _, chunk in ipairs(redis.call('LRANGE', events_key(job.id), 0, -1)) do out[#out + 1] = chunk end
end
return out
