-- Adds segments that attempts uploaded to the streams of their jobs (see stream.lua): of each rendition what no attempt
-- of the task committed before.
-- KEYS  common. Derived: the jobs and their streams.
-- ARGV  prefix; requests (see request.lua) of: job id, index, attempt, worker id, then for each rendition: name, position
--       of the first segment, how many, JSON
-- Returns  {answer, ...}: {'', 'ACCEPTED' | 'STALE'}; STALE also if a rendition would have a hole
-- Replay   the same as long as the lease is held; nothing is added.
-- $include(stream.lua)
-- $include(request.lua)
local requests = read_requests()
local streams, order = {}, {}

local function stream_of(job)
  local s = streams[job.id]
  if not s then
    local v = redis.call('HMGET', stream_key(job.id), 'n', 'at')
    s = { id = job.id, job = job, n = (v[1] or 0) + 0, at = (v[2] or 0) + 0, tasks = {}, put = {} }
    streams[job.id] = s
    order[#order + 1] = s
  end
  return s
end

-- counts_of returns how many segments of each rendition of a task are committed.
local function counts_of(s, index)
  local counts = s.tasks[index]
  if not counts then
    counts = {}
    for name, n in string.gmatch(redis.call('HGET', stream_key(s.id), 'k' .. index) or '', '(%S+) (%d+)') do
      counts[name] = n + 0
    end
    s.tasks[index] = counts
  end
  return counts
end

local function commit(r)
  local index = r[2]
  local job = load_job(r[1])
  local t = job and load_task(job, index)
  if not t or t.s ~= 'LEASED' or t.n ~= r[3] or t.by ~= r[4] then return { '', 'STALE' } end
  local s = stream_of(job)
  local counts = counts_of(s, index)
  for i = 5, #r, 4 do
    if r[i + 1] > (counts[r[i]] or 0) then return { '', 'STALE' } end
  end
  local before = s.n
  for i = 5, #r, 4 do
    local to = r[i + 1] + r[i + 2]
    if to > (counts[r[i]] or 0) then
      counts[r[i]] = to
      s.n = s.n + 1
      append(s.put, s.n, r[i + 3])
    end
  end
  if s.n > before then
    if job.stream == 0 then job.stream, job.changed = 1, true end
    local text = {}
    for name, n in pairs(counts) do text[#text + 1] = name .. ' ' .. n end
    append(s.put, 'k' .. index, table.concat(text, ' '))
  end
  return { '', 'ACCEPTED' }
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = commit(r) end
for _, s in ipairs(order) do
  if #s.put > 0 then
    append(s.put, 'n', s.n)
    in_chunks(s.put, 'HSET', stream_key(s.id))
    -- One that was handed out looks for newer commits when it ends.
    if not redis.call('ZSCORE', DUTIES, stream_duty(s.id)) then
      local at = math.max(NOW, s.at + STREAM_EVERY)
      -- The only task that isn't done may be so at once, and then all is published.
      if s.job.open == 1 and s.job.playable > 0 then at = NOW + STREAM_EVERY end
      zadd(DUTIES, digits(at), stream_duty(s.id))
      due(at)
    end
  end
end
flush()
return answers
