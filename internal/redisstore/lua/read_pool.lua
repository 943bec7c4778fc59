-- Reads all of the pool at one instant. Changes nothing. Of the ready tasks it
-- looks at the first SAMPLE alone, of the leased ones at as many.
-- KEYS  common; 14 machines, 15 pool. Derived: the queues of the projects, the jobs of such tasks, the workers.
-- ARGV  prefix
-- Returns  {'', what pool_stats returns ..., {machine JSON, ...}, {worker as of list_workers, ...},
--          {ready tasks looked at, probes, encodes, weight of those, others, weight of those}, {the same of what is
--          left of leased tasks}, {weight done by leased tasks, ms they had for it}, mean weight of the jobs seen,
--          changed settings JSON, their version, leader's report JSON, leader's term, now}
-- $include(roster.lua)
-- $include(waiting.lua)
local SAMPLE = 256
local JOB_WEIGHTS, JOBS_SEEN = 0, 0
local seen_job = {}

local function no_work() return { 0, 0, 0, 0, 0, 0 } end

-- note adds a task to some work: by its kind, with the share of its weight that is left.
local function note(work, id, kind, weight, left)
  work[1] = work[1] + 1
  if kind == 'PROBE' then
    work[2] = work[2] + 1
    return
  end
  local at = kind == 'ENCODE' and 3 or 5
  work[at], work[at + 1] = work[at] + 1, work[at + 1] + weight * left
  if not seen_job[id] then
    seen_job[id] = true
    local total = load_job(id).weight
    if total > 0 then JOB_WEIGHTS, JOBS_SEEN = JOB_WEIGHTS + total, JOBS_SEEN + 1 end
  end
end

local function kind_of(definition) return string.match(definition, '"k":"(%u+)"') end

local projects = redis.call('ZRANGE', RING, 0, -1)
local ready, oldest = waiting(projects)

local ready_work = no_work()
for i, name in ipairs(projects) do
  -- An even share each of what is left to look at.
  local share = math.ceil((SAMPLE - ready_work[1]) / (#projects - i + 1))
  if share > 0 then
    for _, m in ipairs(redis.call('ZRANGE', queue_key(name), 0, share - 1)) do
      local job, _, t = find_task(m)
      if t then note(ready_work, job.id, kind_of(t.definition), t.weight, 1) end
    end
  end
end

local running, done, took = no_work(), 0, 0
for _, name in ipairs(redis.call('ZRANGE', LEASES, 0, SAMPLE - 1)) do
  local job, _, t = find_task((parse_lease(name)))
  if t then
    note(running, job.id, kind_of(t.definition), t.weight, 1 - t.told)
    if t.told > 0 and t.weight > 0 and t.kept > t.at then
      done, took = done + t.told * t.weight, took + t.kept - t.at
    end
  end
end

local function text(list)
  for i, v in ipairs(list) do list[i] = tostring(v) end
  return list
end

local change, version, report = unpack(redis.call('HMGET', KEYS[15], 'change', 'version', 'report'))
return {
  '', ready, redis.call('ZCARD', LEASES), redis.call('ZCARD', DELAYED), oldest, limited(),
  redis.call('HVALS', KEYS[14]), roster({}), text(ready_work), text(running), text({ done, took }),
  tostring(JOBS_SEEN > 0 and JOB_WEIGHTS / JOBS_SEEN or 0),
  change or '', version or 0, report or '', redis.call('HGET', SWEEP, 'term') or 0, STAMP,
}
