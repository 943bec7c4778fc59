-- Renews the leases of a worker, marks it as seen and takes their progress.
-- A task's fraction is stored at most every 2 s unless somebody watches its
-- job, and told to watchers at each call. A job's percent never falls within
-- a run, and reaches 100 only when it is COMPLETED.
-- KEYS  common; 9 worker, 10 leases it holds. Derived: the jobs of the leases.
-- ARGV  prefix, worker id, lease ms, then for each lease: member, attempt, fraction, progress JSON
-- Returns  {'', 1 if somebody watches one of the jobs else 0, position of a lost lease (from 0), ...}
-- Replay   the same; renewed again.
-- $include(task.lua)
local STORE_EVERY = 2000
local worker = ARGV[2]
local deadline = NOW + tonumber(ARGV[3])
local out = { '', 0 }

if redis.call('EXISTS', KEYS[9]) == 1 then redis.call('ZADD', WORKERS, NOW, worker) end
if #ARGV == 3 then return out end

local members = {}
for i = 4, #ARGV, 4 do members[#members + 1] = ARGV[i] end
local renewed, stored = {}, {}
for i, raw in ipairs(redis.call('HMGET', KEYS[10], unpack(members))) do
  local at = 4 * i
  local attempt, weight, fraction, stored_at = string.match(raw or '', '^(%d+) (%S+) (%S+) (%d+)$')
  if attempt ~= ARGV[at + 1] then
    out[#out + 1] = i - 1
  else
    local m = members[i]
    renewed[#renewed + 1] = deadline
    renewed[#renewed + 1] = m
    weight, fraction = tonumber(weight), tonumber(fraction)
    if weight > 0 then
      local job = load_job((parse_member(m)))
      -- An attempt that says less than before was wrong before: its word counts, the job's percent doesn't fall.
      local told = tonumber(ARGV[at + 2])
      local done = job.done + weight * (told - fraction)
      local percent = math.max(job.percent, math.min(99.9, 100 * done / job.weight))
      percent = string.format('%.4f', percent)
      local notice = '{"c":' .. percent .. ',"p":' .. ARGV[at + 3] .. '}'
      local watched = redis.call('PUBLISH', job_channel(job.id), notice) > 0
      if watched then out[2] = 1 end
      if watched or NOW - tonumber(stored_at) >= STORE_EVERY then
        stored[#stored + 1] = m
        stored[#stored + 1] = attempt .. ' ' .. string.format('%.17g %.17g %.0f', weight, told, NOW)
        job.done, job.percent = done, tonumber(percent)
        put(job, 'A', string.format('%.17g', done))
        put(job, 'pc', percent)
        put(job, 'pg', ARGV[at + 3])
      end
    end
  end
end

if #renewed > 0 then in_chunks('ZADD', LEASES, renewed) end
if #stored > 0 then in_chunks('HSET', KEYS[10], stored) end
flush()
return out
