-- Workers as lists show them, with what they hold.
-- $include(task.lua)
-- $include(worker.lua)

-- roster_row is a worker as lists show it, nil if nobody knows it.
local function roster_row(id, last_seen)
  local session, draining, attached = standing_of(id)
  if not session then return nil end
  local record = redis.call('HMGET', worker_key(id), 'mid', 'ver', 'sl', 'cpu', 'enc', 'fs')
  record[7] = session .. ' ' .. draining .. ' ' .. attached
  local held = {}
  for _, name in ipairs(held_by(id)) do
    local job, _, t = leased_task(name)
    if job then append(held, t.m, t.n) end
  end
  return { id, last_seen, record, held }
end

-- roster adds a row for each worker that was seen lately to a list.
local function roster(rows)
  local list = redis.call('ZRANGEBYSCORE', WORKERS, NOW - SEEN_WITHIN, '+inf', 'WITHSCORES')
  for i = 1, #list, 2 do rows[#rows + 1] = roster_row(list[i], list[i + 1]) end
  return rows
end
