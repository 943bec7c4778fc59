-- Reads what is committed of a job before its tasks are done, beyond what the reader knows. Changes nothing.
-- KEYS  common; 14 job, 15 stream, 16 plan
-- ARGV  prefix, job id, run and how many commits the reader knows
-- Returns  {'', state, run, project, 1 if it is playable else 0, how many commits, plan JSON (nothing if the run is
--          known), commit JSON, ...} | {'JOB_NOT_FOUND'}
-- $include(stream.lua)
local job = load_job(ARGV[2])
if not job then return { 'JOB_NOT_FOUND' } end
local known = job.run == tonumber(ARGV[3])
local n = (redis.call('HGET', KEYS[15], 'n') or 0) + 0
local out = {
  '', job.state, job.run, job.project, job.playable > 0 and 1 or 0, n, not known and redis.call('GET', KEYS[16]) or '',
}
for from = (known and ARGV[4] or 0) + 1, n, 1000 do
  local fields = {}
  for i = from, math.min(from + 999, n) do fields[#fields + 1] = i end
  for _, v in ipairs(redis.call('HMGET', KEYS[15], unpack(fields))) do out[#out + 1] = v end
end
return out
