-- Workers: one hash each, and their place in WORKERS by when they were last
-- seen. v is what claims ask for: session, draining, attached; rq the answers
-- to the two newest claims that gave it tasks, a line each.
-- $include(write.lua)
local SEEN_WITHIN = 60000 -- a worker that is silent for longer isn't listed

-- parse_worker returns session, draining and attached.
local function parse_worker(state) return string.match(state, '^(%S+) (%S+) (%S+)$') end

local function worker_state(session, draining, attached) return session .. ' ' .. draining .. ' ' .. attached end

-- forget_worker removes a worker that holds nothing.
local function forget_worker(id, machine)
  del(worker_key(id))
  zrem(WORKERS, id)
  if machine and machine ~= '' then redis.call('SREM', machine_workers_key(machine), id) end
end
