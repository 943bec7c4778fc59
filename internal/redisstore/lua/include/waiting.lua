-- What waits for a slot.
-- $include(turn.lua)

-- waiting counts the tasks that a claim could get, and says when the oldest
-- job with one was queued. Its cost is the number of projects with ready tasks
-- and of the different priorities that wait there, not of the tasks.
local function waiting(projects)
  local ready, oldest = 0
  for _, name in ipairs(projects) do
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
      from = digits((band + 1) * BAND)
    end
  end
  return ready, oldest and math.max(0, NOW - oldest) or 0
end

-- limited counts the ready tasks of projects that run as many as they may.
local function limited()
  local tasks = 0
  for _, name in ipairs(redis.call('ZRANGE', PARKED, 0, -1)) do tasks = tasks + redis.call('ZCARD', queue_key(name)) end
  return tasks
end
