-- Leases as a reader needs them: {member, deadline, job, spec}, and of
-- one that doesn't start its job, or whose source was uploaded, its task if it isn't the
-- first, attempts JSON, sr, probe JSON, plan JSON. Jobs and tasks are as they are stored.
-- $include(member.lua)
-- $include(held.lua)
-- $include(record.lua)

-- drop_lease takes a lease off all lists.
local function drop_lease(project, m, worker, n)
  local name = lease_name(worker, m, n)
  zrem(LEASES, name)
  zrem(HELD, name)
  count_leases(project, -1)
end

-- starts reports that of an attempt there is no more to read.
local function starts(uploaded, index, n) return index == 0 and n == 1 and uploaded == 0 end

-- lease_row returns a row, of strings that were read, as they are now.
local function lease_row(m, deadline, id, index, brief)
  local raw, spec = READ[job_key(id)], read(spec_key(id))
  if brief then return { m, deadline, raw, spec } end
  local v = redis.call('HMGET', more_key(id), 'a' .. index, 'sr')
  return {
    m, deadline, raw, spec, index > 0 and read(task_key(m)) or '', v[1] or '', v[2] or '', read(probe_key(id)) or '',
    read(plan_key(id)) or '',
  }
end
