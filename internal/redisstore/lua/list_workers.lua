-- Reads the workers that were seen within a time, or one. Changes nothing.
-- KEYS  common
-- ARGV  prefix, ms, worker id (or nothing: all)
-- Returns  {'', {last seen, worker, {member, attempt, ...}}, ...}: the worker's lines (see worker.lua) after its id
-- $include(task.lua)
-- $include(worker.lua)
local list
if ARGV[3] ~= '' then
  list = { ARGV[3], redis.call('ZSCORE', WORKERS, ARGV[3]) or 0 }
else
  list = redis.call('ZRANGEBYSCORE', WORKERS, NOW - tonumber(ARGV[2]), '+inf', 'WITHSCORES')
end
local out, held, ids = { '' }, {}, {}
for i = 1, #list, 2 do
  local raw = redis.call('GET', worker_key(list[i]))
  if raw then
    local members = held_by(list[i])
    for _, m in ipairs(members) do ids[#ids + 1] = parse_member(m) end
    out[#out + 1] = { list[i + 1], list[i] .. '\n' .. raw, {} }
    held[#out] = members
  end
end
load_jobs(ids)
for i = 2, #out do
  for _, m in ipairs(held[i]) do
    local _, _, t = leased_task(m)
    if t then append(out[i][3], m, t.n) end
  end
end
return out
