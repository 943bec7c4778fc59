-- Marks a worker as draining if it holds no lease.
-- KEYS  common. Derived: the worker, and the others if some are kept.
-- ARGV  prefix, worker id, session, workers of machines that are kept
-- Returns  {'', 1 if it may exit, else 0 (it holds a lease, is attached in a newer session, or is one of those kept)}
-- Replay   the same. A worker that nobody knows may exit.
-- $include(held.lua)
-- $include(worker.lua)
local session, draining, attached, answers = standing_of(ARGV[2])
if not session then return { '', 1 } end
if session ~= ARGV[3] or #held_by(ARGV[2]) > 0 then return { '', 0 } end
local keep = tonumber(ARGV[4])
if draining ~= '1' and keep > 0 then
  local taking = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, NOW - SEEN_WITHIN, '+inf')) do
    local _, drains = standing_of(id)
    local machine = redis.call('HGET', worker_key(id), 'mid')
    if drains == '0' and machine and machine ~= '' then taking = taking + 1 end
  end
  if taking <= keep then return { '', 0 } end
end
set_standing(ARGV[2], session, 1, attached, answers)
return { '', 1 }
