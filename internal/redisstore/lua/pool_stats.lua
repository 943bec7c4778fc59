-- Counts tasks. Changes nothing. Its cost is the number of different
-- priorities that wait, not of the tasks.
-- KEYS  common
-- ARGV  prefix
-- Returns  {'', ready, leased, delayed, age in ms of the oldest job with a ready task}
-- $include(task.lua)
local BAND = 2199023255552
local oldest
local from = '-inf'
while true do
  local head = redis.call('ZRANGEBYSCORE', READY, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if #head == 0 then break end
  local score = tonumber(head[2])
  local band = math.floor(score / BAND)
  local queued = score - band * BAND + EPOCH
  if not oldest or queued < oldest then oldest = queued end
  from = string.format('%.0f', (band + 1) * BAND)
end
return {
  '', redis.call('ZCARD', READY), redis.call('ZCARD', LEASES), redis.call('ZCARD', DELAYED),
  oldest and math.max(0, NOW - oldest) or 0,
}
