-- Counts tasks; those of projects at their limit aren't counted as ready.
-- Changes nothing. Its cost is the number of projects with ready tasks and of
-- the different priorities that wait there, not of the tasks.
-- KEYS  common. Derived: the queues of the projects in turn.
-- ARGV  prefix
-- Returns  {'', ready, leased, delayed, age in ms of the oldest job with such a ready task}
-- $include(turn.lua)
local ready, oldest = 0
for _, name in ipairs(redis.call('ZRANGE', RING, 0, -1)) do
  local queue = queue_key(name)
  ready = ready + redis.call('ZCARD', queue)
  local from = '-inf'
  while true do
    local head = redis.call('ZRANGEBYSCORE', queue, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if #head == 0 then break end
    local score = tonumber(head[2])
    local band = math.floor(score / BAND)
    local queued = score - band * BAND + EPOCH
    if not oldest or queued < oldest then oldest = queued end
    from = score_text((band + 1) * BAND)
  end
end
return {
  '', ready, redis.call('ZCARD', LEASES), redis.call('ZCARD', DELAYED), oldest and math.max(0, NOW - oldest) or 0,
}
