-- Ends a job that the caller can't read: see aside.lua.
-- KEYS  common; 14 job, 15 spec, 16 probe, 17 plan. Derived: its indexes and its leases.
-- ARGV  prefix, job id, 1 if its spec can't be read either else 0
-- Returns  {''}
-- Replay   a job that ended stays as it is.
-- $include(aside.lua)
local whole, job = pcall(load_job, ARGV[2])
if whole and (not job or job.finished > 0) then return { '' } end
set_aside(ARGV[2], whole and job.project or '', true)
for i, name in ipairs({ 'spec', 'probe', 'plan' }) do
  local raw = (i > 1 or ARGV[3] == '1') and redis.call('GET', KEYS[14 + i])
  if raw then
    redis.call('HSET', more_key(ARGV[2]), 'broken_' .. name, raw)
    del(KEYS[14 + i])
  end
end
flush()
return { '' }
