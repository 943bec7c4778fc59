-- Reads the workers that were seen within a time, or one. Changes nothing.
-- KEYS  common
-- ARGV  prefix, ms, worker id (or nothing: all)
-- Returns  {'', {id, last seen, {machine, version, slots, CPUs, encoders, first seen, session with draining and attached},
--          {member, attempt, ...}}, ...}
-- $include(task.lua)
local list
if ARGV[3] ~= '' then
  list = { ARGV[3], redis.call('ZSCORE', WORKERS, ARGV[3]) or '0' }
else
  list = redis.call('ZRANGEBYSCORE', WORKERS, NOW - tonumber(ARGV[2]), '+inf', 'WITHSCORES')
end
local out = { '' }
for i = 1, #list, 2 do
  local record = redis.call('HMGET', worker_key(list[i]), 'mid', 'ver', 'sl', 'cpu', 'enc', 'fs', 'v')
  if record[7] then
    local held = {}
    for _, m in ipairs(held_by(list[i])) do
      local job, _, t = leased_task(m)
      if job then append(held, m, t.n) end
    end
    out[#out + 1] = { list[i], list[i + 1], record, held }
  end
end
return out
