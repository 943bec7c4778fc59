-- Reads the events of a job after a sequence. Changes nothing.
-- KEYS  common; 14 job. Derived: its list of older events.
-- ARGV  prefix, job id, sequence
-- Returns  {'', sequence of the first event returned, event, ...} | {'JOB_NOT_FOUND'}
-- $include(job.lua)
local job = load_job(ARGV[2])
if not job then return { 'JOB_NOT_FOUND' } end

local first = math.max(tonumber(ARGV[3]), job.sequence - MAX_EVENTS, 0) + 1
local out, base = { '', first }, tonumber(job.base)
if first <= base then
  out = redis.call('LRANGE', events_key(job.id), first - base - 1, -1)
  table.insert(out, 1, first)
  table.insert(out, 1, '')
end
local sequence = base
for e in string.gmatch(job.events, '[^\n]+') do
  sequence = sequence + 1
  if sequence >= first then out[#out + 1] = e end
end
return out
