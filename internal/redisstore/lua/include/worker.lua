-- Workers: one hash each, and their place in WORKERS by when they were last
-- seen. rq and rp are the answers to the two newest claims that gave it tasks:
-- the request and the leases.
-- $include(write.lua)

-- forget_worker removes a worker that holds nothing.
local function forget_worker(id, machine)
  del(worker_key(id))
  zrem(WORKERS, id)
  if machine and machine ~= '' then redis.call('SREM', machine_workers_key(machine), id) end
end
