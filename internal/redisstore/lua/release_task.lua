-- Hands an attempt back, not charged: the task is READY.
-- KEYS  common; 14 job. Derived: its project's queue.
-- ARGV  prefix, job id, index, attempt, worker id, reason, message
-- Returns  {'', 'ACCEPTED' | 'STALE'}
-- Replay   'ACCEPTED', as long as the attempt is among the newest 16.
-- $include(task.lua)
local index, attempt, worker = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local job = load_job(ARGV[2])
local t = job and load_task(job, index)
if not t then return { '', 'STALE' } end
if t.s ~= 'LEASED' or t.n ~= attempt or t.by ~= worker then
  return { '', ended_as(job, index, worker, attempt, 'RELEASED') and 'ACCEPTED' or 'STALE' }
end

return_task(job, index, t, 'release', 'RELEASED', ARGV[6], ARGV[7])
flush()
return { '', 'ACCEPTED' }
