-- Takes tasks from the queues, whose turn it is.
-- $include(turn.lua)

-- set_limit takes another limit of running tasks in: projects are parked and come back by it.
local function set_limit(limit)
  local before = running_limit()
  if limit == before then return end
  LIMIT = limit
  redis.call('HSET', TURNS, 'limit', limit)
  if before > 0 then
    local parked = redis.call('ZRANGE', PARKED, 0, -1, 'WITHSCORES')
    for i = 1, #parked, 2 do
      if limit == 0 or running_of(parked[i]) < limit then
        local at = tonumber(parked[i + 1])
        local band = math.floor(at / TAG)
        redis.call('ZREM', PARKED, parked[i])
        redis.call('ZADD', RING, digits(math.max(at, band * TAG + served_at(band))), parked[i])
        WAKES.READY = true
      end
    end
  end
  if limit > 0 then
    local ring = redis.call('ZRANGE', RING, 0, -1, 'WITHSCORES')
    for i = 1, #ring, 2 do
      if running_of(ring[i]) >= limit then
        redis.call('ZREM', RING, ring[i])
        redis.call('ZADD', PARKED, ring[i + 1], ring[i])
      end
    end
  end
end

-- head_of is the next task of an entry that wasn't taken, and its band; nil at the queue's end.
local function head_of(e, most)
  if not e.window[e.next] then
    e.window = redis.call('ZRANGE', queue_key(e.name), e.taken, e.taken + most, 'WITHSCORES')
    e.next = 1
  end
  local score = e.window[e.next + 1]
  if score then return e.window[e.next], math.floor(tonumber(score) / BAND) end
end

local function before(a, b)
  return a.score < b.score or a.score == b.score and a.name < b.name
end

-- serve chooses up to most tasks, best first, and returns them, whose turn it was, and the project of each. What was chosen is
-- taken out by settle_served.
local function serve(most)
  local chosen, touched, entries, owners = {}, {}, {}, {}
  if most < 1 then return chosen, touched, owners end
  -- The next tasks are of as many projects at most, and those are the first now.
  local ring = redis.call('ZRANGE', RING, 0, most - 1, 'WITHSCORES')
  local limit = running_limit()
  for i = 1, #ring, 2 do
    local score = tonumber(ring[i + 1])
    entries[#entries + 1] = { name = ring[i], score = score, was = score, taken = 0, window = {}, next = 1, running = 0, bands = {} }
    if limit > 0 then entries[#entries].running = running_of(ring[i]) end
  end

  while #chosen < most and entries[1] do
    local e = table.remove(entries, 1)
    if e.taken == 0 then touched[#touched + 1] = e end
    local band = math.floor(e.score / TAG)
    local chunk = #entries == 0 and most - #chosen or math.ceil(2 * (most - #chosen) / (#entries + 1))
    local m = head_of(e, chunk)
    if m then
      chosen[#chosen + 1], owners[#chosen + 1] = m, e.name
      e.taken, e.next, e.running = e.taken + 1, e.next + 2, e.running + 1
      local tag = e.score - band * TAG
      SERVED[band] = math.max(served_at(band), tag)
      e.bands[band] = true
      e.score = e.score + 1
      local _, next_band = head_of(e, chunk)
      if next_band and next_band ~= band then
        leave_band(e.name, band, tag + 1)
        e.score = next_band * TAG + join_band(e.name, next_band)
      end
      e.ended = not next_band
      e.full = limit > 0 and e.running >= limit
      if not e.ended and not e.full then
        local i = #entries
        while i > 0 and before(e, entries[i]) do i = i - 1 end
        table.insert(entries, i + 1, e)
      end
    else
      e.ended = true -- it was in the ring without a task
    end
  end
  return chosen, touched, owners
end

-- settle_served takes what serve chose out of the queues, and writes down whose turn is next.
local function settle_served(touched)
  local bands, ring, gone, parked = {}, {}, {}, {}
  for _, e in ipairs(touched) do
    if e.taken > 0 then redis.call('ZREMRANGEBYRANK', queue_key(e.name), 0, e.taken - 1) end
    local band = math.floor(e.score / TAG)
    bands[band], bands[math.floor(e.was / TAG)] = true, true
    for passed in pairs(e.bands) do bands[passed] = true end
    if e.ended or e.full then
      gone[#gone + 1] = e.name
      if e.ended then
        leave_band(e.name, band, e.score - band * TAG)
      else
        append(parked, digits(e.score), e.name)
      end
    elseif e.score ~= e.was then
      append(ring, digits(e.score), e.name)
    end
  end
  in_chunks(gone, 'ZREM', RING)
  in_chunks(parked, 'ZADD', PARKED)
  in_chunks(ring, 'ZADD', RING)
  for band in pairs(bands) do
    local served = served_at(band)
    redis.call('HSET', TURNS, 'v' .. band, digits(served))
    -- Whoever left with such a tag would come back with this one anyway.
    redis.call('ZREMRANGEBYSCORE', PAST, digits(band * TAG), digits(band * TAG + served))
  end
end
