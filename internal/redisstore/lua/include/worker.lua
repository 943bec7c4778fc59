-- Workers: one hash each, and their place in WORKERS by when they were last
-- seen. v:<worker> is what claims ask for: a line of session, draining and attached,
-- and the answers to the two newest claims that gave it tasks, a line each.
-- $include(write.lua)
local SEEN_WITHIN = 60000 -- a worker that is silent for longer isn't listed

-- standing_of returns session, draining, attached and the answers; nothing of a worker that nobody knows.
local function standing_of(id)
  return string.match(redis.call('GET', standing_key(id)) or '', '^(%S+) (%S+) (%S+)\n(.*)$')
end

local function set_standing(id, session, draining, attached, answers)
  redis.call('SET', standing_key(id), session .. ' ' .. draining .. ' ' .. attached .. '\n' .. answers)
end

-- forget_worker removes a worker that holds nothing.
local function forget_worker(id, machine)
  del(worker_key(id))
  del(standing_key(id))
  zrem(WORKERS, id)
  if machine and machine ~= '' then redis.call('SREM', machine_workers_key(machine), id) end
end
