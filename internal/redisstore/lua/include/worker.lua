-- Workers: one hash each, and their place in WORKERS by when they were last seen.
-- $include(clock.lua)

-- forget_worker removes a worker that holds nothing.
local function forget_worker(id, machine)
  redis.call('DEL', worker_key(id), held_key(id))
  redis.call('ZREM', WORKERS, id)
  if machine and machine ~= '' then redis.call('SREM', machine_workers_key(machine), id) end
end
