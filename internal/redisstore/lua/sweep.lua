-- Marks workers as seen, and does what time has made due, if the replica is or becomes the leader.
-- After a pause in which nobody swept for half a lease, all leases are renewed
-- once, so that an outage of the control plane costs no attempt.
-- KEYS  common; 14 purges. Derived: the jobs, workers and uploads that are due.
-- ARGV  prefix, replica, leader's ttl ms, lease ms, max losses, retention ms (0: for ever),
--       the replica's term or 0, 1 if what is to be removed is put off else 0, id of an attached worker ...
-- Returns  {'', leader (0, 1), requeued, dead, retired, woken, ms until the next deadline, {kind, id, JSON or project, ...},
--          the leader's term}
-- Replay   the rest of what is due. Duties come again after a minute.
-- $include(task.lua)
-- $include(aside.lua)
-- $include(worker.lua)
-- $include(delete.lua)
-- $include(idempotency.lua)
local MOST = 64            -- of each kind per call
local FORGET_AFTER = 3600000
local replica, ttl, lease_ms = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local seen = {}
for i = 9, #ARGV do append(seen, STAMP, ARGV[i]) end
in_chunks(seen, 'ZADD', WORKERS, 'XX')

local leader, until_ms, swept, term = unpack(redis.call('HMGET', SWEEP, 'leader', 'until', 'swept', 'term'))
-- One that ends later than any can was written before the clock was set back.
if leader and leader ~= replica and tonumber(until_ms) > NOW and tonumber(until_ms) <= NOW + 2 * ttl then
  return { '', 0, 0, 0, 0, 0, math.min(ttl, tonumber(until_ms) - NOW), {}, term or 0 }
end
-- A process that didn't lead a moment ago may not go on with what the one before was about to do.
if leader ~= replica or term ~= ARGV[7] then term = (tonumber(term) or 0) + 1 end

if not swept or NOW - tonumber(swept) > lease_ms / 2 then
  local renewed = {}
  for _, name in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    append(renewed, NOW + lease_ms, name)
  end
  in_chunks(renewed, 'ZADD', LEASES)
end

local function overdue(key, most)
  return redis.call('ZRANGEBYSCORE', key, '-inf', NOW, 'LIMIT', 0, most)
end

-- lost_workers names the workers whose leases of a task ran out, this one included.
local function lost_workers(job, index, t)
  local names = {}
  for _, a in ipairs(attempts_of(job, index)) do
    if a.oc == 'LOST' then names[#names + 1] = a.by end
  end
  names[#names + 1] = t.by
  return table.concat(names, ', ')
end

local requeued, dead, retired, woken = 0, 0, 0, 0
for _, broken in ipairs(redis.call('ZRANGE', BROKEN, 0, MOST - 1)) do
  local id, project = string.match(broken, '^(%S+) (.*)$')
  set_aside(id, project)
  zrem(BROKEN, broken)
end

for _, name in ipairs(overdue(LEASES, MOST)) do
  local job, index, t, broken = leased_task(name)
  if broken then
    zadd(LEASES, digits(NOW + VISIBILITY), name) -- until it is set aside
  elseif not t or job.finished > 0 then -- such as that of a job that was set aside
    zrem(LEASES, name) -- it would be due for ever
    redis.call('ZREM', HELD, name) -- at once: whatever ends its job in this sweep looks there
    job = find_task((parse_lease(name)))
    if job and job.finished == 0 then count_leases(job.project, -1) end
  else
    t.losses = t.losses + 1
    if t.losses >= tonumber(ARGV[5]) then
      kill_task(job, index, t, 'LOST', 'QUARANTINED',
        'The task was lost with ' .. t.losses .. ' workers (' .. lost_workers(job, index, t) .. ') and is not given to another.')
      dead = dead + 1
    else
      return_task(job, index, t, 'lose', 'LOST', 'WORKER_LOST', 'The worker was silent until its lease ran out.')
      requeued = requeued + 1
    end
    WAKES.WORKER = true
  end
end

for _, m in ipairs(overdue(DELAYED, MOST)) do
  zrem(DELAYED, m)
  local job, index, t = find_task(m)
  if t and job.finished == 0 and make_ready(job, index, t, 'wake') then woken = woken + 1 end
end

-- What was read and is past its retention goes; before the duties, so that its purge is among them.
local retention = tonumber(ARGV[6])
if retention > 0 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ENDED, '-inf', NOW - retention, 'LIMIT', 0, MOST)) do
    local job, _, _, broken = find_task(member(id, 0))
    if job then
      delete_job(job, KEYS[14])
      retired = retired + 1
    elseif not broken then
      zrem(ENDED, id) -- it would be due for ever
    end
  end
end
forget_keys()
EARLIEST = nil -- this sweep's own deadlines are in its answer
flush() -- what follows reads it

local duties = {}
local function hand_out(kind, id, about)
  for _, v in ipairs({ kind, id, about or '' }) do duties[#duties + 1] = v end
end
for _, id in ipairs(overdue(UPLOADS, MOST)) do
  redis.call('ZADD', UPLOADS, NOW + VISIBILITY, id)
  hand_out('EXPIRE_UPLOAD', id, redis.call('HGET', upload_key(id), 'p'))
end
for _, duty in ipairs(overdue(DUTIES, MOST)) do
  redis.call('ZADD', DUTIES, hidden_until(duty), duty)
  local kind, id = string.match(duty, '^(%u+)|(.*)$')
  if ARGV[8] == '0' or kind ~= 'PURGE' and kind ~= 'CLEAN' then
    hand_out(kind, id, kind == 'PURGE' and redis.call('HGET', KEYS[14], id) or (find_task(member(id, 0)) or {}).project)
  end
end

-- Workers that vanished without a word; whatever they held ran out long ago.
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '-inf', NOW - FORGET_AFTER, 'LIMIT', 0, MOST)) do
  if #held_by(worker) == 0 then forget_worker(worker, redis.call('HGET', worker_key(worker), 'mid')) end
end

local wait = ttl
local function at_most(ms) if ms < wait then wait = math.max(0, ms) end end
for _, key in ipairs({ LEASES, DELAYED, DUTIES, UPLOADS }) do
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if head[2] then
    at_most(tonumber(head[2]) - NOW)
    -- Often enough that a pause can be told from patience.
    if key == LEASES then at_most(math.floor(lease_ms / 3)) end
  end
end
if redis.call('EXISTS', BROKEN) == 1 or ZADDS[BROKEN] then at_most(0) end
if retention > 0 then
  local head = redis.call('ZRANGE', ENDED, 0, 0, 'WITHSCORES')
  if head[2] then at_most(tonumber(head[2]) + retention - NOW) end
end
redis.call('HSET', SWEEP, 'leader', replica, 'until', NOW + ttl, 'swept', NOW, 'next', NOW + wait, 'term', term)
flush()
return { '', 1, requeued, dead, retired, woken, wait, duties, term }
